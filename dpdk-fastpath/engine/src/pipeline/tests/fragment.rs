use culvert_packet::ipv6::FragmentHeader;
use culvert_packet::parse::Fragment;
use culvert_packet::sctp::ChunkType;
use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;
use crate::counter::DropReason as R;

const UDP: proto::Protocol = proto::Protocol::Udp;

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 7) as u8).collect()
}

/// What IP carries in the frames together; they must be the fragments of one packet, in order.
fn together(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (i, frame) in frames.iter().enumerate() {
        let read = read(frame);
        assert_eq!(read.parsed.fragment == Fragment::First, i == 0);
        bytes.extend_from_slice(&frame[usize::from(read.parsed.l4_offset)..]);
    }
    bytes
}

/// What IP carries in a frame.
fn message(frame: &[u8]) -> Vec<u8> {
    frame[usize::from(parse(frame).unwrap().l4_offset)..].to_vec()
}

fn inner_or_frame(outcome: &Outcome) -> Vec<u8> {
    if outcome.verdict == Verdict::Send(UPLINK) { inner(outcome) } else { outcome.frame.clone() }
}

#[test]
fn a_datagram_in_fragments_is_translated_both_ways() {
    for ips in both() {
        for (endpoint, port) in [(ips.b, POD_B), (ips.on_b, UPLINK)] {
            let mut node = Node::new();
            node.program(&[service(UDP, ips.vip, &[(endpoint, 5353)])]);
            for _ in 0..2 {
                let question = testkit::udp(at(ips.a, 1000), at(ips.vip, 80), &payload(8000));
                let wanted = testkit::udp(at(ips.a, 1000), at(endpoint, 5353), &payload(8000));
                let mut outer_ports = Vec::new();
                let frames = testkit::fragments(&question, 1450).into_iter().map(|fragment| {
                    let outcome = node.run(POD_A, &from_a(fragment));
                    assert_eq!(outcome.verdict, Verdict::Send(port));
                    outer_ports.push(read(&outcome.frame).src.port());
                    inner_or_frame(&outcome)
                });
                let frames: Vec<_> = frames.collect();
                assert_eq!(together(&frames), message(&wanted));
                assert!(frames.iter().all(|frame| read(frame).dst.ip() == endpoint));
                // All take one way through the underlay.
                assert!(port == POD_B || outer_ports.iter().all(|port| *port == outer_ports[0]));

                let answer = testkit::udp(at(endpoint, 5353), at(ips.a, 1000), &payload(4321));
                let wanted = testkit::udp(at(ips.vip, 80), at(ips.a, 1000), &payload(4321));
                let frames = testkit::fragments(&answer, 1450).into_iter().map(|fragment| {
                    let outcome = match port {
                        POD_B => node.run(POD_B, &from_b(fragment)),
                        _ => node.run_tunnelled(fragment),
                    };
                    assert_eq!(outcome.verdict, Verdict::Send(POD_A));
                    outcome.frame
                });
                let frames: Vec<_> = frames.collect();
                assert_eq!(together(&frames), message(&wanted));
                assert!(frames.iter().all(|frame| read(frame).src.ip() == ips.vip));
            }
            assert_eq!((node.flow_count(), node.counters.service(0).new_flows), (1, 1));
            assert_eq!(node.counters.service(0).packets, 20);
        }
    }
}

#[test]
fn a_pod_reaches_itself_in_fragments() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(UDP, ips.vip, &[(ips.a, 5353)])]);
        let there = (at(ips.a, 1000), at(ips.vip, 80), at(ips.gateway, 1000), at(ips.a, 5353));
        let back = (there.3, there.2, there.1, there.0);
        for (src, dst, new_src, new_dst) in [there, back] {
            let frames = testkit::fragments(&testkit::udp(src, dst, &payload(3000)), 1450)
                .into_iter()
                .map(|fragment| node.run(POD_A, &from_a(fragment)))
                .inspect(|outcome| assert_eq!(outcome.verdict, Verdict::Send(POD_A)))
                .map(|outcome| outcome.frame);
            let wanted = testkit::udp(new_src, new_dst, &payload(3000));
            assert_eq!(together(&frames.collect::<Vec<_>>()), message(&wanted));
        }
    }
}

