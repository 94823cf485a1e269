use super::*;

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

fn default_via(text: &str, interface: u32) -> Route {
    Route::default_via(text.parse().unwrap(), interface)
}

#[test]
fn default_routes_of_both_families_and_addresses_claim_their_interface() {
    let links = [link(2, "eth0"), link(3, "eth1"), link(4, "eth2")];
    let addresses = [(2, net("10.0.0.5/24")), (3, net("fd00::5/64"))];
    let routes = [default_via("10.0.0.1", 2), default_via("fe80::1", 3)];
    let claims = Claims::new(&links, &addresses, &routes);
    assert_eq!(claims.of(2), ["the IPv4 default route", "address 10.0.0.5/24"]);
    assert_eq!(claims.of(3), ["the IPv6 default route", "address fd00::5/64"]);
    assert!(claims.of(4).is_empty());
}

#[test]
fn a_link_local_address_alone_and_on_link_routes_claim_nothing() {
    let links = [link(2, "eth0")];
    let routes = [Route::on_link(net("fe80::/64"), 2)];
    assert_eq!(Claims::new(&links, &[(2, net("fe80::5/64"))], &routes), Claims::default());
}

#[test]
fn a_route_through_a_gateway_claims_even_without_an_address() {
    let route = Route { gateway: Some("10.9.0.1".parse().unwrap()), ..Route::on_link(net("10.8.0.0/16"), 2) };
    let claims = Claims::new(&[link(2, "eth0")], &[], &[route]);
    assert_eq!(claims.of(2), ["route to 10.8.0.0/16 via 10.9.0.1"]);
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
    let claims = Claims::new(&links, &[(6, net("10.0.0.5/24"))], &[default_via("10.0.0.1", 6)]);
    for pf in [2, 3] {
        assert_eq!(claims.of(pf), ["the IPv4 default route on br0.100", "address 10.0.0.5/24 on br0.100"]);
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
    let claims = Claims::new(&links, &[(3, net("10.0.0.5/24")), (4, net("10.1.0.5/24"))], &[]);
    assert_eq!(claims.of(2), ["address 10.0.0.5/24 on mv0"]);
    assert_eq!(claims.of(4), ["address 10.1.0.5/24"]);
    assert!(claims.of(6).is_empty(), "a VRF is a routing table: its members do not stand on each other");
}

#[test]
fn an_open_vswitch_ports_address_claims_the_uplink() {
    let links = [port(2, "eth0", 3), virtual_link(3, "ovs-system", "openvswitch", None), port(4, "br-ex", 3)];
    let claims = Claims::new(&links, &[(4, net("10.0.0.5/24"))], &[]);
    assert_eq!(claims.of(2), ["address 10.0.0.5/24 on br-ex"]);
}

#[test]
fn an_address_on_the_other_end_of_a_veth_into_the_bridge_claims_the_uplink_and_loops_end() {
    let links = [
        port(2, "eth0", 3),
        virtual_link(3, "br0", "bridge", None),
        Link { controller: Some(3), ..virtual_link(4, "v0", "veth", Some(5)) },
        virtual_link(5, "v1", "veth", Some(4)),
    ];
    let claims = Claims::new(&links, &[(5, net("10.0.0.5/24"))], &[]);
    assert_eq!(claims.of(2), ["address 10.0.0.5/24 on v1"]);
}
