//! Other nodes.

use std::net::IpAddr;

use culvert_api::fastpath as proto;
use culvert_packet::encap::{Endpoints, OVERHEAD_V4, OVERHEAD_V6, Template, Template4, Tunnel};
use culvert_packet::eth::EthAddr;
use ipnet::IpNet;

use super::error::{Problem, TableError};
use super::local::LocalNode;
use super::map::Map;
use super::port::PortIndex;
use super::wire;

/// Most remote nodes: their slots fit into a flow entry.
pub const MAX_REMOTES: usize = 16_384;

/// Another node as the agent describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteNode {
    pub(super) name: String,
    pub(super) vtep: IpAddr,
    pub(super) vtep_mac: EthAddr,
    pub(super) pod_cidrs: Vec<IpNet>,
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
                pod_cidrs: node
                    .pod_cidrs
                    .iter()
                    .map(|cidr| wire::prefix("podCIDR", cidr))
                    .collect::<Result<_, _>>()?,
            })
        };
        build().map_err(|problem| TableError::new(format!("remote {}", node.name), problem))
    }
}

/// Why there is no way to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// This node has no underlay address of the endpoint's IP version, no router for it, or no uplink.
    NoWay,
    /// The Ethernet address of the next hop is not known yet.
    Unresolved,
}

/// Another node, ready to send to.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Name of the Node object.
    pub name: String,
    /// Underlay address of its tunnel endpoint.
    pub vtep: IpAddr,
    /// Largest IP packet that the tunnel carries, in bytes.
    pub mtu: u16,
    /// The outer headers.
    pub template: Result<Template, Unreachable>,
}

/// All that it takes to send to another node that can be reached by headers over IPv4 that are the same for all packets.
#[derive(Debug, Clone)]
pub struct Way {
    /// The outer headers.
    pub template: Template4,
    /// Largest IP packet that the tunnel carries, in bytes.
    pub mtu: u16,
    /// The port to the underlay.
    pub uplink: PortIndex,
}

impl Remote {
    /// What is left of it when only sending counts.
    pub(super) fn way(&self, uplink: Option<PortIndex>) -> Option<Way> {
        Some(Way { template: *self.template.as_ref().ok()?.fixed4()?, mtu: self.mtu, uplink: uplink? })
    }

    pub(super) fn new(
        node: &RemoteNode,
        local: Option<&LocalNode>,
        uplink: Option<EthAddr>,
        neighbours: &Map<IpAddr, EthAddr>,
    ) -> Self {
        // All outer headers: the outer Ethernet header does not count, but the inner one, as long, does.
        let overhead = if node.vtep.is_ipv4() { OVERHEAD_V4 } else { OVERHEAD_V6 };
        let mtu = local.map_or(0, |local| local.underlay_mtu.saturating_sub(overhead as u16));
        let template = Self::template(node, local, uplink, neighbours);
        Self { name: node.name.clone(), vtep: node.vtep, mtu, template }
    }

    fn template(
        node: &RemoteNode,
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
            vni: local.vni.get(),
            udp_port: local.tunnels.port,
            marking: local.tunnels.marking,
            zero_checksum6: local.tunnels.send_zero_checksum6,
            inner_dst: node.vtep_mac,
            inner_src: local.vtep_mac,
        }))
    }
}
