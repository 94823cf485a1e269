//! Network namespaces, links, addresses and routes on the running kernel. Needs root.

// Clippy only lets the test functions themselves unwrap.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use culvert_api::value::Mac;
use culvert_host::netlink::{LinkChange, LinkEvent, LinkMonitor, Netlink, Route};
use culvert_host::netns::{Netns, NetnsError};
use nix::errno::Errno;
use support::Namespace;

fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}

#[tokio::test]
async fn one_message_renames_sets_mac_and_mtu_and_brings_up() {
    let ns = Namespace::new();
    ns.ip("link add v0 type veth peer name v1");
    let netlink = Netlink::open_in(&ns.open()).unwrap();
    let link = netlink.link_by_name("v0").await.unwrap().unwrap();
    assert!(!link.up);

    let change = LinkChange {
        name: Some("net1".into()),
        mac: Some(mac("02:00:00:00:00:07")),
        mtu: Some(1450),
        promiscuous: Some(true),
        up: Some(true),
        ..LinkChange::default()
    };
    netlink.change_link(link.index, &change).await.unwrap();

    assert_eq!(netlink.link_by_name("v0").await.unwrap(), None);
    let link = netlink.link(link.index).await.unwrap().unwrap();
    assert_eq!((link.name.as_str(), link.mtu, link.up, link.promiscuous), ("net1", 1450, true, true));
    assert_eq!(link.mac, Some(mac("02:00:00:00:00:07")));
    let calm = LinkChange { promiscuous: Some(false), up: Some(false), ..LinkChange::default() };
    netlink.change_link(link.index, &calm).await.unwrap();
    let link = netlink.link(link.index).await.unwrap().unwrap();
    assert!(!link.up && !link.promiscuous);
}

#[tokio::test]
async fn a_link_moves_between_namespaces_under_its_new_name_and_keeps_its_mac() {
    let (a, b) = (Namespace::new(), Namespace::new());
    a.ip("link add v0 address 02:00:00:00:00:09 type veth peer name v1");
    let (in_a, in_b) = (Netlink::open_in(&a.open()).unwrap(), Netlink::open_in(&b.open()).unwrap());
    let index = in_a.link_by_name("v0").await.unwrap().unwrap().index;

    in_a.move_link(index, "tmp7", &b.open()).await.unwrap();

    assert_eq!(in_a.link_by_name("v0").await.unwrap(), None);
    let moved = in_b.link_by_name("tmp7").await.unwrap().unwrap();
    assert_eq!(moved.mac, Some(mac("02:00:00:00:00:09")));
}

#[tokio::test]
async fn a_name_that_is_taken_is_refused_by_name() {
    let ns = Namespace::new();
    ns.ip("link add v0 type veth peer name v1");
    let netlink = Netlink::open_in(&ns.open()).unwrap();
    let index = netlink.link_by_name("v0").await.unwrap().unwrap().index;
    let change = LinkChange { name: Some("v1".into()), ..LinkChange::default() };
    let error = netlink.change_link(index, &change).await.unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EEXIST));
    assert_eq!(error.to_string(), format!("interface {index}: cannot set name v1"));
}

#[tokio::test]
async fn alternative_names_are_given_read_and_taken_and_a_missing_one_is_no_error() {
    let ns = Namespace::new();
    ns.ip("link add v0 type veth peer name v1");
    let netlink = Netlink::open_in(&ns.open()).unwrap();
    let index = netlink.link_by_name("v0").await.unwrap().unwrap().index;
    let names = ["a-name-longer-than-fifteen-letters", "another"];
    netlink.add_alt_names(index, &names).await.unwrap();
    assert_eq!(netlink.link(index).await.unwrap().unwrap().alt_names, names);
    for _ in 0..2 {
        netlink.remove_alt_names(index, &names).await.unwrap();
    }
    assert!(netlink.link(index).await.unwrap().unwrap().alt_names.is_empty());
    let error = netlink.add_alt_names(index, &["v1"]).await.unwrap_err();
    assert_eq!(error.to_string(), format!("interface {index}: cannot add alternative name v1"));
}

#[tokio::test]
async fn the_kernels_own_words_are_in_the_error() {
    let ns = Namespace::new();
    ns.ip("link add v0 type veth peer name v1");
    let netlink = Netlink::open_in(&ns.open()).unwrap();
    let index = netlink.link_by_name("v0").await.unwrap().unwrap().index;
    let change = LinkChange { mtu: Some(70_000), ..LinkChange::default() };
    let error = netlink.change_link(index, &change).await.unwrap_err();
    assert_eq!(error.to_string(), format!("interface {index}: cannot set mtu 70000"));
    assert_eq!(error.cause.to_string(), "Invalid argument (mtu greater than device maximum)");
}

#[tokio::test]
async fn an_interface_without_virtual_functions_has_none() {
    let ns = Namespace::new();
    ns.ip("link add v0 type veth peer name v1");
    let netlink = Netlink::open_in(&ns.open()).unwrap();
    let index = netlink.link_by_name("v0").await.unwrap().unwrap().index;
    assert_eq!(netlink.vf_settings(index).await.unwrap(), []);
    assert!(netlink.vf_counters(index).await.unwrap().is_empty());
    assert!(netlink.vf_settings(index + 100).await.unwrap_err().is_absent());
}

