//! ICMP errors of the underlay about tunnel packets.

use culvert_packet::Malformed;

use super::*;
use crate::counter::DropReason as R;
use crate::pipeline::{Learned, PathMtu};

/// An underlay of each IP version: our tunnel endpoint, another node's, its pod, and a router between.
fn underlays() -> [[IpAddr; 4]; 2] {
    let [v4, v6] = both();
    [
        [v4.vtep, ip("192.168.0.2"), v4.on_b, ip("198.51.100.1")],
        [v6.vtep, ip("2001:db8::3"), v4.on_c, ip("2001:db8:9::1")],
    ]
}

/// The tunnel packet that pod A's packet becomes.
fn sent(node: &mut Node, to: IpAddr, len: usize) -> Outcome {
    let source = both().map(|ips| ips.a).into_iter().find(|a| a.is_ipv4() == to.is_ipv4()).unwrap();
    node.run(POD_A, &from_a(testkit::udp(at(source, 1000), at(to, 2000), &vec![7; len - 28])))
}

fn from_underlay(frame: Vec<u8>) -> Vec<u8> {
    testkit::with_macs(frame, UPLINK_MAC, NODE_B_MAC)
}

const fn too_big(router: IpAddr) -> (u8, u8) {
    if router.is_ipv4() { (3, 4) } else { (2, 0) }
}

#[test]
fn a_router_that_takes_less_is_heard_and_pods_are_told_of_what_is_left() {
    for [_, vtep, pod, router] in underlays() {
        let mut node = Node::new();
        let outer = sent(&mut node, pod, 1400);
        assert_eq!(outer.verdict, Verdict::Send(UPLINK));
        // RFC 792 demands 8 bytes of what is behind the IP header.
        for len in [if router.is_ipv4() { 28 } else { 48 }, 500] {
            let error = from_underlay(testkit::icmp_error(router, too_big(router), 1400, &outer.frame, len));
            assert_eq!(node.hear(UPLINK, &error), [Learned::PathMtu(PathMtu { vtep, mtu: 1400 })]);
        }
        for nothing_is_usual in [false, true] {
            node.pipeline.nothing_is_usual = nothing_is_usual;
            assert!(node.builder.set_path_mtus([(vtep, 1400)]));
            node.publish();
            let left = if vtep.is_ipv4() { 1350 } else { 1330 };
            assert_eq!(sent(&mut node, pod, left).verdict, Verdict::Send(UPLINK));
            let told = sent(&mut node, pod, left + 1);
            assert_eq!((told.verdict, icmp(&told.frame)), (Verdict::Send(POD_A), (3, 4)));
            let mtu = usize::from(read(&told.frame).parsed.l4_offset) + 6;
            assert_eq!(told.frame[mtu..mtu + 2], (left as u16).to_be_bytes());
            // Other nodes are not concerned, nor is this one once that is forgotten.
            let other =
                underlays().map(|[_, _, pod, _]| pod).into_iter().find(|other| *other != pod).unwrap();
            assert_eq!(sent(&mut node, other, 1400).verdict, Verdict::Send(UPLINK));
            assert!(node.builder.set_path_mtus([]) && !node.builder.set_path_mtus([]));
            node.publish();
            assert_eq!(sent(&mut node, pod, 1400).verdict, Verdict::Send(UPLINK));
        }
    }
}

#[test]
fn errors_that_say_nothing_of_the_mtu_or_are_about_nothing_of_ours_are_dropped_by_reason() {
    for [own, vtep, pod, router] in underlays() {
        let mut node = Node::new();
        let outer = sent(&mut node, pod, 1000).frame;
        let about = |kind, about: &[u8]| from_underlay(testkit::icmp_error(router, kind, 1400, about, 300));
        let unreachable = if router.is_ipv4() { (3, 1) } else { (1, 3) };
        let exceeded = if router.is_ipv4() { (11, 0) } else { (3, 0) };
        node.assert_dropped(UPLINK, &about(unreachable, &outer), R::UNDERLAY_ERROR);
        node.assert_dropped(UPLINK, &about(exceeded, &outer), R::UNDERLAY_ERROR);
        let udp = |src, dst, port| testkit::udp(at(src, 50_000), at(dst, port), &[7; 400]);
        let elsewhere = if own.is_ipv4() { ip("192.168.0.77") } else { ip("2001:db8::77") };
        let tcp = testkit::tcp(at(own, 50_000), at(vtep, 4789), TcpFlags::ACK, b"x");
        for foreign in [udp(own, elsewhere, 4789), udp(own, vtep, 53), tcp] {
            node.assert_dropped(UPLINK, &about(too_big(router), &foreign), R::UNDERLAY_NOT_FOR_US);
        }
        // The error goes to whoever sent what it quotes: here to another than we are.
        node.assert_dropped(
            UPLINK,
            &about(too_big(router), &udp(elsewhere, vtep, 4789)),
            R::UNDERLAY_NOT_FOR_US,
        );
        let mut wrong = about(too_big(router), &outer);
        *wrong.last_mut().unwrap() ^= 1;
        node.assert_dropped(UPLINK, &wrong, Malformed::IcmpChecksum.into());
    }
}
