//! A small world in which much meets: few addresses, ports and nodes, so that random packets are often of the same flow.

pub(crate) mod event;
pub(crate) mod packet;
pub(crate) mod proto;
pub(crate) mod sequence;
pub(crate) mod tables;

use std::net::IpAddr;

use crate::wire::Mac;

/// Index of the port to the underlay; those of the pods follow.
pub(crate) const UPLINK: u16 = 0;
pub(crate) const UPLINK_MAC: Mac = [2, 0, 0, 0, 0, 0xf0];
pub(crate) const GATEWAY_MAC: Mac = [2, 0, 0, 0, 0, 0xfe];
pub(crate) const VTEP_MAC: Mac = [2, 0x63, 0, 0, 0, 1];

/// Two tenants have the same addresses.
pub(crate) const PODS: [(&[&str], u32); 6] = [
    (&["10.1.0.5", "fd00:1::5"], 0),
    (&["10.1.0.6", "fd00:1::6"], 0),
    (&["10.1.0.7"], 0),
    (&["fd00:1::8"], 0),
    (&["10.1.0.5", "fd00:1::5"], 7),
    (&["10.1.0.9", "fd00:1::9"], 7),
];

/// A remote node: its tunnel endpoint, another that it may move to, and its pods' ranges. Some of these are in others.
pub(crate) type Node = (&'static str, [&'static str; 2], &'static [(&'static str, u8)]);

pub(crate) const NODES: [Node; 4] = [
    ("node-b", ["192.168.0.2", "192.168.0.12"], &[("10.2.0.0", 24), ("fd00:2::", 64)]),
    ("node-c", ["2001:db8::3", "2001:db8::13"], &[("10.3.0.0", 24), ("10.2.0.128", 25), ("fd00:3::", 64)]),
    // Behind a router.
    ("node-d", ["192.168.7.2", "192.168.7.3"], &[("10.4.0.0", 24), ("10.1.0.64", 26), ("fd00:4::", 64)]),
    ("node-e", ["2001:db8:9::5", "192.168.0.15"], &[("172.16.0.0", 12), ("fd00::", 16)]),
];

/// The other tenant, its network identifier, its routers, and the nodes that have pods of it, with their ranges.
pub(crate) const TENANT: u32 = 7;
pub(crate) const TENANT_VNI: u32 = 700;
pub(crate) const TENANT_GATEWAYS: [&str; 2] = ["10.1.0.2", "fd00:1::1"];
pub(crate) const TENANT_RANGES: [(usize, &[(&str, u8)]); 2] =
    [(0, &[("10.2.0.0", 24), ("fd00:3::", 64)]), (1, &[("10.3.0.0", 16), ("fd00:2::", 64)])];

pub(crate) const GATEWAYS: [&str; 2] = ["10.1.0.1", "fd00:1::1"];
pub(crate) const VTEPS: [&str; 2] = ["192.168.0.1", "2001:db8::1"];
pub(crate) const ROUTERS: [&str; 2] = ["192.168.0.254", "2001:db8::ff"];
pub(crate) const VIPS: [&[&str]; 2] =
    [&["10.96.0.10", "10.96.0.11", "10.1.0.50"], &["fd00:96::10", "fd00:96::11"]];

/// Whatever else packets and endpoints may name: pods here and elsewhere, nobody, nowhere.
pub(crate) const PEERS: [&[&str]; 2] = [
    &[
        "10.1.0.5",
        "10.1.0.6",
        "10.1.0.7",
        "10.1.0.9",
        "10.2.0.7",
        "10.2.0.130",
        "10.3.0.7",
        "10.4.0.7",
        "10.1.0.70",
        "10.1.0.99",
        "8.8.8.8",
        "172.17.0.1",
        "10.1.0.205",
    ],
    &[
        "fd00:1::5",
        "fd00:1::6",
        "fd00:1::8",
        "fd00:1::9",
        "fd00:2::7",
        "fd00:3::7",
        "fd00:4::7",
        "fd00:1::99",
        "fd00:77::1",
        "2600::8",
        "fd00:1::205",
    ],
];

/// Addresses that are special.
pub(crate) const SPECIAL: [&[&str]; 2] = [
    &["224.0.0.1", "255.255.255.255", "127.0.0.1", "169.254.1.1", "0.1.2.3", "240.0.0.1", "0.0.0.0"],
    &["ff02::1", "::1", "fe80::1", "::"],
];

/// Some of them as flows without a place have others.
pub(crate) const CLIENT_PORTS: [u16; 5] = [1000, 1001, 1002, 33_768, 33_769];
pub(crate) const SERVICE_PORTS: [u16; 2] = [80, 53];
pub(crate) const ENDPOINT_PORTS: [u16; 2] = [80, 8080];

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address of this file")
}

pub(crate) fn pod_mac(pod: usize) -> Mac {
    [2, 0, 0, 0, 1, pod as u8]
}

pub(crate) fn node_mac(node: usize) -> Mac {
    [2, 0x63, 0, 0, 0, 2 + node as u8]
}
