use std::collections::HashSet;

use culvert_packet::Malformed;
use culvert_packet::sctp::{ChunkType, SctpChunks};

use super::sctp::init;
use super::*;
use crate::counter::{DropReason as R, ServiceCounts};

const PROTOCOLS: [proto::Protocol; 3] = [proto::Protocol::Tcp, proto::Protocol::Udp, proto::Protocol::Sctp];

/// The first packet of a flow.
fn opening(protocol: proto::Protocol, src: SocketAddr, dst: SocketAddr) -> Vec<u8> {
    match protocol {
        proto::Protocol::Tcp => syn(src, dst),
        proto::Protocol::Sctp => init(src, dst),
        _ => testkit::udp(src, dst, b"question"),
    }
}

/// What comes back.
fn reply(protocol: proto::Protocol, src: SocketAddr, dst: SocketAddr) -> Vec<u8> {
    match protocol {
        proto::Protocol::Tcp => testkit::tcp(src, dst, TcpFlags::SYN | TcpFlags::ACK, b""),
        proto::Protocol::Sctp => {
            testkit::sctp(src, dst, 1, &testkit::sctp_chunk(ChunkType::INIT_ACK, 0, &[2; 20]))
        }
        _ => testkit::udp(src, dst, b"answer"),
    }
}

fn counts(node: &Node) -> ServiceCounts {
    node.counters.service(0)
}

#[test]
fn a_flow_to_a_local_endpoint_is_translated_both_ways() {
    for protocol in PROTOCOLS {
        for ips in both() {
            let mut node = Node::new();
            node.program(&[service(protocol, ips.vip, &[(ips.b, 8080)])]);
            for packets in 1..=3 {
                let outcome = node.run(POD_A, &from_a(opening(protocol, at(ips.a, 1000), at(ips.vip, 80))));
                assert_eq!(outcome.verdict, Verdict::Send(POD_B));
                let got = read(&outcome.frame);
                assert_eq!((got.src, got.dst), (at(ips.a, 1000), at(ips.b, 8080)));
                assert_eq!((got.macs, got.ttl), ((POD_B_MAC, GATEWAY_MAC), testkit::TTL - 1));

                let outcome = node.run(POD_B, &from_b(reply(protocol, got.dst, got.src)));
                assert_eq!(outcome.verdict, Verdict::Send(POD_A));
                let got = read(&outcome.frame);
                assert_eq!((got.src, got.dst), (at(ips.vip, 80), at(ips.a, 1000)));
                assert_eq!(got.macs, (POD_A_MAC, GATEWAY_MAC));
                assert_eq!((counts(&node).packets, counts(&node).new_flows), (2 * packets, 1));
            }
            assert_eq!(node.flow_count(), 1);
            assert_eq!(node.counters.flows().live(), 1);
        }
    }
}

#[test]
fn a_flow_to_an_endpoint_elsewhere_is_translated_both_ways() {
    for protocol in PROTOCOLS {
        for ips in both() {
            let mut node = Node::new();
            node.program(&[service(protocol, ips.vip, &[(ips.on_b, 8080)])]);
            let sent = node.run(POD_A, &from_a(opening(protocol, at(ips.a, 1000), at(ips.vip, 80))));
            let got = read(&inner(&sent));
            assert_eq!((got.src, got.dst), (at(ips.a, 1000), at(ips.on_b, 8080)));
            assert_eq!((got.macs, got.ttl), ((NODE_B_VTEP_MAC, VTEP_MAC), testkit::TTL - 1));

            let outcome = node.run_tunnelled(reply(protocol, got.dst, got.src));
            assert_eq!(outcome.verdict, Verdict::Send(POD_A));
            let got = read(&outcome.frame);
            assert_eq!((got.src, got.dst), (at(ips.vip, 80), at(ips.a, 1000)));
        }
    }
}

#[test]
fn all_packets_of_one_burst_go_the_way_of_the_first() {
    let mut node = Node::new();
    let [ips, _] = both();
    node.program(&[service(proto::Protocol::Udp, ips.vip, &[(ips.b, 53), (ips.on_b, 53)])]);
    let frames: Vec<_> = (0..100)
        .map(|i| from_a(testkit::udp(at(ips.a, 1000 + i % 3), at(ips.vip, 80), &[i as u8])))
        .collect();
    let outcomes = node.burst(POD_A, &frames);
    for i in 0..100 {
        assert_eq!(outcomes[i].verdict, outcomes[i % 3].verdict);
    }
    assert_eq!((node.flow_count(), counts(&node).new_flows, counts(&node).packets), (3, 3, 100));
}

