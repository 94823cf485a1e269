//! Node objects: this node's own addresses, and how to reach the others.

use std::collections::btree_map::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use culvert_api::config::agent::{DscpModel, EcnMode, Encapsulation, Overlay, Tenant, Ttl};
use culvert_api::fastpath::{self, LocalNode, Marking, Prefix, RemoteNode, TenantRanges, UnderlayAddress};
use culvert_api::value::{Mac, Mtu, Vni};
use ipnet::IpNet;

use super::problems::Problems;
use super::{Settings, TableSet, octets};
use crate::kube::{Node, ObjectId};
use crate::shared_map::{Difference, SharedMap};

/// Annotation of a Node: its address on the underlay, where that is not its InternalIP.
pub const VTEP_ADDRESS: &str = "culvert.io/vtep-address";
/// Annotation of a Node: inner MAC address of its tunnel endpoint.
pub const VTEP_MAC: &str = "culvert.io/vtep-mac";

/// Annotation of a Node, with a tenant's name behind it: ranges of the tenant's pods, at most one of each family, where
/// these are not those of the node's other pods.
pub const TENANT_RANGES: &str = "culvert.io/pod-cidrs.";

/// MAC address of the router that pods see, the same on every node: a pod's neighbour entry holds wherever it runs.
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0x63, 0x00, 0x00, 0x00, 0x01];

/// Length of the prefix that the nodes' IPv6 underlay addresses share.
const UNDERLAY_PREFIX_V6: u32 = 64;

/// What the overlay needs to know of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddresses {
    /// Ranges of its pods, at most one of each family.
    pub pod_cidrs: Vec<IpNet>,
    /// Ranges of the pods of each tenant, which may be the same.
    pub tenants: BTreeMap<Vni, Vec<IpNet>>,
    /// Its addresses on the underlay, the preferred one first, at most one of each family.
    pub underlay: Vec<IpAddr>,
    /// Inner MAC address of its tunnel endpoint, if it was given one.
    pub vtep_mac: Option<Mac>,
}

impl NodeAddresses {
    /// Reads a Node object.
    ///
    /// # Errors
    /// What keeps the node out of the overlay. Lesser faults go to `problems`.
    pub fn of(node: &Node, tenants: &[Tenant], problems: &mut Vec<String>) -> Result<Self, String> {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let annotation = |key: &str| node.metadata.annotations.as_ref().and_then(|a| a.get(key));
        let vtep_mac = annotation(VTEP_MAC)
            .map(|text| text.parse::<Mac>().map_err(|e| format!("node {name}: annotation {VTEP_MAC}: {e}")))
            .transpose()?;
        let underlay = match annotation(VTEP_ADDRESS) {
            Some(text) => {
                let address = text.parse().ok().filter(is_host).ok_or_else(|| {
                    format!("node {name}: annotation {VTEP_ADDRESS} {text:?}: must be one unicast IP address")
                })?;
                vec![address]
            }
            None => internal_ips(node, name, problems),
        };
        if underlay.is_empty() {
            return Err(format!(
                "node {name}: no InternalIP in status.addresses and no annotation {VTEP_ADDRESS}"
            ));
        }
        let mut pod_cidrs = pod_cidrs(node, name, problems);
        pod_cidrs.retain(|cidr| {
            let own = underlay.iter().find(|address| cidr.contains(*address));
            if let Some(own) = own {
                problems.push(format!("node {name}: pod range {cidr}: holds the node's own address {own}"));
            }
            own.is_none()
        });
        if pod_cidrs.is_empty() {
            return Err(format!("node {name}: no usable spec.podCIDRs"));
        }
        let mut of_tenant = |tenant: &Tenant| match annotation(&format!("{TENANT_RANGES}{}", tenant.name)) {
            Some(text) => {
                let what = format!("node {name}: tenant {}: pod range", tenant.name);
                ranges(text.split(',').map(str::trim), &what, problems)
            }
            None => pod_cidrs.clone(),
        };
        let tenants = tenants.iter().map(|tenant| (tenant.vni, of_tenant(tenant))).collect();
        Ok(Self { pod_cidrs, tenants, underlay, vtep_mac })
    }

