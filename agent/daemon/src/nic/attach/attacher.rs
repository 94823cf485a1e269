//! Who does what to which VF, and in which order.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use culvert_api::value::{IfName, PciAddress};
use ipnet::IpNet;
use tokio::sync::{RwLock, RwLockWriteGuard};
use tracing::{info, warn};

use super::super::apply::MachineError;
use super::super::attachment::Attachment;
use super::super::ledger::{Ledger, Writing};
use super::super::locks::Locks;
use super::super::observe::{ObserveError, Observed};
use super::super::wanted::WantedVf;
use super::ops::VfOps;
use super::reconstruct::ownerless;
use super::stopwatch::Stopwatch;
use super::{AttachError, ReleaseError, Route, VfAttach, VfAttached};
use crate::errors::chain;
use crate::pods::{Key, Phase};

/// What is known of a VF when something is to be done to it.
#[derive(Debug, Clone)]
pub(in super::super) struct View {
    /// The machine, as far as this VF is concerned.
    pub(in super::super) observed: Observed,
    /// What the VF is of its own, if the policy says.
    pub(in super::super) base: Option<WantedVf>,
}

/// Looks at the machine and the policy.
pub(in super::super) trait Sight: Send + Sync {
    /// What is known of `vf` now.
    fn look(&self, vf: PciAddress) -> impl Future<Output = Result<View, ObserveError>> + Send;
}

/// A VF of which a runtime says that a pod had it, although nothing is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The VF.
    pub device: PciAddress,
    /// The pod's network namespace, where the runtime still knows it.
    pub netns: Option<PathBuf>,
}

/// Gives VFs to pods and takes them back.
///
/// What concerns one VF, or one interface of one container, happens one after the other; everything else at the same
/// time: a driver that takes seconds, or a link without carrier, keeps nobody waiting but its own pod. A plan is carried
/// out alone.
#[derive(Debug)]
pub(in super::super) struct Attacher<O: VfOps> {
    pub(super) ops: Arc<O>,
    pub(super) ledger: Ledger,
    keys: Locks<Key>,
    vfs: Locks<PciAddress>,
    plans: RwLock<()>,
    /// The namespaces of pods that have VFs, kept open: when a sandbox dies while something else keeps its namespace
    /// alive, nobody could get at the VF in it otherwise.
    kept: Mutex<BTreeMap<Key, Arc<O::Netns>>>,
}

/// The right to change anything, while no pod gets or gives back a VF.
pub(in super::super) struct Alone<'a> {
    pub(in super::super) journal: Writing<'a>,
    _plans: RwLockWriteGuard<'a, ()>,
}

impl<O: VfOps> Attacher<O> {
    /// Starts with what the journal says.
    pub(in super::super) fn new(ops: Arc<O>, ledger: Ledger) -> Self {
        Self {
            ops,
            ledger,
            keys: Locks::default(),
            vfs: Locks::default(),
            plans: RwLock::default(),
            kept: Mutex::default(),
        }
    }

