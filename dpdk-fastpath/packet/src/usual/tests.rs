use proptest::prelude::*;

use super::*;
use crate::encap;
use crate::parse::{Fragment, L3, L4, Parsed, parse};
use crate::rewrite::decrement_ttl;
use crate::testkit::{self, generate};

fn is_usual(parsed: &Parsed) -> bool {
    parsed.l3 == L3::Ipv4
        && parsed.vlan.is_none()
        && parsed.l4_offset == 34
        && parsed.fragment == Fragment::Whole
        && matches!(parsed.l4, L4::Tcp | L4::Udp)
}

/// Asserts that a frame is read as the full parse reads it.
fn assert_same(usual: &Usual, frame: &[u8], parsed: &Parsed) {
    assert!(is_usual(parsed));
    let tenant = Tenant::new(77).unwrap();
    assert_eq!(Some(usual.key(tenant)), FlowKey4::of(frame, parsed, tenant));
    assert_eq!((u32::from(usual.len), usual.protocol), (parsed.l3_len, parsed.protocol));
    assert_eq!((usual.tcp_flags, usual.end()), (parsed.tcp_flags, parsed.end()));
    assert_eq!(ttl_and_traffic_class(frame), Some((parsed.ttl, parsed.traffic_class)));
}

/// Legal packets that are usual; half of what is generated otherwise is not.
fn usual_packet() -> impl Strategy<Value = Vec<u8>> {
    let usual = |frame: &Vec<u8>| is_usual(&parse(frame).unwrap());
    generate::whole_packet().prop_map(|packet| packet.frame()).prop_filter("usual", usual)
}

proptest! {
    /// What is not left to the full parse is read as that reads it; and nothing usual is left to it.
    #[test]
    fn the_usual_are_read_as_by_the_full_parse(packet in generate::packet()) {
        let frame = packet.frame();
        let parsed = parse(&frame).unwrap();
        let usual = Usual::read(&frame);
        prop_assert_eq!(usual.is_some(), is_usual(&parsed));
        if let Some(usual) = usual {
            assert_same(&usual, &frame, &parsed);
        }
    }

    #[test]
    fn nothing_passes_that_is_refused(
        mut frame in usual_packet(),
        at in any::<prop::sample::Index>(),
        value: u8,
        cut in any::<prop::sample::Index>(),
        repair: bool,
    ) {
        let at = at.index(frame.len().min(54));
        frame[at] = value;
        if repair {
            frame[24..26].fill(0);
            let checksum = crate::checksum::checksum(&frame[14..34]);
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        }
        for frame in [&frame[..], &frame[..cut.index(frame.len() + 1)]] {
            if let Some(usual) = Usual::read(frame) {
                assert_same(&usual, frame, &parse(frame).unwrap());
            }
        }
    }

    #[test]
    fn changes_are_those_of_the_slow_way(frame in usual_packet(), src: (u32, u16), dst: (u32, u16)) {
        let usual = Usual::read(&frame).unwrap();
        let (parsed, mut hopped, mut wanted) = (parse(&frame).unwrap(), frame.clone(), frame.clone());
        prop_assume!(parsed.ttl > 2);
        hop(&mut hopped);
        prop_assert!(decrement_ttl(&mut wanted, &parsed));
        prop_assert_eq!(&hopped, &wanted);

        let from = usual.key(Tenant::DEFAULT);
        let to = FlowKey4::new(
            Tenant::DEFAULT,
            usual.protocol,
            (src.0.into(), src.1),
            (dst.0.into(), dst.1),
        );
        let there = Translation4::new(&from, &to);
        there.apply(&mut wanted, &parsed);
        let mut translated = frame.clone();
        hop_and_translate(&mut translated, usual.protocol, &there);
        prop_assert_eq!(&translated, &wanted);

        // And back, by the same differences.
        let (header, transport) = there.deltas();
        let back = Translation4::with_deltas(&from, header.inverse(), transport.inverse());
        hop_and_translate(&mut translated, usual.protocol, &back);
        let parsed = parse(&hopped).unwrap();
        prop_assert!(decrement_ttl(&mut hopped, &parsed));
        prop_assert_eq!(translated, hopped);
    }

    /// Any bytes in UDP: mostly no tunnel packet, sometimes just so.
    #[test]
    fn tunnel_packets_are_those_of_the_slow_way(
        mut payload in prop::collection::vec(any::<u8>(), 0..60),
        valid: bool,
        short in 0_usize..4,
    ) {
        if valid && !payload.is_empty() {
            payload[0] |= 8;
        }
        let mut frame = testkit::udp4("10.0.0.1:1".parse().unwrap(), "10.0.0.2:4789".parse().unwrap(), &payload);
        // The UDP length, smaller than that of the packet.
        frame[39] -= (short as u8).min(payload.len() as u8);
        let parsed = parse(&frame).unwrap();
        let wanted = encap::decap(&frame, &parsed).ok();
        let got = decap(&frame);
        prop_assert_eq!(got.map(|(vni, _)| vni), wanted.map(|tunnel| tunnel.vni));
        if let (Some((_, inner)), Some(tunnel)) = (got, wanted) {
            prop_assert_eq!(tunnel.inner_offset, OVERHEAD_V4);
            prop_assert_eq!(inner, &frame[tunnel.inner_offset..][..tunnel.inner_len]);
        }
    }
}
