//! What must hold among the tables' objects before anything is built of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use culvert_api::fastpath as proto;
use culvert_packet::flow::Tenant;
use ipnet::IpNet;

use super::error::{Problem, TableError};
use super::local::LocalNode;
use super::map::Map;
use super::port::Port;
use super::remote::RemoteNode;
use super::service::{ServiceKey, ServiceSpec};

pub(super) fn check_gateways(local: &LocalNode, port: &Port) -> Result<(), Problem> {
    match port.addresses().find(|&address| local.is_gateway(port.tenant, address)) {
        Some(address) => {
            Err(Problem::AddressTaken { field: "gateway", address, owner: format!("port {}", port.name) })
        }
        None => Ok(()),
    }
}

pub(super) fn check_count(what: &'static str, count: usize, max: usize) -> Result<(), TableError> {
    if count <= max {
        return Ok(());
    }
    Err(TableError::new("tables", Problem::TooMany { what, count, max }))
}

/// Slots that remote nodes take.
pub(super) fn slots<'a>(nodes: impl IntoIterator<Item = &'a RemoteNode>) -> usize {
    nodes.into_iter().map(RemoteNode::slots).sum()
}

pub(super) fn check_remotes(list: &[proto::RemoteNode]) -> Result<BTreeMap<String, RemoteNode>, TableError> {
    let mut remotes = BTreeMap::new();
    let mut vteps = Map::<IpAddr, String>::default();
    let mut nets = Map::<(Tenant, IpNet), String>::default();
    for node in list {
        let node = RemoteNode::try_from(node)?;
        let taken = |field, address, owner: String| {
            let owner = format!("remote {owner}");
            TableError::new(format!("remote {}", node.name), Problem::AddressTaken { field, address, owner })
        };
        if let Some(owner) = vteps.insert(node.vtep, node.name.clone()) {
            return Err(taken("vtep", node.vtep, owner));
        }
        for (tenant, net) in node.ranges() {
            if let Some(owner) = nets.insert((tenant, net), node.name.clone()) {
                return Err(taken("podCIDR", net.addr(), owner));
            }
        }
        if let Some(twin) = remotes.insert(node.name.clone(), node) {
            return Err(TableError::new(format!("remote {}", twin.name), Problem::Twice));
        }
    }
    Ok(remotes)
}

pub(super) fn check_services(list: &[proto::Service]) -> Result<Map<ServiceKey, ServiceSpec>, TableError> {
    let mut services = Map::with_capacity_and_hasher(list.len(), Default::default());
    for service in list {
        let spec = ServiceSpec::try_from(service)?;
        let name = spec.full_name();
        if let Some(twin) = services.insert(spec.key, spec) {
            let twin = Problem::SameService(format!("service {}", twin.full_name()));
            return Err(TableError::new(format!("service {name}"), twin));
        }
    }
    Ok(services)
}