#[test]
fn every_endpoint_gets_its_share() {
    let mut node = Node::new();
    let [ips, _] = both();
    node.program(&[service(
        proto::Protocol::Udp,
        ips.vip,
        &[(ips.b, 1), (ips.b, 2), (ips.on_b, 3), (ips.a, 4)],
    )]);
    let mut to = std::collections::HashMap::new();
    for port in 1000..2000 {
        let outcome = node.run(POD_A, &from_a(testkit::udp(at(ips.a, port), at(ips.vip, 80), b"x")));
        let frame = if outcome.verdict == Verdict::Send(UPLINK) { inner(&outcome) } else { outcome.frame };
        *to.entry(read(&frame).dst).or_insert(0) += 1;
    }
    assert_eq!(to.len(), 4);
    assert!(to.values().all(|&flows| (200..300).contains(&flows)), "{to:?}");
}

#[test]
fn with_affinity_a_client_always_gets_the_same_endpoint() {
    for ips in both() {
        let mut node = Node::new();
        let mut sticky =
            service(proto::Protocol::Udp, ips.vip, &[(ips.b, 1), (ips.b, 2), (ips.b, 3), (ips.b, 4)]);
        sticky.affinity_seconds = 10_800;
        node.program(&[sticky]);
        let endpoints: HashSet<_> = (1000..1100)
            .map(|port| {
                read(&node.run(POD_A, &from_a(testkit::udp(at(ips.a, port), at(ips.vip, 80), b"x"))).frame)
                    .dst
            })
            .collect();
        assert_eq!(endpoints.len(), 1);
    }
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    for protocol in PROTOCOLS {
        for ips in both() {
            let mut node = Node::new();
            node.program(&[service(protocol, ips.vip, &[(ips.a, 8080)])]);
            let outcome = node.run(POD_A, &from_a(opening(protocol, at(ips.a, 1000), at(ips.vip, 80))));
            assert_eq!(outcome.verdict, Verdict::Send(POD_A));
            let got = read(&outcome.frame);
            assert_eq!((got.src, got.dst), (at(ips.gateway, 1000), at(ips.a, 8080)));

            let outcome = node.run(POD_A, &from_a(reply(protocol, got.dst, got.src)));
            assert_eq!(outcome.verdict, Verdict::Send(POD_A));
            let got = read(&outcome.frame);
            assert_eq!((got.src, got.dst), (at(ips.vip, 80), at(ips.a, 1000)));
        }
    }
}

#[test]
fn flows_with_the_same_replies_are_told_apart_by_their_source_port() {
    for ips in both() {
        let mut node = Node::new();
        let second_vip = if ips.a.is_ipv4() { ip("10.96.0.11") } else { ip("fd00:96::11") };
        node.program(&[
            service(proto::Protocol::Udp, ips.vip, &[(ips.b, 53)]),
            service(proto::Protocol::Udp, second_vip, &[(ips.b, 53)]),
        ]);
        let mut sources = HashSet::new();
        for vip in [ips.vip, second_vip] {
            let outcome = node.run(POD_A, &from_a(testkit::udp(at(ips.a, 1000), at(vip, 80), b"x")));
            let got = read(&outcome.frame);
            assert_eq!((got.src.ip(), got.dst), (ips.a, at(ips.b, 53)));
            assert!(got.src.port() >= 1000 && sources.insert(got.src.port()));
            let outcome = node.run(POD_B, &from_b(testkit::udp(got.dst, got.src, b"y")));
            let got = read(&outcome.frame);
            assert_eq!((got.src, got.dst), (at(vip, 80), at(ips.a, 1000)));
        }
    }
}

#[test]
fn a_service_without_endpoints_refuses() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&PROTOCOLS.map(|protocol| service(protocol, ips.vip, &[])));
        let tcp = node.run(POD_A, &from_a(syn(at(ips.a, 1000), at(ips.vip, 80))));
        assert_eq!(tcp.verdict, Verdict::Send(POD_A));
        let reset = read(&tcp.frame);
        assert_eq!((reset.src, reset.dst), (at(ips.vip, 80), at(ips.a, 1000)));
        assert!(reset.parsed.tcp_flags.contains(TcpFlags::RST | TcpFlags::ACK));

        let udp = node.run(POD_A, &from_a(testkit::udp(at(ips.a, 1000), at(ips.vip, 80), b"x")));
        assert_eq!(icmp(&udp.frame), kind(&ips, (3, 3), (1, 4)));
        let sctp = node.run(POD_A, &from_a(init(at(ips.a, 1000), at(ips.vip, 80))));
        let abort = read(&sctp.frame);
        assert_eq!((abort.src, abort.dst), (at(ips.vip, 80), at(ips.a, 1000)));
        assert_eq!(abort.parsed.sctp_chunks, SctpChunks::ABORT);
        assert_eq!((node.dropped(R::SERVICE_NO_ENDPOINT), node.answered("sctp-abort")), (3, 1));
        assert_eq!([0, 1, 2].map(|slot| node.counters.service(slot).rejected), [1; 3]);
        assert_eq!(node.flow_count(), 0);
    }
}

