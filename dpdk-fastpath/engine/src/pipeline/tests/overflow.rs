use culvert_packet::sctp::ChunkType;

use super::sctp::init;
use super::*;
use crate::counter::DropReason as R;
use crate::flow::State;

const PROTOCOLS: [proto::Protocol; 3] = [proto::Protocol::Tcp, proto::Protocol::Udp, proto::Protocol::Sctp];

/// The port that the client in these tests uses, and how it is marked.
const PORT: u16 = 40_000;
const MARKED: u16 = PORT - 32_768;

/// A second virtual address, for a flood.
fn other_vip(ips: &Ips) -> IpAddr {
    if ips.a.is_ipv4() { ip("10.96.0.11") } else { ip("fd00:96::11") }
}

/// The packets of a connection: the first, and those that follow.
pub(super) fn packets(protocol: proto::Protocol, src: SocketAddr, dst: SocketAddr) -> [Vec<u8>; 2] {
    let chunk = |kind| testkit::sctp(src, dst, 1, &testkit::sctp_chunk(kind, 0, b"data"));
    match protocol {
        proto::Protocol::Tcp => [syn(src, dst), testkit::tcp(src, dst, TcpFlags::ACK, b"data")],
        proto::Protocol::Sctp => [init(src, dst), chunk(ChunkType::DATA)],
        _ => [testkit::udp(src, dst, b"first"), testkit::udp(src, dst, b"second")],
    }
}

/// A node whose table pod B has filled with connections that nobody answers, to an address of their own.
fn full(protocol: proto::Protocol, ips: &Ips, endpoint: IpAddr) -> Node {
    let mut node = Node::with_flows(1);
    fill(&mut node, protocol, ips, endpoint);
    node
}

pub(super) fn fill(node: &mut Node, protocol: proto::Protocol, ips: &Ips, endpoint: IpAddr) {
    let flooded = service(proto::Protocol::Tcp, other_vip(ips), &[(ips.on_b, 9)]);
    node.program(&[service(protocol, ips.vip, &[(endpoint, 8080)]), flooded]);
    for n in 0..node.flows.capacity() as u16 {
        let outcome = node.run(POD_B, &from_b(syn(at(ips.b, 1000 + n), at(other_vip(ips), 80))));
        assert_eq!(outcome.verdict, Verdict::Send(UPLINK));
    }
    assert_eq!(node.counters.flows().stateless, 0);
}

pub(super) fn inner_or_frame(outcome: &Outcome) -> Vec<u8> {
    if outcome.verdict == Verdict::Send(UPLINK) { inner(outcome) } else { outcome.frame.clone() }
}

/// A packet of the endpoint, by itself or through the tunnel.
pub(super) fn from_endpoint(node: &mut Node, ips: &Ips, endpoint: IpAddr, frame: Vec<u8>) -> Outcome {
    if endpoint == ips.b { node.run(POD_B, &from_b(frame)) } else { node.run_tunnelled(frame) }
}

#[test]
fn a_connection_without_record_works_both_ways_and_gets_one_when_there_is_room() {
    for protocol in PROTOCOLS {
        for ips in both() {
            for endpoint in [ips.b, ips.on_b] {
                let mut node = full(protocol, &ips, endpoint);
                let (client, vip) = (at(ips.a, PORT), at(ips.vip, 80));
                let (marked, server) = (at(ips.a, MARKED), at(endpoint, 8080));
                let requests = packets(protocol, client, vip);
                let answers = packets(protocol, server, marked);
                let flows = node.flow_count();
                for request in &requests {
                    let outcome = node.run(POD_A, &from_a(request.clone()));
                    assert_eq!(read(&inner_or_frame(&outcome)).src, marked, "{protocol:?}");
                    assert_eq!(read(&inner_or_frame(&outcome)).dst, server);
                    let answer = from_endpoint(&mut node, &ips, endpoint, answers[1].clone());
                    assert_eq!(answer.verdict, Verdict::Send(POD_A));
                    let got = read(&answer.frame);
                    assert_eq!((got.src, got.dst, got.macs.0), (vip, client, POD_A_MAC));
                }
                assert_eq!((node.counters.flows().stateless, node.flow_count()), (4, flows));

                // The others were never answered, and are forgotten.
                node.seconds += 6;
                node.age();
                assert!(node.flow_count() < flows);
                for _ in 0..2 {
                    let outcome = node.run(POD_A, &from_a(requests[1].clone()));
                    assert_eq!(read(&inner_or_frame(&outcome)).src, marked, "{protocol:?}: the port changed");
                    let answer = from_endpoint(&mut node, &ips, endpoint, answers[1].clone());
                    assert_eq!((read(&answer.frame).src, read(&answer.frame).dst), (vip, client));
                }
                assert_eq!(node.counters.flows().stateless, 4, "there is a record now");
                let states = node.flows.v4.iter().map(|hit| (hit.record.original.dst_port(), hit.state()));
                let states6 = node.flows.v6.iter().map(|hit| (hit.record.original.dst_port(), hit.state()));
                let wanted = match protocol {
                    proto::Protocol::Tcp => State::Established,
                    proto::Protocol::Sctp => State::Associated,
                    _ => State::TwoWay,
                };
                assert_eq!(states.chain(states6).filter(|&(_, state)| state == wanted).count(), 1);
            }
        }
    }
}