    /// Ranges of a tenant's pods, or of the cluster's own.
    pub fn ranges_of(&self, tenant: Option<Vni>) -> &[IpNet] {
        match tenant {
            None => &self.pod_cidrs,
            Some(vni) => self.tenants.get(&vni).map_or(&[], Vec::as_slice),
        }
    }

    /// Whether its packets to other nodes go over IPv4 where these have that, too.
    pub fn is_over_ipv4(&self) -> bool {
        self.underlay.iter().any(IpAddr::is_ipv4)
    }

    /// The address that pods of `cidr` use as their router: the first of the range.
    pub fn gateway(cidr: &IpNet) -> IpAddr {
        match cidr {
            IpNet::V4(net) => IpAddr::V4((u32::from(net.network()) + 1).into()),
            IpNet::V6(net) => IpAddr::V6((u128::from(net.network()) + 1).into()),
        }
    }

    /// Inner MAC address of the tunnel endpoint at `vtep`: the annotated one, else 02:63 and the last four bytes of
    /// the address.
    fn mac(&self, vtep: IpAddr) -> [u8; 6] {
        let derived = || {
            let octets = octets(vtep);
            let mut mac = [0x02, 0x63, 0, 0, 0, 0];
            mac[2..].copy_from_slice(&octets[octets.len() - 4..]);
            mac
        };
        self.vtep_mac.map_or_else(derived, Mac::octets)
    }
}

/// What is known of the nodes beside the tables.
#[derive(Debug, PartialEq)]
pub(super) struct Nodes {
    /// This node, if its object is there and complete.
    own: Option<NodeAddresses>,
    claims: Claims,
}

impl Nodes {
    /// Puts this node and the others into `tables`, and what is wrong with each into `problems`.
    pub(super) fn whole(
        settings: &Settings,
        nodes: &SharedMap<Arc<str>, Node>,
        tables: &mut TableSet,
        problems: &mut Problems,
    ) -> Self {
        let (local, overlay) = (settings.node.as_str(), &settings.overlay);
        let mut claims = Claims::default();
        let mut lines = Vec::new();
        let own = match nodes.get(local) {
            Some(node) => {
                NodeAddresses::of(node, &overlay.tenants, &mut lines).map_err(|e| lines.push(e)).ok()
            }
            None => {
                lines.push(format!(
                    "node {local}: there is no Node object of this name, the name of this node"
                ));
                None
            }
        };
        if let Some(own) = &own
            && overlay.pod_mtu(own.is_over_ipv4()) < Mtu::MIN.get()
        {
            lines.push(format!(
                "node {local}: overlay.underlayMtu {} leaves pods {} bytes over IPv6, less than the {} that IPv6 needs",
                overlay.underlay_mtu,
                overlay.pod_mtu(false),
                Mtu::MIN
            ));
        }
        // This node's own ranges first: whatever another object says, they are here.
        let own = own.map(|addresses| {
            claims.vteps.extend(addresses.underlay.iter().map(|vtep| (*vtep, local.to_owned())));
            claims.grant(local, addresses, &mut lines)
        });
        problems.set(ObjectId::node(local), lines);
        tables.node = own.as_ref().map(|addresses| Arc::new(local_node(local, addresses, overlay)));
        let mut known = Self { own, claims };
        let mut remotes = SharedMap::default();
        for (name, node) in nodes.iter().filter(|(name, _)| ***name != *local) {
            if let Some(remote) = known.remote(settings, name, node, problems) {
                remotes.insert(name.to_string(), remote);
            }
        }
        tables.remotes.become_like(&remotes);
        known
    }

    /// The same where `old` was in `tables` before and `new` is to be.
    pub(super) fn update(
        &mut self,
        settings: &Settings,
        [old, new]: [&SharedMap<Arc<str>, Node>; 2],
        tables: &mut TableSet,
        problems: &mut Problems,
    ) {
        let differences = old.differences(new);
        let this_node = differences.iter().any(|difference| **difference.key == *settings.node);
        // Who gets what two of them claim depends on all the others.
        if this_node || self.claims.refused || !self.change(settings, &differences, tables, problems) {
            let gone = differences.iter().filter(|difference| difference.new.is_none());
            gone.for_each(|gone| problems.set(ObjectId::node(Arc::clone(gone.key)), vec![]));
            *self = Self::whole(settings, new, tables, problems);
        }
    }

