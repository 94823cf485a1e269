//! A kubelet stand-in: speaks kubelet's real protobuf to device plugins, without a cluster.
//!
//! It does what a plugin can see of kubelet's device manager, in the same order: it removes all sockets of its folder
//! at start, dials a plugin back before it answers `Register`, asks for the options, follows the list, and takes the end
//! of the list for the end of the plugin. Plugins that wait in `plugins_registry` are found there. [`PodResources`] tells
//! who holds what.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use culvert_hw_tests::kubelet::KubeletStandIn;
//!
//! let kubelet = KubeletStandIn::start("/var/lib/kubelet".as_ref()).await?;
//! kubelet.wait("culvert.io/tenant-a", Duration::from_secs(5), |r| r.allocatable() == 4).await?;
//! let given = kubelet.allocate("default/web", "culvert.io/tenant-a", 1).await?;
//! println!("{} gets {:?}, {:?}", given.pod, given.ids, given.response.envs);
//! # Ok(())
//! # }
//! ```

mod dial;
mod found;
mod halt;
mod podresources;
mod registration;
mod run;
mod state;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use culvert_api::kubelet::v1beta1::{
    AllocateRequest, ContainerAllocateRequest, ContainerAllocateResponse,
    ContainerPreferredAllocationRequest, PreStartContainerRequest, PreferredAllocationRequest,
};

use dial::PluginClient;
pub use halt::Moment;
pub use podresources::PodResources;
use run::Run;
pub use state::{Allocation, DeviceState, Resource};
use state::{Refusal, State};

/// Why the stand-in cannot do what it is asked to.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// Nobody has registered the resource, or its plugin is gone.
    #[error("{0}: no plugin offers it")]
    NoPlugin(String),
    /// What a pod would wait for.
    #[error("insufficient {resource}: {wanted} wanted, {free} free")]
    Insufficient {
        /// The resource.
        resource: String,
        /// Devices asked for.
        wanted: usize,
        /// Healthy devices that nobody holds.
        free: usize,
    },
    /// What the plugin says.
    #[error("{call} of {resource}: {message}")]
    Plugin {
        /// The method.
        call: &'static str,
        /// The resource.
        resource: String,
        /// The plugin's text.
        message: String,
    },
    /// What was waited for has not come.
    #[error("{resource}: not as expected after {after:?}: {state}")]
    Late {
        /// The resource.
        resource: String,
        /// How long was waited.
        after: Duration,
        /// How it is instead.
        state: String,
    },
}

/// What a container was given.
#[derive(Debug, Clone)]
pub struct Given {
    /// `namespace/name`.
    pub pod: String,
    /// Ids of the devices.
    pub ids: Vec<String>,
    /// Environment, device nodes and the rest.
    pub response: ContainerAllocateResponse,
}

/// A kubelet, as far as device plugins can tell.
#[derive(Debug)]
pub struct KubeletStandIn {
    root: PathBuf,
    state: Arc<State>,
    run: Option<Run>,
}

impl KubeletStandIn {
    /// Starts below `root`, kubelet's root directory (`/var/lib/kubelet`). Makes `device-plugins` there;
    /// `plugins_registry` is looked at only if it is there already.
    ///
    /// # Errors
    /// When the folder or the socket cannot be made.
    pub async fn start(root: &Path) -> io::Result<Self> {
        let mut kubelet = Self { root: root.to_owned(), state: Arc::new(State::default()), run: None };
        kubelet.resume().await?;
        Ok(kubelet)
    }

    /// Folder of `kubelet.sock` and of the plugins' sockets.
    pub fn device_plugins(&self) -> PathBuf {
        self.root.join("device-plugins")
    }

    /// Folder in which plugins wait to be found.
    pub fn plugins_registry(&self) -> PathBuf {
        self.root.join("plugins_registry")
    }

    /// Kubelet's end, as with SIGKILL: connections break, the socket stays on disk, allocations are remembered.
    pub async fn stop(&mut self) {
        if let Some(run) = self.run.take() {
            run.stop().await;
        }
    }

    /// Kubelet's start after [`Self::stop`]: every resource has capacity 0 until its plugin is back.
    ///
    /// # Errors
    /// When the folder or the socket cannot be made.
    pub async fn resume(&mut self) -> io::Result<()> {
        self.stop().await;
        self.state.forget_devices();
        self.halt(None);
        self.run = Some(Run::start(&self.device_plugins(), &self.plugins_registry(), self.state.clone())?);
        Ok(())
    }

    /// [`Self::stop`] and [`Self::resume`].
    ///
    /// # Errors
    /// As [`Self::resume`].
    pub async fn restart(&mut self) -> io::Result<()> {
        self.stop().await;
        self.resume().await
    }

    /// Refuses the next `times` registrations with this text.
    pub fn refuse(&self, times: usize, message: &str) {
        self.state.refuse(Refusal { times, message: message.to_owned() });
    }

    /// Halts at the next moment of this kind, for as long as nothing else is said; `None`: goes on. Whatever is under way
    /// there is lost when the stand-in is stopped.
    pub fn halt(&self, at: Option<Moment>) {
        self.state.halt().set(at);
    }

    /// Waits until it has halted.
    ///
    /// # Errors
    /// [`KubeletError::Late`] after `limit`.
    pub async fn halted(&self, limit: Duration) -> Result<(), KubeletError> {
        tokio::time::timeout(limit, self.state.halt().reached()).await.map_err(|_| KubeletError::Late {
            resource: "kubelet".to_owned(),
            after: limit,
            state: "it did not come to the moment at which it was to halt".to_owned(),
        })
    }

