//! What tunnels are made of: encapsulation, IP version of the underlay, marking.

use culvert_packet::Malformed;
use culvert_packet::encap::{decap, decap_geneve};
use culvert_packet::eth::EthHeader;
use culvert_packet::parse::L3;

use super::*;
use crate::counter::DropReason as R;

const NODE_B: &str = "192.168.0.2";
const NODE_C: &str = "2001:db8::3";

fn geneve(node: &mut Node) {
    node.configure(|local| local.encapsulation = proto::Encapsulation::Geneve.into());
}

/// What node B or C sends, around an inner frame to our endpoint.
fn from_node(address: &str, make: impl Fn(SocketAddr, IpAddr, &[u8]) -> Vec<u8>, inner: Vec<u8>) -> Vec<u8> {
    let src = at(ip(address), 50_000);
    let dst = if src.is_ipv4() { ip("192.168.0.1") } else { ip("2001:db8::1") };
    let inner = testkit::with_macs(inner, VTEP_MAC, NODE_B_VTEP_MAC);
    testkit::with_macs(make(src, dst, &inner), UPLINK_MAC, NODE_B_MAC)
}

fn in_vxlan(src: SocketAddr, dst: IpAddr, inner: &[u8]) -> Vec<u8> {
    testkit::vxlan(src, dst, VNI, inner)
}

fn with_options(options: &[u8]) -> impl Fn(SocketAddr, IpAddr, &[u8]) -> Vec<u8> {
    move |src, dst, inner| testkit::geneve(src, dst, VNI, options, inner)
}

/// Sets the traffic class of an IP packet in a frame.
fn set_class(mut frame: Vec<u8>, class: u8) -> Vec<u8> {
    let parsed = parse(&frame).unwrap();
    culvert_packet::rewrite::set_traffic_class(&mut frame, &parsed, class);
    frame
}

#[test]
fn geneve_goes_out_and_comes_in_over_both_underlays() {
    let mut node = Node::new();
    geneve(&mut node);
    for ips in both() {
        for (to, remote) in [(ips.on_b, NODE_B), (ips.on_c, NODE_C)] {
            let outcome = node.run(POD_A, &from_a(testkit::udp(at(ips.a, 1000), at(to, 2000), b"there")));
            assert_eq!(outcome.verdict, Verdict::Send(UPLINK));
            let outer = read(&outcome.frame);
            assert_eq!(outer.dst, at(ip(remote), 6081));
            let tunnel = decap_geneve(&outcome.frame, &outer.parsed).unwrap();
            assert_eq!(tunnel.vni, VNI);
            let inner = read(&outcome.frame[tunnel.inner_offset..]);
            assert_eq!((inner.src, inner.dst, inner.ttl), (at(ips.a, 1000), at(to, 2000), testkit::TTL - 1));

            let mut back = from_node(
                remote,
                with_options(&[1, 2, 3, 1, 0, 0, 0, 0]),
                testkit::udp(at(to, 2000), at(ips.a, 1000), b"back"),
            );
            testkit::fill_checksums(&mut back);
            let outcome = node.run(UPLINK, &back);
            assert_eq!(outcome.verdict, Verdict::Send(POD_A));
            assert_eq!(read(&outcome.frame).src, at(to, 2000));
        }
    }
}

#[test]
fn geneve_that_is_not_for_forwarding_is_dropped_by_reason() {
    let mut node = Node::new();
    geneve(&mut node);
    let inner = || testkit::udp(at(ip("10.2.0.7"), 1), at(ip("10.1.0.5"), 2), b"x");
    let good = from_node(NODE_B, with_options(&[]), inner());
    assert_eq!(node.run(UPLINK, &good).verdict, Verdict::Send(POD_A));
    let changed = |at: usize, to: u8| {
        let mut frame = good.clone();
        frame[at] = to;
        frame
    };
    const HEADER: usize = 42;
    node.assert_dropped(UPLINK, &changed(HEADER + 1, 0x80), R::TUNNEL_CONTROL);
    node.assert_dropped(UPLINK, &changed(HEADER + 1, 0x40), R::TUNNEL_CRITICAL_OPTION);
    node.assert_dropped(UPLINK, &changed(HEADER + 2, 0x08), R::TUNNEL_PROTOCOL);
    node.assert_dropped(UPLINK, &changed(HEADER, 0x80), Malformed::GeneveVersion.into());
    node.assert_dropped(UPLINK, &changed(HEADER, 0x3f), Malformed::GeneveTruncated.into());
    node.assert_dropped(UPLINK, &changed(HEADER + 6, 0xee), R::TUNNEL_WRONG_VNI);
    // The one is not the other's.
    node.assert_dropped(UPLINK, &from_node(NODE_B, in_vxlan, inner()), R::UNDERLAY_NOT_FOR_US);
    let mut node = Node::new();
    node.assert_dropped(UPLINK, &good, R::UNDERLAY_NOT_FOR_US);
}

