use culvert_packet::Malformed;
use culvert_packet::icmp::Icmp;
use culvert_packet::icmpv6::Icmpv6;
use culvert_packet::sctp::ChunkType;

use super::sctp::init;
use super::*;
use crate::counter::DropReason as R;

const PROTOCOLS: [proto::Protocol; 3] = [proto::Protocol::Tcp, proto::Protocol::Udp, proto::Protocol::Sctp];

fn message(protocol: proto::Protocol, src: SocketAddr, dst: SocketAddr) -> Vec<u8> {
    match protocol {
        proto::Protocol::Tcp => syn(src, dst),
        proto::Protocol::Sctp => init(src, dst),
        _ => testkit::udp(src, dst, b"question"),
    }
}

fn answer(protocol: proto::Protocol, src: SocketAddr, dst: SocketAddr) -> Vec<u8> {
    match protocol {
        proto::Protocol::Tcp => testkit::tcp(src, dst, TcpFlags::SYN | TcpFlags::ACK, b""),
        proto::Protocol::Sctp => {
            testkit::sctp(src, dst, 1, &testkit::sctp_chunk(ChunkType::INIT_ACK, 0, &[2; 20]))
        }
        _ => testkit::udp(src, dst, b"answer"),
    }
}

/// "Port unreachable".
fn refusal(reporter: IpAddr, about: &[u8], len: usize) -> Vec<u8> {
    let kind = if reporter.is_ipv4() { (3, 3) } else { (1, 4) };
    testkit::icmp_error(reporter, kind, 0, about, len)
}

/// "Fragmentation needed" or "packet too big".
fn too_big(reporter: IpAddr, about: &[u8], len: usize) -> Vec<u8> {
    let kind = if reporter.is_ipv4() { (3, 4) } else { (2, 0) };
    testkit::icmp_error(reporter, kind, 1300, about, len)
}

/// What is in an error behind the outer IP header, after its checksums were checked.
#[track_caller]
fn body(frame: &[u8]) -> Vec<u8> {
    let got = read(frame);
    let message = frame[usize::from(got.parsed.l4_offset)..].to_vec();
    // Where the error says what MTU it is about, as the other types have zeros there.
    let (kind, mtu) = match got.src.ip() {
        IpAddr::V4(_) => {
            let icmp = Icmp::new(&message).unwrap();
            (icmp.kind().0, u32::from(icmp.mtu()))
        }
        IpAddr::V6(_) => {
            let icmp = Icmpv6::new(&message).unwrap();
            (icmp.kind().0, icmp.mtu())
        }
    };
    assert!(mtu == 0 || mtu == 1300, "type {kind}: {mtu}");
    message
}

/// The same packet with one hop less to go.
fn hop(mut frame: Vec<u8>) -> Vec<u8> {
    let parsed = parse(&frame).unwrap();
    culvert_packet::rewrite::decrement_ttl(&mut frame, &parsed);
    frame
}

/// The error that `node` must pass on to `to` if `about` is quoted: all its bytes behind the Ethernet header.
#[track_caller]
fn assert_error(frame: &[u8], from: IpAddr, to: IpAddr, wanted: &[u8]) {
    let got = read(frame);
    assert_eq!((got.src.ip(), got.dst.ip(), got.ttl), (from, to, testkit::TTL - 1));
    assert_eq!(body(frame), body(wanted));
}

#[test]
fn a_router_on_the_way_to_an_endpoint_reaches_the_client_with_its_mtu() {
    for protocol in PROTOCOLS {
        for ips in both() {
            let mut node = Node::new();
            node.program(&[service(protocol, ips.vip, &[(ips.on_b, 8080)])]);
            let sent = message(protocol, at(ips.a, 1000), at(ips.vip, 80));
            let arrived = inner(&node.run(POD_A, &from_a(sent.clone())));
            let router = if ips.a.is_ipv4() { ip("10.2.0.1") } else { ip("fd00:2::1") };
            for len in [28, 60, 1000] {
                let len = if ips.a.is_ipv4() { len } else { len + 20 };
                let outcome = node.run_tunnelled(too_big(router, &arrived, len));
                assert_eq!(outcome.verdict, Verdict::Send(POD_A));
                assert_eq!(read(&outcome.frame).macs, (POD_A_MAC, GATEWAY_MAC));
                // The router is known to the client by its own address, and the packet as it left the client.
                assert_error(&outcome.frame, router, ips.a, &too_big(router, &hop(sent.clone()), len));
            }
            assert_eq!(node.counters.errors().translated, 3);
        }
    }
}

