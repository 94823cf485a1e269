//! What of the node's own addresses and routes stands against the host port's.

use std::collections::BTreeMap;
use std::fmt;

use culvert_api::config::agent::HostPort as Config;
use culvert_host::netlink::{Netlink, NetlinkError, Route};
use ipnet::IpNet;

/// Something of the node that is in the way of a range: the range would not be reached, or something else no longer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "overlay.hostPort.{key} {range}: overlaps with {what}, which is not ours: remove it, or choose another range"
)]
pub struct Overlap {
    /// `podCidrs` or `serviceCidrs`.
    pub key: &'static str,
    /// The range of the configuration.
    pub range: IpNet,
    /// What is in the way, with its interface.
    pub what: String,
}

/// Routes and addresses of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Landscape {
    /// Names of interfaces by index.
    pub interfaces: BTreeMap<u32, String>,
    /// Unicast routes of the main table.
    pub routes: Vec<Route>,
    /// Addresses, each with the index of its interface.
    pub addresses: Vec<(u32, IpNet)>,
}

impl Landscape {
    /// That of the namespace of `netlink`.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub async fn of(netlink: &Netlink) -> Result<Self, NetlinkError> {
        let interfaces = netlink.links().await?.into_iter().map(|link| (link.index, link.name)).collect();
        let (routes, addresses) = (netlink.routes().await?, netlink.addresses().await?);
        Ok(Self { interfaces, routes, addresses })
    }

    /// Whether all ranges may be routed to the host port, whose interface is `own` if it is there.
    ///
    /// # Errors
    /// Names the first thing in the way: a route to the same addresses or to some of them; a network on a link that holds
    /// them; an address of the node among them. A route to more addresses by way of a router, as the default route, is
    /// none: who asks for these in particular may have them.
    pub fn check(&self, config: &Config, own: Option<&str>) -> Result<(), Overlap> {
        let ranges = config.pod_cidrs.iter().map(|range| ("podCidrs", *range));
        let ranges = ranges.chain(config.service_cidrs.iter().map(|range| ("serviceCidrs", *range)));
        for (key, range) in ranges {
            let overlap = |what: &dyn fmt::Display, interface: u32| {
                let on = self.interfaces.get(&interface).map_or("an unknown interface", String::as_str);
                Overlap { key, range, what: format!("{what} on {on}") }
            };
            let is_own = |index: u32| own.is_some() && self.interfaces.get(&index).map(String::as_str) == own;
            let in_the_way = |route: &&Route| {
                let wider = route.destination.contains(&range) && route.destination != range;
                let far = wider && (route.gateway.is_some() || route.is_default());
                (wider || range.contains(&route.destination)) && !far
            };
            let others = self.routes.iter().filter(|route| !is_own(route.interface));
            if let Some(route) = others.clone().find(in_the_way) {
                return Err(overlap(&format_args!("route {route}"), route.interface));
            }
            let mut addresses = self.addresses.iter().filter(|(index, _)| !is_own(*index));
            if let Some((index, net)) = addresses.find(|(_, net)| range.contains(&net.addr())) {
                return Err(overlap(&format_args!("address {net}"), *index));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETH0: u32 = 2;
    const OWN: u32 = 7;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn via(destination: &str, gateway: &str, interface: u32) -> Route {
        Route { destination: net(destination), gateway: Some(gateway.parse().unwrap()), interface }
    }

    fn config() -> Config {
        Config {
            name: "culvert0".parse().unwrap(),
            addresses: Vec::new(),
            pod_cidrs: vec![net("10.244.0.0/16"), net("fd00:244::/32")],
            service_cidrs: vec![net("10.96.0.0/12")],
        }
    }

    fn landscape(routes: &[Route], addresses: &[(u32, &str)]) -> Landscape {
        Landscape {
            interfaces: [(ETH0, "eth0".to_owned()), (OWN, "culvert0".to_owned())].into(),
            routes: routes.to_vec(),
            addresses: addresses.iter().map(|(index, text)| (*index, net(text))).collect(),
        }
    }

    #[test]
    fn routes_that_lead_elsewhere_or_to_more_by_a_router_are_no_hindrance() {
        let routes = [
            via("0.0.0.0/0", "192.0.2.1", ETH0),
            Route::on_link(net("::/0"), ETH0),
            via("10.0.0.0/8", "192.0.2.1", ETH0),
            Route::on_link(net("192.0.2.0/24"), ETH0),
        ];
        let node = landscape(&routes, &[(ETH0, "192.0.2.7/24"), (ETH0, "10.1.0.7/32")]);
        assert_eq!(node.check(&config(), None), Ok(()));
    }

    #[test]
    fn what_is_in_the_way_is_named_with_its_interface() {
        for (routes, addresses, says) in [
            (
                vec![via("10.244.3.0/24", "192.0.2.3", ETH0)],
                vec![],
                "overlay.hostPort.podCidrs 10.244.0.0/16: overlaps with route 10.244.3.0/24 via 192.0.2.3 on eth0",
            ),
            (
                vec![via("10.244.0.0/16", "192.0.2.3", ETH0)],
                vec![],
                "route 10.244.0.0/16 via 192.0.2.3 on eth0",
            ),
            (vec![Route::on_link(net("10.0.0.0/8"), ETH0)], vec![], "route 10.0.0.0/8 on eth0"),
            (vec![Route::on_link(net("fd00:244:1::/64"), ETH0)], vec![], "route fd00:244:1::/64 on eth0"),
            (
                vec![],
                vec![(ETH0, "10.96.0.1/32")],
                "overlay.hostPort.serviceCidrs 10.96.0.0/12: overlaps with address 10.96.0.1/32 on eth0",
            ),
            (vec![Route::on_link(net("10.244.9.0/24"), 9)], vec![], "on an unknown interface"),
        ] {
            let error = landscape(&routes, &addresses).check(&config(), Some("culvert0")).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn the_ports_own_interface_is_in_the_way_only_if_it_is_not_ours() {
        let node = landscape(
            &[via("10.244.0.0/16", "10.244.1.1", OWN), Route::on_link(net("10.244.1.1/32"), OWN)],
            &[(OWN, "10.244.1.2/32")],
        );
        assert_eq!(node.check(&config(), Some("culvert0")), Ok(()));
        assert!(node.check(&config(), None).is_err());
    }
}
