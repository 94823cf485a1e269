//! Random tables.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::model::tables::{
    Backend, Balancing, Domain, Dscp, Kind, Lost, Node, Policy, Port, Range, Remote, Said, Service,
    ServiceKey, Timeouts, Tunnels, Underlay,
};
use crate::wire::{ICMP, ICMPV6, SCTP, TCP, UDP};

/// Link addresses of those of the next hops that have answered.
pub(crate) fn neighbours() -> impl Strategy<Value = Vec<(IpAddr, Mac)>> {
    let hops: Vec<_> = NODES.iter().flat_map(|node| node.1).chain(ROUTERS).enumerate().collect();
    let known = |hops: Vec<(usize, &'static str)>| {
        hops.into_iter().map(|(n, hop)| (ip(hop), [2, 0, 0, 0, 2, n as u8])).collect()
    };
    let all = hops.clone();
    prop_oneof![5 => Just(all), 1 => subsequence(hops, 0..=10)].prop_map(known)
}

/// What the ways to some tunnel endpoints take.
pub(crate) fn path_mtus() -> impl Strategy<Value = Vec<(IpAddr, u16)>> {
    let vteps: Vec<_> = NODES.iter().flat_map(|node| node.1).map(ip).collect();
    let ways = subsequence(vteps, 0..=8);
    ways.prop_flat_map(|ways| {
        ways.into_iter()
            .map(|vtep| (Just(vtep), select(vec![1330_u16, 1350, 1400, 9000])))
            .collect::<Vec<_>>()
    })
}

pub(crate) fn uplink() -> Port {
    Port {
        name: "up".to_owned(),
        kind: Kind::Uplink,
        mac: UPLINK_MAC,
        addresses: Vec::new(),
        mtu: 9000,
        tenant: 0,
    }
}

/// A pod's port; sometimes with other addresses or another Ethernet address than usual.
pub(crate) fn pod(n: usize) -> impl Strategy<Value = Port> {
    let mtu = select(vec![1450_u16, 1450, 1450, 1280, 9000]);
    (mtu, prop_oneof![6 => Just((false, false)), 1 => any::<(bool, bool)>()]).prop_map(
        move |(mtu, (moved, swapped))| {
            let (addresses, tenant) = PODS[n];
            let place = |address: &&str| match ip(address) {
                IpAddr::V4(_) if moved => ip(&format!("10.1.0.20{n}")),
                IpAddr::V6(_) if moved => ip(&format!("fd00:1::20{n}")),
                address => address,
            };
            let mac = if swapped { [2, 0, 0, 0, 3, n as u8] } else { pod_mac(n) };
            let addresses = addresses.iter().map(place).collect();
            Port { name: format!("pod{n}"), kind: Kind::Pod, mac, addresses, mtu, tenant }
        },
    )
}

fn tunnels() -> impl Strategy<Value = Tunnels> {
    let usual = Tunnels {
        geneve: false,
        port: 4789,
        dscp: Dscp::Pipe(0),
        compatibility: false,
        hops: Some(64),
        send_zero_checksum6: false,
        accept_zero_checksum6: false,
    };
    let dscp = select(vec![Dscp::Pipe(0), Dscp::Pipe(46), Dscp::Copy, Dscp::Uniform]);
    let hops = select(vec![Some(64_u8), Some(1), Some(255), None]);
    let any = (any::<[bool; 4]>(), select(vec![4789_u16, 6081, 8472]), dscp, hops);
    let any = any.prop_map(|([geneve, compatibility, send, accept], port, dscp, hops)| Tunnels {
        geneve,
        port,
        dscp,
        compatibility,
        hops,
        send_zero_checksum6: send,
        accept_zero_checksum6: accept,
    });
    prop_oneof![Just(usual), any]
}

fn policy() -> impl Strategy<Value = Policy> {
    let lost = select(vec![Lost::Reset, Lost::Reset, Lost::Drop, Lost::Reselect]);
    let short =
        Timeouts { tcp_opening: 2, tcp_closed: 3, udp_unreplied: 1, udp: 11, icmp: 3, ..Timeouts::USUAL };
    let long =
        Timeouts { tcp_established: 60, tcp_half_closed: 31, icmp: 4_000, sctp: 86_400, ..Timeouts::USUAL };
    let timeouts = select(vec![Timeouts::USUAL, Timeouts::USUAL, short, long]);
    (lost, select(vec![1000_u32, 1000, 1]), timeouts).prop_map(|(lost, errors_per_second, timeouts)| Policy {
        lost,
        errors_per_second,
        timeouts,
    })
}

