//! No bytes, however broken, make anything panic, and nothing accepted goes on to be malformed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::answer::{self, IcmpError};
use crate::arp::Arp;
use crate::buf::{PacketBuf, TestBuf};
use crate::encap::{self, Encapsulation, Endpoints, Marking, Template, Tunnel};
use crate::eth::Eth;
use crate::flow::{FlowKey4, FlowKey6, Tenant};
use crate::geneve::Geneve;
use crate::icmp::Icmp;
use crate::icmpv6::{Icmpv6, Neighbour, SOURCE_LINK_LAYER};
use crate::ipv4::Ipv4;
use crate::ipv6::Ipv6;
use crate::parse::{Parsed, parse, verify_transport};
use crate::rewrite::{self, Translation4, Translation6};
use crate::tcp::{Tcp, TcpFlags};
use crate::testkit::{self, MAC_A, MAC_B, generate};
use crate::udp::Udp;
use crate::vxlan::Vxlan;

const OURS_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const OURS_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// IPv4, IPv6, ARP and 802.1Q, and the byte that follows: a version where there is one.
const ETHER_TYPES: [[u8; 3]; 4] =
    [[0x08, 0x00, 0x45], [0x86, 0xdd, 0x60], [0x08, 0x06, 0x00], [0x81, 0x00, 0x00]];

/// Reads `bytes` with every view there is.
fn look(bytes: &[u8]) {
    let _ = (Eth::new(bytes), Arp::new(bytes), Icmp::new(bytes), Icmpv6::new(bytes), Vxlan::new(bytes));
    let _ = Ipv4::new(bytes).map(|v| (v.checksum_is_valid(), v.options().len() + v.payload().len()));
    let _ = Ipv6::new(bytes).map(|v| v.upper());
    let _ = Tcp::new(bytes).map(|v| v.options().len() + v.payload().len());
    let _ = Udp::new(bytes).map(|v| v.payload().len());
    let _ = Geneve::new(bytes).map(|v| v.options().len() + v.payload().len());
    let _ = Neighbour::new(bytes).map(|v| v.link_layer(SOURCE_LINK_LAYER));
}

/// Does everything with a frame that can be done with it.
fn exercise(frame: &[u8]) {
    for offset in [0, 14, 18, 34, 54] {
        look(frame.get(offset..).unwrap_or_default());
    }
    let Ok(parsed) = parse(frame) else { return };
    assert!(parsed.end() <= frame.len() && usize::from(parsed.l4_offset) <= parsed.end());
    let _ = verify_transport(frame, &parsed);

    type Step = fn(&mut TestBuf, &Parsed) -> bool;
    let steps: [Step; 9] = [
        |buf, parsed| {
            translate(buf.data_mut(), parsed);
            true
        },
        |buf, parsed| rewrite::decrement_ttl(buf.data_mut(), parsed),
        |buf, parsed| {
            rewrite::set_traffic_class(buf.data_mut(), parsed, 3);
            true
        },
        |buf, _| template().encap(buf, 50_000, 1, 64).is_ok(),
        |buf, parsed| answer::arp_reply(buf.data_mut(), parsed, MAC_B).is_ok(),
        |buf, parsed| answer::echo_reply(buf.data_mut(), parsed).is_ok(),
        |buf, parsed| answer::neighbour_advertisement(buf, parsed, MAC_B, 0).is_ok(),
        |buf, parsed| answer::tcp_reset(buf, parsed).is_ok(),
        |buf, parsed| {
            [OURS_V4, OURS_V6].iter().any(|&from| {
                answer::icmp_error(buf, parsed, from, IcmpError::PacketTooBig { mtu: 1450 }).is_ok()
            })
        },
    ];
    for (i, step) in steps.iter().enumerate() {
        let mut buf = TestBuf::new(frame);
        if step(&mut buf, &parsed) {
            assert!(parse(buf.data()).is_ok(), "step {i} made a malformed packet of {frame:02x?}");
        } else {
            assert_eq!(buf.data(), frame, "step {i} refused, but changed the packet");
        }
    }
    let tunnels = [encap::decap(frame, &parsed).ok(), encap::decap_geneve(frame, &parsed).ok()];
    for decap in tunnels.into_iter().flatten() {
        let mut buf = TestBuf::new(frame);
        decap.strip(&mut buf);
        assert_eq!(buf.len(), decap.inner_len);
        if let Ok(inner) = parse(buf.data()) {
            translate(buf.data_mut(), &inner);
        }
    }
}

