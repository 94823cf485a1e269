//! A node with two pods, two other nodes and services, and tests of every stage with it.

mod affinity;
mod balancing;
mod beside;
mod changes;
mod echo;
mod error;
mod established;
mod explain;
mod fragment;
mod host;
mod local;
mod opened;
mod overflow;
mod path;
mod pod;
mod property;
mod route;
mod sctp;
mod service;
mod shortcut;
mod takeover;
mod tenant;
mod tunnel;
mod uplink;
mod usual;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use culvert_api::fastpath as proto;
use culvert_api::value::Mtu;
use culvert_packet::eth::EthAddr;
use culvert_packet::flow::{FlowKey4, FlowKey6, Tenant};
use culvert_packet::ip::Protocol;
use culvert_packet::parse::verify_transport;
use culvert_packet::tcp::TcpFlags;
use culvert_packet::{PacketBuf, Parsed, TestBuf, parse, testkit};

use super::{Learned, Pipeline, Verdict};
use crate::balance::Moment;
use crate::counter::{CounterSet, DropReason, counters};
use crate::flow::{FlowTables, Key, Left, Tick};
use crate::table::{Builder, Port, PortIndex, Snapshot, octets};

pub(super) const UPLINK: PortIndex = PortIndex(0);
pub(super) const POD_A: PortIndex = PortIndex(1);
pub(super) const POD_B: PortIndex = PortIndex(2);

pub(super) const UPLINK_MAC: EthAddr = EthAddr([2, 0, 0, 0, 0, 0xf0]);
pub(super) const POD_A_MAC: EthAddr = EthAddr([2, 0, 0, 0, 0, 0xaa]);
pub(super) const POD_B_MAC: EthAddr = EthAddr([2, 0, 0, 0, 0, 0xbb]);
pub(super) const GATEWAY_MAC: EthAddr = EthAddr([2, 0, 0, 0, 0, 0xfe]);
pub(super) const VTEP_MAC: EthAddr = EthAddr([2, 0x63, 0, 0, 0, 1]);
pub(super) const NODE_B_MAC: EthAddr = EthAddr([2, 0, 0, 0, 0, 0xf2]);
pub(super) const NODE_B_VTEP_MAC: EthAddr = EthAddr([2, 0x63, 0, 0, 0, 2]);

pub(super) const VNI: u32 = 4096;

/// The addresses of one IP version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ips {
    pub(super) a: IpAddr,
    pub(super) b: IpAddr,
    pub(super) gateway: IpAddr,
    pub(super) vtep: IpAddr,
    /// Pods on node B, which has an IPv4 underlay, and on node C, which has an IPv6 one.
    pub(super) on_b: IpAddr,
    pub(super) on_c: IpAddr,
    /// In this node's range, but nobody's.
    pub(super) nobody: IpAddr,
    /// In no range.
    pub(super) elsewhere: IpAddr,
    pub(super) vip: IpAddr,
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn both() -> [Ips; 2] {
    let of = |[a, b, gateway, vtep, on_b, on_c, nobody, elsewhere, vip]: [&str; 9]| Ips {
        a: ip(a),
        b: ip(b),
        gateway: ip(gateway),
        vtep: ip(vtep),
        on_b: ip(on_b),
        on_c: ip(on_c),
        nobody: ip(nobody),
        elsewhere: ip(elsewhere),
        vip: ip(vip),
    };
    [
        of([
            "10.1.0.5",
            "10.1.0.6",
            "10.1.0.1",
            "192.168.0.1",
            "10.2.0.7",
            "10.3.0.7",
            "10.1.0.99",
            "8.8.8.8",
            "10.96.0.10",
        ]),
        of([
            "fd00:1::5",
            "fd00:1::6",
            "fd00:1::1",
            "2001:db8::1",
            "fd00:2::7",
            "fd00:3::7",
            "fd00:1::99",
            "2600::8",
            "fd00:96::10",
        ]),
    ]
}

/// A node with what surrounds it.
pub(super) struct Node {
    pub(super) builder: Builder,
    pub(super) view: Snapshot,
    pub(super) counters: CounterSet,
    pub(super) flows: Arc<FlowTables>,
    pub(super) pipeline: Pipeline,
    pub(super) seconds: u64,
    revision: u64,
    local: proto::LocalNode,
}

