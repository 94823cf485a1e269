use std::net::{Ipv4Addr, Ipv6Addr};

use culvert_packet::arp::{Arp, ArpOperation};
use culvert_packet::eth::{EthAddr, EtherType};
use culvert_packet::icmpv6::{Neighbour as Message, OVERRIDE, SOLICITED, TARGET_LINK_LAYER};
use culvert_packet::vlan::Tci;
use culvert_packet::{Malformed, neighbour};

use super::*;
use crate::counter::DropReason as R;
use crate::pipeline::{Learned, Neighbour};

const VTEP4: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);
const NODE_B4: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 2);

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn from_node_b(frame: Vec<u8>) -> Vec<u8> {
    testkit::with_macs(frame, UPLINK_MAC, NODE_B_MAC)
}

#[test]
fn tunnelled_packets_are_delivered_to_pods() {
    let mut node = Node::new();
    for ips in both() {
        let frame = testkit::udp(at(ips.on_b, 1000), at(ips.a, 2000), b"data");
        let outcome = node.run_tunnelled(testkit::padded(frame, 80));
        assert_eq!(outcome.verdict, Verdict::Send(POD_A));
        let got = read(&outcome.frame);
        assert_eq!(got.macs, (POD_A_MAC, GATEWAY_MAC));
        assert_eq!((got.src, got.dst, got.ttl), (at(ips.on_b, 1000), at(ips.a, 2000), testkit::TTL - 1));
    }
}

#[test]
fn what_comes_through_a_tunnel_that_should_not_is_dropped_by_reason() {
    let mut node = Node::new();
    let good = || {
        let inner = testkit::udp(at(ip("10.2.0.7"), 1000), at(ip("10.1.0.5"), 2000), b"data");
        testkit::with_macs(inner, VTEP_MAC, NODE_B_VTEP_MAC)
    };
    let outer = |src: &str, vni, inner: &[u8]| {
        from_node_b(testkit::vxlan(src.parse().unwrap(), ip("192.168.0.1"), vni, inner))
    };
    let with = |change: fn(&mut Vec<u8>)| {
        let mut inner = good();
        change(&mut inner);
        outer("192.168.0.2:5", VNI, &inner)
    };
    let no_flags = || {
        let mut frame = outer("192.168.0.2:5", VNI, &good());
        frame[14 + 20 + 8] = 0;
        frame
    };
    for (why, frame, reason) in [
        ("stranger", outer("192.168.0.9:5", VNI, &good()), R::TUNNEL_UNKNOWN_SOURCE),
        ("other network", outer("192.168.0.2:5", VNI + 1, &good()), R::TUNNEL_WRONG_VNI),
        ("no flags", no_flags(), Malformed::VxlanFlags.into()),
        ("other station", with(|inner| inner[5] ^= 1), R::TUNNEL_NOT_OUR_MAC),
        ("broadcast", with(|inner| inner[..6].fill(0xff)), R::MULTICAST),
        ("tag", with(|inner| *inner = testkit::tagged(inner, Tci::of_vlan(1))), R::VLAN_TAG),
        ("truncated", with(|inner| inner.truncate(30)), Malformed::Ipv4Truncated.into()),
        ("checksum", with(|inner| inner[24] ^= 1), Malformed::Ipv4Checksum.into()),
        (
            "not IP",
            with(|inner| inner[12..14].copy_from_slice(&EtherType(0x88cc).0.to_be_bytes())),
            R::ETHER_TYPE,
        ),
        (
            "ARP",
            with(|inner| {
                *inner = testkit::with_macs(testkit::arp_reply(NODE_B4, VTEP4), VTEP_MAC, NODE_B_VTEP_MAC);
            }),
            R::NEIGHBOUR_IGNORED,
        ),
        (
            "multicast",
            tunnelled(testkit::udp(at(ip("10.2.0.7"), 1), at(ip("224.0.0.5"), 2), b"")),
            R::MULTICAST,
        ),
        (
            "not local",
            tunnelled(testkit::udp(at(ip("10.2.0.7"), 1), at(ip("10.3.0.7"), 2), b"")),
            R::TUNNEL_NOT_LOCAL,
        ),
        (
            "nowhere",
            tunnelled(testkit::udp(at(ip("10.2.0.7"), 1), at(ip("8.8.8.8"), 2), b"")),
            R::TUNNEL_NOT_LOCAL,
        ),
    ] {
        let outcome = node.run(UPLINK, &frame);
        assert_eq!(outcome.verdict, Verdict::Drop(reason), "{why}");
    }
    assert_eq!(node.counters.port(UPLINK).rx_dropped, 13);
}

