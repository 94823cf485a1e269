//! Other nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use culvert_api::fastpath as proto;
use culvert_packet::encap::{Endpoints, OVERHEAD_V4, OVERHEAD_V6, Template, Template4, Tunnel};
use culvert_packet::eth::EthAddr;
use culvert_packet::flow::Tenant;
use ipnet::{IpNet, Ipv4Net};

use super::domain;
use super::error::{Problem, TableError};
use super::local::LocalNode;
use super::map::Map;
use super::port::PortIndex;
use super::wire;

/// Most remote nodes, a node counting once for each of its tenants: their slots fit into a flow entry.
pub const MAX_REMOTES: usize = 16_384;

/// Another node as the agent describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteNode {
    pub(super) name: String,
    pub(super) vtep: IpAddr,
    pub(super) vtep_mac: EthAddr,
    pub(super) pod_cidrs: Vec<IpNet>,
    /// Ranges of its pods of other tenants than the default one.
    pub(super) tenants: BTreeMap<Tenant, Vec<IpNet>>,
}

impl RemoteNode {
    /// Slots that it takes: one for each of its tenants.
    pub(super) fn slots(&self) -> usize {
        1 + self.tenants.len()
    }

    /// Ranges of its pods with their tenant.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (Tenant, IpNet)> {
        let others = self.tenants.iter().flat_map(|(tenant, nets)| nets.iter().map(|net| (*tenant, *net)));
        self.pod_cidrs.iter().map(|net| (Tenant::DEFAULT, *net)).chain(others)
    }
}

impl TryFrom<&proto::RemoteNode> for RemoteNode {
    type Error = TableError;

    fn try_from(node: &proto::RemoteNode) -> Result<Self, TableError> {
        let build = || -> Result<Self, Problem> {
            wire::text("name", &node.name)?;
            Ok(Self {
                name: node.name.clone(),
                vtep: wire::address("vtep", &node.vtep)?,
                vtep_mac: wire::mac("vtep_mac", &node.vtep_mac)?,
                pod_cidrs: wire::prefixes("podCIDR", &node.pod_cidrs)?,
                tenants: tenants(&node.tenants)?,
            })
        };
        build().map_err(|problem| TableError::new(format!("remote {}", node.name), problem))
    }
}

fn tenants(list: &[proto::TenantRanges]) -> Result<BTreeMap<Tenant, Vec<IpNet>>, Problem> {
    let mut tenants = BTreeMap::new();
    for ranges in list {
        let tenant = domain::other(ranges.tenant)?;
        if tenants.insert(tenant, wire::prefixes("podCIDR", &ranges.pod_cidrs)?).is_some() {
            return Err(Problem::TenantTwice { tenant: ranges.tenant });
        }
    }
    Ok(tenants)
}

/// Why there is no way to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// This node has no underlay address of the endpoint's IP version, no router for it, no uplink, or does not know the
    /// tenant.
    NoWay,
    /// The Ethernet address of the next hop is not known yet.
    Unresolved,
}

/// Another node, ready to send a tenant's packets to.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Name of the Node object.
    pub name: String,
    /// Whose packets.
    pub tenant: Tenant,
    /// Underlay address of its tunnel endpoint.
    pub vtep: IpAddr,
    /// Largest IP packet that the tunnel carries, in bytes.
    pub mtu: u16,
    /// The outer headers.
    pub template: Result<Template, Unreachable>,
    /// The first range of the node's IPv4 pods of the default tenant.
    pub pods4: Option<Ipv4Net>,
}

/// All that it takes to send to another node that can be reached by headers over IPv4 that are the same for all packets.
#[derive(Debug, Clone)]
pub struct Way {
    /// The outer headers.
    pub template: Template4,
    /// Largest IP packet that the tunnel carries, in bytes; 0 if there is no such way.
    pub mtu: u16,
    /// The port to the underlay.
    pub uplink: PortIndex,
}

impl Way {
    /// Nowhere.
    pub const NONE: Self = Self { template: Template4::NONE, mtu: 0, uplink: PortIndex(u16::MAX) };
}

// Found by a shift.
const _: () = assert!(size_of::<Way>() == 128);

/// What a tunnel to this endpoint takes from the underlay's MTU, in bytes: all outer headers but that of Ethernet, and the
/// inner one of Ethernet, which is as long.
pub fn overhead(vtep: IpAddr) -> u16 {
    if vtep.is_ipv4() { OVERHEAD_V4 as u16 } else { OVERHEAD_V6 as u16 }
}

impl Remote {
    /// What is left of it when only sending counts.
    pub(super) fn way(&self, uplink: Option<PortIndex>) -> Way {
        match (self.template.as_ref().ok().and_then(Template::fixed4), uplink) {
            (Some(&template), Some(uplink)) => Way { template, mtu: self.mtu, uplink },
            _ => Way::NONE,
        }
    }

    /// `path_mtu` is that of the underlay's way there, as far as it is known to be less than this node's.
    pub(super) fn new(
        node: &RemoteNode,
        tenant: Tenant,
        local: Option<&LocalNode>,
        uplink: Option<EthAddr>,
        neighbours: &Map<IpAddr, EthAddr>,
        path_mtu: Option<u16>,
    ) -> Self {
        let underlay = local.map_or(0, |local| local.underlay_mtu);
        let mtu = underlay.min(path_mtu.unwrap_or(underlay)).saturating_sub(overhead(node.vtep));
        let template = Self::template(node, tenant, local, uplink, neighbours);
        let pods4 = node.pod_cidrs.iter().find_map(|net| match net {
            IpNet::V4(net) => Some(*net),
            IpNet::V6(_) => None,
        });
        Self { name: node.name.clone(), tenant, vtep: node.vtep, mtu, template, pods4 }
    }

    fn template(
        node: &RemoteNode,
        tenant: Tenant,
        local: Option<&LocalNode>,
        uplink: Option<EthAddr>,
        neighbours: &Map<IpAddr, EthAddr>,
    ) -> Result<Template, Unreachable> {
        let (local, uplink) = local.zip(uplink).ok_or(Unreachable::NoWay)?;
        let (own, next_hop) = local.way_to(node.vtep).ok_or(Unreachable::NoWay)?;
        let next_hop = next_hop.ok_or(Unreachable::NoWay)?;
        Ok(Template::new(&Tunnel {
            outer_dst: *neighbours.get(&next_hop).ok_or(Unreachable::Unresolved)?,
            outer_src: uplink,
            endpoints: Endpoints::new(own, node.vtep).ok_or(Unreachable::NoWay)?,
            encapsulation: local.tunnels.encapsulation,
            vni: local.vni_of(tenant).ok_or(Unreachable::NoWay)?.get(),
            udp_port: local.tunnels.port,
            marking: local.tunnels.marking,
            zero_checksum6: local.tunnels.send_zero_checksum6,
            inner_dst: node.vtep_mac,
            inner_src: local.vtep_mac,
        }))
    }
}
