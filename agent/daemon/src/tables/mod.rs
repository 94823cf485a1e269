//! What the fast path must hold, as a pure function of the cluster's objects.
//!
//! What makes no sense in an object becomes a problem that names it; the rest of the object, and all others, are used.

mod node;
mod ping;
mod service;
mod task;

use culvert_api::config::agent::Overlay;
use culvert_api::config::flows::ServicePing;
use culvert_api::fastpath::Tables;

pub use node::{GATEWAY_MAC, NodeAddresses, TENANT_RANGES, VTEP_ADDRESS, VTEP_MAC};
pub use task::Builder;

use crate::kube::Objects;

/// Tables, and what was left out of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Built {
    /// The tables, without a revision and not yet marked as synced.
    pub tables: Tables,
    /// What is wrong with objects, one line each; every line names the object.
    pub problems: Vec<String>,
}

/// Builds the tables of node `node`. Equal objects give equal tables, entry by entry.
pub fn build(objects: &Objects, node: &str, overlay: &Overlay) -> Built {
    let mut problems = Vec::new();
    let (local, remotes) = node::build(&objects.nodes, node, overlay, &mut problems);
    let mut services = service::build(objects, node, overlay, &mut problems);
    if overlay.flows.service_ping == ServicePing::Endpoint {
        services.extend(ping::build(&services));
    }
    Built { tables: Tables { revision: 0, synced: false, node: local, remotes, services }, problems }
}

/// An address in the protocol's form: 4 or 16 bytes in network order.
pub(crate) fn octets(address: std::net::IpAddr) -> Vec<u8> {
    match address {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
