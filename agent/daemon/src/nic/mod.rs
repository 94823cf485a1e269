//! SR-IOV NICs: the one place in the agent that changes PFs and VFs.
//!
//! ```text
//! policy --wanted--\
//!                   plan --> steps --apply--> the machine       `culvert nic plan`, `culvert nic apply`
//! machine --observe-/           \--journal--> disk
//!
//! CNI --attach::Attacher--> the machine                         pods get VFs and give them back
//!                    \--journal--> disk
//!
//! wanted, machine, journal --devices--> the device plugin       kept current by `watcher`
//! ```
//!
//! [`NicManager`] is the handle; behind it `owner` is the task that does one thing after the other. Everything below the
//! word "machine" is culvert-host.

mod apply;
mod attach;
mod attachment;
mod card;
mod damper;
mod devices;
mod diff;
mod event;
mod identity;
mod journal;
mod ledger;
mod locks;
mod look;
mod manager;
mod measure;
#[cfg(test)]
mod model;
mod name;
mod observe;
mod orphan;
mod owner;
mod plan;
mod resources;
mod step;
mod tally;
mod view;
mod wanted;
mod watcher;

pub use apply::MachineError;
pub use attach::{
    AttachError, AttachedInterface, CheckError, Lost, ReleaseError, Route, VfAttach, VfAttached,
};
pub use attachment::{Attachment, PodInterface};
pub use journal::{JournalError, Salvaged};
pub use manager::{NicConfig, NicError, NicManager, NicStartError, PolicyError, discard_journal};
pub(crate) use measure::Measurements;
pub use name::NameError;
pub use observe::ObserveError;
pub use resources::{ResourceConfig, preview};
pub(crate) use tally::{NicTally, PfTally, VfTally};