/// A node of another process, which has taken over what this one left.
pub(super) fn successor(before: &Node, flows: u32, services: &[proto::Service]) -> Node {
    let mut node = Node::with_tables(FlowTables::shared(flows, 64, false).unwrap());
    node.program(services);
    node.succeed(before);
    let now = Tick::at(Duration::from_secs(node.seconds));
    while node.pipeline.take_over(&node.view, now, true) {}
    node
}

#[test]
fn connections_without_record_go_on_with_the_process_that_takes_over() {
    const CLIENTS: u16 = 20;
    for (protocol, ips) in PROTOCOLS.into_iter().flat_map(|protocol| both().map(|ips| (protocol, ips))) {
        let mut before = Node::with_tables(FlowTables::shared(1, 64, false).unwrap());
        fill(&mut before, protocol, &ips, ips.b);
        let flooded = service(proto::Protocol::Tcp, other_vip(&ips), &[(ips.on_b, 9)]);
        let endpoints = [(ips.b, 8080), (ips.on_b, 8080), (ips.b, 8081), (ips.on_b, 8081)];
        let served = proto::Service {
            balancing: proto::Balancing::RoundRobin.into(),
            ..service(protocol, ips.vip, &endpoints)
        };
        before.program(&[served.clone(), flooded.clone()]);
        let request = |n: u16, part: usize| {
            let packets = packets(protocol, at(ips.a, PORT + n), at(ips.vip, 80));
            from_a(packets[part].clone())
        };
        let sent = |node: &mut Node, n, part| {
            let sent = read(&inner_or_frame(&node.run(POD_A, &request(n, part))));
            (sent.src, sent.dst)
        };
        let became: Vec<_> = (0..CLIENTS).map(|n| sent(&mut before, n, 0)).collect();
        assert_eq!(before.counters.flows().stateless, u64::from(CLIENTS));
        assert!(
            became.iter().any(|flow| flow.1.ip() == ips.b)
                && became.iter().any(|flow| flow.1.ip() == ips.on_b)
        );

        // Slots of services and endpoints are others; at first as full as before, then with room.
        let more = proto::Service { port: 81, ..service(protocol, ips.vip, &[(ips.on_c, 1)]) };
        let services = [flooded, more, served];
        for (flows, stateless) in [(1, 3), (4096, 1)] {
            let mut after = successor(&before, flows, &services);
            for n in 0..CLIENTS {
                let (marked, endpoint) = became[usize::from(n)];
                // The answer before anything else that would tell of the connection.
                let answer = packets(protocol, endpoint, marked)[1].clone();
                for part in 0..2 {
                    let got = from_endpoint(&mut after, &ips, endpoint.ip(), answer.clone());
                    assert_eq!(got.verdict, Verdict::Send(POD_A), "{protocol:?}");
                    let got = read(&got.frame);
                    assert_eq!((got.src, got.dst), (at(ips.vip, 80), at(ips.a, PORT + n)));
                    if part == 0 {
                        assert_eq!(sent(&mut after, n, 1), (marked, endpoint), "{protocol:?}");
                    }
                }
            }
            // With room there is a record from the client's packet on.
            assert_eq!(after.counters.flows().stateless, stateless * u64::from(CLIENTS));
        }

        // Without what was left nothing tells whose these packets are.
        let mut other = Node::new();
        other.program(&services);
        let (marked, endpoint) = became[0];
        let answer = packets(protocol, endpoint, marked)[1].clone();
        let got = from_endpoint(&mut other, &ips, endpoint.ip(), answer);
        assert_eq!(read(&got.frame).src, endpoint);
    }
}

