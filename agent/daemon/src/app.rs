//! The agent's parts and how they hang together.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_api::config::agent::AgentConfig;
use culvert_device_plugin::{self as device, Device, Memory, Statuses};
use culvert_host::guard::ApiServer;
use culvert_host::{FileError, HostRoot};
use futures::future::select_all;
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::cni::Cni;
use crate::errors::chain;
use crate::fastpath::{FastPath, Keeper};
use crate::health::{Health, Reporter, State};
use crate::host_port::HostPort;
use crate::kube::{self, Folder, Snapshot};
use crate::metrics::{self, Metrics, Sources};
use crate::nic::{self, NicConfig, NicManager, NicStartError, Salvaged};
use crate::plugin;
use crate::pod_resources::PodResources;
use crate::pods::{Overlay, Store, StoreError};
use crate::reload;
use crate::socket::{self, Listener, ListenerError, Service};
use crate::tables::{Builder, Settings};

/// How long each of the agent's parts may take to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// Why the agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The node's name is not known.
    #[error("cannot read the host name; set node in the configuration")]
    HostName(#[source] io::Error),
    /// The host name cannot be that of a Node object.
    #[error("host name {0:?} cannot be the name of a Node object; set node in the configuration")]
    NodeName(String),
    /// The boot is not known.
    #[error(transparent)]
    Boot(FileError),
    /// The socket.
    #[error(transparent)]
    Socket(#[from] ListenerError),
    /// The state folder.
    #[error("stateDir")]
    Store(#[from] StoreError),
    /// The NICs.
    #[error(transparent)]
    Nic(#[from] NicStartError),
    /// The HTTP listener.
    #[error(transparent)]
    Metrics(io::Error),
}

/// A part of the agent that has ended although nobody told it to.
#[derive(Debug, thiserror::Error)]
#[error("part {0} of the agent ended by itself; the log has the reason")]
pub struct PartEnded(&'static str);

/// The agent, ready to run: everything that can fail at the start has been done.
#[derive(Debug)]
pub struct App {
    config: AgentConfig,
    node: String,
    boot: String,
    listener: Listener,
    store: Arc<Store>,
    metrics: Option<TcpListener>,
    nics: NicManager,
    /// Stops the owner of the NICs.
    nics_stop: CancellationToken,
    /// Keeps a list of resources loaded, if there is one.
    resource_list: Option<plugin::Follower>,
    /// The file that the configuration came from, and its text, if changes of it are taken over.
    file: Option<(PathBuf, String)>,
}

impl App {
    /// Opens what the agent needs. `root` is where the machine's files are looked for: `/`.
    ///
    /// # Errors
    /// When something of it is missing or taken; nothing of the node has been touched then.
    pub async fn start(config: AgentConfig, root: HostRoot) -> Result<Self, StartError> {
        let node = match &config.node {
            Some(node) => node.clone(),
            None => host_name()?,
        };
        let boot = culvert_host::boot_id(&root).map_err(StartError::Boot)?;
        // The socket first: its lock keeps a second agent from the state.
        let listener = Listener::bind(&config.socket)?;
        let store = Arc::new(Store::open(&config.state_dir)?);
        store.forget_other_boots(&boot)?;
        let metrics = match config.metrics {
            Some(address) => Some(metrics::bind(address).await.map_err(StartError::Metrics)?),
            None => None,
        };
        // Without a policy NICs are still listed, and VFs that somebody else carved given to pods.
        let policy = config.nic.clone().unwrap_or_default();
        let state_dir = config.state_dir.clone();
        let nics_stop = CancellationToken::new();
        let pod_resources = config.device_plugin.as_ref().map(|d| PodResources::beside(&d.kubelet_dir));
        let (resource_list, resources) = plugin::resources(config.device_plugin.as_ref());
        let api_server = ApiServer {
            host: config.api_server.host.clone(),
            kubeconfig: config.api_server.kubeconfig.clone(),
        };
        let nic =
            NicConfig { policy, node: node.clone(), state_dir, root, api_server, pod_resources, resources };
        let nics = NicManager::start(nic, nics_stop.clone()).await?;
        Ok(Self { config, node, boot, listener, store, metrics, nics, nics_stop, resource_list, file: None })
    }

    /// Takes over changes of the NIC policy in `file`, whose `text` the agent was started with, while the agent runs.
    pub fn following(self, file: PathBuf, text: String) -> Self {
        Self { file: Some((file, text)), ..self }
    }

    /// Runs until `stop`, then stops its parts in order. Pods, virtual functions and the fast path are left as they
    /// are.
    ///
    /// # Errors
    /// When one of the parts came to an end by itself: a fault of the program, which a new start mends.
    pub async fn run(self, stop: CancellationToken) -> Result<(), PartEnded> {
        let Self { config, node, boot, listener, store, metrics: http, nics, nics_stop, resource_list, file } =
            self;
        info!(node, version = env!("CARGO_PKG_VERSION"), "started");
        let health = Health::default();
        let (manifests, fastpath_health) = (health.part("manifests"), health.part("fastpath"));
        let host_port_health = health.part("host-port");
        let (nic_health, plugin_health) = (health.part("nic"), health.part("device-plugin"));
        report_damage(&health, &store);
        let memory = memory(&config, &boot, file.as_ref().map(|(path, _)| path.clone()));
        let mut parts = Parts::default();
        if let Some((file, text)) = file {
            let (health, started_with, nics) = (health.part("config"), config.clone(), nics.clone());
            parts.spawn("config", |stop| {
                let accept = move |new| take_over(nics.clone(), started_with.clone(), new);
                reload::follow(file, text, AgentConfig::from_yaml, accept, health, stop)
            });
        }
        let programmed = Metrics::default();

        let (send_objects, objects) = watch::channel(Arc::new(Snapshot::default()));
        let (send_desired, desired) = watch::channel(None);
        let (send_info, fastpath_info) = watch::channel(None);
        let (send_pools, pools) = watch::channel(Statuses::new());
        if let Some(folder) = config.manifests {
            manifests.set(State::Starting, folder.display().to_string());
            parts.spawn("tables", |stop| {
                let settings = Settings { node: node.clone(), overlay: config.overlay.clone() };
                let objects = objects.clone();
                Builder { settings, objects, desired: send_desired, health: manifests }.run(stop)
            });
            let copies = config.state_dir.join("manifests");
            parts.spawn("manifests", |stop| kube::watch(Folder::new(folder, copies), send_objects, stop));
        }
        let fastpath = config.fastpath.map(FastPath::new);
        let host_port = config.overlay.host_port.clone();
        let overlay = fastpath.clone().map(|fastpath| {
            Arc::new(Overlay::new(node.clone(), config.overlay, fastpath, store, objects.clone(), boot))
        });
        if let (Some(fastpath), Some(overlay)) = (fastpath.clone(), overlay.clone()) {
            fastpath_health.set(State::Starting, fastpath.socket().display().to_string());
            let (metrics, health) = (programmed.clone(), fastpath_health);
            let (host_port_fastpath, host_port_overlay) = (fastpath.clone(), overlay.clone());
            let keeper = Keeper { fastpath, desired, overlay, metrics, info: send_info, health };
            parts.spawn("fastpath", |stop| keeper.run(stop));
            let host_port = HostPort {
                node: node.clone(),
                config: host_port,
                fastpath: host_port_fastpath,
                overlay: host_port_overlay,
                objects: objects.clone(),
                info: fastpath_info.clone(),
                health: host_port_health,
            };
            parts.spawn("host-port", |stop| host_port.run(stop));
        }
        if let Some(http) = http {
            let programmed = programmed.with_nic(nics.measurements().clone());
            let kubelet_dir = config.device_plugin.as_ref().map(|plugin| &plugin.kubelet_dir);
            let pod_resources = kubelet_dir.map(|dir| PodResources::new(PodResources::beside(dir)));
            let (health, fastpath, nics) = (health.clone(), fastpath.clone(), nics.clone());
            let sources = Sources { health, fastpath, nics, pod_resources, pools };
            parts.spawn("metrics", |stop| async move {
                if let Err(e) = metrics::serve(http, programmed, sources, stop).await {
                    error!("metrics: {e}");
                }
            });
        }
        let (devices, policy) = (nics.devices(), nics.clone());
        parts.spawn("nic", |stop| report_devices(devices, policy, nic_health, stop));
        if let Some(follower) = resource_list {
            let health = health.part("resource-list");
            parts.spawn("resource-list", |stop| follower.run(health, stop));
        }
        if let Some(config) = config.device_plugin {
            let devices = nics.devices();
            parts.spawn("device-plugin", |stop| {
                plugin::run(config, memory, devices, send_pools, plugin_health, stop)
            });
        }
        let cni = Cni::new(overlay, nics.clone(), objects, config.cni);
        let service =
            Service { node, started: Instant::now(), health, cni, nics, fastpath, info: fastpath_info };
        parts.spawn("socket", |stop| socket::serve(listener, Arc::new(service), stop));

        notify(NotifyState::Ready);
        let result = tokio::select! {
            () = stop.cancelled() => Ok(()),
            part = parts.ended() => Err(PartEnded(part)),
        };
        notify(NotifyState::Stopping);
        info!("stopping; pods and fast path go on");
        parts.stop().await;
        nics_stop.cancel();
        result
    }
}

/// Running tasks, each stoppable by itself.
#[derive(Default)]
struct Parts(Vec<Part>);

struct Part {
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Parts {
    fn spawn<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        name: &'static str,
        task: impl FnOnce(CancellationToken) -> F,
    ) {
        let stop = CancellationToken::new();
        let task = tokio::spawn(task(stop.clone()));
        self.0.push(Part { name, stop, task });
    }

    /// Waits until one of them ends by itself, which none should, and returns its name.
    async fn ended(&mut self) -> &'static str {
        let (_, index, _) = select_all(self.0.iter_mut().map(|part| &mut part.task)).await;
        self.0.remove(index).name
    }

    /// Stops them one after the other, the last started first: callers before what they call.
    async fn stop(self) {
        for Part { name, stop, task } in self.0.into_iter().rev() {
            stop.cancel();
            if timeout(STOP_DEADLINE, task).await.is_err() {
                warn!(part = name, "not stopped within {} s, abandoned", STOP_DEADLINE.as_secs());
            }
        }
    }
}

fn report_damage(health: &Health, store: &Store) {
    let attachments = health.part("attachments");
    match store.damaged() {
        [] => attachments.set(State::Ok, ""),
        damaged => attachments.set(State::Degraded, format!("damaged records: {}", damaged.join("; "))),
    }
}

/// Where the device plugin remembers its devices, and the files that they depend on.
fn memory(config: &AgentConfig, boot: &str, file: Option<PathBuf>) -> Memory {
    let list = config.device_plugin.as_ref().and_then(|plugin| plugin.resource_list.as_ref());
    Memory {
        file: config.state_dir.join("devices.json"),
        boot: boot.to_owned(),
        configuration: file.into_iter().chain(list.map(|list| list.path.clone())).collect(),
    }
}

/// Takes over what can be changed while the agent runs, and names what else is different.
async fn take_over(nics: NicManager, old: AgentConfig, new: AgentConfig) -> Result<String, String> {
    let later = counts_later(&old, &new);
    nics.set_policy(new.nic.unwrap_or_default()).await.map_err(|e| format!("nic: {}", chain(&e)))?;
    if later.is_empty() {
        return Ok(String::new());
    }
    Ok(format!("{}: will count from the next start", later.join(", ")))
}

/// Keys with another value that only counts after a restart.
fn counts_later(old: &AgentConfig, new: &AgentConfig) -> Vec<&'static str> {
    let keys = [
        ("node", old.node != new.node),
        ("socket", old.socket != new.socket),
        ("stateDir", old.state_dir != new.state_dir),
        ("metrics", old.metrics != new.metrics),
        ("manifests", old.manifests != new.manifests),
        ("fastpath", old.fastpath != new.fastpath),
        ("overlay", old.overlay != new.overlay),
        ("devicePlugin", old.device_plugin != new.device_plugin),
    ];
    keys.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
}

/// Says how the VFs of the policy are.
async fn report_devices(
    mut devices: watch::Receiver<Vec<Device>>,
    nics: NicManager,
    health: Reporter,
    stop: CancellationToken,
) {
    stop.run_until_cancelled(async {
        loop {
            let (state, detail) = summary(&devices.borrow_and_update());
            if nics.has_policy() {
                health.set(state, detail);
            } else {
                health.set(State::Off, "");
            }
            if devices.changed().await.is_err() {
                return;
            }
        }
    })
    .await;
}

fn summary(devices: &[Device]) -> (State, String) {
    let bad: Vec<String> = devices
        .iter()
        .filter_map(|d| match &d.health {
            device::Health::Healthy => None,
            device::Health::Unhealthy(why) => Some(format!("{}: {why}", d.pci)),
        })
        .collect();
    match bad.as_slice() {
        [] => (State::Ok, format!("{} VFs", devices.len())),
        [first, ..] => {
            (State::Degraded, format!("{} of {} VFs not ready, first {first}", bad.len(), devices.len()))
        }
    }
}

fn host_name() -> Result<String, StartError> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").map_err(StartError::HostName)?;
    // As kubelet does it.
    let name = name.trim().to_lowercase();
    if name.is_empty() || name == "(none)" { Err(StartError::NodeName(name)) } else { Ok(name) }
}

fn notify(state: NotifyState<'_>) {
    if let Err(e) = sd_notify::notify(&[state]) {
        debug!("systemd was not told: {e}");
    }
}

/// Sets a damaged journal of NIC changes aside; `None` if it is not damaged.
///
/// # Errors
/// When an agent is running, or a file cannot be read or written.
pub fn discard_journal(config: &AgentConfig, root: &HostRoot) -> Result<Option<Salvaged>, StartError> {
    // Its lock keeps an agent from starting meanwhile.
    let _listener = Listener::bind(&config.socket)?;
    Ok(nic::discard_journal(&config.state_dir, root)?)
}

/// Reads a configuration file; returns its text, too.
///
/// # Errors
/// A line that names the file.
pub fn read_config(path: &Path) -> Result<(AgentConfig, String), ConfigFileError> {
    let text =
        fs::read_to_string(path).map_err(|source| ConfigFileError::Read { path: path.to_owned(), source })?;
    match AgentConfig::from_yaml(&text) {
        Ok(config) => Ok((config, text)),
        Err(source) => Err(ConfigFileError::Content { path: path.to_owned(), source }),
    }
}

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It says something that makes no sense.
    #[error("{}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: culvert_api::config::ConfigError,
    },
}