#[test]
fn what_comes_without_its_first_fragment_is_dropped_and_counted() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(UDP, ips.vip, &[(ips.b, 53)])]);
        let question = testkit::udp(at(ips.a, 1000), at(ips.vip, 80), &payload(4000));
        let fragments: Vec<_> = testkit::fragments(&question, 1400).into_iter().map(from_a).collect();
        for later in &fragments[1..] {
            node.assert_dropped(POD_A, later, R::FRAGMENT_WITHOUT_FIRST);
        }
        assert_eq!(node.run(POD_A, &fragments[0]).verdict, Verdict::Send(POD_B));
        // In whatever order, and more than once.
        for later in fragments[1..].iter().rev().chain(&fragments[1..]) {
            assert_eq!(read(&node.run(POD_A, later).frame).dst.ip(), ips.b);
        }
        // Those of another packet, and those that come too late.
        let mut other = fragments[1].clone();
        other[if ips.a.is_ipv4() { 19 } else { 61 }] ^= 1;
        testkit::fill_checksums(&mut other);
        node.assert_dropped(POD_A, &other, R::FRAGMENT_WITHOUT_FIRST);
        node.seconds += 20;
        node.assert_dropped(POD_A, &fragments[1], R::FRAGMENT_WITHOUT_FIRST);
    }
}

#[test]
fn the_rest_of_a_packet_that_was_refused_is_dropped() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(UDP, ips.vip, &[(ips.b, 53)])]);
        let to = |port| {
            let question = testkit::udp(at(ips.a, 1000), at(ips.vip, port), &payload(3000));
            testkit::fragments(&question, 1400).into_iter().map(from_a).collect::<Vec<_>>()
        };
        let (served, refused) = (to(80), to(81));
        assert_eq!(node.run(POD_A, &served[0]).verdict, Verdict::Send(POD_B));
        // The same identification again, but of another packet.
        assert_eq!(icmp(&node.run(POD_A, &refused[0]).frame), kind(&ips, (3, 3), (1, 4)));
        node.assert_dropped(POD_A, &refused[1], R::FRAGMENT_WITHOUT_FIRST);
    }
}

#[test]
fn nothing_overwrites_a_first_fragment() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(UDP, ips.vip, &[(ips.b, 53)])]);
        let question = testkit::udp(at(ips.a, 1000), at(ips.vip, 80), &payload(4000));
        let (long, short) = (testkit::fragments(&question, 1400), testkit::fragments(&question, 1000));
        assert_eq!(node.run(POD_A, &from_a(long[0].clone())).verdict, Verdict::Send(POD_B));
        node.assert_dropped(POD_A, &from_a(short[1].clone()), R::FRAGMENT_OVERLAP);
        assert_eq!(node.run(POD_A, &from_a(short[2].clone())).verdict, Verdict::Send(POD_B));
        assert_eq!(node.run(POD_A, &from_a(long[1].clone())).verdict, Verdict::Send(POD_B));
    }
}

#[test]
fn a_packet_that_is_its_only_fragment_is_whole() {
    // RFC 6946.
    let [_, ips] = both();
    let mut node = Node::new();
    node.program(&[service(UDP, ips.vip, &[(ips.b, 53)])]);
    let whole = testkit::udp(at(ips.a, 1000), at(ips.vip, 80), b"question");
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (ips.a, ips.vip) else { panic!("{ips:?}") };
    let header = FragmentHeader::new(Protocol::UDP, 0, false, 7);
    let payload = [header.as_bytes(), &message(&whole)].concat();
    let outcome = node.run(POD_A, &from_a(testkit::ipv6(src, dst, Protocol::FRAGMENT, &payload)));
    assert_eq!(outcome.verdict, Verdict::Send(POD_B));
    assert_eq!(message(&outcome.frame), message(&testkit::udp(at(ips.a, 1000), at(ips.b, 53), b"question")));
    let again = node.run(POD_A, &from_a(whole));
    assert_eq!((read(&again.frame).dst, node.flow_count()), (at(ips.b, 53), 1));
}