#[test]
fn a_datagram_in_fragments_works_without_record() {
    for ips in both() {
        let mut node = full(proto::Protocol::Udp, &ips, ips.on_b);
        let there = testkit::udp(at(ips.a, PORT), at(ips.vip, 80), &[7; 4000]);
        for fragment in testkit::fragments(&there, 1400) {
            let outcome = node.run(POD_A, &from_a(fragment));
            assert_eq!(read(&inner(&outcome)).dst.ip(), ips.on_b);
        }
        let back = testkit::udp(at(ips.on_b, 8080), at(ips.a, MARKED), &[8; 4000]);
        for fragment in testkit::fragments(&back, 1400) {
            let outcome = node.run_tunnelled(fragment);
            assert_eq!((outcome.verdict, read(&outcome.frame).src.ip()), (Verdict::Send(POD_A), ips.vip));
        }
        assert_eq!(node.counters.flows().stateless, 2);
    }
}

#[test]
fn errors_about_what_went_without_record_reach_the_client_and_name_the_service() {
    for protocol in PROTOCOLS {
        for ips in both() {
            let mut node = full(protocol, &ips, ips.on_b);
            let sent = packets(protocol, at(ips.a, PORT), at(ips.vip, 80))[0].clone();
            let arrived = inner(&node.run(POD_A, &from_a(sent)));
            let router = if ips.a.is_ipv4() { ip("10.2.0.1") } else { ip("fd00:2::1") };
            let (too_big, mtu) = (kind(&ips, (3, 4), (2, 0)), 1300);
            for (reporter, seen) in [(router, router), (ips.on_b, ips.vip)] {
                let error = testkit::icmp_error(reporter, too_big, mtu, &arrived, 1000);
                let outcome = node.run_tunnelled(error);
                assert_eq!(outcome.verdict, Verdict::Send(POD_A));
                assert_eq!((read(&outcome.frame).src.ip(), icmp(&outcome.frame)), (seen, too_big));
                // Behind eight bytes of the error: the packet as it left the client.
                let quoted = &outcome.frame[usize::from(read(&outcome.frame).parsed.l4_offset) + 8..];
                let mut whole = outcome.frame[..14].to_vec();
                whole.extend_from_slice(quoted);
                let quoted = read(&whole);
                assert_eq!((quoted.src, quoted.dst), (at(ips.a, PORT), at(ips.vip, 80)), "{protocol:?}");
            }
            assert_eq!(node.counters.errors().translated, 2);
            // A pod that is not the endpoint has nothing to say about that.
            let error = testkit::icmp_error(ips.b, too_big, mtu, &arrived, 1000);
            node.assert_dropped(POD_B, &from_b(error), R::ICMP_UNRELATED);
        }
    }
}

#[test]
fn lost_connections_get_what_they_get_also_while_the_table_is_full() {
    for ips in both() {
        for (lost, wanted) in [
            (proto::LostConnections::Drop, Verdict::Drop(R::FLOW_UNKNOWN)),
            (proto::LostConnections::Reset, Verdict::Send(POD_A)),
            (proto::LostConnections::Reselect, Verdict::Send(POD_B)),
        ] {
            let mut node = Node::with_flows(1);
            node.configure(|local| {
                let lost_connections = lost.into();
                local.flows = Some(proto::FlowPolicy { lost_connections, ..Default::default() });
            });
            fill(&mut node, proto::Protocol::Tcp, &ips, ips.b);
            let segment = |port| from_a(testkit::tcp(at(ips.a, port), at(ips.vip, 80), TcpFlags::ACK, b""));
            // Nothing has gone without a record yet, and then something has.
            assert_eq!(node.run(POD_A, &segment(PORT)).verdict, wanted, "{lost:?}");
            let mut opened = node.run(POD_A, &from_a(syn(at(ips.a, PORT + 1), at(ips.vip, 80))));
            assert_eq!(opened.verdict, Verdict::Send(POD_B));
            opened = node.run(POD_A, &segment(PORT + 1));
            assert_eq!(opened.verdict, Verdict::Send(POD_B), "{lost:?}");
            // From a port that cannot be marked.
            let refused = node.run(POD_A, &segment(1000)).verdict;
            let unmarked = Verdict::Drop(R::FLOW_TABLE_FULL);
            assert_eq!(refused, if lost == proto::LostConnections::Reselect { unmarked } else { wanted });
        }
    }
}

