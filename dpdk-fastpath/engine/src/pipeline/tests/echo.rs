//! Pings to a service's address.

use std::collections::HashSet;

use culvert_packet::icmp::IcmpType;
use culvert_packet::icmpv6::Icmpv6Type;

use super::*;
use crate::counter::DropReason as R;
use crate::flow::State;

/// Pings to this address go to these endpoints.
fn pinged(vip: IpAddr, endpoints: &[IpAddr]) -> proto::Service {
    let endpoints: Vec<_> = endpoints.iter().map(|&address| (address, 0)).collect();
    proto::Service { port: 0, ..service(proto::Protocol::Icmp, vip, &endpoints) }
}

fn ping(src: IpAddr, dst: IpAddr, identifier: u16) -> Vec<u8> {
    testkit::echo_request(src, dst, identifier, 7, b"payload")
}

/// The reply to a ping.
fn pong(src: IpAddr, dst: IpAddr, identifier: u16) -> Vec<u8> {
    let mut frame = ping(src, dst, identifier);
    let at = usize::from(parse(&frame).unwrap().l4_offset);
    frame[at] = if src.is_ipv4() { IcmpType::ECHO_REPLY.0 } else { Icmpv6Type::ECHO_REPLY.0 };
    testkit::fill_checksums(&mut frame);
    frame
}

/// Source, destination, identifier, and whether it is a request.
#[track_caller]
fn echo(frame: &[u8]) -> (IpAddr, IpAddr, u16, bool) {
    let got = read(frame);
    (got.src.ip(), got.dst.ip(), got.src.port(), got.parsed.is_ping())
}

#[test]
fn a_service_answers_its_pings_whatever_its_endpoints_do() {
    for ips in both() {
        let mut node = Node::new();
        for endpoints in [&[(ips.b, 8080)][..], &[]] {
            node.program(&[service(proto::Protocol::Tcp, ips.vip, endpoints)]);
            let outcome = node.run(POD_A, &from_a(ping(ips.a, ips.vip, 5)));
            assert_eq!(outcome.verdict, Verdict::Send(POD_A));
            assert_eq!(echo(&outcome.frame), (ips.vip, ips.a, 5, false));
        }
        assert_eq!((node.answered("echo-reply"), node.flow_count()), (2, 0));
        node.assert_dropped(POD_A, &from_a(pong(ips.a, ips.vip, 5)), R::ICMP_UNRELATED);
        let outcome = node.run_tunnelled(ping(ips.on_b, ips.vip, 5));
        assert_eq!(outcome.verdict, Verdict::Drop(R::TUNNEL_NOT_LOCAL), "another node's service");
    }
}

#[test]
fn pings_of_one_identifier_are_a_flow_to_one_endpoint() {
    for ips in both() {
        for endpoint in [ips.b, ips.on_b] {
            let mut node = Node::new();
            node.program(&[pinged(ips.vip, &[endpoint])]);
            for _ in 0..3 {
                let sent = node.run(POD_A, &from_a(ping(ips.a, ips.vip, 5)));
                let arrived = if endpoint == ips.b { sent.frame } else { inner(&sent) };
                assert_eq!(echo(&arrived), (ips.a, endpoint, 5, true));
                let answer = pong(endpoint, ips.a, 5);
                let answered = if endpoint == ips.b {
                    node.run(POD_B, &from_b(answer))
                } else {
                    node.run_tunnelled(answer)
                };
                assert_eq!(answered.verdict, Verdict::Send(POD_A));
                assert_eq!(echo(&answered.frame), (ips.vip, ips.a, 5, false));
            }
            assert_eq!((node.flow_count(), node.counters.service(0).packets), (1, 6));
            // RFC 5508, REQ-2.
            node.seconds += 58;
            node.age();
            assert_eq!(node.flow_count(), 1);
            node.seconds += 6;
            node.age();
            assert_eq!(node.flow_count(), 0);
        }
    }
}

#[test]
fn a_ping_the_other_way_with_the_same_identifier_is_none_of_the_flow() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[pinged(ips.vip, &[ips.b])]);
        node.run(POD_A, &from_a(ping(ips.a, ips.vip, 5)));
        let outcome = node.run(POD_B, &from_b(ping(ips.b, ips.a, 5)));
        assert_eq!(outcome.verdict, Verdict::Send(POD_A));
        assert_eq!(echo(&outcome.frame), (ips.b, ips.a, 5, true));
        let outcome = node.run(POD_A, &from_a(pong(ips.a, ips.b, 5)));
        assert_eq!(echo(&outcome.frame), (ips.a, ips.b, 5, false));
        node.assert_dropped(POD_A, &from_a(pong(ips.a, ips.vip, 5)), R::ICMP_UNRELATED);
    }
}

