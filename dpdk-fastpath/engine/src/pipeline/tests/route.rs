use culvert_packet::parse::Fragment;

use super::*;
use crate::counter::DropReason as R;

#[test]
fn local_pods_reach_each_other_over_the_router() {
    let mut node = Node::new();
    for ips in both() {
        for frame in [
            testkit::udp(at(ips.a, 1000), at(ips.b, 2000), b"data"),
            syn(at(ips.a, 1000), at(ips.b, 80)),
            testkit::echo_request(ips.a, ips.b, 1, 1, b"data"),
        ] {
            let sent = read(&from_a(frame.clone()));
            let outcome = node.run(POD_A, &testkit::padded(from_a(frame), 100));
            assert_eq!(outcome.verdict, Verdict::Send(POD_B));
            let got = read(&outcome.frame);
            assert_eq!(got.macs, (POD_B_MAC, GATEWAY_MAC));
            assert_eq!((got.src, got.dst, got.ttl), (sent.src, sent.dst, sent.ttl - 1));
        }
    }
    assert_eq!(node.flow_count(), 0, "what needs no translation is not tracked");
}

#[test]
fn pods_elsewhere_are_reached_through_the_tunnel() {
    let mut node = Node::new();
    for ips in both() {
        let frame = from_a(testkit::udp(at(ips.a, 1000), at(ips.on_b, 2000), b"data"));
        let sent = read(&frame);
        let got = inner(&node.run(POD_A, &testkit::padded(frame, 100)));
        let got = read(&got);
        assert_eq!(got.macs, (NODE_B_VTEP_MAC, VTEP_MAC));
        assert_eq!((got.src, got.dst, got.ttl), (sent.src, sent.dst, sent.ttl - 1));

        let over_v6 = node.run(POD_A, &from_a(testkit::udp(at(ips.a, 1000), at(ips.on_c, 2000), b"data")));
        assert_eq!(over_v6.verdict, Verdict::Send(UPLINK));
        // Without UDP checksum, as tunnels may be (RFC 6935).
        let outer = parse(&over_v6.frame).unwrap();
        let key = FlowKey6::of(&over_v6.frame, &outer, Tenant::DEFAULT).unwrap();
        assert_eq!((key.source().0, key.destination()), (ip("2001:db8::1"), (ip("2001:db8::3"), 4789)));
    }
}

#[test]
fn flows_take_different_source_ports_through_the_underlay_and_one_flow_always_the_same() {
    let mut node = Node::new();
    let mut port = |src| {
        let frame = from_a(testkit::udp(at(ip("10.1.0.5"), src), at(ip("10.2.0.7"), 2000), b"data"));
        read(&node.run(POD_A, &frame).frame).src.port()
    };
    assert_eq!(port(1000), port(1000));
    let ports: std::collections::HashSet<_> = (1000..1100).map(&mut port).collect();
    assert!(ports.len() > 90, "{} ports for 100 flows", ports.len());
}

#[test]
fn fragments_between_pods_pass() {
    let mut node = Node::new();
    let whole = from_a(testkit::udp(at(ip("10.1.0.5"), 1000), at(ip("10.1.0.6"), 2000), &[7; 3000]));
    let fragments = testkit::fragments4(&whole, 1400);
    assert_eq!(fragments.len(), 3);
    for (i, fragment) in fragments.into_iter().enumerate() {
        let outcome = node.run(POD_A, &from_a(fragment));
        assert_eq!(outcome.verdict, Verdict::Send(POD_B));
        assert_eq!(read(&outcome.frame).parsed.fragment == Fragment::First, i == 0);
    }
}

#[test]
fn the_sender_is_told_when_there_is_no_such_destination() {
    let mut node = Node::new();
    for ips in both() {
        for (target, reason, error) in [
            (ips.nobody, R::NO_SUCH_POD, kind(&ips, (3, 1), (1, 3))),
            (ips.elsewhere, R::NO_ROUTE, kind(&ips, (3, 0), (1, 0))),
        ] {
            let before = node.dropped(reason);
            let frame = from_a(testkit::udp(at(ips.a, 1000), at(target, 2000), b"data"));
            let outcome = node.run(POD_A, &frame);
            assert_eq!(outcome.verdict, Verdict::Send(POD_A));
            assert_eq!(icmp(&outcome.frame), error);
            let told = read(&outcome.frame);
            assert_eq!(
                (told.macs, told.src.ip(), told.dst.ip()),
                ((POD_A_MAC, GATEWAY_MAC), ips.gateway, ips.a)
            );
            assert!(outcome.frame.ends_with(&frame[14..]), "the packet is not quoted as it was sent");
            assert_eq!(node.dropped(reason), before + 1);
        }
    }
}

#[test]
fn addresses_that_no_router_forwards_are_dropped_without_a_word() {
    let mut node = Node::new();
    for (src, dst) in [
        ("10.1.0.5", "127.0.0.1"),
        ("10.1.0.5", "169.254.169.254"),
        ("10.1.0.5", "0.0.0.0"),
        ("10.1.0.5", "240.0.0.1"),
        ("fd00:1::5", "::1"),
        ("fd00:1::5", "fe80::1"),
        ("fd00:1::5", "::"),
    ] {
        let frame = from_a(testkit::udp(at(ip(src), 1000), at(ip(dst), 2000), b"data"));
        node.assert_dropped(POD_A, &frame, R::MARTIAN);
    }
}

