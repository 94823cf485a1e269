use super::*;
use crate::netlink::Hop;

fn link(index: u32, name: &str) -> Link {
    Link { index, name: name.to_owned(), mtu: 1500, up: true, carrier: true, ..Link::default() }
}

fn virtual_link(index: u32, name: &str, kind: &str, lower: Option<u32>) -> Link {
    Link { kind: Some(kind.to_owned()), lower, ..link(index, name) }
}

fn port(index: u32, name: &str, controller: u32) -> Link {
    Link { controller: Some(controller), ..link(index, name) }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn route(table: u32, destination: &str, hops: &[(u32, Option<&str>)]) -> FibRoute {
    let hops = hops.iter().map(|(interface, gateway)| Hop {
        interface: *interface,
        gateway: gateway.map(|g| g.parse().unwrap()),
    });
    FibRoute { table, destination: net(destination), hops: hops.collect() }
}

fn default_via(gateway: &str, interface: u32) -> FibRoute {
    let any = if gateway.contains(':') { "::/0" } else { "0.0.0.0/0" };
    route(254, any, &[(interface, Some(gateway))])
}

fn claims(links: &[Link], addresses: &[(u32, IpNet)], routes: &[FibRoute]) -> Claims {
    Claims::new(links, addresses, routes, &[])
}

#[test]
fn default_routes_of_both_families_and_addresses_claim_their_interface() {
    let links = [link(2, "eth0"), link(3, "eth1"), link(4, "eth2")];
    let addresses = [(2, net("10.0.0.5/24")), (3, net("fd00::5/64"))];
    let routes = [default_via("10.0.0.1", 2), default_via("fe80::1", 3)];
    let claims = claims(&links, &addresses, &routes);
    assert_eq!(claims.of(2), ["the IPv4 default route (table 254)", "address 10.0.0.5/24"]);
    assert_eq!(claims.of(3), ["the IPv6 default route (table 254)", "address fd00::5/64"]);
    assert!(claims.of(4).is_empty());
}

#[test]
fn a_link_local_address_alone_and_on_link_routes_claim_nothing() {
    let links = [link(2, "eth0")];
    let routes = [route(254, "fe80::/64", &[(2, None)])];
    assert_eq!(claims(&links, &[(2, net("fe80::5/64"))], &routes), Claims::default());
}

#[test]
fn a_route_through_a_gateway_claims_even_without_an_address() {
    let routes = [route(254, "10.8.0.0/16", &[(2, Some("10.9.0.1"))])];
    let claims = claims(&[link(2, "eth0")], &[], &routes);
    assert_eq!(claims.of(2), ["the route to 10.8.0.0/16 by 10.9.0.1 (table 254)"]);
}

#[test]
fn what_a_vlan_on_a_bridge_on_a_bond_carries_claims_every_port_of_the_bond() {
    let links = [
        port(2, "eth0", 4),
        port(3, "eth1", 4),
        Link { controller: Some(5), ..virtual_link(4, "bond0", "bond", None) },
        virtual_link(5, "br0", "bridge", None),
        virtual_link(6, "br0.100", "vlan", Some(5)),
        link(7, "eth2"),
    ];
    let claims = claims(&links, &[(6, net("10.0.0.5/24"))], &[default_via("10.0.0.1", 6)]);
    for pf in [2, 3] {
        assert_eq!(
            claims.of(pf),
            ["the IPv4 default route via br0.100 (table 254)", "address 10.0.0.5/24 via br0.100"]
        );
    }
    assert!(claims.of(7).is_empty());
}

#[test]
fn a_macvlan_and_a_vrf_claim_their_interface() {
    let links = [
        link(2, "eth0"),
        virtual_link(3, "mv0", "macvlan", Some(2)),
        port(4, "eth1", 5),
        virtual_link(5, "vrf0", "vrf", None),
        port(6, "eth2", 5),
    ];
    let claims = claims(&links, &[(3, net("10.0.0.5/24")), (4, net("10.1.0.5/24"))], &[]);
    assert_eq!(claims.of(2), ["address 10.0.0.5/24 via mv0"]);
    assert_eq!(claims.of(4), ["address 10.1.0.5/24"]);
    assert!(claims.of(6).is_empty(), "a VRF is a routing table: its members do not stand on each other");
}

#[test]
fn an_open_vswitch_ports_address_claims_the_uplink() {
    let links = [port(2, "eth0", 3), virtual_link(3, "ovs-system", "openvswitch", None), port(4, "br-ex", 3)];
    let claims = claims(&links, &[(4, net("10.0.0.5/24"))], &[]);
    assert_eq!(claims.of(2), ["address 10.0.0.5/24 via br-ex"]);
}

#[test]
fn an_address_on_the_other_end_of_a_veth_into_the_bridge_claims_the_uplink_and_loops_end() {
    let links = [
        port(2, "eth0", 3),
        virtual_link(3, "br0", "bridge", None),
        Link { controller: Some(3), ..virtual_link(4, "v0", "veth", Some(5)) },
        virtual_link(5, "v1", "veth", Some(4)),
    ];
    let claims = claims(&links, &[(5, net("10.0.0.5/24"))], &[]);
    assert_eq!(claims.of(2), ["address 10.0.0.5/24 via v1"]);
}

#[test]
fn every_hop_of_a_route_of_any_table_claims_its_interface() {
    let links = [link(2, "eth0"), link(3, "eth1"), link(4, "eth2")];
    let routes = [
        route(254, "0.0.0.0/0", &[(2, Some("10.0.0.1")), (3, Some("10.0.1.1"))]),
        route(1010, "::/0", &[(4, None)]),
        route(1010, "::/0", &[(4, None)]),
    ];
    let claims = claims(&links, &[], &routes);
    assert_eq!(claims.of(2), ["the IPv4 default route (table 254)"]);
    assert_eq!(claims.of(3), ["the IPv4 default route (table 254)"]);
    assert_eq!(claims.of(4), ["the IPv6 default route (table 1010)"], "told once");
}

#[test]
fn the_way_to_what_the_node_needs_claims_what_it_leads_over_and_comes_before_addresses() {
    let links =
        [port(2, "eth0", 3), virtual_link(3, "team0", "team", None), virtual_link(4, "gre1", "gre", Some(3))];
    let need = Need {
        what: "the way to the API server 10.9.0.1:6443".into(),
        address: [10, 9, 0, 1].into(),
        own: false,
    };
    let claims = Claims::new(&links, &[(3, net("10.0.0.5/24"))], &[], &[(4, need)]);
    let expected = ["the way to the API server 10.9.0.1:6443 via gre1", "address 10.0.0.5/24 via team0"];
    assert_eq!(claims.of(2), expected);
}
