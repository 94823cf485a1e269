use proptest::prelude::*;

use super::*;
use crate::flow::Tenant;
use crate::ipv4::Ipv4;
use crate::parse::{Fragment, parse, verify_transport};
use crate::testkit::generate::{self, Net};
use crate::testkit::oracle::assert_checksums;
use crate::testkit::{self, fill_checksums};

/// The frame after `change` to its `Parsed` fields, made the slow way: write, then compute all checksums
/// anew.
fn rewritten(frame: &[u8], to: (&[u8], u16), from: (&[u8], u16)) -> Vec<u8> {
    let parsed = parse(frame).unwrap();
    let mut frame = frame.to_vec();
    let src_at = usize::from(parsed.l3_offset) + if parsed.l3 == L3::Ipv4 { 12 } else { 8 };
    frame[src_at..src_at + from.0.len()].copy_from_slice(from.0);
    frame[src_at + from.0.len()..src_at + 2 * from.0.len()].copy_from_slice(to.0);
    let l4 = usize::from(parsed.l4_offset);
    match parsed.l4 {
        L4::Tcp | L4::Udp | L4::Sctp => {
            frame[l4..l4 + 2].copy_from_slice(&from.1.to_be_bytes());
            frame[l4 + 2..l4 + 4].copy_from_slice(&to.1.to_be_bytes());
        }
        L4::Echo => frame[l4 + 4..l4 + 6].copy_from_slice(&from.1.to_be_bytes()),
        L4::Icmp | L4::Opaque => {}
    }
    let none = parsed.l4 == L4::Udp && frame[l4 + 6..l4 + 8] == [0, 0];
    fill_checksums(&mut frame);
    if none {
        frame[l4 + 6..l4 + 8].fill(0);
    }
    frame
}

fn translate(frame: &mut [u8], src: (u128, u16), dst: (u128, u16)) -> (Vec<u8>, Vec<u8>) {
    let parsed = parse(frame).unwrap();
    if parsed.l3 == L3::Ipv4 {
        let from = FlowKey4::of(frame, &parsed, Tenant::DEFAULT).unwrap();
        let (a, b) = (Ipv4Addr::from_bits(src.0 as u32), Ipv4Addr::from_bits(dst.0 as u32));
        let to = FlowKey4::new(Tenant::DEFAULT, from.protocol(), (a, src.1), (b, dst.1));
        Translation4::new(&from, &to).apply(frame, &parsed);
        (a.octets().to_vec(), b.octets().to_vec())
    } else {
        let from = FlowKey6::of(frame, &parsed, Tenant::DEFAULT).unwrap();
        let (a, b) = (Ipv6Addr::from_bits(src.0), Ipv6Addr::from_bits(dst.0));
        let to = FlowKey6::new(Tenant::DEFAULT, from.protocol(), (a, src.1), (b, dst.1));
        Translation6::new(&from, &to).apply(frame, &parsed);
        (a.octets().to_vec(), b.octets().to_vec())
    }
}

#[test]
fn a_service_address_becomes_a_backend_and_back() {
    let (client, vip) = ("10.244.0.5:40000".parse().unwrap(), "10.96.0.10:80".parse().unwrap());
    let original = testkit::tcp4(client, vip, crate::tcp::TcpFlags::SYN, b"");
    let mut frame = original.clone();
    let parsed = parse(&frame).unwrap();
    let from = FlowKey4::of(&frame, &parsed, Tenant::DEFAULT).unwrap();
    let backend = (Ipv4Addr::new(10, 244, 1, 7), 8080);
    let to = FlowKey4::new(Tenant::DEFAULT, Protocol::TCP, (*client.ip(), client.port()), backend);
    let there = Translation4::new(&from, &to);
    assert_eq!((there.src(), there.dst()), ((*client.ip(), client.port()), backend));
    there.apply(&mut frame, &parsed);
    let wanted = testkit::tcp4(client, "10.244.1.7:8080".parse().unwrap(), crate::tcp::TcpFlags::SYN, b"");
    assert_eq!(frame, wanted);
    Translation4::new(&to, &from).apply(&mut frame, &parsed);
    assert_eq!(frame, original);
}

#[test]
fn fragments_get_new_addresses_and_add_up_again_to_a_right_datagram() {
    let payload: Vec<u8> = (0..3000u32).map(|i| i as u8).collect();
    let (a, b) = ("10.0.0.1:1000".parse().unwrap(), "10.0.0.2:53".parse().unwrap());
    let whole = testkit::udp4(a, b, &payload);
    let mut datagram = vec![];
    for mut fragment in testkit::fragments4(&whole, 1500) {
        let parsed = parse(&fragment).unwrap();
        let ports = if parsed.fragment == Fragment::First { (1000, 53) } else { (0, 0) };
        let tenant = Tenant::DEFAULT;
        let from = FlowKey4::new(tenant, Protocol::UDP, (*a.ip(), ports.0), (*b.ip(), ports.1));
        let to = FlowKey4::new(
            tenant,
            Protocol::UDP,
            ([172, 16, 0, 9].into(), 2000),
            ([172, 16, 0, 8].into(), 5353),
        );
        Translation4::new(&from, &to).apply(&mut fragment, &parsed);
        assert_checksums(&fragment);
        datagram.extend_from_slice(Ipv4::new(&fragment[14..]).unwrap().payload());
    }
    let wanted =
        testkit::udp4("172.16.0.9:2000".parse().unwrap(), "172.16.0.8:5353".parse().unwrap(), &payload);
    assert_eq!(datagram, Ipv4::new(&wanted[14..]).unwrap().payload());
}