#[test]
fn the_last_hop_is_told_to_the_sender() {
    let mut node = Node::new();
    for ips in both() {
        for (ttl, target) in [(1, ips.b), (0, ips.b), (1, ips.on_b)] {
            let mut frame = from_a(testkit::udp(at(ips.a, 1000), at(target, 2000), b"data"));
            frame[if ips.a.is_ipv4() { 22 } else { 21 }] = ttl;
            testkit::fill_checksums(&mut frame);
            let outcome = node.run(POD_A, &frame);
            assert_eq!(outcome.verdict, Verdict::Send(POD_A));
            assert_eq!(icmp(&outcome.frame), kind(&ips, (11, 0), (3, 0)));
            assert!(outcome.frame.ends_with(&frame[14..]));
        }
        // And through the tunnel to a pod elsewhere.
        let mut frame = testkit::udp(at(ips.on_b, 1000), at(ips.a, 2000), b"data");
        frame[if ips.a.is_ipv4() { 22 } else { 21 }] = 1;
        testkit::fill_checksums(&mut frame);
        let told = inner(&node.run_tunnelled(frame));
        assert_eq!(icmp(&told), kind(&ips, (11, 0), (3, 0)));
        assert_eq!((read(&told).src.ip(), read(&told).dst.ip()), (ips.gateway, ips.on_b));
    }
    assert_eq!((node.dropped(R::TTL_EXCEEDED), node.answered("time-exceeded")), (8, 8));
}

#[test]
fn packets_too_long_for_the_next_link_are_told_its_length() {
    let mut node = Node::new();
    for ips in both() {
        let header = if ips.a.is_ipv4() { 20 } else { 40 };
        let mtu_at = if ips.a.is_ipv4() { 14 + 20 + 6 } else { 14 + 40 + 4 };
        for (target, fits) in [(ips.b, 1450), (ips.on_b, 1450), (ips.on_c, 1430)] {
            let frame = |len: usize| {
                from_a(testkit::udp(at(ips.a, 1000), at(target, 2000), &vec![7; len - header - 8]))
            };
            let last = node.run(POD_A, &frame(fits));
            assert!(matches!(last.verdict, Verdict::Send(port) if port != POD_A));
            let outcome = node.run(POD_A, &frame(fits + 1));
            assert_eq!(outcome.verdict, Verdict::Send(POD_A));
            assert_eq!(icmp(&outcome.frame), kind(&ips, (3, 4), (2, 0)));
            let width = if ips.a.is_ipv4() { 2 } else { 4 };
            let mtu =
                outcome.frame[mtu_at..][..width].iter().fold(0, |mtu, byte| mtu << 8 | usize::from(*byte));
            assert_eq!(mtu, fits);
        }
    }
    assert_eq!((node.dropped(R::TOO_BIG), node.answered("too-big")), (6, 6));
}

#[test]
fn a_node_that_cannot_be_reached_yet_gets_nothing() {
    let mut node = Node::new();
    let frame = from_a(testkit::udp(at(ip("10.1.0.5"), 1000), at(ip("10.2.0.7"), 2000), b"data"));
    node.builder.set_neighbours([]);
    node.publish();
    node.assert_dropped(POD_A, &frame, R::NEXT_HOP_UNRESOLVED);
    node.builder.detach(UPLINK);
    node.publish();
    node.assert_dropped(POD_A, &frame, R::NO_UPLINK);
}

#[test]
fn without_headroom_a_packet_is_dropped_and_not_sent_half_wrapped() {
    let mut node = Node::new();
    for target in ["10.2.0.7", "8.8.8.8"] {
        let frame = from_a(testkit::udp(at(ip("10.1.0.5"), 1000), at(ip(target), 2000), b"data"));
        let outcome = node.burst_of(POD_A, &mut [TestBuf::with_headroom(&frame, 8)]).remove(0);
        assert!(matches!(outcome.verdict, Verdict::Drop(R::NO_HEADROOM | R::NO_ROUTE)), "{outcome:?}");
    }
}

#[test]
fn tenants_do_not_reach_each_other() {
    let mut node = Node::new();
    let other =
        Port { tenant: Tenant::new(7).unwrap(), ..pod("b", POD_B_MAC, [ip("10.1.0.6"), ip("fd00:1::6")]) };
    node.builder.attach(POD_B, other).unwrap();
    node.publish();
    for ips in both() {
        let outcome = node.run(POD_A, &from_a(testkit::udp(at(ips.a, 1), at(ips.b, 2), b"x")));
        assert_eq!(icmp(&outcome.frame), kind(&ips, (3, 1), (1, 3)));
        for target in [ips.a, ips.on_b] {
            // This node does not know the tenant: there is no router that could tell.
            let frame = from_b(testkit::udp(at(ips.b, 1), at(target, 2), b"x"));
            node.assert_dropped(POD_B, &frame, R::NO_ROUTE);
        }
    }
}
