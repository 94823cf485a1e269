use std::net::{Ipv4Addr, Ipv6Addr};

use culvert_packet::arp::{Arp, ArpOperation};
use culvert_packet::eth::{EthAddr, EtherType};
use culvert_packet::icmpv6::{Neighbour, OVERRIDE, ROUTER, SOLICITED, TARGET_LINK_LAYER};
use culvert_packet::vlan::Tci;
use culvert_packet::{Malformed, testkit};

use super::*;
use crate::counter::DropReason as R;

const A4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 5);
const GATEWAY4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// ARP as pod A would send it.
fn arp(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = testkit::with_macs(testkit::arp_request(sender, target), EthAddr::BROADCAST, POD_A_MAC);
    frame[22..28].copy_from_slice(&POD_A_MAC.0);
    frame
}

/// A solicitation as pod A would send it.
fn solicitation(src: &str, target: &str) -> Vec<u8> {
    let mut frame = testkit::neighbour_solicitation(v6(src), v6(target));
    let group: [u8; 6] = frame[..6].try_into().unwrap();
    frame = testkit::with_macs(frame, EthAddr(group), POD_A_MAC);
    if src == "::" {
        // No address, so no option that says where it is.
        frame.truncate(14 + 40 + 24);
        frame[18..20].copy_from_slice(&24_u16.to_be_bytes());
    } else {
        let option = frame.len() - 6;
        frame[option..].copy_from_slice(&POD_A_MAC.0);
    }
    testkit::fill_checksums(&mut frame);
    frame
}

#[test]
fn arp_for_the_router_is_answered_and_for_nobody_else() {
    let mut node = Node::new();
    let outcome = node.run(POD_A, &testkit::padded(arp(A4, GATEWAY4), 60));
    assert_eq!(outcome.verdict, Verdict::Send(POD_A));
    let reply = *Arp::new(&outcome.frame[14..]).unwrap();
    assert_eq!(reply.operation(), ArpOperation::REPLY);
    assert_eq!((reply.sender_mac(), reply.sender_ip()), (GATEWAY_MAC, GATEWAY4));
    assert_eq!((reply.target_mac(), reply.target_ip()), (POD_A_MAC, A4));
    assert_eq!(node.answered("arp-reply"), 1);

    let probe = node.run(POD_A, &arp(Ipv4Addr::UNSPECIFIED, GATEWAY4));
    assert_eq!(probe.verdict, Verdict::Send(POD_A), "somebody else wants the router's address");
    node.assert_dropped(POD_A, &arp(A4, A4), R::NEIGHBOUR_IGNORED);
    node.assert_dropped(POD_A, &arp(A4, Ipv4Addr::new(10, 1, 0, 6)), R::NEIGHBOUR_IGNORED);
    node.assert_dropped(POD_A, &arp(Ipv4Addr::new(10, 1, 0, 6), GATEWAY4), R::SPOOFED_ADDRESS);
    let mut other_mac = arp(A4, GATEWAY4);
    other_mac[27] ^= 1;
    node.assert_dropped(POD_A, &other_mac, R::SPOOFED_MAC);
}

#[test]
fn solicitations_for_the_router_are_answered_and_for_nobody_else() {
    let mut node = Node::new();
    for src in ["fd00:1::5", "fe80::1234"] {
        let outcome = node.run(POD_A, &solicitation(src, "fd00:1::1"));
        assert_eq!(outcome.verdict, Verdict::Send(POD_A));
        let reply = read(&outcome.frame);
        assert_eq!(reply.macs, (POD_A_MAC, GATEWAY_MAC));
        assert_eq!((reply.src.ip(), reply.dst.ip()), (ip("fd00:1::1"), ip(src)));
        let message = Neighbour::new(&outcome.frame[54..]).unwrap();
        assert_eq!((message.target(), message.flags()), (v6("fd00:1::1"), ROUTER | SOLICITED | OVERRIDE));
        assert_eq!(message.link_layer(TARGET_LINK_LAYER), Ok(Some(GATEWAY_MAC)));
    }
    assert_eq!(node.answered("neighbour-advertisement"), 2);
    // Directly to the router, as when the pod makes sure that it is still there.
    let direct = testkit::with_macs(solicitation("fd00:1::5", "fd00:1::1"), GATEWAY_MAC, POD_A_MAC);
    assert_eq!(node.run(POD_A, &direct).verdict, Verdict::Send(POD_A));

    node.assert_dropped(POD_A, &solicitation("fd00:1::5", "fd00:1::6"), R::NEIGHBOUR_IGNORED);
    node.assert_dropped(POD_A, &solicitation("::", "fd00:1::5"), R::NEIGHBOUR_IGNORED);
    node.assert_dropped(POD_A, &solicitation("fd00:1::6", "fd00:1::1"), R::SPOOFED_ADDRESS);
    let mut wrong = solicitation("fd00:1::5", "fd00:1::1");
    wrong[56] ^= 1;
    node.assert_dropped(POD_A, &wrong, Malformed::IcmpChecksum.into());
}

