//! VFs of pods: given, taken back, looked after.
//!
//! An [`Attacher`] records what it is about to do, sets up the VF at its PF, and moves its interface into the pod.
//! Whatever fails is undone from the record alone, wherever the first got to, and as often as it is tried. The machine is
//! behind [`VfOps`]: tests have each operation fail in turn, and the program end at each.

use std::path::PathBuf;

use culvert_api::value::{IfName, Mac, Mtu, PciAddress};
use culvert_host::netlink::VfChange;
use ipnet::IpNet;
use std::net::IpAddr;
use tracing::warn;

use super::apply::MachineError;
use super::journal::JournalError;
use super::observe::ObserveError;
use crate::errors::chain;
use crate::pods::Key;

mod address;
mod attacher;
mod check;
mod mac;
mod machine;
mod make;
mod ops;
mod pod;
mod profile;
mod reconstruct;
mod release;
mod stopwatch;
#[cfg(test)]
mod tests;

pub use attacher::Lost;
pub(super) use attacher::{Attacher, Sight, View};
pub(super) use machine::Namespace;

/// Where to, and the next hop unless that is on the link itself.
pub type Route = (IpNet, Option<IpAddr>);

/// What a pod wants of a VF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VfAttach {
    /// The container and the name of the interface in it.
    pub key: Key,
    /// Name of the CNI network.
    pub network: String,
    /// The pod, for people: "namespace/name".
    pub owner: String,
    /// The VF.
    pub device: PciAddress,
    /// Path of the pod's network namespace.
    pub netns: PathBuf,
    /// Settings at the PF that differ from the VF's own: MAC, VLAN and so on.
    pub settings: VfChange,
    /// MTU of the interface.
    pub mtu: Option<Mtu>,
    /// Addresses of the interface.
    pub addresses: Vec<IpNet>,
    /// Routes by way of the interface.
    pub routes: Vec<Route>,
}

/// What a pod got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VfAttached {
    /// MAC of the VF.
    pub mac: Option<Mac>,
    /// The interface; `None` if the VF is for a program that drives it through vfio.
    pub interface: Option<AttachedInterface>,
}

/// An interface that a pod got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedInterface {
    /// Its name.
    pub name: IfName,
    /// Its MTU in bytes.
    pub mtu: u32,
}

/// Why a pod does not get its VF.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No VF has this address.
    #[error("device {0}: no VF of this machine has this address")]
    NoVf(PciAddress),
    /// The PF cannot be asked to set up its VFs.
    #[error("device {vf}: its PF {pf} has no network interface, which VFs are set up by")]
    NoPfInterface {
        /// The VF.
        vf: PciAddress,
        /// Its PF.
        pf: PciAddress,
    },
    /// Nobody drives the VF.
    #[error("device {0}: it has no driver; `culvert nic plan` shows what it lacks")]
    NoDriver(PciAddress),
    /// Somebody else has it.
    #[error("device {vf}: it is used by {user}")]
    InUse {
        /// The VF.
        vf: PciAddress,
        /// Who has it.
        user: String,
    },
    /// The same interface of the same container was attached before.
    #[error("{key}: is attached already, to device {vf}")]
    Twice {
        /// The container and its interface.
        key: Key,
        /// The VF that it has.
        vf: PciAddress,
    },
    /// Nothing was attached that could be gone on with.
    #[error("{0}: is not attached")]
    Unknown(Key),
    /// Two VFs with one MAC do not work.
    #[error("device {vf}: mac {mac} is that of {owner}, too")]
    MacTaken {
        /// The VF.
        vf: PciAddress,
        /// The MAC asked for.
        mac: Mac,
        /// Who has it.
        owner: String,
    },
    /// A path that leads to the host's own namespace.
    #[error("network namespace {}: is the host's own", .0.display())]
    HostNetns(PathBuf),
    /// A path that leads nowhere.
    #[error("network namespace {}: does not exist", .0.display())]
    NoNetns(PathBuf),
    /// The machine cannot be looked at.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// A change failed; everything was undone, but for what `left` says.
    #[error("device {vf}: cannot {action}{}", if left.is_empty() { String::new() } else { format!(" (and left undone: {left})") })]
    Failed {
        /// The VF.
        vf: PciAddress,
        /// What was being done.
        action: &'static str,
        /// What could not be undone.
        left: String,
        /// Why it failed.
        source: Box<MachineError>,
    },
    /// The journal cannot be written: nothing is done that is not recorded.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The agent is shutting down.
    #[error("the agent is shutting down")]
    Stopped,
}

/// Why a VF could not be taken back, entirely; it stays recorded, and is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// What went wrong, all of it.
    #[error("device {vf}: cannot be taken back yet: {}", .problems.join("; "))]
    Failed {
        /// The VF.
        vf: PciAddress,
        /// One text each.
        problems: Vec<String>,
    },
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The machine cannot be looked at.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The agent is shutting down.
    #[error("the agent is shutting down")]
    Stopped,
}

/// What is wrong with an attachment.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Nothing is known of it.
    #[error("{0}: is not attached")]
    Unknown(Key),
    /// It differs from what it should be.
    #[error("{key}: {}", .problems.join("; "))]
    Differs {
        /// The container and its interface.
        key: Key,
        /// One text each.
        problems: Vec<String>,
    },
    /// The machine cannot be looked at.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The agent is shutting down.
    #[error("the agent is shutting down")]
    Stopped,
}

impl AttachError {
    /// This error, of which `left` could not be undone.
    fn with_left(self, left: &str) -> Self {
        match self {
            Self::Failed { vf, action, source, .. } => {
                Self::Failed { vf, action, left: left.to_owned(), source }
            }
            other => {
                warn!("left undone: {left}");
                other
            }
        }
    }
}

/// Collects what goes wrong while the rest goes on.
#[derive(Debug, Default)]
struct Problems(Vec<String>);

impl Problems {
    /// The value, or `None` and a note of what went wrong.
    fn note<T, E: std::error::Error>(&mut self, result: Result<T, E>) -> Option<T> {
        result.map_err(|e| self.0.push(chain(&e))).ok()
    }
}
