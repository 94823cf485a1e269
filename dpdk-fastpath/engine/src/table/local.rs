//! This node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use culvert_api::fastpath as proto;
use culvert_api::value::{Mtu, Vni};
use culvert_packet::eth::EthAddr;
use ipnet::IpNet;

use super::error::{Problem, TableError};
use super::tunnel::Tunnels;
use super::wire;

const DEFAULT_UNDERLAY_MTU: u32 = 1500;

/// An address of this node on the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnderlayAddress {
    /// The address with the length of the network that is on the link.
    pub net: IpNet,
    /// Next hop for addresses that are not on the link.
    pub router: Option<IpAddr>,
}

/// This node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalNode {
    /// Name of the Node object.
    pub name: String,
    /// IPv4 address that pods use as their router.
    pub gateway4: Option<Ipv4Addr>,
    /// IPv6 address that pods use as their router.
    pub gateway6: Option<Ipv6Addr>,
    /// Ethernet address of the router as pods see it.
    pub gateway_mac: EthAddr,
    /// Addresses on the underlay, at most one of each IP version: the tunnel endpoints.
    pub underlay: Vec<UnderlayAddress>,
    /// Ethernet address of this node inside tunnels.
    pub vtep_mac: EthAddr,
    /// Network identifier of the overlay.
    pub vni: Vni,
    /// What holds for all tunnels.
    pub tunnels: Tunnels,
    /// Largest IP packet of the underlay, in bytes.
    pub underlay_mtu: u16,
    /// Address ranges of this node's pods.
    pub pod_cidrs: Vec<IpNet>,
}

impl LocalNode {
    /// Whether pods use `address` as their router.
    #[inline]
    pub fn is_gateway(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.gateway4 == Some(v4),
            IpAddr::V6(v6) => self.gateway6 == Some(v6),
        }
    }

    /// Whether `address` is one of this node's on the underlay.
    #[inline]
    pub fn is_vtep(&self, address: IpAddr) -> bool {
        self.underlay.iter().any(|own| own.net.addr() == address)
    }

    /// This node's IPv4 address on the underlay.
    pub fn vtep4(&self) -> Option<Ipv4Addr> {
        self.underlay.iter().find_map(|own| match own.net.addr() {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        })
    }

    /// Our tunnel endpoint towards `vtep`, and the underlay's next hop to it.
    pub(super) fn way_to(&self, vtep: IpAddr) -> Option<(IpAddr, Option<IpAddr>)> {
        let own = self.underlay.iter().find(|own| own.net.addr().is_ipv4() == vtep.is_ipv4())?;
        let next_hop = if own.net.contains(&vtep) { Some(vtep) } else { own.router };
        Some((own.net.addr(), next_hop))
    }
}

impl TryFrom<&proto::LocalNode> for LocalNode {
    type Error = TableError;

    fn try_from(node: &proto::LocalNode) -> Result<Self, TableError> {
        let build = || -> Result<Self, Problem> {
            wire::text("name", &node.name)?;
            let gateways = wire::addresses("gateway", &node.gateways)?;
            let underlay = node.underlay.iter().map(underlay).collect::<Result<Vec<_>, _>>()?;
            let addresses: Vec<_> = underlay.iter().map(|own| own.net.addr()).collect();
            wire::one_of_each("underlay address", &addresses)?;
            if let Some(&address) = gateways.iter().find(|gateway| addresses.contains(gateway)) {
                return Err(Problem::AddressTaken {
                    field: "gateway",
                    address,
                    owner: "the underlay".to_owned(),
                });
            }
            let or = |value, default| if value == 0 { default } else { value };
            Ok(Self {
                name: node.name.clone(),
                gateway4: gateways.iter().find_map(|a| if let IpAddr::V4(v4) = a { Some(*v4) } else { None }),
                gateway6: gateways.iter().find_map(|a| if let IpAddr::V6(v6) = a { Some(*v6) } else { None }),
                gateway_mac: wire::mac("gateway_mac", &node.gateway_mac)?,
                underlay,
                vtep_mac: wire::mac("vtep_mac", &node.vtep_mac)?,
                vni: Vni::try_from(node.vni)?,
                tunnels: Tunnels::try_from(node)?,
                underlay_mtu: Mtu::try_from(or(node.underlay_mtu, DEFAULT_UNDERLAY_MTU))?.get(),
                pod_cidrs: node
                    .pod_cidrs
                    .iter()
                    .map(|cidr| wire::prefix("podCIDR", cidr))
                    .collect::<Result<_, _>>()?,
            })
        };
        build().map_err(|problem| TableError::new(format!("local node {}", node.name), problem))
    }
}

fn underlay(own: &proto::UnderlayAddress) -> Result<UnderlayAddress, Problem> {
    let address = wire::address("underlay address", &own.address)?;
    let router =
        if own.router.is_empty() { None } else { Some(wire::any_address("underlay router", &own.router)?) };
    if let Some(router) = router.filter(|router| router.is_ipv4() != address.is_ipv4()) {
        return Err(Problem::AddressFamily { field: "underlay router", address: router, other: address });
    }
    Ok(UnderlayAddress { net: wire::net("underlay address", address, own.prefix_len)?, router })
}
