//! What each change of the tables does to a flow that is there: it counts from the flow's next packet on.

use culvert_packet::encap::decap;
use culvert_packet::sctp::{ChunkType, SctpChunks};

use super::sctp::init;
use super::*;
use crate::counter::DropReason as R;

const PROTOCOLS: [proto::Protocol; 3] = [proto::Protocol::Tcp, proto::Protocol::Udp, proto::Protocol::Sctp];

/// A flow of pod A to the service, in its midst, and the node that it goes through.
struct Flow {
    node: Node,
    protocol: proto::Protocol,
    ips: Ips,
}

/// What became of a packet of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// It went to a pod here.
    Here(PortIndex, SocketAddr),
    /// It went through the tunnel to a node, by the addresses of the outer and the inner header.
    There { mac: EthAddr, vtep: IpAddr, vni: u32, inner_mac: EthAddr, dst: SocketAddr },
    /// The client was told that the connection is over: by RST, ABORT, or "port unreachable".
    Refused,
    /// The client was told that the endpoint is not to be found.
    HostUnreachable,
    /// The client was told that there is no such network.
    NetUnreachable,
    /// The client was told to send packets of this size.
    TooBig(u32),
    /// Nothing.
    Dropped(R),
}

/// Pods of node B, while nothing has changed.
fn there(dst: SocketAddr) -> Next {
    Next::There { mac: NODE_B_MAC, vtep: ip("192.168.0.2"), vni: VNI, inner_mac: NODE_B_VTEP_MAC, dst }
}

impl Flow {
    /// One to `endpoint`, which has answered.
    fn to(protocol: proto::Protocol, ips: Ips, endpoint: IpAddr) -> Self {
        let mut flow = Self { node: Node::new(), protocol, ips };
        flow.node.program(&[service(protocol, ips.vip, &[(endpoint, 8080)])]);
        let (client, vip, server) = (at(ips.a, 1000), at(ips.vip, 80), at(endpoint, 8080));
        let chunk = |kind| testkit::sctp_chunk(kind, 0, &[1; 16]);
        let (opening, answer) = match protocol {
            proto::Protocol::Tcp => (
                vec![syn(client, vip), flow.packet(b"")],
                testkit::tcp(server, client, TcpFlags::SYN | TcpFlags::ACK, b""),
            ),
            proto::Protocol::Sctp => (
                vec![init(client, vip), testkit::sctp(client, vip, 1, &chunk(ChunkType::COOKIE_ECHO))],
                testkit::sctp(server, client, 1, &chunk(ChunkType::INIT_ACK)),
            ),
            _ => (vec![flow.packet(b"x"), flow.packet(b"y")], testkit::udp(server, client, b"z")),
        };
        for packet in opening {
            let sent = flow.node.run(POD_A, &from_a(packet));
            assert!(matches!(sent.verdict, Verdict::Send(POD_B | UPLINK)), "{sent:?}");
            flow.answer(answer.clone());
        }
        flow
    }

    /// The endpoint says something.
    fn answer(&mut self, packet: Vec<u8>) -> Outcome {
        if self.ips.b == read(&packet).src.ip() {
            self.node.run(POD_B, &from_b(packet))
        } else {
            self.node.run_tunnelled(packet)
        }
    }

    /// A packet of the client from the midst of the flow.
    fn packet(&self, data: &[u8]) -> Vec<u8> {
        let (client, vip) = (at(self.ips.a, 1000), at(self.ips.vip, 80));
        match self.protocol {
            proto::Protocol::Tcp => testkit::tcp(client, vip, TcpFlags::ACK, data),
            proto::Protocol::Sctp => testkit::sctp(
                client,
                vip,
                1,
                &testkit::sctp_chunk(ChunkType::DATA, 3, &[data, b"1234"].concat()),
            ),
            _ => testkit::udp(client, vip, data),
        }
    }

    fn next(&mut self) -> Next {
        self.next_of(b"data")
    }