/// What became of a packet, and what is in its buffer now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    pub(super) frame: Vec<u8>,
}

pub(super) fn local_node() -> proto::LocalNode {
    let underlay = |address: &str, prefix_len| proto::UnderlayAddress {
        address: octets(ip(address)),
        prefix_len,
        router: Vec::new(),
    };
    proto::LocalNode {
        name: "node-a".to_owned(),
        gateways: vec![octets(ip("10.1.0.1")), octets(ip("fd00:1::1"))],
        gateway_mac: GATEWAY_MAC.0.to_vec(),
        underlay: vec![underlay("192.168.0.1", 24), underlay("2001:db8::1", 64)],
        vtep_mac: VTEP_MAC.0.to_vec(),
        vni: VNI,
        pod_cidrs: vec![prefix("10.1.0.0", 24), prefix("fd00:1::", 64)],
        ..Default::default()
    }
}

pub(super) fn prefix(address: &str, prefix_len: u32) -> proto::Prefix {
    proto::Prefix { address: octets(ip(address)), prefix_len }
}

pub(super) fn remotes() -> Vec<proto::RemoteNode> {
    let remote = |name: &str, vtep, last, cidrs: [proto::Prefix; 2]| proto::RemoteNode {
        name: name.to_owned(),
        vtep: octets(ip(vtep)),
        vtep_mac: vec![2, 0x63, 0, 0, 0, last],
        pod_cidrs: cidrs.to_vec(),
        // Whether this node knows them or not.
        tenants: tenant::on_nodes(last),
    };
    vec![
        remote("node-b", "192.168.0.2", 2, [prefix("10.2.0.0", 24), prefix("fd00:2::", 64)]),
        remote("node-c", "2001:db8::3", 3, [prefix("10.3.0.0", 24), prefix("fd00:3::", 64)]),
    ]
}

pub(super) fn pod(name: &str, mac: EthAddr, addresses: [IpAddr; 2]) -> Port {
    let request = proto::AttachPortRequest {
        name: name.to_owned(),
        addresses: addresses.map(octets).to_vec(),
        mac: mac.0.to_vec(),
        mtu: 1450,
        ..Default::default()
    };
    Port::try_from(&request).unwrap()
}

/// A service on port 80 of a virtual address.
pub(super) fn service(protocol: proto::Protocol, vip: IpAddr, backends: &[(IpAddr, u32)]) -> proto::Service {
    let backend = |&(address, port)| proto::Backend { address: octets(address), port, ..Default::default() };
    proto::Service {
        namespace: "default".to_owned(),
        name: "web".to_owned(),
        port_name: format!("{protocol:?}").to_lowercase(),
        protocol: protocol.into(),
        vip: octets(vip),
        port: 80,
        backends: backends.iter().map(backend).collect(),
        ..Default::default()
    }
}

impl Node {
    pub(super) fn new() -> Self {
        Self::with_flows(100_000)
    }

    pub(super) fn with_flows(flows: u32) -> Self {
        Self::with_tables(FlowTables::new(flows).unwrap())
    }

    pub(super) fn with_tables(flows: Arc<FlowTables>) -> Self {
        let [v4, v6] = both();
        let mut builder = Builder::new();
        builder.attach(UPLINK, Port::uplink("up", UPLINK_MAC, Mtu::try_from(1500).unwrap())).unwrap();
        builder.attach(POD_A, pod("a", POD_A_MAC, [v4.a, v6.a])).unwrap();
        builder.attach(POD_B, pod("b", POD_B_MAC, [v4.b, v6.b])).unwrap();
        builder.set_neighbours([(ip("192.168.0.2"), NODE_B_MAC), (ip("2001:db8::3"), NODE_B_MAC)]);
        let (counters, mut writers) = counters(1);
        let pipeline = Pipeline::new(flows.worker(), writers.remove(0));
        let view = Snapshot::default();
        let local = local_node();
        let mut node = Self { builder, view, counters, flows, pipeline, seconds: 100, revision: 0, local };
        node.program(&[]);
        node
    }

