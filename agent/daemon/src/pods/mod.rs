//! Attachments of pods: what the agent has given to whom.
//!
//! An attachment is one interface of one pod: a port of the fast path with addresses, or a virtual function. Its
//! [`Record`] is written before anything is done for it and removed after everything is undone, so that whatever
//! happens in between, what is left can be found. Addresses in records are the leases; there is no other book.

mod interface;
mod ipam;
mod overlay;
mod record;
mod store;

pub use interface::InterfaceError;
pub use ipam::{Fixed, IpamError, Wish};
pub(crate) use overlay::{ADDRESSES, chain, parse_addresses};
pub use overlay::{AttachError, Attached, CheckError, Overlay, OverlayRequest};
pub use record::{Key, Kind, Phase, PodName, PortLease, Record};
pub use store::{Store, StoreError};
