//! What is done with bytes from outside, also by the coverage-guided fuzzing in `fuzz/`.

use std::collections::BTreeMap;

use culvert_api::fastpath as proto;
use culvert_engine::table::{Builder, PortIndex};
use prost::Message;

use crate::harness::Pair;
use crate::model::tables::{
    Backend, Balancing, Dscp, Kind, Lost, Node, Policy, Port, Remote, Said, Service, ServiceKey, Timeouts,
    Tunnels, Underlay,
};
use crate::wire::{Frame, SCTP, TCP, UDP};
use crate::world::event::{Event, How};
use crate::world::{
    self, GATEWAY_MAC, GATEWAYS, NODES, PODS, ROUTERS, UPLINK, VTEP_MAC, VTEPS, ip, node_mac, pod_mac,
};

/// Frames as bytes: port, length, frame, and so on. The engine must decide as the model.
pub(crate) fn pipeline(bytes: &[u8]) {
    let mut pair = usual_pair(4096);
    if let Err(failure) = pair.packets(&frames(bytes)).and_then(|()| pair.happen(&Event::Time(2))) {
        panic!("{failure}");
    }
}

fn frames(mut bytes: &[u8]) -> Vec<(u16, Frame)> {
    let mut frames = Vec::new();
    while let Some(([port, a, b], rest)) = bytes.split_first_chunk() {
        let (frame, rest) = rest.split_at(usize::from(u16::from_be_bytes([*a, *b])).min(rest.len()));
        frames.push((u16::from(*port), frame.to_vec().into()));
        bytes = rest;
    }
    frames
}

/// A node on which much can happen to a packet.
pub(crate) fn usual_pair(flows: u32) -> Pair {
    let mut pair = Pair::new(flows);
    pair.attach(UPLINK, &world::tables::uplink());
    for (n, (addresses, tenant)) in PODS.iter().enumerate() {
        let addresses = addresses.iter().map(|address| ip(address)).collect();
        let name = format!("pod{n}");
        let port = Port { name, kind: Kind::Pod, mac: pod_mac(n), addresses, mtu: 1450, tenant: *tenant };
        pair.attach(n as u16 + 1, &port);
    }
    pair.said(&usual(), How::Whole);
    let hops = NODES.iter().flat_map(|node| node.1).chain(ROUTERS).enumerate();
    let known = hops.map(|(n, hop)| (ip(hop), [2, 0, 0, 0, 2, n as u8])).collect();
    pair.happen(&Event::Neighbours(known)).unwrap_or_else(|failure| panic!("{failure}"));
    pair
}

/// Services over both IP versions and all protocols, with endpoints here and elsewhere.
pub(crate) fn usual() -> Said {
    let tunnels = Tunnels {
        geneve: false,
        port: 4789,
        dscp: Dscp::Pipe(0),
        compatibility: false,
        hops: Some(64),
        send_zero_checksum6: false,
        accept_zero_checksum6: false,
    };
    let underlay = |n: usize| {
        let router = Some(ip(ROUTERS[n]));
        Underlay { address: ip(VTEPS[n]), prefix: [24, 64][n], router }
    };
    let node = Node {
        gateways: GATEWAYS.map(ip).to_vec(),
        gateway_mac: GATEWAY_MAC,
        underlay: vec![underlay(0), underlay(1)],
        vtep_mac: VTEP_MAC,
        vni: 4096,
        tunnels,
        mtu: 1500,
        ranges: world::tables::own_ranges(),
        policy: Policy { lost: Lost::Reset, errors_per_second: 1000, timeouts: Timeouts::USUAL },
        domains: vec![world::tables::domain()],
    };
    let remote = |(n, node): (usize, &world::Node)| {
        let ranges = node.2.iter().map(|(net, len)| (ip(net), *len)).collect();
        (
            node.0.to_owned(),
            Remote {
                vtep: ip(node.1[0]),
                vtep_mac: node_mac(n),
                ranges,
                tenants: world::tables::of_tenants(n),
            },
        )
    };
    let remotes: BTreeMap<_, _> = NODES.iter().enumerate().map(remote).collect();
    let mut services = Vec::new();
    for (vip, endpoints) in [("10.96.0.10", ["10.2.0.7"]), ("fd00:96::10", ["fd00:2::7"])] {
        for (protocol, port) in [(TCP, 80), (UDP, 53), (SCTP, 80)] {
            let backends = endpoints.map(|address| backend(address, 1)).to_vec();
            let key = ServiceKey { tenant: 0, vip: ip(vip), protocol, port };
            services.push(Service {
                key,
                name: format!("default/web:{port}"),
                affinity: 0,
                affinity_shared: false,
                balancing: Balancing::Hash,
                backends,
            });
        }
    }
    Said { synced: true, node: Some(node), remotes, services }
}

/// An endpoint at port 8080.
pub(crate) fn backend(address: &str, weight: u32) -> Backend {
    Backend { end: (ip(address), 8080), terminating: false, draining: false, away: false, weight }
}

/// What the agent may say on the control socket, as bytes: it is taken over whole, or nothing of it.
pub(crate) fn tables(bytes: &[u8]) {
    let Ok(tables) = proto::Tables::decode(bytes) else { return };
    let mut builder = Builder::new();
    let uplink = world::proto::port(&world::tables::uplink());
    builder.attach(PortIndex(UPLINK), uplink).unwrap_or_else(|error| panic!("{error}"));
    match builder.apply(&tables) {
        Ok(applied) => {
            let view = builder.snapshot();
            assert_eq!((view.revision(), view.synced()), (tables.revision, tables.synced));
            assert_eq!((applied.services, applied.remotes), (tables.services.len(), tables.remotes.len()));
            assert_eq!(view.services().count(), applied.services);
            // The same once more changes nothing.
            let again = builder.apply(&tables).unwrap_or_else(|error| panic!("the second time: {error}"));
            assert_eq!((again.services, again.backends), (applied.services, applied.backends));
            assert!(again.new_services.is_empty());
            assert_eq!(builder.snapshot().epoch(), view.epoch());
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            let view = builder.snapshot();
            assert_eq!((view.revision(), view.synced()), (0, false));
            assert!(
                view.local().is_none() && view.services().next().is_none() && view.remotes().next().is_none()
            );
        }
    }
}