    /// Replaces the services.
    pub(super) fn program(&mut self, services: &[proto::Service]) {
        self.program_all(self.local.clone(), remotes(), services);
    }

    /// Replaces all tables.
    pub(super) fn program_all(
        &mut self,
        local: proto::LocalNode,
        remotes: Vec<proto::RemoteNode>,
        services: &[proto::Service],
    ) {
        self.revision += 1;
        let applied = self
            .builder
            .apply(&proto::Tables {
                revision: self.revision,
                synced: true,
                node: Some(local),
                remotes,
                services: services.to_vec(),
            })
            .unwrap();
        self.counters.reserve_services(applied.service_slots);
        self.publish();
    }

    /// Changes what this node is told about itself; there are no services afterwards.
    pub(super) fn configure(&mut self, change: impl FnOnce(&mut proto::LocalNode)) {
        change(&mut self.local);
        self.program(&[]);
    }

    pub(super) fn publish(&mut self) {
        self.view = self.builder.snapshot();
    }

    pub(super) fn run(&mut self, port: PortIndex, frame: &[u8]) -> Outcome {
        let mut outcomes = self.burst(port, &[frame.to_vec()]);
        outcomes.remove(0)
    }

    /// What a packet tells that ends with that.
    pub(super) fn hear(&mut self, port: PortIndex, frame: &[u8]) -> Vec<Learned> {
        assert_eq!(self.run(port, frame).verdict, Verdict::Learned);
        self.pipeline.learned().to_vec()
    }

    pub(super) fn burst(&mut self, port: PortIndex, frames: &[Vec<u8>]) -> Vec<Outcome> {
        let mut bufs: Vec<_> = frames.iter().map(|frame| TestBuf::new(frame)).collect();
        self.burst_of(port, &mut bufs)
    }

    pub(super) fn burst_of(&mut self, port: PortIndex, bufs: &mut [TestBuf]) -> Vec<Outcome> {
        let now = Tick::at(Duration::from_secs(self.seconds));
        let mut verdicts = Vec::new();
        let leaving = self.pipeline.process(&self.view, now, port, bufs, &mut verdicts);
        assert_eq!(verdicts.len(), bufs.len());
        assert!(match leaving {
            super::Leaving::Together(port) => verdicts.iter().all(|verdict| *verdict == Verdict::Send(port)),
            super::Leaving::Ready => verdicts.iter().all(|verdict| matches!(verdict, Verdict::Send(_))),
            super::Leaving::Variously => true,
        });
        let outcome = |(&verdict, buf): (&Verdict, &TestBuf)| Outcome { verdict, frame: buf.data().to_vec() };
        verdicts.iter().zip(&*bufs).map(outcome).collect()
    }

    /// Ages every flow as of now.
    pub(super) fn age(&mut self) {
        for _ in 0..100 {
            self.pipeline.age(&self.view, Tick::at(Duration::from_secs(self.seconds)), false);
        }
    }

    /// Begins to take over what another node's process left.
    pub(super) fn succeed(&mut self, before: &Self) {
        self.seconds = before.seconds + 2;
        let left = Left::open(before.flows.segment().unwrap().as_fd()).unwrap();
        let elapsed = Duration::from_secs(self.seconds);
        let now = (Tick::at(elapsed), Moment::after(elapsed));
        let workers = std::slice::from_mut(&mut self.pipeline.flows);
        self.flows.take_over(workers, vec![left], &self.view, now).unwrap();
    }

    /// A packet of node B's pod through the tunnel.
    pub(super) fn run_tunnelled(&mut self, inner: Vec<u8>) -> Outcome {
        self.run(UPLINK, &tunnelled(inner))
    }

    pub(super) fn dropped(&self, reason: DropReason) -> u64 {
        self.counters.dropped(reason)
    }

    pub(super) fn answered(&self, name: &str) -> u64 {
        self.counters.answered().into_iter().find(|(kind, _)| *kind == name).unwrap().1
    }

    pub(super) fn flow_count(&self) -> usize {
        self.flows.v4.iter().count() + self.flows.v6.iter().count()
    }

