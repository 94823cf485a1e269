//! This node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use culvert_api::fastpath as proto;
use culvert_api::value::{Mtu, Vni};
use culvert_packet::eth::EthAddr;
use culvert_packet::flow::Tenant;
use ipnet::IpNet;

use super::domain::{self, Domain};
use super::error::{Problem, TableError};
use super::policy::FlowPolicy;
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
    /// Tenants other than the default one, whose router, network identifier and ranges are above; in order.
    pub domains: Vec<Domain>,
    /// Their network identifiers, in order.
    vnis: Vec<(u32, Tenant)>,
    /// How connections are treated.
    pub flows: FlowPolicy,
}

impl LocalNode {
    /// A tenant other than the default one.
    pub fn domain(&self, tenant: Tenant) -> Option<&Domain> {
        let found = self.domains.binary_search_by_key(&tenant, |domain| domain.tenant);
        found.ok().map(|index| &self.domains[index])
    }

    /// The tenant that has this network identifier.
    pub fn tenant_of(&self, vni: u32) -> Option<Tenant> {
        if vni == self.vni.get() {
            return Some(Tenant::DEFAULT);
        }
        let found = self.vnis.binary_search_by_key(&vni, |&(vni, _)| vni);
        found.ok().map(|index| self.vnis[index].1)
    }

    /// The network identifier of a tenant.
    pub fn vni_of(&self, tenant: Tenant) -> Option<Vni> {
        if tenant == Tenant::DEFAULT { Some(self.vni) } else { self.domain(tenant).map(|domain| domain.vni) }
    }

    /// The addresses that a tenant's pods use as their router.
    pub fn gateways(&self, tenant: Tenant) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
        if tenant == Tenant::DEFAULT {
            return (self.gateway4, self.gateway6);
        }
        self.domain(tenant).map_or((None, None), |domain| (domain.gateway4, domain.gateway6))
    }

    /// Whether a tenant's pods use `address` as their router.
    #[inline]
    pub fn is_gateway(&self, tenant: Tenant, address: IpAddr) -> bool {
        let (gateway4, gateway6) = self.gateways(tenant);
        match address {
            IpAddr::V4(v4) => gateway4 == Some(v4),
            IpAddr::V6(v6) => gateway6 == Some(v6),
        }
    }

    /// Whether an address that a tenant's packet is sent to is one of this node's own. Those on the underlay are so for the
    /// default tenant only: for another they may be a pod's.
    #[inline]
    pub fn is_own(&self, tenant: Tenant, address: IpAddr) -> bool {
        self.is_gateway(tenant, address) || tenant == Tenant::DEFAULT && self.is_vtep(address)
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
            let (gateway4, gateway6) = domain::gateways(&node.gateways)?;
            let underlay = node.underlay.iter().map(underlay).collect::<Result<Vec<_>, _>>()?;
            let addresses: Vec<_> = underlay.iter().map(|own| own.net.addr()).collect();
            wire::one_of_each("underlay address", &addresses)?;
            let gateways = gateway4.map(IpAddr::V4).into_iter().chain(gateway6.map(IpAddr::V6));
            if let Some(address) = gateways.into_iter().find(|gateway| addresses.contains(gateway)) {
                return Err(Problem::AddressTaken {
                    field: "gateway",
                    address,
                    owner: "the underlay".to_owned(),
                });
            }
            let or = |value, default| if value == 0 { default } else { value };
            Ok(Self {
                name: node.name.clone(),
                gateway4,
                gateway6,
                gateway_mac: wire::mac("gateway_mac", &node.gateway_mac)?,
                underlay,
                vtep_mac: wire::mac("vtep_mac", &node.vtep_mac)?,
                vni: Vni::try_from(node.vni)?,
                tunnels: Tunnels::try_from(node)?,
                underlay_mtu: Mtu::try_from(or(node.underlay_mtu, DEFAULT_UNDERLAY_MTU))?.get(),
                pod_cidrs: wire::prefixes("podCIDR", &node.pod_cidrs)?,
                domains: Vec::new(),
                vnis: Vec::new(),
                flows: node.flows.as_ref().map_or(Ok(FlowPolicy::DEFAULT), FlowPolicy::try_from)?,
            })
        };
        let local =
            build().map_err(|problem| TableError::new(format!("local node {}", node.name), problem))?;
        let domains = domain::domains(&node.tenants, local.vni)?;
        let mut vnis: Vec<_> = domains.iter().map(|domain| (domain.vni.get(), domain.tenant)).collect();
        vnis.sort_unstable();
        Ok(Self { domains, vnis, ..local })
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