#[test]
fn over_ipv6_the_udp_checksum_is_made_and_demanded_unless_told_otherwise() {
    let mut node = Node::new();
    for ips in both() {
        let out = from_a(testkit::udp(at(ips.a, 1000), at(ips.on_c, 2000), b"odd"));
        let back = || testkit::udp(at(ips.on_c, 2000), at(ips.a, 1000), b"odd");
        let without = from_node(NODE_C, in_vxlan, back());
        let mut with = without.clone();
        testkit::fill_checksums(&mut with);
        let mut wrong = with.clone();
        *wrong.last_mut().unwrap() ^= 1;

        node.configure(|local| (local.send_zero_checksum6, local.accept_zero_checksum6) = (false, false));
        let sent = node.run(POD_A, &out);
        assert_eq!(sent.verdict, Verdict::Send(UPLINK));
        // This verifies it.
        assert_eq!(read(&sent.frame).parsed.l3, L3::Ipv6);
        assert_eq!(node.run(UPLINK, &with).verdict, Verdict::Send(POD_A));
        node.assert_dropped(UPLINK, &wrong, Malformed::UdpChecksum.into());
        node.assert_dropped(UPLINK, &without, R::TUNNEL_NO_CHECKSUM);

        node.configure(|local| (local.send_zero_checksum6, local.accept_zero_checksum6) = (true, true));
        let sent = node.run(POD_A, &out);
        assert_eq!(sent.frame[60..62], [0, 0]);
        assert_eq!(node.run(UPLINK, &without).verdict, Verdict::Send(POD_A));
        assert_eq!(node.run(UPLINK, &with).verdict, Verdict::Send(POD_A));
        node.assert_dropped(UPLINK, &wrong, Malformed::UdpChecksum.into());
    }
}

#[test]
fn a_packet_may_be_as_long_as_the_underlay_of_its_node_leaves_room_for() {
    for encapsulation in [proto::Encapsulation::Vxlan, proto::Encapsulation::Geneve] {
        let mut node = Node::new();
        node.configure(|local| local.encapsulation = encapsulation.into());
        for ips in both() {
            for (to, overhead) in [(ips.on_b, 50), (ips.on_c, 70)] {
                let of_length = |len: usize| {
                    let headers = testkit::udp(at(ips.a, 1), at(to, 2), b"").len() - EthHeader::LEN;
                    from_a(testkit::udp(at(ips.a, 1), at(to, 2), &vec![7; len - headers]))
                };
                let most = 1500 - overhead;
                let sent = node.run(POD_A, &of_length(most));
                assert_eq!(sent.verdict, Verdict::Send(UPLINK));
                // The outer IP packet fills the underlay to the last byte.
                assert_eq!(sent.frame.len(), EthHeader::LEN + 1500);

                let told = node.run(POD_A, &of_length(most + 1));
                assert_eq!(told.verdict, Verdict::Send(POD_A));
                assert_eq!(icmp(&told.frame), kind(&ips, (3, 4), (2, 0)));
                let message = &told.frame[usize::from(read(&told.frame).parsed.l4_offset)..];
                // Next-hop MTU of RFC 1191, MTU of RFC 4443; the unused upper half of the former is 0.
                let mtu = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
                assert_eq!(mtu as usize, most);
            }
        }
    }
}

/// How a packet of traffic class 0xb9 and its outer packet leave for both other nodes: class and TTL of the outer ones.
fn outer_marks(node: &mut Node) -> Vec<(u8, u8)> {
    let [v4, v6] = both();
    let mut marks = Vec::new();
    for ips in [v4, v6] {
        for to in [ips.on_b, ips.on_c] {
            let frame = set_class(testkit::udp(at(ips.a, 1000), at(to, 2000), b"x"), 0xb9);
            let sent = node.run(POD_A, &from_a(frame));
            let outer = read(&sent.frame);
            let inner = read(&sent.frame[decap(&sent.frame, &outer.parsed).unwrap().inner_offset..]);
            assert_eq!((inner.parsed.traffic_class, inner.ttl), (0xb9, testkit::TTL - 1));
            marks.push((outer.parsed.traffic_class, outer.ttl));
        }
    }
    marks
}