    /// Asserts that the packet is dropped for this reason, once, and counted for its port.
    #[track_caller]
    pub(super) fn assert_dropped(&mut self, port: PortIndex, frame: &[u8], reason: DropReason) {
        let before = (self.dropped(reason), self.counters.port(port).rx_dropped);
        let outcome = self.run(port, frame);
        assert_eq!(outcome.verdict, Verdict::Drop(reason));
        assert_eq!((self.dropped(reason), self.counters.port(port).rx_dropped), (before.0 + 1, before.1 + 1));
    }
}

/// A frame from pod A to its router.
pub(super) fn from_a(frame: Vec<u8>) -> Vec<u8> {
    testkit::with_macs(frame, GATEWAY_MAC, POD_A_MAC)
}

/// A frame from pod B to its router.
pub(super) fn from_b(frame: Vec<u8>) -> Vec<u8> {
    testkit::with_macs(frame, GATEWAY_MAC, POD_B_MAC)
}

/// A frame in the tunnel from node B.
pub(super) fn tunnelled(inner: Vec<u8>) -> Vec<u8> {
    let inner = testkit::with_macs(inner, VTEP_MAC, NODE_B_VTEP_MAC);
    let outer = testkit::vxlan("192.168.0.2:50000".parse().unwrap(), ip("192.168.0.1"), VNI, &inner);
    testkit::with_macs(outer, UPLINK_MAC, NODE_B_MAC)
}

pub(super) fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

pub(super) fn syn(src: SocketAddr, dst: SocketAddr) -> Vec<u8> {
    testkit::tcp(src, dst, TcpFlags::SYN, b"")
}

/// What a frame says; its checksums must be right and nothing may be behind its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) macs: (EthAddr, EthAddr),
    pub(super) src: SocketAddr,
    pub(super) dst: SocketAddr,
    pub(super) protocol: Protocol,
    pub(super) ttl: u8,
    pub(super) parsed: Parsed,
}

#[track_caller]
pub(super) fn read(frame: &[u8]) -> Read {
    let parsed = parse(frame).unwrap();
    assert_eq!(verify_transport(frame, &parsed), Ok(()));
    assert_eq!(parsed.end(), frame.len(), "padding");
    let header = super::frame::eth(frame);
    let (src, dst) = match FlowKey4::of(frame, &parsed, Tenant::DEFAULT) {
        Some(key) => (key.source(), key.destination()),
        None => {
            let key = FlowKey6::of(frame, &parsed, Tenant::DEFAULT).expect("an IP packet");
            (key.source(), key.destination())
        }
    };
    Read {
        macs: (header.dst(), header.src()),
        src: src.into(),
        dst: dst.into(),
        protocol: parsed.protocol,
        ttl: parsed.ttl,
        parsed,
    }
}

/// The inner frame of a packet that was sent through the tunnel to node B.
#[track_caller]
pub(super) fn inner(outcome: &Outcome) -> Vec<u8> {
    assert_eq!(outcome.verdict, Verdict::Send(UPLINK));
    let outer = read(&outcome.frame);
    assert_eq!(outer.macs, (NODE_B_MAC, UPLINK_MAC));
    assert_eq!((outer.src.ip(), outer.dst), (ip("192.168.0.1"), at(ip("192.168.0.2"), 4789)));
    let tunnel = culvert_packet::encap::decap(&outcome.frame, &outer.parsed).unwrap();
    assert_eq!(tunnel.vni, VNI);
    outcome.frame[tunnel.inner_offset..][..tunnel.inner_len].to_vec()
}

/// ICMP type and code of a frame.
#[track_caller]
pub(super) fn icmp(frame: &[u8]) -> (u8, u8) {
    let read = read(frame);
    assert!(matches!(read.protocol, Protocol::ICMP | Protocol::ICMPV6), "{read:?}");
    let message = &frame[usize::from(read.parsed.l4_offset)..];
    (message[0], message[1])
}

/// Type and code of ICMP, or of ICMPv6 for IPv6 addresses.
pub(super) fn kind(ips: &Ips, v4: (u8, u8), v6: (u8, u8)) -> (u8, u8) {
    if ips.a.is_ipv4() { v4 } else { v6 }
}
