//! The handle that everybody has of the one owner of PFs and VFs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use culvert_api::agent::{
    NicApplyReply, NicDiffReply, NicEvent, NicListReply, NicOrphansReply, NicPlanReply, NicReleaseReply,
    NicReleaseRequest, NicShowReply, Progress,
};
use culvert_api::config::nic::NicPolicy;
use culvert_device_plugin::Device;
use culvert_host::guard::ApiServer;
use culvert_host::netlink::{Netlink, NetlinkError};
use culvert_host::{FileError, HostRoot};
use ipnet::IpNet;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::apply::{Host, MachineError};
use super::attach::{
    AttachError, Attacher, CheckError, Lost, Namespace, ReleaseError, Route, VfAttach, VfAttached,
};
use super::attachment::Attachment;
use super::card::Cards;
use super::diff::diff;
use super::event::Events;
use super::journal::{Journal, JournalError, Salvaged};
use super::ledger::Ledger;
use super::look::Shared;
use super::measure::Measurements;
use super::name::{NameError, find};
use super::observe::ObserveError;
use super::owner::Owner;
use super::plan::plan;
use super::resources::{ResourceConfig, Resources};
use super::tally::{self, CounterCache, NicTally};
use super::wanted::conflicts;
use super::watcher;
use crate::pod_resources::PodResources;
use crate::pods::Key;

/// What the manager starts with.
#[derive(Debug, Clone)]
pub struct NicConfig {
    /// What the NICs should be.
    pub policy: NicPolicy,
    /// Name of the node; derived MACs depend on it.
    pub node: String,
    /// Folder of the journal.
    pub state_dir: PathBuf,
    /// The machine's files.
    pub root: HostRoot,
    /// Where it is written who the API server is.
    pub api_server: ApiServer,
    /// Kubelet's socket of the pod resources API, if VFs are offered to a kubelet.
    pub pod_resources: Option<PathBuf>,
    /// What is offered to kubelet beside the policy's pools.
    pub resources: ResourceConfig,
}

/// Handle of the owner of all PFs and VFs; cheap to clone.
#[derive(Clone)]
pub struct NicManager {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    devices: watch::Receiver<Vec<Device>>,
}

/// Why the manager cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NicStartError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// rtnetlink.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The host's own namespace.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The machine's files.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Why the policy could not be carried out, or shown.
#[derive(Debug, thiserror::Error)]
pub enum NicError {
    /// The machine cannot be looked at.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The journal cannot be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Nothing is called so.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The agent is shutting down.
    #[error("the agent is shutting down")]
    Stopped,
}

/// Sets a damaged journal in `state_dir` aside and goes on with the lines of it that are whole; `None` if it is not damaged.
/// No agent may be running.
///
/// # Errors
/// When it cannot be read or written.
pub fn discard_journal(state_dir: &Path, root: &HostRoot) -> Result<Option<Salvaged>, NicStartError> {
    Ok(Journal::salvage(state_dir, &culvert_host::boot_id(root)?)?)
}

/// Why another policy is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Two of its entries are about the same PF.
    #[error("{0}")]
    Ambiguous(String),
    /// The machine cannot be looked at.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The agent is shutting down.
    #[error("the agent is shutting down")]
    Stopped,
}

/// What the owner is asked to do.
pub(super) enum Command {
    /// What [`Self::Apply`] does, with the outcome in the log.
    CarryOut,
    Apply {
        progress: mpsc::UnboundedSender<Progress>,
        reply: oneshot::Sender<Result<NicApplyReply, NicError>>,
    },
    Attach {
        request: Box<VfAttach>,
        reply: oneshot::Sender<Result<VfAttached, AttachError>>,
    },
    Address {
        key: Key,
        addresses: Vec<IpNet>,
        routes: Vec<Route>,
        reply: oneshot::Sender<Result<VfAttached, AttachError>>,
    },
    Detach {
        key: Key,
        lost: Option<Lost>,
        reply: oneshot::Sender<Result<(), ReleaseError>>,
    },
    Orphans {
        reply: oneshot::Sender<Result<NicOrphansReply, NicError>>,
    },
    Release {
        request: NicReleaseRequest,
        reply: oneshot::Sender<Result<NicReleaseReply, NicError>>,
    },
    Check {
        key: Key,
        reply: oneshot::Sender<Result<(), CheckError>>,
    },
}