#[test]
fn a_pod_sends_only_from_its_own_addresses() {
    let mut node = Node::new();
    for ips in both() {
        let good = from_a(testkit::udp(at(ips.a, 1000), at(ips.b, 2000), b"x"));
        assert_eq!(node.run(POD_A, &good).verdict, Verdict::Send(POD_B));
        for source in [ips.b, ips.gateway, ips.on_b, ips.vip] {
            let frame = from_a(testkit::udp(at(source, 1000), at(ips.b, 2000), b"x"));
            node.assert_dropped(POD_A, &frame, R::SPOOFED_ADDRESS);
        }
        let stranger = testkit::with_macs(good.clone(), GATEWAY_MAC, POD_B_MAC);
        node.assert_dropped(POD_A, &stranger, R::SPOOFED_MAC);
    }
    let unspecified = from_a(testkit::udp(at(ip("0.0.0.0"), 68), at(ip("10.1.0.1"), 67), b"x"));
    node.assert_dropped(POD_A, &unspecified, R::SPOOFED_ADDRESS);
    let link_local = from_a(testkit::udp(at(ip("fe80::1"), 1), at(ip("fd00:1::6"), 2), b"x"));
    node.assert_dropped(POD_A, &link_local, R::SPOOFED_ADDRESS);
}

#[test]
fn what_a_host_says_to_nobody_in_particular_goes_quietly() {
    let mut node = Node::new();
    let group4 = EthAddr::of_ipv4_multicast(Ipv4Addr::new(224, 0, 0, 251));
    let group6 = EthAddr::of_ipv6_multicast(v6("ff02::16"));
    let mdns = testkit::udp(at(ip("10.1.0.5"), 5353), at(ip("224.0.0.251"), 5353), b"x");
    let dhcp = testkit::udp(at(ip("0.0.0.0"), 68), at(ip("255.255.255.255"), 67), b"x");
    let listener_report =
        testkit::ipv6(v6("fe80::1"), v6("ff02::16"), Protocol::ICMPV6, &[143, 0, 0, 0, 0, 0, 0, 0]);
    for (frame, dst) in [(&mdns, group4), (&dhcp, EthAddr::BROADCAST), (&listener_report, group6)] {
        let frame = testkit::with_macs(frame.clone(), dst, POD_A_MAC);
        node.assert_dropped(POD_A, &frame, R::MULTICAST);
    }
    for frame in [mdns, testkit::udp(at(ip("fd00:1::5"), 1), at(ip("ff05::2"), 2), b"x")] {
        node.assert_dropped(POD_A, &from_a(frame), R::MULTICAST);
    }
    let mut router_solicitation =
        testkit::ipv6(v6("fe80::1"), v6("ff02::2"), Protocol::ICMPV6, &[133, 0, 0, 0, 0, 0, 0, 0]);
    testkit::fill_checksums(&mut router_solicitation);
    let all_routers = EthAddr::of_ipv6_multicast(v6("ff02::2"));
    node.assert_dropped(
        POD_A,
        &testkit::with_macs(router_solicitation, all_routers, POD_A_MAC),
        R::NEIGHBOUR_IGNORED,
    );
}

#[test]
fn frames_that_are_no_business_of_a_router_are_dropped() {
    let mut node = Node::new();
    let good = from_a(testkit::udp(at(ip("10.1.0.5"), 1000), at(ip("10.1.0.6"), 2000), b"x"));
    node.assert_dropped(POD_A, &testkit::with_macs(good.clone(), POD_B_MAC, POD_A_MAC), R::NOT_OUR_MAC);
    node.assert_dropped(POD_A, &testkit::tagged(&good, Tci::of_vlan(7)), R::VLAN_TAG);
    node.assert_dropped(POD_A, &from_a(testkit::eth(EtherType(0x88cc), &[0; 46])), R::ETHER_TYPE);
    node.assert_dropped(POD_A, &good[..20], Malformed::Ipv4Truncated.into());
    node.assert_dropped(POD_A, &[], Malformed::EthTruncated.into());
}

#[test]
fn without_port_or_tables_everything_is_dropped() {
    let mut node = Node::new();
    let good = from_a(testkit::udp(at(ip("10.1.0.5"), 1000), at(ip("10.1.0.6"), 2000), b"x"));
    node.assert_dropped(PortIndex(77), &good, R::NO_SUCH_PORT);
    let mut builder = Builder::new();
    builder.attach(POD_A, pod("a", POD_A_MAC, [ip("10.1.0.5"), ip("fd00:1::5")])).unwrap();
    node.view = builder.snapshot();
    node.assert_dropped(POD_A, &good, R::NOT_PROGRAMMED);
}
