//! Numbers and names of the field, each a type of its own that cannot hold an illegal value.
//!
//! All of them parse from and print as the text a user writes, and (de)serialize as that text, or as a plain
//! number where they are one.

mod ifname;
mod mac;
mod number;
mod pci;
mod resource;
#[cfg(feature = "schema")]
mod schema;
mod vf;

pub use ifname::{IfName, IfNameError};
pub use mac::{Mac, MacError};
pub use number::{Mtu, RangeError, Rate, VfIndex, VlanId, VlanQos, Vni};
pub use pci::{PciAddress, PciAddressError};
pub use resource::{PoolName, ResourceName, ResourceNameError, ResourcePrefix};
pub use vf::{LinkState, VlanProtocol};