#[test]
fn an_endpoint_speaks_as_the_service() {
    for protocol in PROTOCOLS {
        for ips in both() {
            for backend in [ips.b, ips.on_b] {
                let mut node = Node::new();
                node.program(&[service(protocol, ips.vip, &[(backend, 8080)])]);
                let sent = message(protocol, at(ips.a, 1000), at(ips.vip, 80));
                let outcome = node.run(POD_A, &from_a(sent.clone()));
                let outcome = if backend == ips.b {
                    node.run(POD_B, &from_b(refusal(backend, &outcome.frame, 1000)))
                } else {
                    let arrived = inner(&outcome);
                    node.run_tunnelled(refusal(backend, &arrived, 1000))
                };
                assert_eq!(outcome.verdict, Verdict::Send(POD_A));
                assert_error(&outcome.frame, ips.vip, ips.a, &refusal(ips.vip, &hop(sent), 1000));
            }
        }
    }
}

#[test]
fn a_clients_error_about_an_answer_reaches_the_endpoint() {
    for protocol in PROTOCOLS {
        for ips in both() {
            for backend in [ips.b, ips.on_b] {
                let mut node = Node::new();
                node.program(&[service(protocol, ips.vip, &[(backend, 8080)])]);
                node.run(POD_A, &from_a(message(protocol, at(ips.a, 1000), at(ips.vip, 80))));
                let sent = answer(protocol, at(backend, 8080), at(ips.a, 1000));
                let arrived = if backend == ips.b {
                    node.run(POD_B, &from_b(sent.clone()))
                } else {
                    node.run_tunnelled(sent.clone())
                };
                let outcome = node.run(POD_A, &from_a(refusal(ips.a, &arrived.frame, 1000)));
                let frame = if backend == ips.b {
                    assert_eq!(outcome.verdict, Verdict::Send(POD_B));
                    outcome.frame
                } else {
                    inner(&outcome)
                };
                assert_error(&frame, ips.a, backend, &refusal(ips.a, &hop(sent), 1000));
            }
        }
    }
}

#[test]
fn errors_find_a_pod_that_talks_to_itself_in_both_roles() {
    for protocol in PROTOCOLS {
        for ips in both() {
            let mut node = Node::new();
            node.program(&[service(protocol, ips.vip, &[(ips.a, 8080)])]);
            let question = message(protocol, at(ips.a, 1000), at(ips.vip, 80));
            let arrived = node.run(POD_A, &from_a(question.clone())).frame;
            let outcome = node.run(POD_A, &from_a(refusal(ips.a, &arrived, 1000)));
            assert_eq!(outcome.verdict, Verdict::Send(POD_A));
            assert_error(&outcome.frame, ips.vip, ips.a, &refusal(ips.vip, &hop(question), 1000));

            let sent = answer(protocol, at(ips.a, 8080), at(ips.gateway, 1000));
            let arrived = node.run(POD_A, &from_a(sent.clone())).frame;
            let outcome = node.run(POD_A, &from_a(refusal(ips.a, &arrived, 1000)));
            assert_eq!(outcome.verdict, Verdict::Send(POD_A));
            assert_error(&outcome.frame, ips.gateway, ips.a, &refusal(ips.gateway, &hop(sent), 1000));
        }
    }
}

#[test]
fn a_source_port_that_was_changed_is_changed_back() {
    for ips in both() {
        let mut node = Node::new();
        let second = if ips.a.is_ipv4() { ip("10.96.0.11") } else { ip("fd00:96::11") };
        let services = [ips.vip, second].map(|vip| service(proto::Protocol::Udp, vip, &[(ips.b, 53)]));
        node.program(&services);
        node.run(POD_A, &from_a(testkit::udp(at(ips.a, 1000), at(ips.vip, 80), b"x")));
        let sent = testkit::udp(at(ips.a, 1000), at(second, 80), b"x");
        let arrived = node.run(POD_A, &from_a(sent.clone())).frame;
        assert_ne!(read(&arrived).src.port(), 1000);
        let outcome = node.run(POD_B, &from_b(refusal(ips.b, &arrived, 1000)));
        assert_error(&outcome.frame, second, ips.a, &refusal(second, &hop(sent), 1000));
    }
}

