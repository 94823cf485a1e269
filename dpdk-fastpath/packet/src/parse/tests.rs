use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;
use crate::testkit::generate::{self, LegalPacket, Message, Net, Piece};
use crate::testkit::oracle::assert_checksums;
use crate::testkit::{self, eth};

fn v4_frame() -> Vec<u8> {
    testkit::udp4("10.0.0.1:1000".parse().unwrap(), "10.0.0.2:53".parse().unwrap(), b"query")
}

fn v6_frame(next: Protocol, payload: &[u8]) -> Vec<u8> {
    testkit::ipv6("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap(), next, payload)
}

/// Changes one byte and repairs the IPv4 header checksum, so that only the change itself is wrong.
fn with_byte(mut frame: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    frame[at] = value;
    frame[24..26].fill(0);
    let checksum = crate::checksum::checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame
}

#[test]
fn each_bad_field_of_ipv4_is_refused_with_its_reason() {
    let frame = v4_frame();
    assert_eq!(parse(&frame).unwrap().l4, L4::Udp);
    for (at, value, reason) in [
        (14, 0x55, Malformed::Ipv4BadVersion),
        (14, 0x44, Malformed::Ipv4HeaderLength),
        (14, 0x4f, Malformed::Ipv4HeaderLength),
        (17, 19, Malformed::Ipv4TotalLength),
        (17, 34, Malformed::Ipv4TotalLength),
        // More fragments, and 13 bytes.
        (20, 0x20, Malformed::Ipv4Fragment),
        // At 65528, and 13 bytes.
        (20, 0x1f, Malformed::Ipv4Fragment),
        // 27 bytes: 7 for UDP.
        (17, 27, Malformed::UdpTruncated),
        (39, 7, Malformed::UdpLength),
        (39, 14, Malformed::UdpLength),
        // As ICMP or TCP there are 13 bytes: too few for TCP.
        (23, 6, Malformed::TcpTruncated),
    ] {
        let mut frame = frame.clone();
        if value == 0x1f {
            frame[21] = 0xff;
        }
        assert_eq!(parse(&with_byte(frame, at, value)), Err(reason), "byte {at} = {value:#x}");
    }
    let mut wrong_sum = frame;
    wrong_sum[24] ^= 1;
    assert_eq!(parse(&wrong_sum), Err(Malformed::Ipv4Checksum));
}

#[test]
fn a_tcp_offset_below_five_words_or_past_the_segment_is_refused() {
    let mut frame =
        testkit::tcp4("10.0.0.1:1000".parse().unwrap(), "10.0.0.2:80".parse().unwrap(), TcpFlags::SYN, b"ab");
    for (offset, verdict) in
        [(0x40, Some(Malformed::TcpOffset)), (0x50, None), (0x60, Some(Malformed::TcpOffset))]
    {
        frame[46] = offset;
        assert_eq!(parse(&frame).err(), verdict, "{offset:#x}");
    }
}

#[test]
fn a_fragment_that_could_overwrite_a_tcp_header_is_refused() {
    let fragment = |offset, protocol| {
        let packet = LegalPacket {
            eth_dst: testkit::MAC_B,
            eth_src: testkit::MAC_A,
            vlan: None,
            net: Net::V4 {
                src: [10, 0, 0, 1].into(),
                dst: [10, 0, 0, 2].into(),
                ttl: 64,
                traffic_class: 0,
                identification: 7,
                dont_fragment: false,
                options: vec![],
            },
            piece: Piece::Fragment(offset, false),
            message: Message::Opaque { protocol, data: vec![0; 16] },
            padding: 0,
        };
        parse(&packet.frame()).map(|p| p.fragment)
    };
    assert_eq!(fragment(1, Protocol::TCP), Err(Malformed::TcpTinyFragment));
    assert_eq!(fragment(2, Protocol::TCP), Err(Malformed::TcpTinyFragment));
    assert_eq!(fragment(3, Protocol::TCP), Ok(Fragment::Later));
    assert_eq!(fragment(1, Protocol::UDP), Ok(Fragment::Later));
}

#[test]
fn an_arp_packet_of_another_kind_is_refused_and_padding_is_cut() {
    let frame = testkit::padded(testkit::arp_request([10, 0, 0, 1].into(), [10, 0, 0, 2].into()), 60);
    let parsed = parse(&frame).unwrap();
    assert_eq!((parsed.l3, parsed.l3_offset, parsed.end()), (L3::Arp, 14, 42));
    for at in [15, 17, 18, 19] {
        let mut frame = frame.clone();
        frame[at] ^= 1;
        assert_eq!(parse(&frame), Err(Malformed::ArpType), "byte {at}");
    }
    assert_eq!(parse(&frame[..41]), Err(Malformed::ArpTruncated));
}

#[test]
fn other_protocols_pass_unread_behind_one_tag_only() {
    let lldp = eth(EtherType(0x88cc), &[1, 2, 3]);
    let parsed = parse(&lldp).unwrap();
    assert_eq!((parsed.l3, parsed.end()), (L3::Other(EtherType(0x88cc)), 17));
    let once = testkit::tagged(&lldp, Tci::of_vlan(7));
    let parsed = parse(&once).unwrap();
    assert_eq!((parsed.l3, parsed.vlan), (L3::Other(EtherType(0x88cc)), Some(Tci::of_vlan(7))));
    let twice = testkit::tagged(&once, Tci::of_vlan(8));
    let parsed = parse(&twice).unwrap();
    assert_eq!((parsed.l3, parsed.vlan), (L3::Other(EtherType::VLAN), Some(Tci::of_vlan(8))));
    assert_eq!(parse(&once[..17]), Err(Malformed::VlanTruncated));
    assert_eq!(parse(&once[..13]), Err(Malformed::EthTruncated));
}

#[test]
fn a_chain_of_extension_headers_ends_at_the_bound() {
    let destination_options = |next: Protocol| [next.0, 0, 1, 4, 0, 0, 0, 0];
    let chain = |n: usize| {
        let mut payload = destination_options(Protocol::DESTINATION_OPTIONS).repeat(n - 1);
        payload.extend(destination_options(Protocol::NONE));
        v6_frame(Protocol::DESTINATION_OPTIONS, &payload)
    };
    let parsed = parse(&chain(ipv6::MAX_EXTENSIONS)).unwrap();
    assert_eq!((parsed.protocol, parsed.l4, parsed.l4_len()), (Protocol::NONE, L4::Opaque, 0));
    assert_eq!(parse(&chain(ipv6::MAX_EXTENSIONS + 1)), Err(Malformed::Ipv6ExtensionChain));
    // A fragment header counts, too.
    let mut last = chain(ipv6::MAX_EXTENSIONS + 1);
    let at = last.len() - 8 * 2;
    last[at] = Protocol::FRAGMENT.0;
    assert_eq!(parse(&last), Err(Malformed::Ipv6ExtensionChain));
}

#[test]
fn hop_by_hop_options_are_legal_in_front_only() {
    let options = |next: Protocol| [next.0, 0, 1, 4, 0, 0, 0, 0];
    let first = [options(Protocol::DESTINATION_OPTIONS), options(Protocol::NONE)].concat();
    assert!(parse(&v6_frame(Protocol::HOP_BY_HOP, &first)).is_ok());
    let second = [options(Protocol::HOP_BY_HOP), options(Protocol::NONE)].concat();
    assert_eq!(parse(&v6_frame(Protocol::DESTINATION_OPTIONS, &second)), Err(Malformed::Ipv6ExtensionChain));
}

#[test]
fn a_fragment_header_with_more_to_come_needs_a_multiple_of_eight() {
    let fragment = |offset_more: u16, len: usize| {
        let mut payload = vec![Protocol::UDP.0, 0];
        payload.extend(offset_more.to_be_bytes());
        payload.resize(8 + len, 0);
        payload[8 + 4..].fill(9);
        parse(&v6_frame(Protocol::FRAGMENT, &payload)).map(|p| p.fragment)
    };
    assert_eq!(fragment(8 | 1, 15), Err(Malformed::Ipv6Fragment));
    assert_eq!(fragment(8 | 1, 16), Ok(Fragment::Later));
    assert_eq!(fragment(8, 15), Ok(Fragment::Later));
    assert_eq!(fragment(0xfff8, 16), Err(Malformed::Ipv6Fragment));
    // RFC 6946: an atomic fragment is a whole packet; its UDP length of 0x0909 is past the end.
    assert_eq!(fragment(0, 16), Err(Malformed::UdpLength));
    assert_eq!(fragment(1, 16), Ok(Fragment::First));
}

#[test]
fn a_fragment_of_a_fragment_is_refused() {
    let header = |next: Protocol, more: bool| ipv6::FragmentHeader::new(next, 0, more, 7);
    let headers = [header(Protocol::FRAGMENT, true), header(Protocol::UDP, false)];
    let frame = v6_frame(Protocol::FRAGMENT, &[headers.as_bytes(), &[0; 16]].concat());
    assert_eq!(parse(&frame), Err(Malformed::Ipv6ExtensionChain));
}

#[test]
fn a_wrong_transport_checksum_is_found_with_its_reason() {
    let (a4, b4) = ("10.0.0.1:1000".parse().unwrap(), "10.0.0.2:53".parse().unwrap());
    let (a6, b6) = ("[fd00::1]:1000".parse().unwrap(), "[fd00::2]:53".parse().unwrap());
    for (frame, reason) in [
        (testkit::udp(a4, b4, b"x"), Malformed::UdpChecksum),
        (testkit::udp(a6, b6, b"x"), Malformed::UdpChecksum),
        (testkit::tcp(a4, b4, TcpFlags::SYN, b""), Malformed::TcpChecksum),
        (testkit::tcp(a6, b6, TcpFlags::SYN, b""), Malformed::TcpChecksum),
        (testkit::echo_request(a4.ip(), b4.ip(), 1, 1, b"x"), Malformed::IcmpChecksum),
        (testkit::echo_request(a6.ip(), b6.ip(), 1, 1, b"x"), Malformed::IcmpChecksum),
    ] {
        let parsed = parse(&frame).unwrap();
        assert_eq!(verify_transport(&frame, &parsed), Ok(()));
        let mut wrong = frame.clone();
        *wrong.last_mut().unwrap() ^= 1;
        assert_eq!(verify_transport(&wrong, &parsed), Err(reason));
    }
}

#[test]
fn udp_without_checksum_is_right_over_ipv4_and_wrong_over_ipv6() {
    let (a6, b6) = ("[fd00::1]:1000".parse().unwrap(), "[fd00::2]:53".parse().unwrap());
    for (mut frame, field, verdict) in
        [(v4_frame(), 40, Ok(())), (testkit::udp6(a6, b6, b"x"), 60, Err(Malformed::UdpChecksum))]
    {
        frame[field..field + 2].fill(0);
        assert_eq!(verify_transport(&frame, &parse(&frame).unwrap()), verdict);
    }
}

proptest! {
    #[test]
    fn every_legal_packet_is_read_as_it_was_made(packet in generate::packet()) {
        let frame = packet.frame();
        let parsed = parse(&frame).unwrap();
        let l3_offset = if packet.vlan.is_some() { 18 } else { 14 };
        prop_assert_eq!(parsed.vlan, packet.vlan);
        prop_assert_eq!(usize::from(parsed.l3_offset), l3_offset);
        prop_assert_eq!(parsed.end() + usize::from(packet.padding), frame.len());
        prop_assert_eq!(parsed.l3, if packet.is_v6() { L3::Ipv6 } else { L3::Ipv4 });
        prop_assert_eq!(parsed.l4, packet.l4());
        prop_assert_eq!(parsed.protocol, packet.protocol());
        prop_assert_eq!((parsed.src_port, parsed.dst_port), packet.ports());
        prop_assert_eq!(parsed.fragment, packet.fragment());
        match (&packet.message, parsed.l4) {
            (Message::Tcp { flags, .. }, L4::Tcp) => prop_assert_eq!(parsed.tcp_flags.0, *flags),
            (Message::Icmp { kind, .. }, L4::Icmp | L4::Echo) => prop_assert_eq!(parsed.icmp_type, *kind),
            _ => prop_assert_eq!((parsed.tcp_flags.0, parsed.icmp_type), (0, 0)),
        }
        let (ttl, class, dont_fragment) = match packet.net {
            Net::V4 { ttl, traffic_class, dont_fragment, .. } => (ttl, traffic_class, dont_fragment),
            Net::V6 { hop_limit, traffic_class, .. } => (hop_limit, traffic_class, true),
        };
        prop_assert_eq!((parsed.ttl, parsed.traffic_class), (ttl, class));
        prop_assert_eq!(parsed.dont_fragment, dont_fragment);
        prop_assert_eq!(verify_transport(&frame, &parsed), Ok(()));
    }

    #[test]
    fn every_legal_packet_is_read_as_etherparse_reads_it(
        packet in generate::packet().prop_filter("for etherparse no extension headers", |packet| {
            let unknown = [Protocol::MOBILITY, Protocol::HIP, Protocol::SHIM6];
            match &packet.net {
                Net::V4 { .. } => true,
                Net::V6 { extensions, .. } => !extensions.iter().any(|(kind, _)| unknown.contains(kind)),
            }
        })
    ) {
        let frame = packet.frame();
        assert_checksums(&frame);
        let parsed = parse(&frame).unwrap();
        let other = SlicedPacket::from_ethernet(&frame).unwrap();
        let payload = match other.net.as_ref().unwrap() {
            NetSlice::Ipv4(ip) => {
                prop_assert_eq!(ip.header().ttl(), parsed.ttl);
                prop_assert_eq!(u32::from(ip.header().total_len()), parsed.l3_len);
                ip.payload()
            }
            NetSlice::Ipv6(ip) => {
                prop_assert_eq!(ip.header().hop_limit(), parsed.ttl);
                ip.payload()
            }
            NetSlice::Arp(_) => unreachable!("no ARP is generated"),
        };
        prop_assert_eq!(payload.ip_number.0, parsed.protocol.0);
        // An IPv6 payload length of 0 is for etherparse that of a jumbogram: it takes the padding along.
        if packet.is_v6() && parsed.l3_len == 40 {
            prop_assert_eq!(usize::from(parsed.l4_offset), parsed.end());
        } else {
            prop_assert_eq!(payload.payload, &frame[usize::from(parsed.l4_offset)..parsed.end()]);
        }
        prop_assert_eq!(other.is_ip_payload_fragmented(), parsed.is_fragment());
        let ports = match other.transport {
            Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
            Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
            _ => None,
        };
        if let Some(ports) = ports {
            prop_assert_eq!(ports, (parsed.src_port, parsed.dst_port));
        }
    }

    #[test]
    fn a_legal_packet_cut_short_anywhere_is_refused(packet in generate::packet()) {
        let frame = packet.frame();
        let end = parse(&frame).unwrap().end();
        for len in 0..end {
            prop_assert!(parse(&frame[..len]).is_err(), "cut to {len} of {end}");
        }
        for len in end..=frame.len() {
            prop_assert_eq!(parse(&frame[..len]), parse(&frame), "padding cut to {}", len);
        }
    }
}