    /// Waits until nothing is done to any VF, and keeps it so.
    pub(in super::super) async fn alone(&self) -> Alone<'_> {
        let plans = self.plans.write().await;
        Alone { journal: self.ledger.write().await, _plans: plans }
    }

    /// Opens the namespaces of all pods that have VFs, as far as they exist.
    pub(in super::super) async fn keep_namespaces(&self) {
        for attachment in self.ledger.attachments() {
            match self.namespace(&attachment).await {
                Ok(Some(netns)) => self.keep(&attachment.key, netns),
                Ok(None) => {}
                Err(e) => warn!(pod = attachment.owner, vf = %attachment.vf, "{}", chain(&e)),
            }
        }
    }

    /// Gives a VF to a pod.
    ///
    /// # Errors
    /// When it cannot be done. Then everything is as before, but for what the error says; the rest is tried again later.
    pub(in super::super) async fn attach(
        &self,
        sight: &impl Sight,
        request: &VfAttach,
    ) -> Result<VfAttached, AttachError> {
        let _no_plan = self.plans.read().await;
        let _key = self.keys.turn(&request.key).await;
        let _vf = self.vfs.turn(&request.device).await;
        let watch = Stopwatch::start();
        let view = sight.look(request.device).await?;
        self.make(&view, request, watch).await
    }

    /// Gives what `key` has addresses and routes; when that fails, the VF is taken back.
    ///
    /// # Errors
    /// When it cannot be done.
    pub(in super::super) async fn address(
        &self,
        sight: &impl Sight,
        key: &Key,
        addresses: &[IpNet],
        routes: &[Route],
    ) -> Result<VfAttached, AttachError> {
        let _no_plan = self.plans.read().await;
        let _key = self.keys.turn(key).await;
        let attachment = self.ledger.attachment(key).filter(|a| a.phase == Phase::Attached);
        let attachment = attachment.ok_or_else(|| AttachError::Unknown(key.clone()))?;
        let _vf = self.vfs.turn(&attachment.vf).await;
        let view = sight.look(attachment.vf).await?;
        self.give_addresses(&view, &attachment, addresses, routes).await
    }

    /// Takes back what `key` has: its interface returns to the host, and the VF is again what it is of its own. What was
    /// taken back is returned; `None` if there is nothing to take back, as when a former owner asks for a second time.
    ///
    /// `lost` is the VF that the runtime says `key` had. It counts only if nothing is recorded: of `key`, or of the VF.
    ///
    /// # Errors
    /// What went wrong; the record stays then, and the same call goes on where this one ended.
    pub(in super::super) async fn detach(
        &self,
        sight: &impl Sight,
        key: &Key,
        lost: Option<&Lost>,
    ) -> Result<Option<Attachment>, ReleaseError> {
        let _no_plan = self.plans.read().await;
        let _key = self.keys.turn(key).await;
        if let Some(attachment) = self.ledger.attachment(key) {
            let _vf = self.vfs.turn(&attachment.vf).await;
            let view = sight.look(attachment.vf).await?;
            self.release(&view, &attachment).await?;
            return Ok(Some(attachment));
        }
        let Some(lost) = lost else { return Ok(None) };
        let _vf = self.vfs.turn(&lost.device).await;
        let view = sight.look(lost.device).await?;
        let Some(attachment) = self.reconstruct(&view, key, lost).await? else { return Ok(None) };
        warn!(pod = attachment.owner, vf = %lost.device, "is taken back although nothing is recorded of it");
        self.release(&view, &attachment).await?;
        Ok(Some(attachment))
    }

    /// Attachments that nobody completes any more, or whose pods seem to be gone.
    pub(in super::super) fn stale(&self) -> Vec<Key> {
        let all = self.ledger.attachments().into_iter();
        all.filter(|a| a.phase != Phase::Attached || self.is_orphan(a)).map(|a| a.key).collect()
    }

    /// Takes back what `key` has if it is stale, and nobody is at it.
    ///
    /// # Errors
    /// As with [`Self::detach`].
    pub(in super::super) async fn tidy(
        &self,
        sight: &impl Sight,
        key: &Key,
    ) -> Result<Option<Attachment>, ReleaseError> {
        let _no_plan = self.plans.read().await;
        let _key = self.keys.turn(key).await;
        let attachment = self.ledger.attachment(key);
        // It may just have been completed, or taken back.
        let Some(attachment) = attachment.filter(|a| a.phase != Phase::Attached || self.is_orphan(a)) else {
            return Ok(None);
        };
        let _vf = self.vfs.turn(&attachment.vf).await;
        let reason = match attachment.phase {
            Phase::Attaching => "it was not completed",
            Phase::Attached => "the pod is gone",
            Phase::Detaching => "it was not taken back completely",
        };
        info!(pod = attachment.owner, vf = %attachment.vf, pf = %attachment.pf, "{key} is taken back: {reason}");
        let view = sight.look(attachment.vf).await?;
        self.release(&view, &attachment).await?;
        Ok(Some(attachment))
    }

    /// Takes back a VF that nobody is known to have, wherever its interface is.
    ///
    /// # Errors
    /// As with [`Self::detach`].
    pub(in super::super) async fn retrieve(
        &self,
        sight: &impl Sight,
        device: PciAddress,
    ) -> Result<Option<Attachment>, ReleaseError> {
        let _no_plan = self.plans.read().await;
        let key = Key {
            container_id: format!("retrieved-{device}"),
            ifname: IfName::try_from("retrieved".to_owned()).expect("is an interface name"),
        };
        let _key = self.keys.turn(&key).await;
        let _vf = self.vfs.turn(&device).await;
        let view = sight.look(device).await?;
        let Some(record) = ownerless(&view, &key, device) else { return Ok(None) };
        let Some(attachment) = self.adopt(record).await? else { return Ok(None) };
        self.release(&view, &attachment).await?;
        Ok(Some(attachment))
    }

    /// Whether the pod is gone: its DEL was lost.
    pub(in super::super) fn is_orphan(&self, attachment: &Attachment) -> bool {
        let gone = || {
            let Some(netns) = self.ops.open(&attachment.netns)? else { return Ok(true) };
            Ok(Some(self.ops.id(&netns)?) != attachment.netns_id)
        };
        gone().unwrap_or_else(|e: MachineError| {
            warn!(pod = attachment.owner, vf = %attachment.vf, "{}", chain(&e));
            false
        })
    }

    /// The namespace that `attachment` was made in, if it exists: its path may lead elsewhere by now, or nowhere.
    pub(super) async fn namespace(
        &self,
        attachment: &Attachment,
    ) -> Result<Option<Arc<O::Netns>>, MachineError> {
        if let Some(netns) = self.kept().get(&attachment.key) {
            return Ok(Some(Arc::clone(netns)));
        }
        let Some(id) = attachment.netns_id else { return Ok(None) };
        if let Some(netns) = self.ops.open(&attachment.netns)?
            && self.ops.id(&netns)? == id
        {
            return Ok(Some(netns));
        }
        Ok(self.ops.find(id).await)
    }

    pub(super) fn keep(&self, key: &Key, netns: Arc<O::Netns>) {
        self.kept().insert(key.clone(), netns);
    }

    pub(super) fn let_go(&self, key: &Key) {
        self.kept().remove(key);
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<O::Netns>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
