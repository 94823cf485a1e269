//! Tenants other than the cluster's own, as a node has them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use culvert_api::fastpath as proto;
use culvert_api::value::Vni;
use culvert_packet::flow::Tenant;
use ipnet::IpNet;

use super::error::{Problem, TableError};
use super::{port, wire};

/// A tenant as this node has it: a routing domain whose addresses are apart from all others'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its number.
    pub tenant: Tenant,
    /// Its name, for people.
    pub name: String,
    /// Its network identifier in tunnels.
    pub vni: Vni,
    /// IPv4 address that its pods use as their router.
    pub gateway4: Option<Ipv4Addr>,
    /// IPv6 address that its pods use as their router.
    pub gateway6: Option<Ipv6Addr>,
    /// Address ranges of its pods on this node.
    pub pod_cidrs: Vec<IpNet>,
}

impl TryFrom<&proto::Tenant> for Domain {
    type Error = TableError;

    fn try_from(tenant: &proto::Tenant) -> Result<Self, TableError> {
        let build = || -> Result<Self, Problem> {
            let (gateway4, gateway6) = gateways(&tenant.gateways)?;
            Ok(Self {
                tenant: other(tenant.id)?,
                name: tenant.name.clone(),
                vni: Vni::try_from(tenant.vni)?,
                gateway4,
                gateway6,
                pod_cidrs: wire::prefixes("podCIDR", &tenant.pod_cidrs)?,
            })
        };
        build().map_err(|problem| TableError::new(format!("tenant {}", tenant.id), problem))
    }
}

/// A tenant that is not the default one.
pub(super) fn other(id: u32) -> Result<Tenant, Problem> {
    match port::tenant(id)? {
        Tenant::DEFAULT => Err(Problem::Range { field: "tenant", value: 0, min: 1, max: 0xff_ffff }),
        tenant => Ok(tenant),
    }
}

/// At most one router of each IP version.
pub(super) fn gateways(list: &[Vec<u8>]) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), Problem> {
    let (mut gateway4, mut gateway6) = (None, None);
    for address in wire::addresses("gateway", list)? {
        match address {
            IpAddr::V4(v4) => gateway4 = Some(v4),
            IpAddr::V6(v6) => gateway6 = Some(v6),
        }
    }
    Ok((gateway4, gateway6))
}

/// Tenants in order of their number, each once and each with a network identifier of its own.
pub(super) fn domains(list: &[proto::Tenant], own: Vni) -> Result<Vec<Domain>, TableError> {
    let mut domains = list.iter().map(Domain::try_from).collect::<Result<Vec<_>, _>>()?;
    domains.sort_unstable_by_key(|domain| domain.tenant);
    for (index, domain) in domains.iter().enumerate() {
        let refused = |problem| Err(TableError::new(format!("tenant {}", domain.tenant.get()), problem));
        let before = &domains[..index];
        if before.last().is_some_and(|other| other.tenant == domain.tenant) {
            return refused(Problem::Twice);
        }
        let taken = before.iter().find(|other| other.vni == domain.vni).map(|other| other.tenant.get());
        if let Some(owner) = taken.or((domain.vni == own).then_some(0)) {
            return refused(Problem::VniTaken { vni: domain.vni.get(), owner });
        }
    }
    Ok(domains)
}