#[test]
fn fragments_from_another_port_are_not_told_by_the_first() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(UDP, ips.vip, &[(ips.b, 53)])]);
        let question = testkit::udp(at(ips.a, 1000), at(ips.vip, 80), &payload(3000));
        let fragments = testkit::fragments(&question, 1400);
        assert_eq!(node.run(POD_A, &from_a(fragments[0].clone())).verdict, Verdict::Send(POD_B));
        let forged = node.run_tunnelled(fragments[1].clone());
        assert_eq!(forged.verdict, Verdict::Drop(R::TUNNEL_NOT_LOCAL));
    }
}

#[test]
fn fragments_follow_their_endpoint_to_where_it_is_now() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(UDP, ips.vip, &[(ips.b, 53)])]);
        let question = testkit::udp(at(ips.a, 1000), at(ips.vip, 80), &payload(3000));
        let fragments: Vec<_> = testkit::fragments(&question, 1400).into_iter().map(from_a).collect();
        assert_eq!(node.run(POD_A, &fragments[0]).verdict, Verdict::Send(POD_B));
        let port = node.builder.detach(POD_B).unwrap();
        node.builder.attach(PortIndex(9), port).unwrap();
        node.publish();
        assert_eq!(node.run(POD_A, &fragments[1]).verdict, Verdict::Send(PortIndex(9)));
    }
}

#[test]
fn fragments_after_their_service_is_gone_count_for_no_other() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(UDP, ips.vip, &[(ips.b, 53)])]);
        let question = testkit::udp(at(ips.a, 1000), at(ips.vip, 80), &payload(2000));
        let fragments = testkit::fragments(&question, 1450);
        node.run(POD_A, &from_a(fragments[0].clone()));
        // Another service gets the slot.
        node.program(&[service(proto::Protocol::Tcp, ips.vip, &[(ips.b, 8080)])]);
        node.counters.restart_service(0);
        assert_eq!(node.run(POD_A, &from_a(fragments[1].clone())).verdict, Verdict::Send(POD_B));
        assert_eq!(node.counters.service(0).packets, 0);
    }
}

#[test]
fn fragments_to_a_pod_that_is_gone_are_dropped_as_other_packets_to_it_are() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(UDP, ips.vip, &[(ips.b, 53)])]);
        let question = testkit::udp(at(ips.a, 1000), at(ips.vip, 80), &payload(2000));
        let fragments = testkit::fragments(&question, 1450);
        node.run(POD_A, &from_a(fragments[0].clone()));
        node.builder.detach(POD_B);
        node.publish();
        node.assert_dropped(POD_A, &from_a(fragments[1].clone()), R::NO_SUCH_POD);
    }
}

#[test]
fn sctp_in_fragments_keeps_its_ports_or_is_dropped() {
    for ips in both() {
        for (port, kept) in [(80, true), (36_412, false)] {
            let mut node = Node::new();
            node.program(&[service(proto::Protocol::Sctp, ips.vip, &[(ips.b, port)])]);
            assert_eq!(
                node.run(POD_A, &from_a(sctp::init(at(ips.a, 1000), at(ips.vip, 80)))).verdict,
                Verdict::Send(POD_B)
            );
            let data = testkit::sctp_chunk(ChunkType::DATA, 3, &payload(3000));
            let packet = testkit::sctp(at(ips.a, 1000), at(ips.vip, 80), 7, &data);
            let fragments: Vec<_> = testkit::fragments(&packet, 1400).into_iter().map(from_a).collect();
            if kept {
                let frames = fragments.iter().map(|fragment| node.run(POD_A, fragment).frame);
                // The checksum covers no addresses.
                assert_eq!(together(&frames.collect::<Vec<_>>()), message(&packet));
            } else {
                node.assert_dropped(POD_A, &fragments[0], R::SERVICE_FRAGMENT);
                node.assert_dropped(POD_A, &fragments[1], R::FRAGMENT_WITHOUT_FIRST);
            }
        }
    }
}