#[tokio::test]
async fn addresses_and_routes_come_and_go_and_repeating_is_no_error() {
    let ns = Namespace::new();
    ns.ip("link add v0 type veth peer name v1");
    ns.ip("link set v1 up");
    let netlink = Netlink::open_in(&ns.open()).unwrap();
    let index = netlink.link_by_name("v0").await.unwrap().unwrap().index;
    netlink.change_link(index, &LinkChange { up: Some(true), ..LinkChange::default() }).await.unwrap();

    for (address, gateway) in [("10.1.2.3/32", "10.1.2.1"), ("fd00::3/128", "fd00::1")] {
        let (address, gateway): (ipnet::IpNet, std::net::IpAddr) =
            (address.parse().unwrap(), gateway.parse().unwrap());
        let routes = [Route::on_link(gateway.into(), index), Route::default_via(gateway, index)];
        for _ in 0..2 {
            netlink.add_address(index, address).await.unwrap();
            for route in &routes {
                netlink.add_route(route).await.unwrap();
            }
        }
        assert!(netlink.addresses().await.unwrap().contains(&(index, address)));
        let found = netlink.routes().await.unwrap();
        assert!(routes.iter().all(|r| found.contains(r)), "{found:?}");
        for _ in 0..2 {
            for route in routes.iter().rev() {
                netlink.remove_route(route).await.unwrap();
            }
            netlink.remove_address(index, address).await.unwrap();
        }
        assert!(!netlink.addresses().await.unwrap().contains(&(index, address)));
        assert!(!netlink.routes().await.unwrap().iter().any(|r| routes.contains(r)));
    }
}

#[tokio::test]
async fn another_default_route_in_the_way_is_an_error() {
    let ns = Namespace::new();
    ns.ip("link add v0 type veth peer name v1");
    ns.ip("addr add 10.0.0.2/24 dev v0");
    ns.ip("link set v0 up");
    ns.ip("route add default via 10.0.0.1");
    let netlink = Netlink::open_in(&ns.open()).unwrap();
    let index = netlink.link_by_name("v0").await.unwrap().unwrap().index;
    let route = Route::default_via("10.0.0.9".parse().unwrap(), index);
    assert_eq!(netlink.add_route(&route).await.unwrap_err().errno(), Some(Errno::EEXIST));
}

#[tokio::test]
async fn the_monitor_tells_of_new_and_gone_links() {
    let ns = Namespace::new();
    let runtime = tokio::runtime::Handle::current();
    let opened = ns.open().run(|| {
        let _entered = runtime.enter();
        LinkMonitor::open()
    });
    let mut monitor = opened.unwrap().unwrap();
    ns.ip("link add v0 type veth peer name v1");
    ns.ip("link del v0");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let event = tokio::time::timeout(std::time::Duration::from_secs(5), monitor.next());
        match event.await.unwrap().unwrap() {
            LinkEvent::Changed(link) if link.name == "v0" && seen.is_empty() => seen.push("new"),
            LinkEvent::Gone(link) if link.name == "v0" => seen.push("gone"),
            _ => {}
        }
    }
    assert_eq!(seen, ["new", "gone"]);
}

#[test]
fn work_in_a_namespace_leaves_the_callers_thread_where_it_was() {
    let ns = Namespace::new();
    let before = Netns::current().unwrap().id().unwrap();
    let inside = ns.open().run(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap()).unwrap();
    assert_eq!(inside.lines().count(), 3, "two lines of heading and lo: {inside}");
    assert_eq!(Netns::current().unwrap().id().unwrap(), before);
    assert_ne!(ns.open().id().unwrap(), before);
}

#[test]
fn a_file_that_is_no_namespace_and_a_missing_one_are_told_apart() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let stale = Netns::open(file.path()).unwrap_err();
    assert!(matches!(stale, NetnsError::NotNetns(_)) && stale.is_absent());
    let missing = Netns::open("/run/netns/cvtest-no-such").unwrap_err();
    assert!(matches!(missing, NetnsError::Open { .. }) && missing.is_absent());
}

#[tokio::test]
async fn lists_asked_for_at_once_are_all_given() {
    let namespace = Namespace::new();
    for number in 0..100 {
        namespace.ip(&format!("link add b{number} type bridge"));
    }
    let netlink = Netlink::open_in(&namespace.open()).unwrap();
    let (links, addresses, routes, again) =
        tokio::join!(netlink.links(), netlink.addresses(), netlink.routes(), netlink.links());
    assert_eq!(links.unwrap().len(), again.unwrap().len());
    addresses.unwrap();
    routes.unwrap();
}

#[tokio::test]
async fn a_list_that_is_given_up_does_not_stand_in_the_way_of_the_next() {
    let namespace = Namespace::new();
    for number in 0..100 {
        namespace.ip(&format!("link add b{number} type bridge"));
    }
    let netlink = Netlink::open_in(&namespace.open()).unwrap();
    for polls in 1..6 {
        {
            let mut given_up = std::pin::pin!(netlink.links());
            for _ in 0..polls {
                if futures::poll!(&mut given_up).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        assert!(netlink.links().await.unwrap().len() >= 100);
    }
}
