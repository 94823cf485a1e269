//! Carrying a plan out.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use culvert_api::agent::{NicApplyReply, PlanStep};
use culvert_api::config::nic::VfDriver;
use culvert_api::value::{Mac, PciAddress, VfIndex};
use culvert_host::driver::{self, DriverError};
use culvert_host::guard::ApiServer;
use culvert_host::inventory::{Interface, interfaces, vf_addresses};
use culvert_host::netlink::{LinkChange, Netlink, NetlinkError};
use culvert_host::netns::NetnsError;
use culvert_host::{FileError, HostRoot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::attach::Namespace;
use super::card::Cards;
use super::event::Outcome;
use super::journal::{Journal, JournalError};
use super::observe::{self, ObserveError, Observed};
use super::plan::Plan;
use super::step::{Action, Object, Step};
use crate::errors::chain;

#[cfg(test)]
pub(super) mod killed;
#[cfg(test)]
mod tests;

/// What can be looked at and changed: the real machine, or a model of one.
pub(super) trait Machine: Send + Sync + 'static {
    /// Looks at it.
    fn observe(&self) -> impl Future<Output = Result<Observed, ObserveError>> + Send;

    /// Does one step.
    fn carry_out(&self, step: &Step) -> impl Future<Output = Result<(), MachineError>> + Send;
}

/// Knows who has which VF.
pub(super) trait Users: Sync {
    /// "vf 2: it is used by ...", if anybody has a VF of `pf`, or may have.
    fn of(&self, pf: PciAddress) -> impl Future<Output = Result<Option<String>, ObserveError>> + Send;
}

/// The machine that the agent runs on.
#[derive(Debug)]
pub(super) struct Host {
    /// Its files.
    pub root: HostRoot,
    /// Where it is written who the API server is.
    pub api_server: ApiServer,
    /// A socket in its own network namespace.
    pub netlink: Netlink,
    /// What its cards tell beyond that.
    pub cards: Cards,
    /// That namespace, as attachments see it.
    pub namespace: Namespace,
}

/// A step that did not work.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A write to sysfs.
    #[error(transparent)]
    File(#[from] FileError),
    /// A driver.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// rtnetlink.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The VF is not there.
    #[error("{0}: is not there")]
    NoVf(Object),
    /// The VF's driver made no interface.
    #[error("{0}: its driver made no interface in time")]
    NoInterface(PciAddress),
    /// A VF's driver does not do as it is told.
    #[error("{vf}: its driver did not take mac {mac}, it has {reports}")]
    MacNotTaken {
        /// The VF.
        vf: PciAddress,
        /// The MAC, which the PF holds for it.
        mac: Mac,
        /// The MAC of its interface.
        reports: String,
    },
    /// A program in user space has the VF.
    #[error("{vf}: is open in {user}")]
    Open {
        /// The VF.
        vf: PciAddress,
        /// The program.
        user: String,
    },
    /// A network namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Somebody got a VF since the plan was made.
    #[error("in the meantime {0}")]
    InUse(String),
    /// Nobody knows whether somebody has.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// A model's reason.
    #[cfg(test)]
    #[error("{0}")]
    Model(String),
}

/// How long a VF's driver may take to make an interface; iavf takes a second or two.
pub(super) const INTERFACE_PATIENCE: Duration = Duration::from_secs(10);

impl Machine for Host {
    async fn observe(&self) -> Result<Observed, ObserveError> {
        let mut observed = observe::observe(&self.root, &self.netlink, &self.api_server).await?;
        self.cards.look(&self.root, &mut observed).await;
        Ok(observed)
    }

    async fn carry_out(&self, step: &Step) -> Result<(), MachineError> {
        let Object { pf, vf } = step.object;
        let vf = vf.unwrap_or(VfIndex::MIN);
        let root = self.root.clone();
        match step.action.clone() {
            Action::LinkUp { interface, .. } => {
                let up = LinkChange { up: Some(true), ..LinkChange::default() };
                Ok(self.netlink.change_link(interface, &up).await?)
            }
            Action::Autoprobe(on) => Ok(blocking(move || driver::set_autoprobe(&root, pf, on)).await?),
            Action::NumVfs(count) => Ok(blocking(move || driver::set_num_vfs(&root, pf, count)).await?),
            Action::Settings { interface, change } => {
                Ok(self.netlink.change_vf(interface, vf, &change).await?)
            }
            Action::Bind(wanted) => {
                let address = self.vf(step.object).await?;
                self.bind(address, wanted).await
            }
            Action::Mtu(mtu) => {
                let address = match step.object.vf {
                    Some(_) => self.vf(step.object).await?,
                    None => pf,
                };
                let interface = self.await_interface(address).await?;
                let change = LinkChange { mtu: Some(mtu.get().into()), ..LinkChange::default() };
                Ok(self.netlink.change_link(interface.index, &change).await?)
            }
        }
    }
}