#[test]
fn identifiers_that_would_get_the_same_replies_are_told_apart() {
    for ips in both() {
        let mut node = Node::new();
        let second = if ips.a.is_ipv4() { ip("10.96.0.11") } else { ip("fd00:96::11") };
        node.program(&[pinged(ips.vip, &[ips.b]), pinged(second, &[ips.b])]);
        let mut identifiers = HashSet::new();
        for vip in [ips.vip, second] {
            let arrived = echo(&node.run(POD_A, &from_a(ping(ips.a, vip, 5))).frame);
            assert_eq!((arrived.0, arrived.1), (ips.a, ips.b));
            assert!(identifiers.insert(arrived.2));
            let answered = node.run(POD_B, &from_b(pong(ips.b, ips.a, arrived.2)));
            assert_eq!(echo(&answered.frame), (vip, ips.a, 5, false));
        }
    }
}

#[test]
fn a_pod_pings_itself_through_its_service_and_its_router_directly() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[pinged(ips.vip, &[ips.a])]);
        let arrived = node.run(POD_A, &from_a(ping(ips.a, ips.vip, 5)));
        assert_eq!(arrived.verdict, Verdict::Send(POD_A));
        assert_eq!(echo(&arrived.frame), (ips.gateway, ips.a, 5, true));
        let answered = node.run(POD_A, &from_a(pong(ips.a, ips.gateway, 5)));
        assert_eq!(echo(&answered.frame), (ips.vip, ips.a, 5, false));
        let router = node.run(POD_A, &from_a(ping(ips.a, ips.gateway, 5)));
        assert_eq!(echo(&router.frame), (ips.gateway, ips.a, 5, false));
    }
}

#[test]
fn pings_follow_the_changes_of_their_endpoints() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[pinged(ips.vip, &[ips.b])]);
        let request = from_a(ping(ips.a, ips.vip, 5));
        node.run(POD_A, &request);
        // Terminating: stays. Not ready, or gone: another. None: refused. No endpoints for pings any more: answered here.
        let mut leaving = pinged(ips.vip, &[ips.b, ips.on_b]);
        leaving.backends[0].terminating = true;
        node.program(std::slice::from_ref(&leaving));
        assert_eq!(node.run(POD_A, &request).verdict, Verdict::Send(POD_B));
        leaving.backends[0].terminating = false;
        leaving.backends[0].draining = true;
        node.program(&[leaving]);
        assert_eq!(echo(&inner(&node.run(POD_A, &request))).1, ips.on_b);
        node.program(&[pinged(ips.vip, &[ips.b])]);
        assert_eq!(echo(&node.run(POD_A, &request).frame).1, ips.b);
        node.program(&[pinged(ips.vip, &[])]);
        assert_eq!(icmp(&node.run(POD_A, &request).frame), kind(&ips, (3, 3), (1, 4)));
        node.program(&[service(proto::Protocol::Tcp, ips.vip, &[(ips.b, 80)])]);
        assert_eq!(echo(&node.run(POD_A, &request).frame), (ips.vip, ips.a, 5, false));
        assert_eq!(node.flow_count(), 0);
    }
}

#[test]
fn an_error_about_a_ping_names_the_service() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[pinged(ips.vip, &[ips.on_b])]);
        let sent = ping(ips.a, ips.vip, 5);
        let arrived = inner(&node.run(POD_A, &from_a(sent)));
        let router = if ips.a.is_ipv4() { ip("10.2.0.1") } else { ip("fd00:2::1") };
        let exceeded = kind(&ips, (11, 0), (3, 0));
        let outcome = node.run_tunnelled(testkit::icmp_error(router, exceeded, 0, &arrived, 1000));
        assert_eq!(outcome.verdict, Verdict::Send(POD_A));
        assert_eq!(icmp(&outcome.frame), exceeded);
        let got = read(&outcome.frame);
        let quote = &outcome.frame[usize::from(got.parsed.l4_offset) + 8..];
        let quoted = read(&[&outcome.frame[..14], quote].concat());
        assert_eq!((quoted.src.ip(), quoted.dst.ip(), quoted.src.port()), (ips.a, ips.vip, 5));
    }
}

#[test]
fn a_flow_of_pings_is_no_reason_to_be_kept_when_there_is_no_room() {
    let mut node = Node::with_flows(1);
    let [ips, _] = both();
    node.program(&[pinged(ips.vip, &[ips.b]), service(proto::Protocol::Tcp, ips.vip, &[(ips.b, 8080)])]);
    let room = node.flows.capacity() as u16;
    for identifier in 0..room {
        node.run(POD_A, &from_a(ping(ips.a, ips.vip, identifier)));
        node.run(POD_B, &from_b(pong(ips.b, ips.a, identifier)));
    }
    assert!(node.flows.v4.iter().all(|hit| hit.state() == State::TwoWay));
    node.assert_dropped(POD_A, &from_a(syn(at(ips.a, 1000), at(ips.vip, 80))), R::FLOW_TABLE_FULL);
    node.seconds += 6;
    let opens = |node: &mut Node| {
        let outcome = node.run(POD_A, &from_a(syn(at(ips.a, 1000), at(ips.vip, 80))));
        outcome.verdict == Verdict::Send(POD_B)
    };
    assert!((0..room).any(|_| opens(&mut node)));
}