#[test]
fn a_pod_that_is_not_here_is_told_through_the_tunnel() {
    let mut node = Node::new();
    for ips in both() {
        let told = inner(&node.run_tunnelled(testkit::udp(at(ips.on_b, 1), at(ips.nobody, 2), b"x")));
        assert_eq!(icmp(&told), kind(&ips, (3, 1), (1, 3)));
    }
}

#[test]
fn congestion_in_the_underlay_is_passed_on_to_whom_it_means_something() {
    let mut node = Node::new();
    // RFC 6040, figure 4: inner, outer, result.
    for (inner_ecn, outer_ecn, result) in
        [(0, 0, Some(0)), (2, 3, Some(3)), (1, 3, Some(3)), (2, 0, Some(2)), (0, 3, None)]
    {
        let mut inner = testkit::udp(at(ip("10.2.0.7"), 1), at(ip("10.1.0.5"), 2), b"x");
        inner[15] = inner_ecn;
        testkit::fill_checksums(&mut inner);
        let mut frame = tunnelled(inner);
        frame[15] = outer_ecn;
        testkit::fill_checksums(&mut frame);
        let outcome = node.run(UPLINK, &frame);
        match result {
            Some(ecn) => {
                assert_eq!(outcome.verdict, Verdict::Send(POD_A));
                assert_eq!(read(&outcome.frame).parsed.traffic_class, ecn);
            }
            None => assert_eq!(outcome.verdict, Verdict::Drop(R::TUNNEL_CONGESTION)),
        }
    }
}

#[test]
fn our_underlay_addresses_are_found_and_pinged() {
    let mut node = Node::new();
    let arp = testkit::with_macs(testkit::arp_request(NODE_B4, VTEP4), EthAddr::BROADCAST, testkit::MAC_A);
    let outcome = node.run(UPLINK, &testkit::padded(arp, 60));
    assert_eq!(outcome.verdict, Verdict::Send(UPLINK));
    let reply = *Arp::new(&outcome.frame[14..]).unwrap();
    assert_eq!(
        (reply.operation(), reply.sender_mac(), reply.sender_ip()),
        (ArpOperation::REPLY, UPLINK_MAC, VTEP4)
    );

    let outcome = node.run(UPLINK, &testkit::neighbour_solicitation(v6("2001:db8::3"), v6("2001:db8::1")));
    assert_eq!(outcome.verdict, Verdict::Send(UPLINK));
    let message = Message::new(&outcome.frame[54..]).unwrap();
    assert_eq!((message.target(), message.flags()), (v6("2001:db8::1"), SOLICITED | OVERRIDE));
    assert_eq!(message.link_layer(TARGET_LINK_LAYER), Ok(Some(UPLINK_MAC)));

    for (src, vtep) in [("192.168.0.2", "192.168.0.1"), ("2001:db8::3", "2001:db8::1")] {
        let outcome = node.run(UPLINK, &from_node_b(testkit::echo_request(ip(src), ip(vtep), 1, 1, b"ping")));
        assert_eq!(outcome.verdict, Verdict::Send(UPLINK));
        let reply = read(&outcome.frame);
        assert_eq!((reply.macs, reply.dst.ip()), ((NODE_B_MAC, UPLINK_MAC), ip(src)));
    }
    assert_eq!(node.answered("echo-reply"), 2);
}