#[test]
fn pings_that_find_no_room_are_refused() {
    for ips in both() {
        let mut node = full(proto::Protocol::Tcp, &ips, ips.b);
        let pinged = proto::Service { port: 0, ..service(proto::Protocol::Icmp, ips.vip, &[(ips.b, 0)]) };
        let flooded = service(proto::Protocol::Tcp, other_vip(&ips), &[(ips.on_b, 9)]);
        node.program(&[pinged, flooded]);
        let ping = from_a(testkit::echo_request(ips.a, ips.vip, PORT, 7, b""));
        node.assert_dropped(POD_A, &ping, R::FLOW_TABLE_FULL);
        assert_eq!(node.counters.flows().stateless, 0);
    }
}

#[test]
fn what_could_not_be_told_on_its_way_back_is_refused() {
    for ips in both() {
        let mut node = full(proto::Protocol::Udp, &ips, ips.b);
        let to = |vip, port| from_a(testkit::udp(at(ips.a, port), at(vip, 80), b"x"));
        // From a port that cannot be marked.
        node.assert_dropped(POD_A, &to(ips.vip, 9000), R::FLOW_TABLE_FULL);
        assert_eq!(node.run(POD_A, &to(ips.vip, PORT)).verdict, Verdict::Send(POD_B));
        // To the same endpoint through another service; to itself.
        let second = service(proto::Protocol::Udp, other_vip(&ips), &[(ips.b, 8080)]);
        let own = service(proto::Protocol::Udp, ips.nobody, &[(ips.a, 8080)]);
        node.program(&[service(proto::Protocol::Udp, ips.vip, &[(ips.b, 8080)]), second, own]);
        // The flows to the service that is gone make room for others, until there is none left.
        for n in 0..2 * node.flows.capacity() as u16 {
            node.run(POD_B, &from_b(testkit::udp(at(ips.b, 1000 + n), at(other_vip(&ips), 80), b"x")));
        }
        node.assert_dropped(POD_A, &to(other_vip(&ips), PORT), R::FLOW_TABLE_FULL);
        node.assert_dropped(POD_A, &to(ips.nobody, PORT), R::FLOW_TABLE_FULL);
        assert_eq!(node.run(POD_A, &to(ips.vip, PORT)).verdict, Verdict::Send(POD_B));
    }
}

#[test]
fn what_pods_say_to_each_other_directly_is_not_taken_for_answers() {
    for ips in both() {
        let mut node = full(proto::Protocol::Tcp, &ips, ips.b);
        let direct = |port| from_b(testkit::tcp(at(ips.b, 8080), at(ips.a, port), TcpFlags::ACK, b"x"));
        let untouched = |node: &mut Node, port| {
            let outcome = node.run(POD_B, &direct(port));
            assert_eq!(outcome.verdict, Verdict::Send(POD_A));
            assert_eq!((read(&outcome.frame).src, read(&outcome.frame).dst.port()), (at(ips.b, 8080), port));
        };
        // Before the client has used the service without a record, and afterwards to ports that are not marked.
        untouched(&mut node, MARKED);
        node.run(POD_A, &from_a(syn(at(ips.a, PORT), at(ips.vip, 80))));
        untouched(&mut node, PORT);
        let answer = node.run(POD_B, &direct(MARKED));
        assert_eq!(read(&answer.frame).src, at(ips.vip, 80));
        // Another port of the endpoint.
        let outcome =
            node.run(POD_B, &from_b(testkit::tcp(at(ips.b, 8081), at(ips.a, MARKED), TcpFlags::ACK, b"x")));
        assert_eq!(read(&outcome.frame).src, at(ips.b, 8081));
    }
}