    #[track_caller]
    fn next_of(&mut self, data: &[u8]) -> Next {
        let outcome = self.node.run(POD_A, &from_a(self.packet(data)));
        match outcome.verdict {
            Verdict::Send(POD_A) => self.told(&outcome.frame),
            Verdict::Send(UPLINK) => {
                let outer = read(&outcome.frame);
                let tunnel = decap(&outcome.frame, &outer.parsed).unwrap();
                let inner = read(&outcome.frame[tunnel.inner_offset..][..tunnel.inner_len]);
                Next::There {
                    mac: outer.macs.0,
                    vtep: outer.dst.ip(),
                    vni: tunnel.vni,
                    inner_mac: inner.macs.0,
                    dst: inner.dst,
                }
            }
            Verdict::Send(port) => Next::Here(port, read(&outcome.frame).dst),
            Verdict::Drop(reason) => Next::Dropped(reason),
            Verdict::Learned => panic!("{outcome:?}"),
        }
    }

    fn told(&self, frame: &[u8]) -> Next {
        let got = read(frame);
        let refused = got.parsed.tcp_flags.contains(TcpFlags::RST)
            || got.parsed.sctp_chunks.contains(SctpChunks::ABORT)
            || got.protocol != Protocol::TCP
                && got.protocol != Protocol::SCTP
                && icmp(frame) == kind(&self.ips, (3, 3), (1, 4));
        if refused {
            return Next::Refused;
        }
        let message = &frame[usize::from(got.parsed.l4_offset)..];
        match icmp(frame) {
            told if told == kind(&self.ips, (3, 1), (1, 3)) => Next::HostUnreachable,
            told if told == kind(&self.ips, (3, 0), (1, 0)) => Next::NetUnreachable,
            told if told == kind(&self.ips, (3, 4), (2, 0)) => {
                Next::TooBig(u32::from_be_bytes(*message[4..].first_chunk().unwrap()))
            }
            told => panic!("told {told:?}"),
        }
    }

    /// The service with these endpoints.
    fn endpoints(&self, endpoints: &[(IpAddr, u32)]) -> proto::Service {
        service(self.protocol, self.ips.vip, endpoints)
    }

    fn is_udp(&self) -> bool {
        self.protocol == proto::Protocol::Udp
    }
}

/// Flows of each protocol and IP version to the pod here and to the one on node B.
fn flows() -> impl Iterator<Item = (Flow, IpAddr)> {
    PROTOCOLS.into_iter().flat_map(|protocol| {
        both().into_iter().flat_map(move |ips| {
            [ips.b, ips.on_b].map(|endpoint| (Flow::to(protocol, ips, endpoint), endpoint))
        })
    })
}

#[test]
fn a_service_that_is_gone_has_no_flows() {
    for (mut flow, _) in flows() {
        flow.node.program(&[]);
        let wanted = if flow.is_udp() { Next::NetUnreachable } else { Next::Refused };
        assert_eq!(flow.next(), wanted);
        assert_eq!(flow.next(), Next::NetUnreachable, "no address of a service any more");
        assert_eq!(flow.node.flow_count(), 0);
    }
}

#[test]
fn a_port_that_a_service_lost_is_refused() {
    for (mut flow, endpoint) in flows() {
        let other = proto::Service { port: 81, ..flow.endpoints(&[(endpoint, 8080)]) };
        flow.node.program(&[other]);
        assert_eq!([flow.next(), flow.next()], [Next::Refused, Next::Refused]);
        assert_eq!(flow.node.flow_count(), 0);
    }
}

#[test]
fn an_endpoint_that_is_gone_gets_nothing_more() {
    for (mut flow, endpoint) in flows() {
        let (other, wanted) = if endpoint == flow.ips.b {
            (flow.ips.on_b, there(at(flow.ips.on_b, 8080)))
        } else {
            (flow.ips.b, Next::Here(POD_B, at(flow.ips.b, 8080)))
        };
        flow.node.program(&[flow.endpoints(&[(other, 8080)])]);
        let wanted = if flow.is_udp() { wanted } else { Next::Refused };
        assert_eq!(flow.next(), wanted);
        assert_eq!(flow.next(), wanted, "and so it stays");
    }
}