fn node() -> impl Strategy<Value = Node> {
    let both = |list: [&'static str; 2]| prop_oneof![6 => Just(list.to_vec()), 1 => subsequence(list.to_vec(), 0..=2)];
    let router = prop_oneof![4 => Just(true), 1 => Just(false)];
    let vni = (select(vec![4096_u32, 4096, 1, 0xff_ffff]), prop::bool::weighted(0.7), policy());
    let mtu = select(vec![1500_u16, 1500, 1400, 9000]);
    (both(GATEWAYS), both(VTEPS), router, vni, tunnels(), mtu).prop_map(
        |(gateways, vteps, router, (vni, tenant, policy), tunnels, mtu)| Node {
            gateways: gateways.into_iter().map(ip).collect(),
            gateway_mac: GATEWAY_MAC,
            underlay: vteps
                .into_iter()
                .map(|address| {
                    let n = usize::from(address == VTEPS[1]);
                    let prefix = [24, 64][n];
                    Underlay { address: ip(address), prefix, router: router.then(|| ip(ROUTERS[n])) }
                })
                .collect(),
            vtep_mac: VTEP_MAC,
            vni,
            tunnels,
            mtu,
            ranges: own_ranges(),
            policy,
            domains: tenant.then(domain).into_iter().collect(),
        },
    )
}

/// The ranges of this node's pods, of whatever tenant.
pub(crate) fn own_ranges() -> Vec<Range> {
    vec![(ip("10.1.0.0"), 24), (ip("fd00:1::"), 64)]
}

/// The other tenant.
pub(crate) fn domain() -> Domain {
    let gateways = TENANT_GATEWAYS.map(ip).to_vec();
    Domain { tenant: TENANT, vni: TENANT_VNI, gateways, ranges: own_ranges() }
}

/// The ranges of the other tenant's pods on a node.
pub(crate) fn of_tenants(node: usize) -> BTreeMap<u32, Vec<Range>> {
    let ranges = |list: &[(&str, u8)]| list.iter().map(|(net, len)| (ip(net), *len)).collect();
    let has = TENANT_RANGES.iter().filter(|(at, _)| *at == node);
    has.map(|(_, list)| (TENANT, ranges(list))).collect()
}

fn remotes() -> impl Strategy<Value = BTreeMap<String, Remote>> {
    let moved = prop_oneof![4 => Just([0; 4]), 1 => [0_usize..2, 0..2, 0..2, 0..2]];
    let there = prop_oneof![4 => Just(vec![0, 1, 2, 3]), 1 => subsequence(vec![0_usize, 1, 2, 3], 0..=4)];
    (there, moved).prop_map(|(there, moved)| {
        let remote = |n: usize| {
            let (name, vteps, ranges) = NODES[n];
            let ranges = ranges.iter().map(|(net, len)| (ip(net), *len)).collect();
            (
                name.to_owned(),
                Remote { vtep: ip(vteps[moved[n]]), vtep_mac: node_mac(n), ranges, tenants: of_tenants(n) },
            )
        };
        there.into_iter().map(remote).collect()
    })
}

fn service() -> impl Strategy<Value = Service> {
    let version = any::<bool>().prop_map(usize::from);
    (version, select(vec![0_u32, 0, 0, 7]), select(vec![TCP, TCP, TCP, UDP, UDP, SCTP, ICMP])).prop_flat_map(
        |(version, tenant, protocol)| {
            let backend = (
                select(PEERS[version]),
                select(&ENDPOINT_PORTS[..]),
                prop_oneof![4 => Just([false; 3]), 1 => any::<[bool; 3]>()],
                1_u32..4,
            );
            let balancing =
                select(vec![Balancing::Hash, Balancing::Hash, Balancing::Turns, Balancing::LeastFlow]);
            let affinity = (select(vec![0_u32, 0, 10_800, 60]), any::<bool>(), balancing);
            let backends = prop::collection::vec(backend, 0..6);
            (
                select(VIPS[version]),
                select(&SERVICE_PORTS[..]),
                affinity,
                backends,
                select(vec!["web", "web", "api"]),
            )
                .prop_map(
                    move |(vip, port, (affinity, affinity_shared, balancing), backends, name)| {
                        let ping = protocol == ICMP;
                        let protocol = if ping && version == 1 { ICMPV6 } else { protocol };
                        let port = if ping { 0 } else { port };
                        let mut service = Service {
                            key: ServiceKey { tenant, vip: ip(vip), protocol, port },
                            name: format!("default/{name}:{port}"),
                            affinity,
                            affinity_shared,
                            balancing,
                            backends: Vec::new(),
                        };
                        for (address, port, [terminating, draining, away], weight) in backends {
                            let end = (ip(address), if ping { 0 } else { port });
                            if service.backends.iter().all(|backend| backend.end != end) {
                                service.backends.push(Backend { end, terminating, draining, away, weight });
                            }
                        }
                        service
                    },
                )
        },
    )
}

/// What the agent may say.
pub(crate) fn said(first: bool) -> impl Strategy<Value = Said> {
    let synced =
        if first { Just(true).boxed() } else { prop_oneof![4 => Just(true), 1 => Just(false)].boxed() };
    let node =
        if first { node().prop_map(Some).boxed() } else { prop::option::weighted(0.5, node()).boxed() };
    (synced, node, remotes(), prop::collection::vec(service(), 0..7)).prop_map(
        |(synced, node, remotes, services)| {
            let mut said = Said { synced, node, remotes, services: Vec::new() };
            for service in services {
                if said.services.iter().all(|other| other.key != service.key) {
                    said.services.push(service);
                }
            }
            said
        },
    )
}