#[test]
fn fragments_between_pods_pass_in_any_order() {
    for ips in both() {
        let mut node = Node::new();
        let datagram = testkit::udp(at(ips.a, 1000), at(ips.b, 53), &payload(4000));
        let mut fragments: Vec<_> = testkit::fragments(&datagram, 1400).into_iter().map(from_a).collect();
        fragments.reverse();
        let mut frames: Vec<_> = fragments
            .iter()
            .map(|fragment| node.run(POD_A, fragment))
            .inspect(|outcome| assert_eq!(outcome.verdict, Verdict::Send(POD_B)))
            .map(|outcome| outcome.frame)
            .collect();
        frames.reverse();
        assert_eq!((together(&frames), node.flow_count()), (message(&datagram), 0));
    }
}

#[test]
fn a_fragment_longer_than_the_tunnel_takes_is_dropped_and_the_first_one_said_so() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(UDP, ips.vip, &[(ips.on_b, 53)])]);
        let question = testkit::udp(at(ips.a, 1000), at(ips.vip, 80), &payload(5000));
        let fragments: Vec<_> = testkit::fragments(&question, 1500).into_iter().map(from_a).collect();
        assert_eq!(icmp(&node.run(POD_A, &fragments[0]).frame), kind(&ips, (3, 4), (2, 0)));
        assert_eq!(node.run(POD_A, &fragments[1]).verdict, Verdict::Drop(R::FRAGMENT_WITHOUT_FIRST));
        // A first one that fits, and one behind it that does not.
        let short: Vec<_> = testkit::fragments(&question, 1400).into_iter().map(from_a).collect();
        assert_eq!(node.run(POD_A, &short[0]).verdict, Verdict::Send(UPLINK));
        node.assert_dropped(POD_A, &fragments[1], R::TOO_BIG);
    }
}

proptest! {
    /// Datagrams of several clients, their fragments mixed, each one's first first: each arrives whole.
    #[test]
    fn datagrams_arrive_whole_however_their_fragments_mix(
        datagrams in prop::collection::vec((0_u16..6, 100_usize..6000, 300_usize..1450, any::<u64>()), 1..12),
        v6: bool,
    ) {
        let ips = both()[usize::from(v6)];
        let mut node = Node::new();
        node.program(&[service(UDP, ips.vip, &[(ips.b, 5353), (ips.on_b, 5353), (ips.a, 5353)])]);
        let mut queue = Vec::new();
        for (n, (port, len, mtu, order)) in datagrams.iter().enumerate() {
            let whole = testkit::udp(at(ips.a, 1000 + port), at(ips.vip, 80), &payload(*len));
            for (i, mut fragment) in testkit::fragments(&whole, *mtu).into_iter().enumerate() {
                // An identification of its own.
                if v6 {
                    fragment[61] = n as u8;
                } else {
                    fragment[19] = n as u8;
                    testkit::fill_checksums(&mut fragment);
                }
                let time = if i == 0 { 0 } else { 1 + order.rotate_left(i as u32) % 97 };
                queue.push((time, n, i, from_a(fragment)));
            }
        }
        queue.sort();
        let mut arrived = vec![std::collections::BTreeMap::new(); datagrams.len()];
        for batch in queue.chunks(40) {
            let frames: Vec<_> = batch.iter().map(|(.., frame)| frame.clone()).collect();
            for ((_, n, i, _), outcome) in batch.iter().zip(node.burst(POD_A, &frames)) {
                prop_assert!(matches!(outcome.verdict, Verdict::Send(_)), "{outcome:?}");
                arrived[*n].insert(*i, inner_or_frame(&outcome));
            }
        }
        for ((port, len, ..), frames) in datagrams.iter().zip(arrived) {
            let frames: Vec<_> = frames.into_values().collect();
            let endpoint = read(&frames[0]).dst;
            let source = read(&frames[0]).src;
            prop_assert!(source == at(ips.a, 1000 + port) || source == at(ips.gateway, 1000 + port));
            prop_assert!(frames.iter().all(|frame| read(frame).dst.ip() == endpoint.ip()));
            let wanted = testkit::udp(source, endpoint, &payload(*len));
            let bytes: Vec<u8> = frames.iter().flat_map(|frame| message(frame)).collect();
            prop_assert_eq!(bytes, message(&wanted));
        }
    }
}