#[test]
fn an_endpoint_that_came_back_is_another() {
    for (mut flow, endpoint) in flows() {
        let before = flow.next();
        let service = flow.endpoints(&[(endpoint, 8080)]);
        flow.node.program(&[flow.endpoints(&[])]);
        flow.node.program(std::slice::from_ref(&service));
        let created = flow.node.counters.flows().created;
        let wanted = if flow.is_udp() { before } else { Next::Refused };
        assert_eq!(flow.next(), wanted);
        assert_eq!(flow.node.counters.flows().created, created + u64::from(flow.is_udp()));
    }
}

#[test]
fn a_service_that_was_replaced_by_an_equal_one_keeps_its_flows() {
    for (mut flow, endpoint) in flows() {
        let before = flow.next();
        let mut service = flow.endpoints(&[(endpoint, 8080), (flow.ips.on_c, 9)]);
        service.affinity_seconds = 60;
        flow.node.program(&[service]);
        assert_eq!(flow.next(), before);
        assert_eq!(flow.node.counters.flows().created, 1);
    }
}

#[test]
fn an_endpoint_with_another_port_is_another() {
    for (mut flow, endpoint) in flows() {
        flow.node.program(&[flow.endpoints(&[(endpoint, 9090)])]);
        let moved = at(endpoint, 9090);
        let moved = if endpoint == flow.ips.b { Next::Here(POD_B, moved) } else { there(moved) };
        let wanted = if flow.is_udp() { moved } else { Next::Refused };
        assert_eq!(flow.next(), wanted);
    }
}

#[test]
fn a_terminating_endpoint_keeps_its_flows_alone_or_not() {
    for others in [&[][..], &[9]] {
        for (mut flow, endpoint) in flows() {
            let before = flow.next();
            let mut service = flow.endpoints(&[(endpoint, 8080)]);
            service.backends[0].terminating = true;
            let others: Vec<_> = others.iter().map(|&port| (flow.ips.on_c, port)).collect();
            service.backends.extend(flow.endpoints(&others).backends);
            flow.node.program(&[service]);
            assert_eq!(flow.next(), before);
            assert_eq!(flow.node.counters.flows().created, 1);
        }
    }
}

#[test]
fn an_endpoint_that_is_not_ready_keeps_its_connections_but_no_datagrams() {
    for (mut flow, endpoint) in flows() {
        let before = flow.next();
        let mut service = flow.endpoints(&[(endpoint, 8080)]);
        service.backends[0].draining = true;
        flow.node.program(std::slice::from_ref(&service));
        let wanted = if flow.is_udp() { Next::Refused } else { before };
        assert_eq!(flow.next(), wanted);
        // Ready again: nothing changes for connections.
        service.backends[0].draining = false;
        flow.node.program(&[service]);
        assert!(matches!(flow.next(), Next::Here(..) | Next::There { .. }));
        assert_eq!(flow.node.counters.flows().created, 1 + u64::from(flow.is_udp()));
    }
}