#[test]
fn what_a_service_does_not_have_is_refused() {
    let mut node = Node::new();
    for ips in both() {
        node.program(&[service(proto::Protocol::Tcp, ips.vip, &[(ips.b, 8080)])]);
        let tcp = node.run(POD_A, &from_a(syn(at(ips.a, 1000), at(ips.vip, 81))));
        assert!(read(&tcp.frame).parsed.tcp_flags.contains(TcpFlags::RST));
        let udp = node.run(POD_A, &from_a(testkit::udp(at(ips.a, 1000), at(ips.vip, 80), b"x")));
        assert_eq!(icmp(&udp.frame), kind(&ips, (3, 3), (1, 4)));
        let sctp = node.run(POD_A, &from_a(init(at(ips.a, 1000), at(ips.vip, 80))));
        assert_eq!(read(&sctp.frame).parsed.sctp_chunks, SctpChunks::ABORT);
        assert_eq!(node.flow_count(), 0);
    }
    assert_eq!(node.dropped(R::SERVICE_PORT), 6);
}

#[test]
fn a_connection_that_is_not_tracked_is_reset() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(proto::Protocol::Tcp, ips.vip, &[(ips.b, 8080)])]);
        for flags in [TcpFlags::ACK, TcpFlags::FIN | TcpFlags::ACK, TcpFlags::SYN | TcpFlags::ACK] {
            let outcome =
                node.run(POD_A, &from_a(testkit::tcp(at(ips.a, 1000), at(ips.vip, 80), flags, b"")));
            assert_eq!(outcome.verdict, Verdict::Send(POD_A));
            assert_eq!(read(&outcome.frame).parsed.tcp_flags, TcpFlags::RST);
        }
        let reset = testkit::tcp(at(ips.a, 1000), at(ips.vip, 80), TcpFlags::RST, b"");
        node.assert_dropped(POD_A, &from_a(reset), R::FLOW_UNKNOWN);
        assert_eq!((node.dropped(R::FLOW_UNKNOWN), node.flow_count()), (4, 0));
    }
}

#[test]
fn services_are_for_pods_of_this_node_and_their_tenant() {
    let mut node = Node::new();
    for ips in both() {
        let mut web = service(proto::Protocol::Udp, ips.vip, &[(ips.b, 53)]);
        node.program(std::slice::from_ref(&web));
        // Another node translates for its own pods.
        let outcome = node.run_tunnelled(testkit::udp(at(ips.on_b, 1000), at(ips.vip, 80), b"x"));
        assert_eq!(outcome.verdict, Verdict::Drop(R::TUNNEL_NOT_LOCAL));
        web.tenant = 7;
        node.program(&[web]);
        let outcome = node.run(POD_A, &from_a(testkit::udp(at(ips.a, 1000), at(ips.vip, 80), b"x")));
        assert_eq!(icmp(&outcome.frame), kind(&ips, (3, 0), (1, 0)));
    }
}

#[test]
fn a_first_packet_that_cannot_go_opens_no_flow() {
    for ips in both() {
        let mut node = Node::new();
        let reach = |address| [service(proto::Protocol::Udp, ips.vip, &[(address, 53)])];
        node.program(&reach(ips.b));
        let mut last_hop = from_a(testkit::udp(at(ips.a, 1000), at(ips.vip, 80), b"x"));
        last_hop[if ips.a.is_ipv4() { 22 } else { 21 }] = 1;
        testkit::fill_checksums(&mut last_hop);
        let outcome = node.run(POD_A, &last_hop);
        assert_eq!(icmp(&outcome.frame), kind(&ips, (11, 0), (3, 0)));
        // The error quotes what the client sent, not what it would have become.
        assert!(outcome.frame.ends_with(&last_hop[14..]));
        let long = from_a(testkit::udp(at(ips.a, 1000), at(ips.vip, 80), &[7; 1440]));
        assert_eq!(icmp(&node.run(POD_A, &long).frame), kind(&ips, (3, 4), (2, 0)));
        for (gone, error) in
            [(ips.nobody, kind(&ips, (3, 1), (1, 3))), (ips.elsewhere, kind(&ips, (3, 0), (1, 0)))]
        {
            node.program(&reach(gone));
            let outcome = node.run(POD_A, &from_a(testkit::udp(at(ips.a, 1000), at(ips.vip, 80), b"x")));
            assert_eq!(icmp(&outcome.frame), error);
        }
        assert_eq!((node.flow_count(), counts(&node).new_flows), (0, 0));
    }
}

#[test]
fn a_malformed_packet_to_a_service_is_dropped_as_any_other() {
    let mut node = Node::new();
    let [ips, _] = both();
    node.program(&[service(proto::Protocol::Tcp, ips.vip, &[(ips.b, 8080)])]);
    let mut frame = from_a(syn(at(ips.a, 1000), at(ips.vip, 80)));
    frame[14 + 20 + 12] = 0x40;
    node.assert_dropped(POD_A, &frame, Malformed::TcpOffset.into());
}