    /// Changes other nodes; `false` if one of them claims what another has.
    fn change(
        &mut self,
        settings: &Settings,
        differences: &[Difference<'_, Arc<str>, Node>],
        tables: &mut TableSet,
        problems: &mut Problems,
    ) -> bool {
        for Difference { key: name, old, .. } in differences {
            let old = old.and_then(|old| NodeAddresses::of(old, &settings.overlay.tenants, &mut vec![]).ok());
            old.iter().for_each(|old| self.claims.release(name, old));
        }
        for Difference { key: name, new, .. } in differences {
            let remote = match new {
                Some(node) => self.remote(settings, name, node, problems),
                None => {
                    problems.set(ObjectId::node(Arc::clone(name)), vec![]);
                    None
                }
            };
            match remote {
                Some(remote) => tables.remotes.insert(name.to_string(), remote),
                None => drop(tables.remotes.remove(&***name)),
            }
        }
        !self.claims.refused
    }

    fn remote(
        &mut self,
        settings: &Settings,
        name: &Arc<str>,
        node: &Node,
        problems: &mut Problems,
    ) -> Option<RemoteNode> {
        let mut lines = Vec::new();
        let remote = match NodeAddresses::of(node, &settings.overlay.tenants, &mut lines) {
            Ok(addresses) => {
                let addresses = self.claims.grant(name, addresses, &mut lines);
                remote_node(name, &addresses, self.own.as_ref(), &mut self.claims, &mut lines)
            }
            Err(problem) => {
                lines.push(problem);
                None
            }
        };
        problems.set(ObjectId::node(Arc::clone(name)), lines);
        remote
    }
}

fn local_node(name: &str, addresses: &NodeAddresses, overlay: &Overlay) -> LocalNode {
    let underlay = addresses.underlay.iter().map(|address| {
        let router = overlay.underlay_router.filter(|r| r.is_ipv4() == address.is_ipv4());
        UnderlayAddress {
            address: octets(*address),
            prefix_len: if address.is_ipv4() { overlay.underlay_prefix.into() } else { UNDERLAY_PREFIX_V6 },
            router: router.map(octets).unwrap_or_default(),
        }
    });
    LocalNode {
        name: name.to_owned(),
        gateways: addresses.pod_cidrs.iter().map(|cidr| octets(NodeAddresses::gateway(cidr))).collect(),
        gateway_mac: GATEWAY_MAC.to_vec(),
        underlay: underlay.collect(),
        vtep_mac: addresses.mac(addresses.underlay[0]).to_vec(),
        vni: overlay.vni.get(),
        tunnel_port: overlay.port.into(),
        underlay_mtu: overlay.underlay_mtu.get().into(),
        pod_cidrs: addresses.pod_cidrs.iter().map(prefix).collect(),
        encapsulation: match overlay.encapsulation {
            Encapsulation::Vxlan => fastpath::Encapsulation::Vxlan.into(),
            Encapsulation::Geneve => fastpath::Encapsulation::Geneve.into(),
        },
        marking: Some(marking(overlay)),
        send_zero_checksum6: overlay.zero_checksum.send,
        accept_zero_checksum6: overlay.zero_checksum.accept,
        flows: Some((&overlay.flows).into()),
        tenants: overlay.tenants.iter().map(|tenant| local_tenant(tenant, addresses)).collect(),
    }
}

fn marking(overlay: &Overlay) -> Marking {
    let (dscp_model, dscp) = match overlay.dscp {
        DscpModel::Pipe(dscp) => (fastpath::DscpModel::Pipe, dscp),
        DscpModel::Copy => (fastpath::DscpModel::Copy, 0),
        DscpModel::Uniform => (fastpath::DscpModel::Uniform, 0),
    };
    let ecn = match overlay.ecn {
        EcnMode::Normal => fastpath::EcnMode::Normal,
        EcnMode::Compatibility => fastpath::EcnMode::Compatibility,
    };
    let (ttl, copy_ttl) = match overlay.ttl {
        Ttl::Fixed(ttl) => (ttl.into(), false),
        Ttl::Copy => (0, true),
    };
    Marking { dscp_model: dscp_model.into(), dscp: dscp.into(), ecn: ecn.into(), ttl, copy_ttl }
}

fn local_tenant(tenant: &Tenant, addresses: &NodeAddresses) -> fastpath::Tenant {
    let ranges = addresses.ranges_of(Some(tenant.vni));
    fastpath::Tenant {
        id: tenant.vni.get(),
        vni: tenant.vni.get(),
        gateways: ranges.iter().map(|cidr| octets(NodeAddresses::gateway(cidr))).collect(),
        pod_cidrs: ranges.iter().map(prefix).collect(),
        name: tenant.name.clone(),
    }
}

fn remote_node(
    name: &str,
    addresses: &NodeAddresses,
    own: Option<&NodeAddresses>,
    claims: &mut Claims,
    problems: &mut Vec<String>,
) -> Option<RemoteNode> {
    let reachable =
        |a: &&IpAddr| own.is_none_or(|own| own.underlay.iter().any(|o| o.is_ipv4() == a.is_ipv4()));
    let Some(vtep) = addresses.underlay.iter().find(reachable).copied() else {
        problems.push(format!("node {name}: no underlay address of a family that this node has too"));
        return None;
    };
    if let Some(other) = claims.vteps.get(&vtep) {
        claims.refused = true;
        problems
            .push(format!("node {name}: underlay address {vtep} is that of node {other}; the first counts"));
        return None;
    }
    claims.vteps.insert(vtep, name.to_owned());
    let tenants = addresses.tenants.iter().filter(|(_, ranges)| !ranges.is_empty());
    let tenants = tenants.map(|(vni, ranges)| TenantRanges {
        tenant: vni.get(),
        pod_cidrs: ranges.iter().map(prefix).collect(),
    });
    let tenants: Vec<_> = tenants.collect();
    (!addresses.pod_cidrs.is_empty() || !tenants.is_empty()).then(|| RemoteNode {
        name: name.to_owned(),
        vtep: octets(vtep),
        vtep_mac: addresses.mac(vtep).to_vec(),
        pod_cidrs: addresses.pod_cidrs.iter().map(prefix).collect(),
        tenants,
    })
}

/// What nodes have claimed: no two may have the same underlay address, or the same pod range of one tenant.
#[derive(Debug, Default, PartialEq)]
struct Claims {
    vteps: BTreeMap<IpAddr, String>,
    /// Disjoint ranges of each tenant, and of the cluster's own pods, by their first address.
    cidrs: BTreeMap<(Option<Vni>, IpAddr), (IpNet, String)>,
    /// A claim was refused.
    refused: bool,
}

impl Claims {
    /// `addresses` without the ranges that overlap with those of a node before.
    fn grant(
        &mut self,
        name: &str,
        mut addresses: NodeAddresses,
        problems: &mut Vec<String>,
    ) -> NodeAddresses {
        addresses.pod_cidrs.retain(|cidr| self.claim(name, None, cidr, problems));
        for (vni, ranges) in &mut addresses.tenants {
            ranges.retain(|cidr| self.claim(name, Some(*vni), cidr, problems));
        }
        addresses
    }