#[test]
fn what_neighbours_say_of_themselves_is_passed_on() {
    let mut node = Node::new();
    let learned = |ip, solicited| [Learned::Neighbour(Neighbour { ip, mac: testkit::MAC_A, solicited })];
    let b4 = IpAddr::V4(NODE_B4);
    let reply = testkit::arp_reply(NODE_B4, VTEP4);
    let to_us = testkit::with_macs(reply.clone(), UPLINK_MAC, testkit::MAC_A);
    assert_eq!(node.hear(UPLINK, &to_us), learned(b4, true));
    let to_all = testkit::with_macs(reply, EthAddr::BROADCAST, testkit::MAC_A);
    assert_eq!(node.hear(UPLINK, &to_all), learned(b4, false));
    assert_eq!(node.hear(UPLINK, &testkit::arp_request(NODE_B4, NODE_B4)), learned(b4, false));

    let advertisement = |flags| {
        let mut buf = TestBuf::new(&[]);
        assert!(neighbour::unsolicited_advertisement(&mut buf, testkit::MAC_A, v6("2001:db8::3"), flags));
        buf.data().to_vec()
    };
    assert_eq!(node.hear(UPLINK, &advertisement(OVERRIDE)), learned(ip("2001:db8::3"), false));
    node.assert_dropped(UPLINK, &advertisement(SOLICITED), Malformed::NdInvalid.into());
    let mut answer = advertisement(SOLICITED | OVERRIDE);
    answer[38..54].copy_from_slice(&v6("2001:db8::1").octets());
    testkit::fill_checksums(&mut answer);
    let answer = testkit::with_macs(answer, UPLINK_MAC, testkit::MAC_A);
    assert_eq!(node.hear(UPLINK, &answer), learned(ip("2001:db8::3"), true));
    let mut routed = answer.clone();
    routed[21] = 254;
    node.assert_dropped(UPLINK, &routed, Malformed::NdInvalid.into());
    let mut wrong = answer;
    wrong[56] ^= 1;
    node.assert_dropped(UPLINK, &wrong, Malformed::IcmpChecksum.into());
}

#[test]
fn the_rest_of_the_underlay_is_none_of_our_business() {
    let mut node = Node::new();
    let udp = |dst: &str| testkit::udp(at(ip("192.168.0.2"), 1), at(ip(dst), 4789), b"");
    for (why, frame, reason) in [
        ("another's ARP", testkit::arp_request(NODE_B4, Ipv4Addr::new(192, 168, 0, 9)), R::NEIGHBOUR_IGNORED),
        ("our address", testkit::arp_request(VTEP4, VTEP4), R::ADDRESS_CONFLICT),
        (
            "no sender",
            testkit::with_macs(testkit::arp_reply(Ipv4Addr::UNSPECIFIED, VTEP4), UPLINK_MAC, NODE_B_MAC),
            R::NEIGHBOUR_IGNORED,
        ),
        (
            "another's solicitation",
            testkit::neighbour_solicitation(v6("2001:db8::3"), v6("2001:db8::9")),
            R::NEIGHBOUR_IGNORED,
        ),
        (
            "another station",
            testkit::with_macs(udp("192.168.0.1"), NODE_B_MAC, testkit::MAC_A),
            R::NOT_OUR_MAC,
        ),
        (
            "multicast",
            testkit::with_macs(udp("224.0.0.1"), EthAddr([1, 0, 0x5e, 0, 0, 1]), NODE_B_MAC),
            R::MULTICAST,
        ),
        ("another address", from_node_b(udp("192.168.0.77")), R::UNDERLAY_NOT_FOR_US),
        ("a pod's address in the clear", from_node_b(udp("10.1.0.5")), R::UNDERLAY_NOT_FOR_US),
        (
            "another port",
            from_node_b(testkit::udp(at(ip("192.168.0.2"), 1), at(ip("192.168.0.1"), 53), b"")),
            R::UNDERLAY_NOT_FOR_US,
        ),
        (
            "TCP",
            from_node_b(syn(at(ip("192.168.0.2"), 1), at(ip("192.168.0.1"), 4789))),
            R::UNDERLAY_NOT_FOR_US,
        ),
        ("too short for a tunnel", from_node_b(udp("192.168.0.1")), Malformed::VxlanTruncated.into()),
        ("a tag", testkit::tagged(&from_node_b(udp("192.168.0.1")), Tci::of_vlan(3)), R::VLAN_TAG),
        ("LLDP", from_node_b(testkit::eth(EtherType(0x88cc), &[0; 46])), R::ETHER_TYPE),
    ] {
        assert_eq!(node.run(UPLINK, &frame).verdict, Verdict::Drop(reason), "{why}");
    }
}

#[test]
fn fragments_of_tunnel_packets_are_refused() {
    let mut node = Node::new();
    let whole = tunnelled(testkit::udp(at(ip("10.2.0.7"), 1000), at(ip("10.1.0.5"), 2000), &[7; 1400]));
    let [first, later] = &testkit::fragments4(&whole, 1000)[..] else { panic!("two fragments") };
    node.assert_dropped(UPLINK, &from_node_b(first.clone()), Malformed::TunnelFragment.into());
    node.assert_dropped(UPLINK, &from_node_b(later.clone()), R::UNDERLAY_NOT_FOR_US);
}