#[test]
fn an_error_does_nothing_to_the_flow_that_it_is_about() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&PROTOCOLS.map(|protocol| service(protocol, ips.vip, &[(ips.b, 8080)])));
        let flows = |node: &Node| -> Vec<_> {
            let v4 = node.flows.v4.iter().map(|hit| (hit.state(), hit.seen(), hit.record.route.epoch));
            v4.chain(node.flows.v6.iter().map(|hit| (hit.state(), hit.seen(), hit.record.route.epoch)))
                .collect()
        };
        let arrived = PROTOCOLS.map(|protocol| {
            let sent = message(protocol, at(ips.a, 1000), at(ips.vip, 80));
            node.run(POD_A, &from_a(sent)).frame
        });
        let (before, services) = (flows(&node), node.counters.service(0));
        node.seconds += 20;
        // Under another epoch, too.
        let other = service(proto::Protocol::Udp, ips.elsewhere, &[(ips.b, 9)]);
        let [tcp, udp, sctp] = PROTOCOLS.map(|protocol| service(protocol, ips.vip, &[(ips.b, 8080)]));
        node.program(&[tcp, udp, sctp, other]);
        node.program(&PROTOCOLS.map(|protocol| service(protocol, ips.vip, &[(ips.b, 8080)])));
        for frame in &arrived {
            let outcome = node.run(POD_B, &from_b(refusal(ips.b, frame, 1000)));
            assert_eq!(outcome.verdict, Verdict::Send(POD_A));
        }
        assert_eq!(flows(&node), before);
        assert_eq!(node.counters.service(0), services);
    }
}

#[test]
fn only_who_has_to_do_with_a_flow_may_report_about_it() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(proto::Protocol::Udp, ips.vip, &[(ips.on_b, 53), (ips.b, 53)])]);
        let sent = |port| testkit::udp(at(ips.a, port), at(ips.vip, 80), b"x");
        // A flow to the pod here, and one to the pod elsewhere.
        let arrived = |node: &mut Node, place: PortIndex| {
            let outcomes = (1000..1100).map(|port| node.run(POD_A, &from_a(sent(port))));
            outcomes.into_iter().find(|outcome| outcome.verdict == Verdict::Send(place)).unwrap()
        };
        let far = inner(&arrived(&mut node, UPLINK));
        let near = arrived(&mut node, POD_B).frame;
        let to = |dst: IpAddr, mut error: Vec<u8>| {
            let at = if dst.is_ipv4() { 30 } else { 38 };
            match dst {
                IpAddr::V4(v4) => error[at..at + 4].copy_from_slice(&v4.octets()),
                IpAddr::V6(v6) => error[at..at + 16].copy_from_slice(&v6.octets()),
            }
            testkit::fill_checksums(&mut error);
            error
        };
        // Pod B about a flow to another, and about its own, but to itself; the client's node about an answer that it got.
        node.assert_dropped(POD_B, &from_b(refusal(ips.b, &far, 1000)), R::ICMP_UNRELATED);
        node.assert_dropped(POD_B, &from_b(to(ips.b, refusal(ips.b, &near, 1000))), R::ICMP_UNRELATED);
        let answer = testkit::udp(read(&near).dst, read(&near).src, b"y");
        let answered = node.run(POD_B, &from_b(answer)).frame;
        let forged = tunnelled(refusal(ips.on_b, &answered, 1000));
        node.assert_dropped(UPLINK, &forged, R::ICMP_UNRELATED);
        node.assert_dropped(POD_B, &from_b(refusal(ips.b, &answered, 1000)), R::ICMP_UNRELATED);
        assert_eq!(node.counters.errors().translated, 0);
    }
}

#[test]
fn an_error_about_no_flow_goes_where_it_is_sent_to_but_not_to_a_service() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(proto::Protocol::Udp, ips.vip, &[(ips.b, 53)])]);
        let plain = hop(testkit::udp(at(ips.a, 1000), at(ips.b, 53), b"x"));
        let outcome = node.run(POD_B, &from_b(refusal(ips.b, &plain, 1000)));
        assert_eq!(outcome.verdict, Verdict::Send(POD_A));
        assert_error(&outcome.frame, ips.b, ips.a, &refusal(ips.b, &plain, 1000));
        // Of a flow that has been forgotten, and of none.
        let stale = testkit::udp(at(ips.vip, 80), at(ips.a, 1000), b"y");
        node.assert_dropped(POD_A, &from_a(refusal(ips.a, &stale, 1000)), R::ICMP_UNRELATED);
        let reversed = testkit::udp(at(ips.gateway, 1000), at(ips.a, 53), b"y");
        node.assert_dropped(POD_A, &from_a(refusal(ips.a, &reversed, 1000)), R::NOT_SERVED);
        assert_eq!(node.flow_count(), 0);
    }
}