impl Host {
    /// Address of a VF, which is not known before it is created.
    async fn vf(&self, object: Object) -> Result<PciAddress, MachineError> {
        let root = self.root.clone();
        let all = blocking(move || vf_addresses(&root, object.pf)).await?;
        let found = all.into_iter().find(|(index, _)| Some(*index) == object.vf);
        found.map(|(_, address)| address).ok_or(MachineError::NoVf(object))
    }

    /// Gives a VF to a driver, anew if the kernel's own has it already.
    pub(super) async fn bind(&self, vf: PciAddress, wanted: VfDriver) -> Result<(), MachineError> {
        let root = self.root.clone();
        let bind = match wanted {
            VfDriver::Kernel => driver::bind_kernel,
            VfDriver::VfioPci => driver::bind_vfio,
        };
        Ok(blocking(move || bind(&root, vf)).await?)
    }

    /// The interface of a PCI function, once its driver has made one.
    pub(super) async fn await_interface(&self, address: PciAddress) -> Result<Interface, MachineError> {
        let started = Instant::now();
        loop {
            if let Some(interface) = self.interface(address).await? {
                return Ok(interface);
            }
            if started.elapsed() > INTERFACE_PATIENCE {
                return Err(MachineError::NoInterface(address));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The interface of a PCI function in the host's namespace.
    pub(super) async fn interface(&self, address: PciAddress) -> Result<Option<Interface>, MachineError> {
        let root = self.root.clone();
        Ok(blocking(move || interfaces(&root, address)).await?.into_iter().next())
    }
}

/// Drivers may take seconds over a write.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}

/// Does the steps of `plan` in order, each written to `journal` before it is done. `tell` hears of each before and after,
/// with its number from 1 and how many there are.
///
/// `users` is asked again before all VFs of a PF are touched.
///
/// A step that fails is reported, and ends what is done for that VF, or, if it was the PF's own, for that PF; all others
/// go on.
///
/// # Errors
/// When the journal cannot be written: then nothing more is done.
pub(super) async fn apply<M: Machine>(
    machine: &M,
    plan: &Plan,
    journal: &mut Journal,
    users: &impl Users,
    mut tell: impl FnMut(&Step, usize, usize, Outcome<'_>),
) -> Result<NicApplyReply, JournalError> {
    journal.lease(&plan.leases)?;
    journal.restored(&plan.restored)?;
    let mut reply = NicApplyReply { blocked: plan.blocked.clone(), ..NicApplyReply::default() };
    let mut given_up = BTreeSet::new();
    let total = plan.steps.len();
    for (number, step) in (1..).zip(&plan.steps) {
        // New VFs get drivers again whatever happened.
        let restores = step.action == Action::Autoprobe(true);
        if !restores && (given_up.contains(&Object::pf(step.object.pf)) || given_up.contains(&step.object)) {
            continue;
        }
        tell(step, number, total, Outcome::Begun);
        let outcome = match check(step, users).await {
            Err(e) => Err(e),
            Ok(()) => {
                journal.begin(step)?;
                let outcome = machine.carry_out(step).await;
                journal.end(step, outcome.is_ok())?;
                outcome
            }
        };
        match outcome {
            Ok(()) => {
                tell(step, number, total, Outcome::Done);
                reply.done.push(PlanStep::from(step));
            }
            Err(error) => {
                let why = chain(&error);
                tell(step, number, total, Outcome::Failed(&why));
                reply.failed.push(format!("{}: cannot {}: {why}", step.object, step.action));
                given_up.insert(step.object);
            }
        }
    }
    Ok(reply)
}

/// Whether `step` may still be done: steps before it may have taken seconds, and kubelet gives VFs away meanwhile.
async fn check(step: &Step, users: &impl Users) -> Result<(), MachineError> {
    let touches_all = matches!((&step.action, step.object.vf), (Action::NumVfs(_) | Action::Mtu(_), None));
    match touches_all {
        true => users.of(step.object.pf).await?.map_or(Ok(()), |user| Err(MachineError::InUse(user))),
        false => Ok(()),
    }
}
