use etherparse::LaxSlicedPacket;
use proptest::prelude::*;

use super::*;
use crate::buf::{PacketBuf, TestBuf};
use crate::icmp::IcmpHeader;
use crate::icmpv6::Icmpv6Header;
use crate::parse::parse;
use crate::tcp::TcpFlags;
use crate::testkit::generate::{self, LegalPacket};
use crate::testkit::oracle::assert_checksums;
use crate::testkit::{self, fill_checksums};
use zerocopy::IntoBytes;

const T: Tenant = Tenant::DEFAULT;
const ROUTER4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// The error of a router about the packet in `frame`, of which it quotes `len` bytes, with `extra` bytes behind.
fn error_about(frame: &[u8], len: usize, extra: &[u8]) -> Vec<u8> {
    let parsed = parse(frame).unwrap();
    let packet = &frame[usize::from(parsed.l3_offset)..parsed.end()];
    let quote = [&packet[..len.min(packet.len())], extra].concat();
    let mut error = if parsed.l3 == L3::Ipv4 {
        let icmp = IcmpHeader::error(IcmpType::UNREACHABLE, 4, 1300);
        let to = FlowKey4::of(frame, &parsed, T).unwrap().src();
        testkit::ipv4(ROUTER4, to, Protocol::ICMP, &[icmp.as_bytes(), &quote].concat())
    } else {
        let icmp = Icmpv6Header::new(Icmpv6Type::PACKET_TOO_BIG, 0, 1300);
        let to = FlowKey6::of(frame, &parsed, T).unwrap().src();
        testkit::ipv6(ROUTER6, to, Protocol::ICMPV6, &[icmp.as_bytes(), &quote].concat())
    };
    fill_checksums(&mut error);
    error
}

/// Flows that a packet belongs to and becomes one of.
#[derive(Debug, Clone, Copy)]
enum Keys {
    V4(FlowKey4, FlowKey4),
    V6(FlowKey6, FlowKey6),
}

/// From the packet's own flow to that of these ends.
fn keys(frame: &[u8], (src, src_port): (u128, u16), (dst, dst_port): (u128, u16)) -> Keys {
    let parsed = parse(frame).unwrap();
    let dst_port = if parsed.l4 == L4::Echo { src_port } else { dst_port };
    match FlowKey4::of(frame, &parsed, T) {
        Some(from) => {
            let [src, dst] = [src, dst].map(|bits| Ipv4Addr::from_bits(bits as u32));
            Keys::V4(from, FlowKey4::new(T, from.protocol(), (src, src_port), (dst, dst_port)))
        }
        None => {
            let from = FlowKey6::of(frame, &parsed, T).unwrap();
            let [src, dst] = [src, dst].map(Ipv6Addr::from_bits);
            Keys::V6(from, FlowKey6::new(T, from.protocol(), (src, src_port), (dst, dst_port)))
        }
    }
}

fn translated(frame: &[u8], keys: Keys) -> Vec<u8> {
    let (mut frame, parsed) = (frame.to_vec(), parse(frame).unwrap());
    match keys {
        Keys::V4(from, to) => Translation4::new(&from, &to).apply(&mut frame, &parsed),
        Keys::V6(from, to) => Translation6::new(&from, &to).apply(&mut frame, &parsed),
    }
    frame
}

/// An error about the packet that `keys` makes of one, turned into one about that one, to its sender.
fn back(error: &[u8], keys: Keys) -> Option<Vec<u8>> {
    let (mut frame, parsed) = (error.to_vec(), parse(error).unwrap());
    let quote = Quote::of(&frame, &parsed)?;
    match keys {
        Keys::V4(from, to) => {
            assert_eq!((quote.key4(&frame, T), quote.key6(&frame, T)), (Some(to), None));
            quote.translate4(&mut frame, &parsed, (ROUTER4, from.src()), &from);
        }
        Keys::V6(from, to) => {
            assert_eq!((quote.key4(&frame, T), quote.key6(&frame, T)), (None, Some(to)));
            quote.translate6(&mut frame, &parsed, (ROUTER6, from.src()), &from);
        }
    }
    Some(frame)
}

/// Whether frames are the same, where 16-bit words that are both a zero of ones-complement count as the same.
fn are_equal(a: &[u8], b: &[u8]) -> bool {
    let zero = |word: &[u8]| matches!(word, [0, 0] | [0xff, 0xff]);
    a.len() == b.len() && a.chunks(2).zip(b.chunks(2)).all(|(a, b)| a == b || zero(a) && zero(b))
}

/// Offset of the transport header in the IP packet.
fn upper(packet: &LegalPacket) -> usize {
    let parsed = parse(&packet.frame()).unwrap();
    usize::from(parsed.l4_offset) - usize::from(parsed.l3_offset)
}

fn is_translatable(packet: &LegalPacket) -> bool {
    matches!(parse(&packet.frame()).unwrap().l4, L4::Tcp | L4::Udp | L4::Sctp | L4::Echo)
}

