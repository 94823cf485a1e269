use proptest::prelude::*;

use super::*;
use crate::parse::parse;
use crate::rewrite::decrement_ttl;
use crate::testkit::generate;

fn is_usual(parsed: &Parsed) -> bool {
    parsed.l3 == L3::Ipv4
        && parsed.vlan.is_none()
        && parsed.l4_offset == 34
        && parsed.fragment == Fragment::Whole
        && matches!(parsed.l4, L4::Tcp | L4::Udp)
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
        prop_assert_eq!(usual.map(|usual| usual.parsed()), is_usual(&parsed).then_some(parsed));
        if let Some(usual) = usual {
            let tenant = Tenant::new(77).unwrap();
            prop_assert_eq!(Some(usual.key(tenant)), FlowKey4::of(&frame, &parsed, tenant));
            prop_assert_eq!((usual.dst_port(), usual.end()), (parsed.dst_port, parsed.end()));
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
                prop_assert_eq!(parse(frame), Ok(usual.parsed()));
            }
        }
    }

    #[test]
    fn changes_are_those_of_the_slow_way(frame in usual_packet(), src: (u32, u16), dst: (u32, u16)) {
        let usual = Usual::read(&frame).unwrap();
        prop_assume!(usual.ttl > 1);
        let (parsed, mut hopped, mut wanted) = (usual.parsed(), frame.clone(), frame.clone());
        usual.hop(&mut hopped);
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
        usual.hop_and_translate(&mut translated, &there);
        prop_assert_eq!(&translated, &wanted);

        // And back, by the same differences.
        let (header, transport) = there.deltas();
        let back = Translation4::with_deltas(&from, header.inverse(), transport.inverse());
        let usual = Usual::read(&translated).unwrap();
        prop_assume!(usual.ttl > 1);
        usual.hop_and_translate(&mut translated, &back);
        let parsed = parse(&hopped).unwrap();
        prop_assert!(decrement_ttl(&mut hopped, &parsed));
        prop_assert_eq!(translated, hopped);
    }
}
