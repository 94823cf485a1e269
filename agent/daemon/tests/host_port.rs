//! The host port's interface, on the running kernel: a tap of a namespace that stands for the node. Needs root.

// Clippy only lets the test functions themselves unwrap.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod support;

use culvert_agent::host_port::{HostInterface, HostInterfaceError, Landscape};
use culvert_agent::pods::Lease;
use culvert_api::config::agent::HostPort;
use culvert_host::netlink::Netlink;
use culvert_host::netns::Netns;
use ipnet::IpNet;
use support::Pod as Namespace;

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn config(pods: &[&str], services: &[&str]) -> HostPort {
    HostPort {
        name: "culvert0".parse().unwrap(),
        addresses: Vec::new(),
        pod_cidrs: nets(pods),
        service_cidrs: nets(services),
    }
}

fn lease(addresses: [&str; 2]) -> Lease {
    Lease {
        port: "culvert0".parse().unwrap(),
        addresses: addresses.map(|a| a.parse().unwrap()).to_vec(),
        gateways: ["10.244.1.1", "fd00:244:1::1"].map(|a| a.parse().unwrap()).to_vec(),
        mac: "02:70:0a:f4:01:02".parse().unwrap(),
        mtu: 1450,
    }
}

/// Does it, and says whether there was anything to do.
async fn set_up(node: &Namespace, lease: &Lease, config: &HostPort) -> Result<bool, HostInterfaceError> {
    let (netns, own) = (Netns::open(node.path()).unwrap(), nets(&["10.244.1.0/24", "fd00:244:1::/64"]));
    HostInterface::open(&netns, lease, &own, config)?.set_up().await
}

#[tokio::test]
async fn it_gets_what_it_lacks_once_and_loses_only_what_was_ours() {
    let Some(node) = Namespace::new() else { return };
    node.ip("tuntap add dev culvert0 mode tap");
    let first = config(&["10.244.0.0/16", "fd00:244::/32"], &["10.96.0.0/12"]);
    assert!(set_up(&node, &lease(["10.244.1.2", "fd00:244:1::2"]), &first).await.unwrap());
    assert!(!set_up(&node, &lease(["10.244.1.2", "fd00:244:1::2"]), &first).await.unwrap(), "nothing is new");
    let link = node.ip("link show dev culvert0");
    assert!(
        link.contains("mtu 1450") && link.contains("02:70:0a:f4:01:02") && link.contains(",UP"),
        "{link}"
    );
    let routes = node.ip("route show dev culvert0");
    for route in ["10.244.1.1 ", "10.244.0.0/16 via 10.244.1.1 ", "10.96.0.0/12 via 10.244.1.1 "] {
        assert!(routes.lines().any(|line| line.starts_with(route)), "{route}: {routes}");
    }
    assert!(node.ip("-6 route show dev culvert0").contains("fd00:244::/32 via fd00:244:1::1"));

    node.ip("route add 198.51.100.0/24 dev culvert0");
    node.ip("addr add 192.0.2.9/32 dev culvert0");
    let second = config(&["10.244.0.0/17", "fd00:244::/32"], &[]);
    assert!(set_up(&node, &lease(["10.244.1.9", "fd00:244:1::2"]), &second).await.unwrap());
    let routes = node.ip("route show dev culvert0");
    assert!(routes.contains("10.244.0.0/17") && routes.contains("198.51.100.0/24"), "{routes}");
    assert!(!routes.contains("10.244.0.0/16") && !routes.contains("10.96."), "{routes}");
    let addresses = node.ip("addr show dev culvert0");
    assert!(addresses.contains("10.244.1.9/32") && addresses.contains("192.0.2.9/32"), "{addresses}");
    assert!(!addresses.contains("10.244.1.2/32"), "{addresses}");

    // Taken down, the kernel forgets IPv4 routes and all of IPv6.
    node.ip("link set culvert0 down");
    assert!(set_up(&node, &lease(["10.244.1.9", "fd00:244:1::2"]), &second).await.unwrap());
    assert!(node.ip("route show dev culvert0").contains("10.244.0.0/17 via 10.244.1.1"));
    assert!(node.ip("-6 route show dev culvert0").contains("fd00:244::/32 via fd00:244:1::1"));
}

#[tokio::test]
async fn an_interface_of_that_name_that_is_no_tap_is_left_alone() {
    let Some(node) = Namespace::new() else { return };
    let (lease, config) = (lease(["10.244.1.2", "fd00:244:1::2"]), config(&["10.244.0.0/16"], &[]));
    let error = set_up(&node, &lease, &config).await.unwrap_err();
    assert!(matches!(error, HostInterfaceError::Lost(_)), "{error}");
    node.ip("link add culvert0 type veth peer name other");
    let error = set_up(&node, &lease, &config).await.unwrap_err();
    assert!(error.to_string().contains("culvert0: is no tap"), "{error}");
    assert!(!node.ip("link show dev culvert0").contains(",UP"));
}

#[tokio::test]
async fn what_the_kernel_has_is_seen_to_be_in_the_way() {
    let Some(node) = Namespace::new() else { return };
    node.ip("link add eth0 type veth peer name other");
    node.ip("link set eth0 up");
    let check = async |config: &HostPort| {
        let netlink = Netlink::open_in(&Netns::open(node.path()).unwrap()).unwrap();
        Landscape::of(&netlink).await.unwrap().check(config, None).map_err(|error| error.to_string())
    };
    let config = config(&["10.244.0.0/16", "fd00:244::/32"], &["10.96.0.0/12"]);
    node.ip("addr add 192.0.2.7/24 dev eth0");
    node.ip("route add default via 192.0.2.1");
    assert_eq!(check(&config).await, Ok(()));
    node.ip("addr add 10.96.0.1/32 dev eth0");
    let says = check(&config).await.unwrap_err();
    assert!(says.contains("serviceCidrs 10.96.0.0/12: overlaps with address 10.96.0.1/32 on eth0"), "{says}");
    node.ip("-6 route add fd00:244:9::/64 dev eth0");
    let says = check(&config).await.unwrap_err();
    assert!(says.contains("podCidrs fd00:244::/32: overlaps with route fd00:244:9::/64 on eth0"), "{says}");
}