#[test]
fn an_error_about_a_translated_packet_names_the_service_again() {
    let (client, vip) = ("10.244.0.5:40000".parse().unwrap(), "10.96.0.10:80".parse().unwrap());
    let sent = testkit::tcp4(client, vip, TcpFlags::ACK, b"data");
    let keys = keys(&sent, (client.ip().to_bits().into(), 40000), (0x0af4_0107, 8080));
    let got = back(&error_about(&translated(&sent, keys), 28, &[]), keys).unwrap();
    assert_eq!(got, error_about(&sent, 28, &[]));
    // As another reads it.
    let outer = LaxSlicedPacket::from_ethernet(&got).unwrap();
    let icmp = outer.transport.unwrap();
    let etherparse::TransportSlice::Icmpv4(icmp) = icmp else { panic!("{icmp:?}") };
    let Ok(quote) = LaxSlicedPacket::from_ip(icmp.payload()) else { panic!("a quote") };
    let Some(etherparse::LaxNetSlice::Ipv4(ip)) = quote.net else { panic!("{quote:?}") };
    assert_eq!((ip.header().source_addr(), ip.header().destination_addr()), (*client.ip(), *vip.ip()));
    assert_eq!(ip.header().to_header().calc_header_checksum(), ip.header().header_checksum());
    assert_eq!(&icmp.payload()[20..24], [40000_u16.to_be_bytes(), 80_u16.to_be_bytes()].concat());
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let (client, vip) = ("10.244.0.5:4000".parse().unwrap(), "10.96.0.10:53".parse().unwrap());
    let mut sent = testkit::udp4(client, vip, b"query");
    sent[40..42].fill(0);
    let keys = keys(&sent, (1, 1), (2, 2));
    let got = back(&error_about(&translated(&sent, keys), 28, &[]), keys).unwrap();
    assert_eq!(got, error_about(&sent, 28, &[]));
}

#[test]
fn what_tells_of_no_flow_quotes_nothing() {
    let (a, b) = ("10.0.0.1:1000".parse().unwrap(), "10.0.0.2:53".parse().unwrap());
    let whole = testkit::udp4(a, b, &[7; 3000]);
    let [first, later, ..] = &testkit::fragments4(&whole, 1400)[..] else { panic!("fragments") };
    let quotes = |frame: &[u8]| Quote::of(frame, &parse(frame).unwrap()).is_some();
    assert!(quotes(&error_about(first, 28, &[])));
    assert!(!quotes(&error_about(later, 28, &[])), "a later fragment");
    assert!(!quotes(&error_about(&whole, 23, &[])), "no ports");
    assert!(!quotes(&error_about(&whole, 19, &[])), "no header");
    assert!(!quotes(&whole), "no error");
    assert!(!quotes(&testkit::echo_request((*a.ip()).into(), (*b.ip()).into(), 1, 1, &[0x45; 40])));
    let error = error_about(&whole, 100, &[]);
    for fragment in testkit::fragments4(&error, 76) {
        assert!(!quotes(&fragment), "a fragment of an error");
    }
    for (kind, about) in [(3, true), (11, true), (12, true), (4, false), (5, false), (13, false)] {
        let mut error = error.clone();
        error[34] = kind;
        assert_eq!(quotes(&error), about, "type {kind}");
    }
    let (a, b) = ("[fd00::1]:1000".parse().unwrap(), "[fd00::2]:53".parse().unwrap());
    for (kind, about) in [(1, true), (2, true), (3, true), (4, true), (100, false), (137, false)] {
        let mut error = error_about(&testkit::udp6(a, b, &[7; 300]), 100, &[]);
        error[54] = kind;
        assert_eq!(quotes(&error), about, "type {kind} of ICMPv6");
    }
}

proptest! {
    #[test]
    fn an_error_about_what_a_packet_became_is_turned_into_one_about_the_packet(
        packet in generate::whole_packet().prop_filter("ports", is_translatable),
        src: (u128, u16),
        dst: (u128, u16),
        quoted in 8_usize..200,
        extra in prop::collection::vec(any::<u8>(), 0..12),
    ) {
        let sent = packet.frame();
        let keys = keys(&sent, src, dst);
        // Half a checksum says nothing.
        let is_cut = match packet.protocol() {
            Protocol::TCP => quoted == 17,
            Protocol::SCTP => (9..12).contains(&quoted),
            _ => false,
        };
        let len = upper(&packet) + if is_cut { 20 } else { quoted };
        // What follows a quote that is cut short would count as part of it.
        let extra = if len < parse(&sent).unwrap().l3_len as usize { &[][..] } else { &extra };
        let got = back(&error_about(&translated(&sent, keys), len, extra), keys).unwrap();
        assert_checksums(&got);
        let wanted = error_about(&sent, len, extra);
        let [got, wanted] = [got, wanted].map(|frame| frame[14..].to_vec());
        prop_assert!(are_equal(&got, &wanted), "{:02x?} is not {:02x?}", got, wanted);
    }

    #[test]
    fn nothing_in_a_quote_makes_trouble(
        packet in generate::packet(),
        len in 0_usize..120,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut frame = error_about(&packet.frame(), len, &[]);
        for (at, value) in changes {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        let Ok(parsed) = parse(&frame) else { return Ok(()) };
        let mut buf = TestBuf::new(&frame);
        if let Some(quote) = Quote::of(buf.data(), &parsed) {
            if let Some(key) = quote.key4(buf.data(), T) {
                quote.translate4(buf.data_mut(), &parsed, (ROUTER4, ROUTER4), &key.reversed());
                prop_assert_eq!(Quote::of(buf.data(), &parsed).and_then(|quote| quote.key4(buf.data(), T)), Some(key.reversed()));
            }
            if let Some(key) = quote.key6(buf.data(), T) {
                quote.translate6(buf.data_mut(), &parsed, (ROUTER6, ROUTER6), &key.reversed());
            }
        }
        prop_assert_eq!(buf.data().len(), frame.len());
        prop_assert!(parse(buf.data()).is_ok());
    }
}
