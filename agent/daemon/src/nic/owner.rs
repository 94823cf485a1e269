//! The task that changes PFs and VFs: nobody else does.

use std::sync::Arc;

use culvert_api::agent::{NicApplyReply, NicReleaseReply, NicReleaseRequest, Progress};
use culvert_api::value::PciAddress;
use culvert_device_plugin::Device;
use futures::future::join_all;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::apply::{Host, apply};
use super::attach::{AttachError, Attacher, Lost, ReleaseError, Sight, VfAttach, VfAttached, View};
use super::attachment::Attachment;
use super::event::{Event, Outcome};
use super::look::{Look, Shared};
use super::manager::{Command, NicError, UPKEEP};
use super::measure::refusal;
use super::name::{Found, find};
use super::observe::ObserveError;
use super::orphan::{self, Orphan, astray, orphans};
use super::plan::plan;
use super::step::{Object, Step};
use super::wanted::WantedVf;
use crate::errors::chain;
use crate::pods::Key;

/// The owner of all PFs and VFs.
pub(super) struct Owner {
    shared: Arc<Shared>,
    attacher: Attacher<Host>,
}

impl Owner {
    pub(super) fn new(shared: Arc<Shared>, attacher: Attacher<Host>) -> Self {
        Self { shared, attacher }
    }

