//! What the node needs of its interfaces, as the running kernel tells it. Needs root.
//!
//! Bonds, teams, VLANs, VRFs and ipvlans are in the guest's kernel: `hw-tests/src/cases/host.rs`.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use culvert_host::HostRoot;
use culvert_host::guard::{ApiServer, Claims, Needs};
use culvert_host::netlink::Netlink;
use support::Namespace;

/// What stands on interface `name`.
async fn claims(netlink: &Netlink, needs: &Needs, name: &str) -> Vec<String> {
    let links = netlink.links().await.unwrap();
    let claims = Claims::read_with(netlink, &links, needs).await.unwrap();
    claims.of(links.iter().find(|l| l.name == name).unwrap().index).to_vec()
}

async fn claims_of(netlink: &Netlink, name: &str) -> Vec<String> {
    claims(netlink, &Needs::default(), name).await
}

/// A namespace with two NICs: one end each of two pairs of which the other ends are up.
fn two_nics() -> (Namespace, Netlink) {
    let ns = Namespace::new();
    for nic in ["nic0", "nic1"] {
        ns.ip(&format!("link add {nic} type veth peer name {nic}-far"));
        ns.ip(&format!("link set {nic} up"));
        ns.ip(&format!("link set {nic}-far up"));
    }
    let netlink = Netlink::open_in(&ns.open()).unwrap();
    (ns, netlink)
}

#[tokio::test]
async fn a_nic_with_nothing_but_a_link_local_address_is_free() {
    let (_ns, netlink) = two_nics();
    assert!(claims_of(&netlink, "nic0").await.is_empty());
}

#[tokio::test]
async fn default_routes_of_any_table_and_both_families_claim_their_nic() {
    let (ns, netlink) = two_nics();
    ns.ip("address add 10.0.0.5/24 dev nic0");
    ns.ip("route add default via 10.0.0.1 table 1010");
    ns.ip("-6 route add default via fe80::1 dev nic1");
    let expected = ["the IPv4 default route (table 1010)", "address 10.0.0.5/24"];
    assert_eq!(claims_of(&netlink, "nic0").await, expected);
    assert_eq!(claims_of(&netlink, "nic1").await, ["the IPv6 default route (table 254)"]);
}

#[tokio::test]
async fn both_nics_of_a_multipath_route_are_claimed() {
    let (ns, netlink) = two_nics();
    ns.ip("address add 10.0.0.5/24 dev nic0");
    ns.ip("address add 10.0.1.5/24 dev nic1");
    ns.ip("route add default nexthop via 10.0.0.1 nexthop via 10.0.1.1");
    ns.ip("route add 10.8.0.0/16 nexthop via 10.0.0.1 nexthop via 10.0.1.1");
    for nic in ["nic0", "nic1"] {
        assert_eq!(claims_of(&netlink, nic).await[0], "the IPv4 default route (table 254)");
    }
    assert_eq!(claims_of(&netlink, "nic1").await[1], "the route to 10.8.0.0/16 by 10.0.1.1 (table 254)");
}

#[tokio::test]
async fn routes_by_next_hop_objects_count_even_where_the_kernel_only_tells_the_objects_number() {
    let (ns, netlink) = two_nics();
    ns.ip("address add 10.0.0.5/24 dev nic0");
    ns.ip("address add 10.0.1.5/24 dev nic1");
    ns.ip("nexthop add id 5 via 10.0.0.1 dev nic0");
    ns.ip("nexthop add id 6 via 10.0.1.1 dev nic1");
    ns.ip("nexthop add id 7 group 5/6");
    ns.ip("route add default nhid 7");
    for compatible in ["1", "0"] {
        let file = "/proc/sys/net/ipv4/nexthop_compat_mode";
        ns.open().run(|| fs::write(file, compatible)).unwrap().unwrap();
        for nic in ["nic0", "nic1"] {
            let claims = claims_of(&netlink, nic).await;
            assert_eq!(claims[0], "the IPv4 default route (table 254)", "{nic}, compatible {compatible}");
        }
    }
}

#[tokio::test]
async fn what_stands_on_a_bridge_a_macvlan_or_a_tunnel_claims_the_nic_below() {
    let (ns, netlink) = two_nics();
    ns.ip("link add br0 type bridge");
    ns.ip("link set nic0 master br0");
    ns.ip("link set br0 up");
    ns.ip("address add 10.0.0.5/24 dev br0");
    ns.ip("route add default via 10.0.0.1");
    let expected = ["the IPv4 default route via br0 (table 254)", "address 10.0.0.5/24 via br0"];
    assert_eq!(claims_of(&netlink, "nic0").await, expected);

    ns.ip("link add mv0 link nic1 type macvlan");
    ns.ip("address add 10.0.1.5/24 dev mv0");
    assert_eq!(claims_of(&netlink, "nic1").await, ["address 10.0.1.5/24 via mv0"]);
    ns.ip("link del mv0");
    ns.ip("link add vx0 type vxlan id 5 dstport 4789 dev nic1");
    ns.ip("address add fd00::5/64 dev vx0");
    assert_eq!(claims_of(&netlink, "nic1").await, ["address fd00::5/64 via vx0"]);
}

#[tokio::test]
async fn the_nic_towards_the_api_server_is_claimed() {
    let (ns, netlink) = two_nics();
    ns.ip("route add 10.9.0.0/16 dev nic1");
    let folder = tempfile::TempDir::new().unwrap();
    let at = |host: &str| {
        let api_server = ApiServer { host: Some(host.to_owned()), kubeconfig: None };
        Needs::find(&HostRoot::new(folder.path()), &api_server).unwrap()
    };
    let expected = ["the way to the API server 10.9.0.1:6443"];
    assert_eq!(claims(&netlink, &at("10.9.0.1:6443"), "nic1").await, expected);
    assert!(claims(&netlink, &at("10.9.0.1:6443"), "nic0").await.is_empty());
    assert!(claims(&netlink, &at("192.0.2.1:6443"), "nic1").await.is_empty(), "no route there");
}
