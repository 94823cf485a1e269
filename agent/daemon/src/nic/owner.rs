//! The task that changes PFs and VFs: nobody else does.

use std::sync::Arc;

use culvert_api::agent::{NicApplyReply, PlanStep, Progress};
use culvert_api::value::PciAddress;
use ipnet::IpNet;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::apply::apply;
use super::attach::{
    AttachError, CheckError, ReleaseError, Route, VfAttach, VfAttached, address, check, is_orphan, make,
    release,
};
use super::journal::{Journal, State};
use super::manager::{Command, Look, NicError, Shared, UPKEEP};
use super::wanted::WantedVf;
use crate::errors::chain;
use crate::pods::{Key, Phase};

/// The owner of all PFs and VFs.
pub(super) struct Owner {
    shared: Arc<Shared>,
    journal: Journal,
    publish: watch::Sender<State>,
}

impl Owner {
    pub(super) fn new(shared: Arc<Shared>, journal: Journal, publish: watch::Sender<State>) -> Self {
        Self { shared, journal, publish }
    }

    /// Does what is asked, one thing after the other, until `stop`; what has been begun is ended first.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Command>, stop: CancellationToken) {
        if let Some(step) = &self.journal.state().under_way {
            info!("the agent ended while it was at this: {step}; the next plan goes on from there");
        }
        self.tidy_up().await;
        if self.shared.policy.apply_at_start {
            self.apply_at_start().await;
        }
        let mut upkeep = interval(UPKEEP);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        upkeep.reset();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                command = queue.recv() => match command {
                    Some(command) => self.handle(command).await,
                    None => return,
                },
                _ = upkeep.tick() => self.tidy_up().await,
            }
        }
    }

    async fn handle(&mut self, command: Command) {
        // Whoever asked may be gone by now; what was asked is done all the same.
        match command {
            Command::Apply { progress, reply } => drop(reply.send(self.apply(&progress).await)),
            Command::Attach { request, reply } => drop(reply.send(self.attach(&request).await)),
            Command::Address { key, addresses, routes, reply } => {
                drop(reply.send(self.address(&key, &addresses, &routes).await));
            }
            Command::Detach { key, reply } => drop(reply.send(self.release(&key).await)),
            Command::Check { key, reply } => drop(reply.send(self.check(&key).await)),
        }
    }

    async fn apply(&mut self, progress: &mpsc::UnboundedSender<Progress>) -> Result<NicApplyReply, NicError> {
        let shared = Arc::clone(&self.shared);
        let plan = shared.look().await?.plan();
        let tell = |step: &super::step::Step, done: usize, total: usize| {
            let PlanStep { object, action, .. } = step.into();
            let text = format!("{object}: {action}");
            // Nobody has to listen.
            let _ = progress.send(Progress { text, done: done as u32, total: total as u32 });
        };
        let reply = apply(&shared.host, &plan, &mut self.journal, tell).await;
        self.publish();
        Ok(reply?)
    }

    async fn apply_at_start(&mut self) {
        let (progress, _) = mpsc::unbounded_channel();
        match self.apply(&progress).await {
            Ok(reply) => {
                let (done, failed) = (reply.done.len(), reply.failed.len());
                info!("the policy is carried out: {done} steps done, {failed} failed");
                reply.blocked.iter().for_each(|reason| warn!("{reason}"));
            }
            Err(e) => warn!("the policy is not carried out: {}", chain(&e)),
        }
    }

    async fn attach(&mut self, request: &VfAttach) -> Result<VfAttached, AttachError> {
        let shared = Arc::clone(&self.shared);
        let look = shared.look().await?;
        let base = base(&look, request.device);
        let made = make(&shared.host, &mut self.journal, &look.observed, base.as_ref(), request).await;
        self.publish();
        made
    }

    async fn address(
        &mut self,
        key: &Key,
        addresses: &[IpNet],
        routes: &[Route],
    ) -> Result<VfAttached, AttachError> {
        let device = self.journal.state().attachments.get(key).map(|a| a.vf);
        let device = device.ok_or_else(|| AttachError::Unknown(key.clone()))?;
        let shared = Arc::clone(&self.shared);
        let look = shared.look().await?;
        let base = base(&look, device);
        let (journal, observed) = (&mut self.journal, &look.observed);
        let done = address(&shared.host, journal, observed, base.as_ref(), key, addresses, routes).await;
        self.publish();
        done
    }

    async fn release(&mut self, key: &Key) -> Result<(), ReleaseError> {
        let Some(device) = self.journal.state().attachments.get(key).map(|a| a.vf) else { return Ok(()) };
        let shared = Arc::clone(&self.shared);
        let look = shared.look().await?;
        let base = base(&look, device);
        let released = release(&shared.host, &mut self.journal, &look.observed, base.as_ref(), key).await;
        self.publish();
        released
    }

    async fn check(&mut self, key: &Key) -> Result<(), CheckError> {
        let attachment = self.journal.state().attachments.get(key);
        let attachment = attachment.ok_or_else(|| CheckError::Unknown(key.clone()))?;
        let look = self.shared.look().await?;
        let problems = check(&look.observed, base(&look, attachment.vf).as_ref(), attachment).await;
        if problems.is_empty() { Ok(()) } else { Err(CheckError::Differs { key: key.clone(), problems }) }
    }

    /// Undoes what was not completed, and takes back what pods had that are gone.
    async fn tidy_up(&mut self) {
        let attachments = self.journal.state().attachments.values();
        let stale = attachments.filter(|a| a.phase != Phase::Attached || is_orphan(a));
        let stale: Vec<(Key, String)> = stale.map(|a| (a.key.clone(), a.owner.clone())).collect();
        for (key, owner) in stale {
            info!("{owner}: {key} is taken back: it was not completed, or the pod is gone");
            if let Err(e) = self.release(&key).await {
                warn!("{}", chain(&e));
            }
        }
    }

    fn publish(&self) {
        self.publish.send_replace(self.journal.state().clone());
    }
}

/// What a VF is of its own, if the policy says.
fn base(look: &Look<'_>, device: PciAddress) -> Option<WantedVf> {
    let (pf, vf) = look.observed.vf(device)?;
    let wanted = look.wanted();
    let pf = wanted.pfs.into_iter().find(|w| w.now.pf.pci.address == pf.pf.pci.address)?;
    pf.vfs.into_iter().find(|w| w.index == vf.index)
}