fn translate(frame: &mut [u8], parsed: &Parsed) {
    if let Some(key) = FlowKey4::of(frame, parsed, Tenant::DEFAULT) {
        Translation4::new(&key, &key.reversed()).apply(frame, parsed);
    }
    if let Some(key) = FlowKey6::of(frame, parsed, Tenant::DEFAULT) {
        Translation6::new(&key, &key.reversed()).apply(frame, parsed);
    }
}

fn template() -> Template {
    Template::new(&Tunnel {
        outer_dst: MAC_B,
        outer_src: MAC_A,
        endpoints: Endpoints::new(OURS_V4, OURS_V4).unwrap(),
        encapsulation: Encapsulation::Vxlan,
        vni: 1,
        udp_port: 4789,
        marking: Marking::default(),
        zero_checksum6: false,
        inner_dst: MAC_B,
        inner_src: MAC_A,
    })
}

/// Makes the IPv4 header checksum of an untagged frame right if there is such a header, so that a change
/// elsewhere in it is not caught by the checksum alone.
fn repair(frame: &mut [u8]) {
    let Some(header_len) = frame.get(14).map(|first| usize::from(first & 0xf) * 4) else { return };
    if frame[12..14] == [0x08, 0x00] && header_len >= 20 && frame.len() >= 14 + header_len {
        frame[24..26].fill(0);
        let checksum = crate::checksum::checksum(&frame[14..14 + header_len]);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// One small frame of each kind.
fn specimens() -> Vec<Vec<u8>> {
    let v4: [SocketAddr; 2] = ["10.0.0.1:1000".parse().unwrap(), "10.0.0.2:80".parse().unwrap()];
    let v6: [SocketAddr; 2] = ["[fd00::1]:1000".parse().unwrap(), "[fd00::2]:80".parse().unwrap()];
    let mut all = vec![
        testkit::arp_request([10, 0, 0, 1].into(), [10, 0, 0, 2].into()),
        testkit::neighbour_solicitation("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap()),
    ];
    for [a, b] in [v4, v6] {
        let udp = testkit::udp(a, b, b"ab");
        let echo = testkit::echo_request(a.ip(), b.ip(), 1, 1, b"ab");
        all.push(testkit::vxlan(a, b.ip(), 4096, &udp));
        all.push(testkit::geneve(a, b.ip(), 4096, &[1, 2, 3, 1, 0, 0, 0, 0], &udp));
        all.push(testkit::tcp(a, b, TcpFlags::SYN, b"ab"));
        all.push(udp);
        all.push(echo);
    }
    all
}

#[test]
fn every_value_of_every_byte_of_every_kind_of_packet_is_survived() {
    for frame in specimens() {
        for at in 0..frame.len() {
            for value in 0..=255 {
                let mut broken = frame.clone();
                broken[at] = value;
                exercise(&broken);
                repair(&mut broken);
                exercise(&broken);
            }
        }
    }
}

#[test]
fn every_length_of_every_kind_of_packet_is_survived() {
    for frame in specimens() {
        for len in 0..frame.len() {
            exercise(&frame[..len]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..200)) {
        exercise(&bytes);
    }

    #[test]
    fn any_bytes_behind_a_known_ether_type_are_survived(
        mut bytes in vec(any::<u8>(), 14..200),
        start in prop::sample::select(ETHER_TYPES.to_vec()),
    ) {
        bytes.push(0);
        bytes[12..15].copy_from_slice(&start);
        repair(&mut bytes);
        exercise(&bytes);
    }

    #[test]
    fn broken_legal_packets_are_survived_inside_a_tunnel_and_outside(
        packet in generate::packet(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut frame = packet.frame();
        for (index, value) in changes {
            // Headers are where it matters.
            let at = index.index(frame.len().min(100));
            frame[at] = value;
        }
        exercise(&frame);
        repair(&mut frame);
        exercise(&frame);
        exercise(&frame[..cut.index(frame.len())]);
        exercise(&testkit::vxlan("10.0.0.1:50000".parse().unwrap(), [10, 0, 0, 2].into(), 1, &frame));
    }
}
