//! The machine Culvert runs on: PCI, sysfs, netlink, drivers, network namespaces.
//!
//! Mechanism only: what there is and how it is changed. What it should be is decided by the daemon.
//! Everything that is read from or written to a file goes through a [`HostRoot`], so that a made-up tree serves
//! tests; everything asked of the kernel's rtnetlink goes through [`netlink::Netlink`], which belongs to one
//! network namespace.

mod announce;
mod boot;
pub mod devlink;
pub mod driver;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod guard;
pub mod health;
pub mod heap;
pub mod inventory;
pub mod netlink;
pub mod netns;
pub mod nic;
mod pci;
mod root;
pub mod uevent;
pub mod vfio;

pub use announce::{AnnounceError, announce};
pub use boot::boot_id;
pub use pci::{IommuGroup, PciDevice, PciId};
pub use root::{FileError, HostRoot};