/// How many commands may wait for the owner; kubelet starts pods a few at a time.
const QUEUE: usize = 64;

impl NicManager {
    /// Opens the journal and starts to look after the NICs, until `stop`. Needs a tokio runtime.
    ///
    /// Before anything else is done, attachments that were not completed are undone, as are those of pods that are gone.
    ///
    /// # Errors
    /// When the journal is damaged or cannot be written, or netlink cannot be opened.
    pub async fn start(config: NicConfig, stop: CancellationToken) -> Result<Self, NicStartError> {
        let NicConfig { policy, node, state_dir, root, api_server, pod_resources, resources } = config;
        let journal = Journal::open(&state_dir, &culvert_host::boot_id(&root)?)?;
        let namespace = Namespace::current()?;
        let (netlink, cards) = (Netlink::open()?, Cards::open().await);
        let host = Arc::new(Host { root, api_server, netlink, cards, namespace });
        let ledger = Ledger::new(journal);
        let state = ledger.watch();
        let attacher = Attacher::new(Arc::clone(&host), ledger);
        let resources = Resources::new(resources, &state_dir);
        let events = Events::new(Measurements::default());
        let (policy, pod_resources) =
            (watch::Sender::new(Arc::new(policy)), pod_resources.map(PodResources::new));
        let shared = Arc::new(Shared {
            policy,
            pod_resources,
            node,
            host,
            state,
            events,
            counters: CounterCache::default(),
        });
        let (commands, queue) = mpsc::channel(QUEUE);
        let (device_send, devices) = watch::channel(Vec::new());
        let owner = Owner::new(Arc::clone(&shared), attacher);
        tokio::spawn(owner.run(queue, devices.clone(), stop.clone()));
        tokio::spawn(watcher::run(Arc::clone(&shared), resources, device_send, stop));
        Ok(Self { commands, shared, devices })
    }

    /// What there is.
    pub async fn list(&self) -> Result<NicListReply, NicError> {
        Ok(self.shared.look().await?.list(&self.devices.borrow()))
    }

    /// All that is known of the PF or VF called `name`.
    ///
    /// # Errors
    /// When there is no such thing, or the machine cannot be looked at.
    pub async fn show(&self, name: &str) -> Result<NicShowReply, NicError> {
        let look = self.shared.look().await?;
        let found = find(&look.observed, name)?;
        let counters =
            self.shared.counters.read(&self.shared.host.netlink, &[found.pf], Instant::now()).await;
        let counters = counters.get(&found.pf.pf.pci.address).cloned().unwrap_or_default();
        Ok(look.view(&look.wanted(), &self.devices.borrow()).show(&found, &counters, &self.shared.events))
    }

    /// What happens from now on.
    pub fn watch(&self) -> broadcast::Receiver<NicEvent> {
        self.shared.events.watch()
    }

    /// What there is and what it has counted, for metrics. Costs one netlink dump per PF with VFs, at most once a second.
    pub(crate) async fn tally(&self) -> Result<NicTally, NicError> {
        let look = self.shared.look().await?;
        let pfs: Vec<_> = look.observed.pfs.iter().collect();
        let counters = self.shared.counters.read(&self.shared.host.netlink, &pfs, Instant::now()).await;
        Ok(tally::tally(&look.observed, &look.state, &self.devices.borrow(), &counters))
    }

    /// What has been counted of the agent's own doings.
    pub(crate) fn measurements(&self) -> &Measurements {
        self.shared.events.measurements()
    }

    /// What [`Self::apply`] would do; with another policy, what it would do if that one were in force.
    pub async fn plan(&self, other: Option<NicPolicy>) -> Result<NicPlanReply, NicError> {
        let (look, kubelet) = (self.shared.look().await?, self.shared.kubelet().await);
        let input = look.input(other.as_ref().unwrap_or(&look.policy), &kubelet);
        Ok(plan(input).reply(&input))
    }

    /// What the policy, or another one, wants and what there is.
    pub async fn diff(&self, other: Option<NicPolicy>) -> Result<NicDiffReply, NicError> {
        let (look, kubelet) = (self.shared.look().await?, self.shared.kubelet().await);
        Ok(diff(&look.input(other.as_ref().unwrap_or(&look.policy), &kubelet)))
    }