    /// Takes back what a node claimed that was granted all.
    fn release(&mut self, name: &str, addresses: &NodeAddresses) {
        let own = addresses.pod_cidrs.iter().map(|cidr| (None, cidr));
        let of_tenants = addresses.tenants.iter();
        let of_tenants = of_tenants.flat_map(|(vni, ranges)| ranges.iter().map(|cidr| (Some(*vni), cidr)));
        for (tenant, cidr) in own.chain(of_tenants) {
            self.cidrs.remove(&(tenant, cidr.network()));
        }
        // Of its addresses it has claimed the one that is used from here.
        for address in &addresses.underlay {
            if self.vteps.get(address).is_some_and(|owner| owner == name) {
                self.vteps.remove(address);
            }
        }
    }

    fn claim(&mut self, name: &str, tenant: Option<Vni>, cidr: &IpNet, problems: &mut Vec<String>) -> bool {
        if let Some((other, owner)) = self.overlap(tenant, cidr) {
            let of = tenant.map_or_else(String::new, |vni| format!(" of VNI {vni}"));
            problems.push(format!(
                "node {name}: pod range {cidr}{of} overlaps with {other} of node {owner}; the first counts"
            ));
            self.refused = true;
            return false;
        }
        self.cidrs.insert((tenant, cidr.network()), (*cidr, name.to_owned()));
        true
    }