    /// [`Self::restart`] with a socket of the same inode number, as file systems often give it.
    ///
    /// # Errors
    /// As [`Self::resume`].
    pub async fn restart_with_same_inode(&mut self) -> io::Result<()> {
        let (folder, registry) = (self.device_plugins(), self.plugins_registry());
        let Some(run) = self.run.take() else { return self.resume().await };
        self.halt(None);
        self.run = Some(run.replace(&folder, &registry).await?);
        Ok(())
    }

    /// Ends the list of a resource from this side, as after an error.
    pub fn hang_up(&self, resource: &str) {
        self.state.hang_up(resource);
    }

    /// What is known of a resource; `None` if it never registered.
    pub fn resource(&self, name: &str) -> Option<Resource> {
        self.state.resource(name)
    }

    /// Waits until a resource is as `wanted`.
    ///
    /// # Errors
    /// [`KubeletError::Late`] after `limit`.
    pub async fn wait(
        &self,
        resource: &str,
        limit: Duration,
        wanted: impl Fn(&Resource) -> bool,
    ) -> Result<Resource, KubeletError> {
        self.state.wait(resource, limit, wanted).await
    }

    /// Gives `count` devices to a new container of `pod` (`namespace/name`), as at admission and start of a pod.
    ///
    /// # Errors
    /// When there are not enough healthy and free ones, or the plugin refuses. Nothing is held then.
    pub async fn allocate(&self, pod: &str, resource: &str, count: usize) -> Result<Given, KubeletError> {
        let known = self.resource(resource).ok_or_else(|| KubeletError::NoPlugin(resource.to_owned()))?;
        let held = self.state.held(resource);
        let free: Vec<String> = known
            .devices
            .iter()
            .filter(|(id, d)| d.healthy && !held.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        if free.len() < count {
            return Err(KubeletError::Insufficient {
                resource: resource.to_owned(),
                wanted: count,
                free: free.len(),
            });
        }
        let ids = if known.options.get_preferred_allocation_available {
            self.preferred(resource, free, Vec::new(), count).await?
        } else {
            free.into_iter().take(count).collect()
        };
        let response = self.allocate_ids(resource, &ids).await?;
        if known.options.pre_start_required {
            self.pre_start(resource, &ids).await?;
        }
        self.state.hold(Allocation { pod: pod.to_owned(), resource: resource.to_owned(), ids: ids.clone() });
        Ok(Given { pod: pod.to_owned(), ids, response })
    }

    /// Asks the plugin which `count` of `available` it would rather give.
    ///
    /// # Errors
    /// What the plugin says.
    pub async fn preferred(
        &self,
        resource: &str,
        available: Vec<String>,
        must_include: Vec<String>,
        count: usize,
    ) -> Result<Vec<String>, KubeletError> {
        let mut plugin = self.plugin(resource)?;
        let request = PreferredAllocationRequest {
            container_requests: vec![ContainerPreferredAllocationRequest {
                available_device_ids: available,
                must_include_device_ids: must_include,
                allocation_size: i32::try_from(count).unwrap_or(i32::MAX),
            }],
        };
        let call = "GetPreferredAllocation";
        let answer = plugin
            .get_preferred_allocation(request)
            .await
            .map_err(|status| refused(call, resource, &status))?;
        let mut containers = answer.into_inner().container_responses;
        match (containers.pop(), containers.is_empty()) {
            (Some(container), true) => Ok(container.device_ids),
            _ => Err(malformed(call, resource)),
        }
    }

    /// `Allocate` alone, with ids that need not exist.
    ///
    /// # Errors
    /// What the plugin says.
    pub async fn allocate_ids(
        &self,
        resource: &str,
        ids: &[String],
    ) -> Result<ContainerAllocateResponse, KubeletError> {
        let mut plugin = self.plugin(resource)?;
        let request = AllocateRequest {
            container_requests: vec![ContainerAllocateRequest { device_ids: ids.to_vec() }],
        };
        let answer =
            plugin.allocate(request).await.map_err(|status| refused("Allocate", resource, &status))?;
        self.state.halt().pass(Moment::InAllocate).await;
        let mut containers = answer.into_inner().container_responses;
        match (containers.pop(), containers.is_empty()) {
            (Some(container), true) => Ok(container),
            _ => Err(malformed("Allocate", resource)),
        }
    }

    /// `PreStartContainer` alone, as at the restart of a container.
    ///
    /// # Errors
    /// What the plugin says.
    pub async fn pre_start(&self, resource: &str, ids: &[String]) -> Result<(), KubeletError> {
        let mut plugin = self.plugin(resource)?;
        let request = PreStartContainerRequest { device_ids: ids.to_vec() };
        let call = "PreStartContainer";
        plugin.pre_start_container(request).await.map_err(|status| refused(call, resource, &status))?;
        Ok(())
    }

    /// The end of a pod: its devices are free again. The plugin is not told, as plugins are not.
    pub fn release(&self, pod: &str) {
        self.state.release(pod);
    }

    fn plugin(&self, resource: &str) -> Result<PluginClient, KubeletError> {
        self.state.plugin(resource).ok_or_else(|| KubeletError::NoPlugin(resource.to_owned()))
    }

    /// Serves the pod resources API at `root/pod-resources/kubelet.sock`, from what this stand-in has allocated.
    ///
    /// # Errors
    /// When the folder or the socket cannot be made.
    pub async fn pod_resources(&self) -> io::Result<PodResources> {
        PodResources::start(&self.root.join("pod-resources"), self.state.clone()).await
    }
}

fn refused(call: &'static str, resource: &str, status: &tonic::Status) -> KubeletError {
    KubeletError::Plugin { call, resource: resource.to_owned(), message: status.message().to_owned() }
}

fn malformed(call: &'static str, resource: &str) -> KubeletError {
    let message = "the answer does not hold exactly one container".to_owned();
    KubeletError::Plugin { call, resource: resource.to_owned(), message }
}