proptest! {
    #[test]
    fn a_translation_is_what_writing_and_summing_anew_gives(
        packet in generate::whole_packet(),
        src: (u128, u16),
        dst: (u128, u16),
    ) {
        let before = packet.frame();
        let mut frame = before.clone();
        let (from, to) = translate(&mut frame, src, dst);
        let wanted = rewritten(&before, (&to, dst.1), (&from, src.1));
        prop_assert_eq!(&frame, &wanted);
        assert_checksums(&frame);
        prop_assert_eq!(verify_transport(&frame, &parse(&frame).unwrap()), Ok(()));
    }

    #[test]
    fn a_fragment_keeps_its_payload_but_for_ports_and_checksum(
        packet in generate::packet().prop_filter("later", |p| p.fragment() == Fragment::Later),
        src: (u128, u16),
        dst: (u128, u16),
    ) {
        let before = packet.frame();
        let mut frame = before.clone();
        translate(&mut frame, src, dst);
        let parsed = parse(&frame).unwrap();
        prop_assert_eq!(&frame[usize::from(parsed.l4_offset)..], &before[usize::from(parsed.l4_offset)..]);
        assert_checksums(&frame);
    }

    #[test]
    fn each_router_takes_one_hop_until_there_is_none_left(packet in generate::packet()) {
        let before = packet.frame();
        let mut frame = before.clone();
        let parsed = parse(&frame).unwrap();
        let (Net::V4 { ttl, .. } | Net::V6 { hop_limit: ttl, .. }) = packet.net;
        let forwarded = decrement_ttl(&mut frame, &parsed);
        prop_assert_eq!(forwarded, ttl > 1);
        if forwarded {
            prop_assert_eq!(parse(&frame), Ok(Parsed { ttl: ttl - 1, ..parsed }));
            assert_checksums(&frame);
        } else {
            prop_assert_eq!(frame, before);
        }
    }

    #[test]
    fn a_new_traffic_class_changes_nothing_else(packet in generate::packet(), class: u8) {
        let mut frame = packet.frame();
        let parsed = parse(&frame).unwrap();
        set_traffic_class(&mut frame, &parsed, class);
        prop_assert_eq!(parse(&frame), Ok(Parsed { traffic_class: class, ..parsed }));
        assert_checksums(&frame);
        set_traffic_class(&mut frame, &parsed, parsed.traffic_class);
        prop_assert_eq!(frame, packet.frame());
    }
}

#[test]
fn a_wrong_sctp_checksum_is_as_wrong_afterwards() {
    for (src, dst) in [("10.0.0.1:1000", "10.96.0.10:80"), ("[fd00::1]:1000", "[fd00:96::1]:80")] {
        for len in [0, 1, 2, 3, 1000, 1400] {
            let data = testkit::sctp_chunk(crate::sctp::ChunkType::DATA, 3, &vec![0x5a; len]);
            let mut right = testkit::sctp(src.parse().unwrap(), dst.parse().unwrap(), 7, &data);
            let mut wrong = right.clone();
            let at = usize::from(parse(&right).unwrap().l4_offset) + 8;
            wrong[at] ^= 0x10;
            for frame in [&mut right, &mut wrong] {
                translate(frame, (0xfd00, 40_000), (0xfd01, 8080));
            }
            assert_eq!(verify_transport(&right, &parse(&right).unwrap()), Ok(()));
            wrong[at] ^= 0x10;
            assert_eq!(wrong, right);
        }
    }
}

#[test]
fn an_echo_reply_of_zeros_has_the_checksum_of_zeros() {
    let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    for (before, after) in [(7, 0), (0, 0), (0xffff, 0), (0, 7), (0, 0xffff)] {
        let mut frame = testkit::echo_request(src, dst, before, 0, &[0; 6]);
        let icmp = usize::from(parse(&frame).unwrap().l4_offset);
        frame[icmp] = 0;
        fill_checksums(&mut frame);
        translate(&mut frame, (0x0a00_0003, after), (0x0a00_0004, after));
        assert_checksums(&frame);
        let right = if after == 0 { 0xffff } else { !after };
        assert_eq!(frame[icmp + 2..icmp + 4], right.to_be_bytes(), "{before} to {after}");
    }
}

#[test]
fn what_is_not_ip_has_no_hops_and_no_traffic_class() {
    let mut frame = testkit::arp_request([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let (before, parsed) = (frame.clone(), parse(&frame).unwrap());
    assert!(!decrement_ttl(&mut frame, &parsed));
    set_traffic_class(&mut frame, &parsed, 3);
    assert_eq!(frame, before);
}