#[test]
fn a_node_that_moved_is_reached_where_it_is_now() {
    type Change = fn(&mut Flow, &mut proto::LocalNode, &mut Vec<proto::RemoteNode>);
    type Expect = fn(&mut Next);
    const OTHER_MAC: EthAddr = EthAddr([2, 9, 9, 9, 9, 9]);
    let changes: [(&str, Change, Expect); 5] = [
        (
            "the tunnel endpoint's address",
            |flow, _, remotes| {
                remotes[0].vtep = octets(ip("192.168.0.77"));
                flow.node.builder.set_neighbours([(ip("192.168.0.77"), OTHER_MAC)]);
            },
            |next| {
                if let Next::There { mac, vtep, .. } = next {
                    (*mac, *vtep) = (OTHER_MAC, ip("192.168.0.77"));
                }
            },
        ),
        (
            "its inner MAC address",
            |_, _, remotes| remotes[0].vtep_mac = OTHER_MAC.0.to_vec(),
            |next| {
                if let Next::There { inner_mac, .. } = next {
                    *inner_mac = OTHER_MAC;
                }
            },
        ),
        (
            "its Ethernet address on the underlay",
            |flow, _, _| assert!(flow.node.builder.set_neighbours([(ip("192.168.0.2"), OTHER_MAC)])),
            |next| {
                if let Next::There { mac, .. } = next {
                    *mac = OTHER_MAC;
                }
            },
        ),
        (
            "the network identifier",
            |_, local, _| local.vni = 77,
            |next| {
                if let Next::There { vni, .. } = next {
                    *vni = 77;
                }
            },
        ),
        (
            "the pods' range, which is another node's now",
            |_, _, remotes| {
                let [b, c] = &mut remotes[..] else { panic!("two nodes") };
                std::mem::swap(&mut b.pod_cidrs, &mut c.pod_cidrs);
            },
            |next| {
                if let Next::There { vtep, inner_mac, .. } = next {
                    (*vtep, *inner_mac) = (ip("2001:db8::3"), EthAddr([2, 0x63, 0, 0, 0, 3]));
                }
            },
        ),
    ];
    for (what, change, expect) in changes {
        for protocol in PROTOCOLS {
            for ips in both() {
                let mut flow = Flow::to(protocol, ips, ips.on_b);
                let (mut local, mut remotes) = (local_node(), remotes());
                change(&mut flow, &mut local, &mut remotes);
                flow.node.program_all(local, remotes, &[flow.endpoints(&[(ips.on_b, 8080)])]);
                let mut wanted = there(at(ips.on_b, 8080));
                expect(&mut wanted);
                assert_eq!(flow.next(), wanted, "{what}");
                assert_eq!(flow.node.counters.flows().created, 1, "{what}");
            }
        }
    }
}

#[test]
fn a_node_that_is_gone_or_not_resolved_is_not_reached() {
    for protocol in PROTOCOLS {
        for ips in both() {
            let mut flow = Flow::to(protocol, ips, ips.on_b);
            flow.node.builder.set_neighbours([]);
            flow.node.publish();
            assert_eq!(flow.next(), Next::Dropped(R::NEXT_HOP_UNRESOLVED));
            let service = flow.endpoints(&[(ips.on_b, 8080)]);
            flow.node.program_all(local_node(), remotes().split_off(1), std::slice::from_ref(&service));
            assert_eq!(flow.next(), Next::NetUnreachable);
            flow.node.builder.set_neighbours([(ip("192.168.0.2"), NODE_B_MAC)]);
            flow.node.program(&[service]);
            assert_eq!(flow.next(), there(at(ips.on_b, 8080)), "the flow itself is still there");
        }
    }
}

#[test]
fn an_mtu_that_changes_counts_at_once() {
    for (mut flow, endpoint) in flows() {
        let data = [7; 1340];
        assert!(matches!(flow.next_of(&data), Next::Here(..) | Next::There { .. }));
        if endpoint == flow.ips.b {
            let mut port = flow.node.view.port(POD_B).unwrap().clone();
            port.mtu = 1300;
            flow.node.builder.attach(POD_B, port).unwrap();
            flow.node.publish();
        } else {
            let local = proto::LocalNode { underlay_mtu: 1350, ..local_node() };
            flow.node.program_all(local, remotes(), &[flow.endpoints(&[(endpoint, 8080)])]);
        }
        assert_eq!(flow.next_of(&data), Next::TooBig(1300));
        assert!(matches!(flow.next_of(&data[..1200]), Next::Here(..) | Next::There { .. }));
    }
}

