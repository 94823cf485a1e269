//! Pods on the overlay: which have a port of the fast path, and with what addresses.
//!
//! An attachment is one interface of one pod. Its [`Record`] is written before anything is done for it and removed
//! after everything is undone, so that whatever happens in between, what is left can be found. Addresses in records are
//! the leases; there is no other book.

mod host;
mod interface;
mod ipam;
mod overlay;
mod record;
mod socket;
mod store;

pub use interface::InterfaceError;
pub(crate) use interface::set_sysctls;
pub use ipam::{Fixed, IpamError, Wish};
pub use overlay::{AttachError, Attached, CheckError, Overlay, OverlayRequest};
pub use record::{Key, Lease, Phase, PodName, Record};
pub use socket::{Sharing, Socket, SocketError};
pub use store::{Store, StoreError};