#[test]
fn a_connection_that_never_was_is_reset_also_while_the_table_is_full() {
    for ips in both() {
        let mut node = full(proto::Protocol::Tcp, &ips, ips.b);
        let segment = |port| from_a(testkit::tcp(at(ips.a, port), at(ips.vip, 80), TcpFlags::ACK, b""));
        assert_eq!(read(&node.run(POD_A, &segment(PORT)).frame).parsed.tcp_flags, TcpFlags::RST);
        node.run(POD_A, &from_a(syn(at(ips.a, PORT), at(ips.vip, 80))));
        assert_eq!(node.run(POD_A, &segment(PORT)).verdict, Verdict::Send(POD_B));
        assert_eq!(read(&node.run(POD_A, &segment(1000)).frame).parsed.tcp_flags, TcpFlags::RST);
        // Nor does it go to an endpoint that is gone.
        node.program(&[service(proto::Protocol::Tcp, ips.vip, &[(ips.on_b, 8080)])]);
        assert_eq!(read(&node.run(POD_A, &segment(PORT)).frame).parsed.tcp_flags, TcpFlags::RST);
        // Long after all that.
        node.program(&[service(proto::Protocol::Tcp, ips.vip, &[(ips.b, 8080)])]);
        node.seconds += 8000;
        assert_eq!(read(&node.run(POD_A, &segment(PORT)).frame).parsed.tcp_flags, TcpFlags::RST);
    }
}

#[test]
fn a_flood_larger_than_the_table_costs_established_connections_nothing() {
    const CONNECTIONS: u16 = 200;
    const FLOOD: u16 = 20_000;
    for ips in both() {
        let mut node = Node::with_flows(1000);
        let flooded = service(proto::Protocol::Tcp, other_vip(&ips), &[(ips.on_b, 9), (ips.on_b, 10)]);
        node.program(&[
            service(proto::Protocol::Tcp, ips.vip, &[(ips.b, 1), (ips.b, 2), (ips.on_b, 3)]),
            flooded,
        ]);
        let segment =
            |n: u16, flags| from_a(testkit::tcp(at(ips.a, 10_000 + n), at(ips.vip, 80), flags, b"data"));
        let answer =
            |to: SocketAddr, n: u16, flags| testkit::tcp(to, at(ips.a, 10_000 + n), flags, b"answer");
        let mut endpoints = Vec::new();
        for n in 0..CONNECTIONS {
            let endpoint = read(&inner_or_frame(&node.run(POD_A, &segment(n, TcpFlags::SYN)))).dst;
            let opened = answer(endpoint, n, TcpFlags::SYN | TcpFlags::ACK);
            from_endpoint(&mut node, &ips, endpoint.ip(), opened);
            node.run(POD_A, &segment(n, TcpFlags::ACK));
            endpoints.push(endpoint);
        }
        for n in 0..FLOOD {
            // A burst of the flood, and a packet of a connection each way.
            let outcome = node.run(POD_B, &from_b(syn(at(ips.b, 30_000 + n), at(other_vip(&ips), 80))));
            assert!(matches!(outcome.verdict, Verdict::Send(_) | Verdict::Drop(R::FLOW_TABLE_FULL)));
            let (n, endpoint) = (n % CONNECTIONS, endpoints[usize::from(n % CONNECTIONS)]);
            let got = read(&inner_or_frame(&node.run(POD_A, &segment(n, TcpFlags::ACK))));
            assert_eq!((got.src, got.dst), (at(ips.a, 10_000 + n), endpoint));
            let back = answer(endpoint, n, TcpFlags::ACK);
            let back = from_endpoint(&mut node, &ips, endpoint.ip(), back);
            assert_eq!(read(&back.frame).src, at(ips.vip, 80));
            if n == 0 {
                node.seconds += 1;
                node.age();
            }
        }
        // Nothing of the flood was ever answered: it goes, and what comes next has room again.
        assert!(node.counters.flows().stateless > 500);
        node.seconds += 250;
        (0..20).for_each(|_| node.age());
        assert_eq!(node.flow_count(), usize::from(CONNECTIONS));
        let stateless = node.counters.flows().stateless;
        let outcome = node.run(POD_A, &from_a(syn(at(ips.a, PORT), at(ips.vip, 80))));
        assert!(matches!(outcome.verdict, Verdict::Send(_)));
        assert_eq!(
            (node.flow_count(), node.counters.flows().stateless),
            (usize::from(CONNECTIONS) + 1, stateless)
        );
    }
}