    /// Does what is asked until `stop`, and ends what has been begun. Pods' VFs wait for each other only where they have
    /// to: [`Attacher`] sees to that.
    pub(super) async fn run(
        self,
        mut queue: mpsc::Receiver<Command>,
        devices: watch::Receiver<Vec<Device>>,
        stop: CancellationToken,
    ) {
        let owner = Arc::new(self);
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&owner).start(devices));
        let mut upkeep = interval(UPKEEP);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        upkeep.reset();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                command = queue.recv() => match command {
                    Some(command) => drop(tasks.spawn(Arc::clone(&owner).handle(command))),
                    None => break,
                },
                _ = upkeep.tick() => drop(tasks.spawn(Arc::clone(&owner).tidy_up())),
                Some(ended) = tasks.join_next() => report(ended),
            }
        }
        while let Some(ended) = tasks.join_next().await {
            report(ended);
        }
    }

    /// Goes on where the agent ended the last time. What nobody waits for is done once the first list of `devices` is there:
    /// kubelet waits for that, and to look at the machine takes a CPU.
    async fn start(self: Arc<Self>, mut devices: watch::Receiver<Vec<Device>>) {
        if let Some(step) = &self.shared.state.borrow().under_way {
            info!("the agent ended while it was at this: {}; the next plan goes on from there", step.text);
        }
        self.attacher.keep_namespaces().await;
        self.take_back_stale().await;
        let at_start = self.shared.policy.borrow().apply_at_start;
        if at_start {
            self.carry_out().await;
        }
        // An error is the end of everything.
        if devices.changed().await.is_ok() {
            self.count_orphans().await;
        }
    }

    async fn handle(self: Arc<Self>, command: Command) {
        // Whoever asked may be gone by now; what was asked is done all the same.
        match command {
            Command::CarryOut => self.carry_out().await,
            Command::Apply { progress, reply } => drop(reply.send(self.apply(&progress).await)),
            Command::Attach { request, reply } => drop(reply.send(self.attach(&request).await)),
            Command::Address { key, addresses, routes, reply } => {
                let done = self.attacher.address(&*self.shared, &key, &addresses, &routes).await;
                drop(reply.send(done));
            }
            Command::Detach { key, lost, reply } => drop(reply.send(self.detach(&key, lost.as_ref()).await)),
            Command::Orphans { reply } => drop(reply.send(self.orphans().await.map(orphan::reply))),
            Command::Release { request, reply } => drop(reply.send(self.release(&request).await)),
            Command::Check { key, reply } => {
                drop(reply.send(self.attacher.check(&*self.shared, &key).await));
            }
        }
    }

    async fn apply(&self, progress: &mpsc::UnboundedSender<Progress>) -> Result<NicApplyReply, NicError> {
        let mut alone = self.attacher.alone().await;
        let shared = &self.shared;
        let (look, kubelet) = (shared.look().await?, shared.kubelet().await);
        let plan = plan(look.input(&look.policy, &kubelet));
        let (started, mut step_started) = (Instant::now(), Instant::now());
        let tell = |step: &Step, number: usize, total: usize, outcome: Outcome<'_>| {
            if outcome == Outcome::Begun {
                step_started = Instant::now();
                let text = format!("{}: {}", step.object, step.action);
                // Nobody has to listen.
                let _ = progress.send(Progress { text, done: number as u32 - 1, total: total as u32 });
            }
            shared.events.tell(Event::step(step, number, total, outcome, step_started.elapsed()));
        };
        let reply = apply(&*shared.host, &plan, &mut alone.journal, &**shared, tell).await?;
        shared.events.tell(Event::applied(reply.done.len(), reply.failed.len(), started.elapsed()));
        Ok(reply)
    }

    async fn carry_out(&self) {
        let (progress, _) = mpsc::unbounded_channel();
        match self.apply(&progress).await {
            Ok(reply) => {
                reply.blocked.iter().for_each(|reason| warn!("{reason}"));
            }
            Err(e) => warn!("the policy is not carried out: {}", chain(&e)),
        }
    }

    async fn attach(&self, request: &VfAttach) -> Result<VfAttached, AttachError> {
        let (started, events) = (Instant::now(), &self.shared.events);
        let made = self.attacher.attach(&*self.shared, request).await;
        let took = started.elapsed();
        let recorded = self.shared.state.borrow().attachments.get(&request.key).cloned();
        match (&made, recorded) {
            (Err(e), _) => events.tell(Event::refused(request, refusal(e), &chain(e), took)),
            (Ok(_), Some(attachment)) => events.tell(Event::attached(&attachment, took)),
            (Ok(_), None) => {}
        }
        made
    }

    async fn detach(&self, key: &Key, lost: Option<&Lost>) -> Result<(), ReleaseError> {
        let started = Instant::now();
        let recorded = self.shared.state.borrow().attachments.get(key).cloned();
        let released = self.attacher.detach(&*self.shared, key, lost).await;
        self.tell_released(recorded, &released, started);
        released.map(drop)
    }

    /// Tells what became of an attachment: the one that was taken back, else the one that was `recorded`.
    fn tell_released(
        &self,
        recorded: Option<Attachment>,
        released: &Result<Option<Attachment>, ReleaseError>,
        started: Instant,
    ) {
        let (attachment, failed) = match released {
            Ok(attachment) => (attachment.clone(), None),
            Err(e) => (recorded, Some(chain(e))),
        };
        if let Some(attachment) = attachment {
            self.shared.events.tell(Event::detached(&attachment, failed, started.elapsed()));
        }
    }

    async fn orphans(&self) -> Result<Vec<Orphan>, NicError> {
        let look = self.shared.look().await?;
        let attachments = &look.state.attachments;
        let places = self.shared.host.places(&astray(&look.observed, attachments)).await;
        Ok(orphans(&look.wanted(), attachments, &self.attacher.stale(), &places))
    }

    async fn release(&self, request: &NicReleaseRequest) -> Result<NicReleaseReply, NicError> {
        let orphans = self.orphans().await?;
        let mut reply = NicReleaseReply::default();
        if request.vfs.is_empty() {
            for orphan in &orphans {
                self.release_orphan(orphan, request.force, &mut reply).await;
            }
            return Ok(reply);
        }
        let look = self.shared.look().await?;
        for name in &request.vfs {
            let Found { pf, vf: Some(vf) } = find(&look.observed, name)? else {
                reply.failed.push(format!("{name}: is a PF; name its VFs one by one"));
                continue;
            };
            let (device, object) = (vf.pci.address, Object::vf(pf.pf.pci.address, vf.index));
            let attachment = look.state.attachments.values().find(|a| a.vf == device);
            if let Some(orphan) = orphans.iter().find(|orphan| orphan.vf == device) {
                self.release_orphan(orphan, request.force, &mut reply).await;
            } else if let Some(Attachment { key, owner, .. }) = attachment {
                let reason = format!("{owner} has it, as {key}");
                let user = Some(owner.clone());
                let owned = Orphan { object, vf: device, reason, user, key: Some(key.clone()) };
                self.release_orphan(&owned, request.force, &mut reply).await;
            } else if let Some(user) = pf.users.get(&vf.index) {
                reply.failed.push(format!("{object}: is used by {user}; stop that first"));
            } else {
                reply.failed.push(format!("{object}: is at home, as it should be or of no policy"));
            }
        }
        Ok(reply)
    }

    async fn release_orphan(&self, orphan: &Orphan, force: bool, reply: &mut NicReleaseReply) {
        let Orphan { object, vf, reason, user, key } = orphan;
        if let Some(user) = user.as_ref().filter(|_| !force) {
            return reply.refused.push(format!("{object}: is in use by {user}; --force takes it away"));
        }
        let (started, sight) = (Instant::now(), &*self.shared);
        let recorded = key.as_ref().and_then(|key| sight.state.borrow().attachments.get(key).cloned());
        let released = match key {
            Some(key) => self.attacher.detach(sight, key, None).await,
            None => self.attacher.retrieve(sight, *vf).await,
        };
        match &released {
            Ok(_) => reply.done.push(format!("{object}: {reason}; it is back")),
            Err(e) => reply.failed.push(format!("{object}: {}", chain(e))),
        }
        self.tell_released(recorded, &released, started);
    }

    async fn tidy_up(self: Arc<Self>) {
        self.take_back_stale().await;
        self.count_orphans().await;
    }

    /// Undoes what was not completed, and takes back what pods had that are gone.
    async fn take_back_stale(&self) {
        let stale = self.attacher.stale();
        let take_back = async |key: &Key| {
            let started = Instant::now();
            let recorded = self.shared.state.borrow().attachments.get(key).cloned();
            let released = self.attacher.tidy(&*self.shared, key).await;
            self.tell_released(recorded, &released, started);
        };
        join_all(stale.iter().map(take_back)).await;
    }

    async fn count_orphans(&self) {
        match self.orphans().await {
            Ok(orphans) => self.shared.events.measurements().orphans(orphans.len()),
            Err(e) => warn!("orphans are not counted: {}", chain(&e)),
        }
    }
}

impl Sight for Shared {
    async fn look(&self, vf: PciAddress) -> Result<View, ObserveError> {
        let look = self.look().await?;
        let base = base(&look, vf);
        Ok(View { observed: look.observed, base })
    }
}

/// What a VF is of its own, if the policy says.
fn base(look: &Look<'_>, device: PciAddress) -> Option<WantedVf> {
    let (pf, vf) = look.observed.vf(device)?;
    let wanted = look.wanted();
    let pf = wanted.pfs.into_iter().find(|w| w.now.pf.pci.address == pf.pf.pci.address)?;
    pf.vfs.into_iter().find(|w| w.index == vf.index)
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(e) = ended {
        error!("work on a NIC came to an unforeseen end: {e}");
    }
}