#[test]
fn a_pod_whose_port_is_gone_is_unreachable_until_it_is_back() {
    for protocol in PROTOCOLS {
        for ips in both() {
            let mut flow = Flow::to(protocol, ips, ips.b);
            let port = flow.node.builder.detach(POD_B).unwrap();
            flow.node.publish();
            assert_eq!([flow.next(), flow.next()], [Next::HostUnreachable, Next::HostUnreachable]);
            flow.node.builder.attach(PortIndex(9), port).unwrap();
            flow.node.publish();
            assert_eq!(flow.next(), Next::Here(PortIndex(9), at(ips.b, 8080)));
        }
    }
}

#[test]
fn what_lost_connections_get_is_the_nodes_policy() {
    use proto::LostConnections as L;
    for (lost, gone, unknown) in [
        (L::Unspecified, Next::Refused, Next::Refused),
        (L::Reset, Next::Refused, Next::Refused),
        (L::Drop, Next::Dropped(R::FLOW_ENDPOINT_GONE), Next::Dropped(R::FLOW_UNKNOWN)),
    ] {
        for (mut flow, endpoint) in flows().filter(|(flow, _)| !flow.is_udp()) {
            let policy = proto::FlowPolicy { lost_connections: lost.into(), ..Default::default() };
            let local = proto::LocalNode { flows: Some(policy), ..local_node() };
            let other = if endpoint == flow.ips.b { flow.ips.on_b } else { flow.ips.b };
            flow.node.program_all(local, remotes(), &[flow.endpoints(&[(other, 8080)])]);
            assert_eq!((flow.next(), flow.next()), (gone, unknown));
            assert_eq!(flow.node.flow_count(), 0);
        }
    }
    for (mut flow, endpoint) in flows().filter(|(flow, _)| !flow.is_udp()) {
        let policy = proto::FlowPolicy { lost_connections: L::Reselect.into(), ..Default::default() };
        let local = proto::LocalNode { flows: Some(policy), ..local_node() };
        let (other, wanted) = if endpoint == flow.ips.b {
            (flow.ips.on_b, there(at(flow.ips.on_b, 8080)))
        } else {
            (flow.ips.b, Next::Here(POD_B, at(flow.ips.b, 8080)))
        };
        flow.node.program_all(local, remotes(), &[flow.endpoints(&[(other, 8080)])]);
        assert_eq!(flow.next(), wanted);
        assert_eq!((flow.next(), flow.node.counters.flows().created), (wanted, 2));
        // What says that a connection is over opens none.
        let flow_count = flow.node.flow_count();
        let end = match flow.protocol {
            proto::Protocol::Tcp => testkit::tcp(at(flow.ips.a, 7), at(flow.ips.vip, 80), TcpFlags::RST, b""),
            _ => testkit::sctp(
                at(flow.ips.a, 7),
                at(flow.ips.vip, 80),
                1,
                &testkit::sctp_chunk(ChunkType::ABORT, 0, b""),
            ),
        };
        flow.node.assert_dropped(POD_A, &from_a(end), R::FLOW_UNKNOWN);
        assert_eq!(flow.node.flow_count(), flow_count);
    }
}

#[test]
fn timeouts_are_the_nodes_policy_from_the_next_look_on() {
    for ips in both() {
        let mut node = Node::new();
        let web = [service(proto::Protocol::Udp, ips.vip, &[(ips.b, 53)])];
        node.program(&web);
        node.run(POD_A, &from_a(testkit::udp(at(ips.a, 1000), at(ips.vip, 80), b"x")));
        node.seconds += 20;
        node.age();
        assert_eq!(node.flow_count(), 1);
        let timeouts = proto::FlowTimeouts { udp_unreplied: 10, ..Default::default() };
        let policy = proto::FlowPolicy { timeouts: Some(timeouts), ..Default::default() };
        let local = proto::LocalNode { flows: Some(policy), ..local_node() };
        node.program_all(local, remotes(), &web);
        node.age();
        assert_eq!(node.flow_count(), 0);
    }
}
