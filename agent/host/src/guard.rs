//! What the node itself needs of its network interfaces.
//!
//! A NIC that the node lives on must not be carved by mistake: creating VFs resets many NICs, and the node is gone
//! with its NIC. [`Claims`] tells for each interface what stands on it: default routes of any table, routes through
//! gateways, addresses, the way to the API server and to network storage; its own and those of the bonds, teams, bridges,
//! VLANs, macvlans, tunnels, VRFs and Open vSwitch bridges above it.

mod graph;
mod need;

use std::collections::BTreeMap;

use ipnet::IpNet;

pub use need::{ApiServer, Need, Needs};

use crate::netlink::{FibRoute, Link, Netlink, NetlinkError};
use graph::Graph;

#[cfg(test)]
mod tests;

/// What stands on each interface of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims(BTreeMap<u32, Vec<String>>);

/// What stands on one interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    /// What matters most comes first.
    rank: Rank,
    what: String,
    /// Table of the route that it is.
    table: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    DefaultRoute,
    Need,
    Route,
    Address,
}

impl Claims {
    /// Asks the kernel, without [`Need`]s.
    pub async fn read(netlink: &Netlink) -> Result<Self, NetlinkError> {
        Self::read_with(netlink, &netlink.links().await?, &Needs::default()).await
    }

    /// Asks the kernel. `links` is what it says of the namespace's interfaces.
    pub async fn read_with(netlink: &Netlink, links: &[Link], needs: &Needs) -> Result<Self, NetlinkError> {
        let (addresses, routes) = (netlink.addresses().await?, netlink.fib().await?);
        let mut towards = Vec::new();
        for need in needs.iter() {
            let interface = if need.own {
                addresses.iter().find(|(_, own)| own.addr() == need.address).map(|(index, _)| *index)
            } else {
                netlink.interface_towards(need.address).await?
            };
            towards.extend(interface.map(|interface| (interface, need.clone())));
        }
        Ok(Self::new(links, &addresses, &routes, &towards))
    }

    /// Works it out from all links, addresses (each with its interface) and routes of a namespace, and the interfaces by
    /// which the needs are reached.
    pub fn new(
        links: &[Link],
        addresses: &[(u32, IpNet)],
        routes: &[FibRoute],
        towards: &[(u32, Need)],
    ) -> Self {
        let mut own: BTreeMap<u32, Vec<Claim>> = BTreeMap::new();
        let mut add = |interface: u32, rank, what: String, table| {
            own.entry(interface).or_default().push(Claim { rank, what, table });
        };
        for FibRoute { table, destination, hops } in routes {
            for hop in hops {
                let family = if matches!(destination, IpNet::V4(_)) { "IPv4" } else { "IPv6" };
                match hop.gateway {
                    _ if destination.prefix_len() == 0 => {
                        let what = format!("the {family} default route");
                        add(hop.interface, Rank::DefaultRoute, what, Some(*table));
                    }
                    Some(gateway) => {
                        let what = format!("the route to {destination} by {gateway}");
                        add(hop.interface, Rank::Route, what, Some(*table));
                    }
                    // Every address brings one: the address is what counts.
                    None => {}
                }
            }
        }
        for (interface, need) in towards {
            add(*interface, Rank::Need, need.what.clone(), None);
        }
        for (interface, address) in addresses {
            if !is_automatic(address) {
                add(*interface, Rank::Address, format!("address {address}"), None);
            }
        }
        for claims in own.values_mut() {
            claims.sort();
            claims.dedup();
        }
        let graph = Graph::new(links);
        let claims = links.iter().filter_map(|link| {
            let mut all: Vec<(&Claim, Option<String>)> = Vec::new();
            for index in graph.above(link.index) {
                let by = (index != link.index).then(|| graph.name(index));
                all.extend(own.get(&index).into_iter().flatten().map(|claim| (claim, by.clone())));
            }
            all.sort_by_key(|(claim, _)| claim.rank);
            let all: Vec<String> = all.iter().map(|(claim, by)| claim.tell(by.as_deref())).collect();
            (!all.is_empty()).then_some((link.index, all))
        });
        Self(claims.collect())
    }

    /// What stands on interface `index`, most important first; empty if the node does not need it.
    pub fn of(&self, index: u32) -> &[String] {
        self.0.get(&index).map_or(&[], Vec::as_slice)
    }
}

impl Claim {
    /// `the IPv4 default route via bond0 (table 254)`.
    fn tell(&self, by: Option<&str>) -> String {
        let by = by.map(|name| format!(" via {name}")).unwrap_or_default();
        let table = self.table.map(|table| format!(" (table {table})")).unwrap_or_default();
        format!("{}{by}{table}", self.what)
    }
}

/// IPv6 link-local addresses: every interface that is up has one.
fn is_automatic(address: &IpNet) -> bool {
    matches!(address, IpNet::V6(net) if net.addr().is_unicast_link_local())
}
