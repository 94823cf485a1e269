//! What the fast path must hold, as a function of the cluster's objects.
//!
//! What makes no sense in an object becomes a problem that names it; the rest of the object, and all others, are used.
//! Tables are made as a whole once, and then follow the objects: [`Compiler`].

mod compiler;
mod node;
mod ping;
mod problems;
mod service;
mod set;
mod task;

use culvert_api::config::agent::Overlay;

pub use compiler::Compiler;
pub use node::{GATEWAY_MAC, NodeAddresses, TENANT_RANGES, VTEP_ADDRESS, VTEP_MAC};
pub use problems::Problems;
pub use set::{Frontend, TableSet};
pub use task::Builder;

/// What tables depend on beside the objects.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Name of this node.
    pub node: String,
    /// The overlay's settings.
    pub overlay: Overlay,
}

/// An address in the protocol's form: 4 or 16 bytes in network order.
pub(crate) fn octets(address: std::net::IpAddr) -> Vec<u8> {
    match address {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