    /// Two ranges are disjoint or one holds the other: only the neighbours in order need a look.
    fn overlap(&self, tenant: Option<Vni>, cidr: &IpNet) -> Option<&(IpNet, String)> {
        let at = (tenant, cidr.network());
        let before = self.cidrs.range(..=at).next_back();
        let after = self.cidrs.range(at..).next();
        let neighbours = before.into_iter().chain(after).filter(|((of, _), _)| *of == tenant);
        let touches = |other: &IpNet| other.contains(cidr) || cidr.contains(other);
        neighbours.map(|(_, claim)| claim).find(|(other, _)| touches(other))
    }
}

fn internal_ips(node: &Node, name: &str, problems: &mut Vec<String>) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    let listed = node.status.as_ref().and_then(|s| s.addresses.as_ref());
    for address in listed.into_iter().flatten().filter(|a| a.type_ == "InternalIP") {
        match address.address.parse().ok().filter(is_host) {
            Some(ip) if found.iter().any(|f| f.is_ipv4() == ip.is_ipv4()) => {}
            Some(ip) => found.push(ip),
            None => problems
                .push(format!("node {name}: InternalIP {:?}: must be a unicast IP address", address.address)),
        }
    }
    // Tunnels over IPv4 leave pods more of the underlay's packets.
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

fn pod_cidrs(node: &Node, name: &str, problems: &mut Vec<String>) -> Vec<IpNet> {
    let spec = node.spec.as_ref();
    let many = spec.and_then(|s| s.pod_cidrs.as_ref()).filter(|c| !c.is_empty());
    let one = spec.and_then(|s| s.pod_cidr.as_ref());
    let texts = many.map_or_else(|| one.into_iter().collect::<Vec<_>>(), |many| many.iter().collect());
    ranges(texts.into_iter().map(String::as_str), &format!("node {name}: pod range"), problems)
}

/// At most one range of each family, IPv4 first. `what` begins what is said of another.
fn ranges<'a>(
    texts: impl IntoIterator<Item = &'a str>,
    what: &str,
    problems: &mut Vec<String>,
) -> Vec<IpNet> {
    let mut cidrs: Vec<IpNet> = Vec::new();
    for text in texts.into_iter().filter(|text| !text.is_empty()) {
        match text.parse::<IpNet>() {
            Ok(cidr) if !is_pod_range(&cidr) => problems.push(format!(
                "{what} {text}: must be a range of unicast addresses with room for a gateway and a pod"
            )),
            Ok(cidr) if cidrs.iter().any(|c| c.addr().is_ipv4() == cidr.addr().is_ipv4()) => {
                problems.push(format!("{what} {text}: is the second of its family, which is not used"));
            }
            Ok(cidr) => cidrs.push(cidr.trunc()),
            Err(_) => problems.push(format!("{what} {text:?}: must look like 10.1.0.0/24 or fd00::/64")),
        }
    }
    cidrs.sort_by_key(|c| c.addr().is_ipv6());
    cidrs
}

fn is_pod_range(cidr: &IpNet) -> bool {
    let room = cidr.max_prefix_len() - cidr.prefix_len() >= 2;
    room && cidr.prefix_len() > 0 && is_host(&cidr.network())
}

/// Whether `address` is one that a machine has and routers forward to. IPv4: neither "this network" (0.0.0.0/8) nor
/// class E, which nobody forwards; IPv6: no IPv4-mapped address, which is none on the wire (RFC 6890).
pub(super) fn is_host(address: &IpAddr) -> bool {
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        return false;
    }
    match address {
        IpAddr::V4(a) => !a.is_link_local() && (1..240).contains(&a.octets()[0]),
        IpAddr::V6(a) => !a.is_unicast_link_local() && a.to_ipv4_mapped().is_none(),
    }
}

fn prefix(net: &IpNet) -> Prefix {
    Prefix { address: octets(net.network()), prefix_len: net.prefix_len().into() }
}

#[cfg(test)]
mod tests;