    /// Puts another policy in force. Nothing is changed by that alone, unless it says `applyAtStart`: surplus VFs leave
    /// their pools, and the rest is for [`Self::apply`].
    ///
    /// # Errors
    /// When it means two things for one of the machine's PFs; the policy before stays in force then.
    pub async fn set_policy(&self, policy: NicPolicy) -> Result<(), PolicyError> {
        if **self.shared.policy.borrow() == policy {
            return Ok(());
        }
        let look = self.shared.look().await?;
        let conflicts = conflicts(&policy, &look.observed);
        if !conflicts.is_empty() {
            return Err(PolicyError::Ambiguous(conflicts.join("; ")));
        }
        let apply = policy.apply_at_start;
        self.shared.policy.send_replace(Arc::new(policy));
        info!("another NIC policy is in force");
        if apply {
            self.commands.send(Command::CarryOut).await.map_err(|_| PolicyError::Stopped)?;
        }
        Ok(())
    }

    /// Whether there is a policy that speaks of any PF.
    pub fn has_policy(&self) -> bool {
        !self.shared.policy.borrow().pfs.is_empty()
    }

    /// Carries the policy out. `progress` hears of each step before it is done; the steps go on if nobody listens.
    pub async fn apply(&self, progress: mpsc::UnboundedSender<Progress>) -> Result<NicApplyReply, NicError> {
        self.ask(|reply| Command::Apply { progress, reply }).await.ok_or(NicError::Stopped)?
    }

    /// Gives a VF to a pod. Goes on to its end, or is undone, even if nobody waits for it.
    pub async fn attach_vf(&self, request: VfAttach) -> Result<VfAttached, AttachError> {
        let request = Box::new(request);
        self.ask(|reply| Command::Attach { request, reply }).await.ok_or(AttachError::Stopped)?
    }

    /// Gives a VF that a pod has addresses and routes; when that fails, the VF is taken back.
    pub async fn address_vf(
        &self,
        key: &Key,
        addresses: Vec<IpNet>,
        routes: Vec<Route>,
    ) -> Result<VfAttached, AttachError> {
        let key = key.clone();
        let asked = self.ask(|reply| Command::Address { key, addresses, routes, reply });
        asked.await.ok_or(AttachError::Stopped)?
    }

    /// Takes back what this interface of this container has; nothing to take back is no error. If nothing is recorded,
    /// and nobody has the VF that the runtime says it was, that is given its own settings again.
    pub async fn detach_vf(&self, key: &Key, lost: Option<Lost>) -> Result<(), ReleaseError> {
        let key = key.clone();
        self.ask(|reply| Command::Detach { key, lost, reply }).await.ok_or(ReleaseError::Stopped)?
    }

    /// Compares what this interface of this container has with what it should have.
    pub async fn check_vf(&self, key: &Key) -> Result<(), CheckError> {
        let key = key.clone();
        self.ask(|reply| Command::Check { key, reply }).await.ok_or(CheckError::Stopped)?
    }

    /// VFs that nobody has, but that are not as they should be.
    pub async fn orphans(&self) -> Result<NicOrphansReply, NicError> {
        self.ask(|reply| Command::Orphans { reply }).await.ok_or(NicError::Stopped)?
    }

    /// Takes back the VFs that are named, or all orphans; those that are in use only if it is forced.
    pub async fn release(&self, request: NicReleaseRequest) -> Result<NicReleaseReply, NicError> {
        self.ask(|reply| Command::Release { request, reply }).await.ok_or(NicError::Stopped)?
    }

    /// The VFs of all pools, for the device plugin; current within a second.
    pub fn devices(&self) -> watch::Receiver<Vec<Device>> {
        self.devices.clone()
    }

    /// VFs that pods have.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.shared.state.borrow().attachments.values().cloned().collect()
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

impl fmt::Debug for NicManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NicManager").field("node", &self.shared.node).finish_non_exhaustive()
    }
}

/// How often what failed is tried again, and pods that are gone are looked for.
pub(super) const UPKEEP: Duration = Duration::from_secs(10);