#[test]
fn outer_packets_are_marked_as_configured() {
    use proto::{DscpModel, EcnMode, Marking};
    let marking = |model: DscpModel, dscp, ecn: EcnMode, ttl, copy_ttl| Marking {
        dscp_model: model.into(),
        dscp,
        ecn: ecn.into(),
        ttl,
        copy_ttl,
    };
    for (marking, wanted) in [
        (Marking::default(), (1, 64)),
        (marking(DscpModel::Pipe, 26, EcnMode::Normal, 9, false), (26 << 2 | 1, 9)),
        (marking(DscpModel::Pipe, 26, EcnMode::Compatibility, 0, true), (26 << 2, 63)),
        (marking(DscpModel::Copy, 0, EcnMode::Normal, 0, true), (0xb9, 63)),
        (marking(DscpModel::Uniform, 0, EcnMode::Normal, 255, false), (0xb9, 255)),
        (marking(DscpModel::Uniform, 0, EcnMode::Compatibility, 1, false), (0xb8, 1)),
    ] {
        for nothing_is_usual in [false, true] {
            let mut node = Node::new();
            node.pipeline.nothing_is_usual = nothing_is_usual;
            node.configure(|local| local.marking = Some(marking));
            assert_eq!(outer_marks(&mut node), [wanted; 4], "{marking:?}");
        }
    }
}

#[test]
fn an_answer_into_a_tunnel_is_marked_by_its_own_class() {
    use proto::{DscpModel, Marking};
    for (dscp_model, copies) in [(DscpModel::Pipe, false), (DscpModel::Copy, true)] {
        let mut node = Node::new();
        node.configure(|local| {
            local.marking = Some(Marking { dscp_model: dscp_model.into(), ..Default::default() });
        });
        for ips in both() {
            // The class of an ICMP error is internetwork control over IPv4, of an echo that of the request.
            let error = if ips.a.is_ipv4() { 0xc0 } else { 0 };
            let asked = testkit::udp(at(ips.on_b, 1), at(ips.nobody, 2), b"x");
            let pinged = testkit::echo_request(ips.on_b, ips.gateway, 1, 1, b"x");
            let refused = testkit::tcp(at(ips.on_b, 1), at(ips.gateway, 2), TcpFlags::SYN, b"");
            for (packet, class) in [(asked, error), (pinged, 0xb8), (refused, 0)] {
                let outcome = node.run_tunnelled(set_class(packet, 0xb8));
                assert_eq!(outcome.verdict, Verdict::Send(UPLINK));
                let outer = read(&outcome.frame).parsed.traffic_class;
                assert_eq!(read(&inner(&outcome)).parsed.traffic_class, class);
                assert_eq!(outer, if copies { class } else { 0 });
            }
        }
    }
}

#[test]
fn a_class_that_the_underlay_changed_is_passed_on_in_the_uniform_model_only() {
    use proto::DscpModel::{Copy, Pipe, Uniform};
    for (model, arrives) in [(Pipe, 0x28), (Copy, 0x28), (Uniform, 0x40)] {
        for ips in both() {
            let mut node = Node::new();
            node.configure(|local| {
                local.marking = Some(proto::Marking { dscp_model: model.into(), ..Default::default() });
            });
            let inner = set_class(testkit::udp(at(ips.on_b, 1), at(ips.a, 2), b"x"), 0x28);
            let outer = set_class(tunnelled(inner), 0x40);
            assert_eq!(read(&node.run(UPLINK, &outer).frame).parsed.traffic_class, arrives, "{model:?}");
        }
    }
}

#[test]
fn all_sixteen_combinations_of_congestion_marks_leave_the_tunnel_as_rfc_6040_says() {
    // Rows: inner not-ECT, ECT(1), ECT(0), CE. Columns: outer the same (figure 4).
    let table = [
        [Some(0), Some(0), Some(0), None],
        [Some(1), Some(1), Some(1), Some(3)],
        [Some(2), Some(1), Some(2), Some(3)],
        [Some(3), Some(3), Some(3), Some(3)],
    ];
    for (encapsulation, usual) in [(1, true), (1, false), (2, true)] {
        let mut node = Node::new();
        node.pipeline.nothing_is_usual = !usual;
        node.configure(|local| local.encapsulation = encapsulation);
        for (remote, ips) in [NODE_B, NODE_C].into_iter().flat_map(|remote| both().map(|ips| (remote, ips))) {
            for (inner_mark, row) in (0u8..).zip(table) {
                for (outer_mark, arrives) in (0u8..).zip(row) {
                    let inner = testkit::udp(at(ips.on_b, 1), at(ips.a, 2), b"x");
                    let inner = set_class(inner, 0xa0 | inner_mark);
                    let mut frame = match encapsulation {
                        1 => from_node(remote, in_vxlan, inner),
                        _ => from_node(remote, with_options(&[]), inner),
                    };
                    testkit::fill_checksums(&mut frame);
                    let outcome = node.run(UPLINK, &set_class(frame, outer_mark));
                    match arrives {
                        Some(mark) => {
                            assert_eq!(outcome.verdict, Verdict::Send(POD_A));
                            assert_eq!(read(&outcome.frame).parsed.traffic_class, 0xa0 | mark);
                        }
                        None => assert_eq!(outcome.verdict, Verdict::Drop(R::TUNNEL_CONGESTION)),
                    }
                }
            }
        }
    }
}