#[test]
fn an_error_that_cannot_go_on_is_not_answered() {
    for ips in both() {
        let mut node = Node::new();
        let web = service(proto::Protocol::Udp, ips.vip, &[(ips.b, 53)]);
        node.program(std::slice::from_ref(&web));
        let arrived = node.run(POD_A, &from_a(testkit::udp(at(ips.a, 1000), at(ips.vip, 80), b"x"))).frame;
        let answered = node.run(POD_B, &from_b(testkit::udp(at(ips.b, 53), at(ips.a, 1000), b"y"))).frame;
        let from_server = from_b(refusal(ips.b, &arrived, 1000));
        let from_client = from_a(refusal(ips.a, &answered, 1000));

        let mut damaged = from_server.clone();
        *damaged.last_mut().unwrap() ^= 1;
        node.assert_dropped(POD_B, &damaged, Malformed::IcmpChecksum.into());

        let mut last_hop = from_server.clone();
        last_hop[if ips.a.is_ipv4() { 22 } else { 21 }] = 1;
        testkit::fill_checksums(&mut last_hop);
        node.assert_dropped(POD_B, &last_hop, R::TTL_EXCEEDED);

        // The endpoint leaves the service: what it still reports is passed on, but nothing is reported to it.
        node.program(&[service(proto::Protocol::Udp, ips.vip, &[])]);
        assert_eq!(node.run(POD_B, &from_server).verdict, Verdict::Send(POD_A));
        node.assert_dropped(POD_A, &from_client, R::FLOW_ENDPOINT_GONE);

        // The client's port leaves.
        node.program(&[web]);
        node.run(POD_A, &from_a(testkit::udp(at(ips.a, 1000), at(ips.vip, 80), b"x")));
        node.builder.detach(POD_A);
        node.publish();
        node.assert_dropped(POD_B, &from_server, R::NO_SUCH_POD);
        assert_eq!(node.answered("unreachable") + node.answered("time-exceeded"), 0);
    }
}

#[test]
fn an_error_follows_a_flow_to_where_it_is_now() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(proto::Protocol::Udp, ips.vip, &[(ips.b, 53)])]);
        node.run(POD_A, &from_a(testkit::udp(at(ips.a, 1000), at(ips.vip, 80), b"x")));
        let answered = node.run(POD_B, &from_b(testkit::udp(at(ips.b, 53), at(ips.a, 1000), b"y"))).frame;
        let port = node.builder.detach(POD_B).unwrap();
        node.builder.attach(PortIndex(9), port).unwrap();
        node.publish();
        let outcome = node.run(POD_A, &from_a(refusal(ips.a, &answered, 1000)));
        assert_eq!(outcome.verdict, Verdict::Send(PortIndex(9)));
    }
}

#[test]
fn so_many_errors_per_second_go_to_one_port() {
    let mut node = Node::new();
    let [ips, v6] = both();
    let to_nobody = |ips: &Ips| testkit::udp(at(ips.a, 1000), at(ips.elsewhere, 80), b"x");
    for _ in 0..1100 {
        node.run(POD_A, &from_a(to_nobody(&ips)));
        node.run(POD_A, &from_a(to_nobody(&v6)));
    }
    assert_eq!((node.answered("unreachable"), node.counters.errors().limited), (2000, 200));
    assert_eq!(node.dropped(R::NO_ROUTE), 2200);
    // Others, and what is no error, are not affected; nor is anybody a little later.
    let from_pod_b = from_b(testkit::udp(at(ips.b, 1000), at(ips.elsewhere, 80), b"x"));
    assert_eq!(node.run(POD_B, &from_pod_b).verdict, Verdict::Send(POD_B));
    let ping = from_a(testkit::echo_request(ips.a, ips.gateway, 1, 1, b"x"));
    assert_eq!(node.run(POD_A, &ping).verdict, Verdict::Send(POD_A));
    node.seconds += 2;
    assert_eq!(node.run(POD_A, &from_a(to_nobody(&ips))).verdict, Verdict::Send(POD_A));
}
