//! What the node itself needs of its network interfaces.
//!
//! A NIC that the node lives on must not be carved by mistake: creating VFs resets many NICs, and the node is gone
//! with its NIC. [`Claims`] tells for each interface what stands on it: default routes, gateways, addresses; its own
//! and those of the bonds, bridges, VLANs, macvlans, VRFs and Open vSwitch bridges above it.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::netlink::{Link, Netlink, NetlinkError, Route};

#[cfg(test)]
mod tests;

/// What stands on each interface of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims(BTreeMap<u32, Vec<String>>);

impl Claims {
    /// Asks the kernel.
    pub async fn read(netlink: &Netlink) -> Result<Self, NetlinkError> {
        let (links, addresses, routes) =
            (netlink.links().await?, netlink.addresses().await?, netlink.routes().await?);
        Ok(Self::new(&links, &addresses, &routes))
    }

    /// Works it out from all links, addresses (each with its interface) and routes of a namespace.
    pub fn new(links: &[Link], addresses: &[(u32, IpNet)], routes: &[Route]) -> Self {
        let mut own: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for route in routes {
            let Some(gateway) = route.gateway.filter(|_| !route.is_default()) else { continue };
            let claim = format!("route to {} via {gateway}", route.destination);
            own.entry(route.interface).or_default().push(claim);
        }
        for (index, address) in addresses {
            if !is_automatic(address) {
                own.entry(*index).or_default().push(format!("address {address}"));
            }
        }
        for route in routes.iter().filter(|r| r.is_default()) {
            let family = if matches!(route.destination, IpNet::V4(_)) { "IPv4" } else { "IPv6" };
            // What matters most comes first.
            own.entry(route.interface).or_default().insert(0, format!("the {family} default route"));
        }
        let graph = Graph::new(links);
        let claims = links.iter().filter_map(|link| {
            let mut all = Vec::new();
            for index in graph.above(link.index) {
                let on =
                    if index == link.index { String::new() } else { format!(" on {}", graph.name(index)) };
                all.extend(own.get(&index).into_iter().flatten().map(|claim| format!("{claim}{on}")));
            }
            (!all.is_empty()).then_some((link.index, all))
        });
        Self(claims.collect())
    }

    /// What stands on interface `index`; empty if the node does not need it.
    pub fn of(&self, index: u32) -> &[String] {
        self.0.get(&index).map_or(&[], Vec::as_slice)
    }
}

/// IPv6 link-local addresses: every interface that is up has one.
fn is_automatic(address: &IpNet) -> bool {
    matches!(address, IpNet::V6(net) if net.addr().is_unicast_link_local())
}

/// Which interface stands on which.
struct Graph<'a> {
    links: BTreeMap<u32, &'a Link>,
    /// Interfaces directly above each.
    uppers: BTreeMap<u32, Vec<u32>>,
}

impl<'a> Graph<'a> {
    fn new(links: &'a [Link]) -> Self {
        let links: BTreeMap<u32, &Link> = links.iter().map(|l| (l.index, l)).collect();
        let mut uppers: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for link in links.values() {
            if let Some(controller) = link.controller {
                uppers.entry(link.index).or_default().push(controller);
                // A switch's other ports are reached through it: Open vSwitch keeps its addresses on a port, and
                // containers hang on a bridge.
                let is_switch = |l: &&&Link| matches!(l.kind.as_deref(), Some("bridge" | "openvswitch"));
                if links.get(&controller).filter(is_switch).is_some() {
                    uppers.entry(controller).or_default().push(link.index);
                }
            }
            if let Some(lower) = link.lower {
                uppers.entry(lower).or_default().push(link.index);
            }
        }
        Self { links, uppers }
    }

    /// `index` and everything above it, nearest first.
    fn above(&self, index: u32) -> Vec<u32> {
        let mut seen = BTreeSet::from([index]);
        let mut order = vec![index];
        let mut next = 0;
        while let Some(at) = order.get(next).copied() {
            next += 1;
            for upper in self.uppers.get(&at).into_iter().flatten() {
                if seen.insert(*upper) {
                    order.push(*upper);
                }
            }
        }
        order
    }

    fn name(&self, index: u32) -> String {
        self.links.get(&index).map_or_else(|| format!("interface {index}"), |l| l.name.clone())
    }
}
