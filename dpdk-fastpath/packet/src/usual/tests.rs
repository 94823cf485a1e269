use proptest::prelude::*;

use super::*;
use crate::encap;
use crate::parse::parse;
use crate::rewrite::decrement_ttl;
use crate::testkit::{self, generate};

fn is_usual(parsed: &Parsed) -> bool {
    parsed.l3 == L3::Ipv4
        && parsed.vlan.is_none()
        && parsed.l4_offset == 34
        && parsed.fragment == Fragment::Whole
        && matches!(parsed.l4, L4::Tcp | L4::Udp)
}

/// Whether a usual packet is left to the full parse nevertheless: for an address, or what is behind its datagram.
fn is_left(frame: &[u8]) -> bool {
    let length = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    frame[30] >= 224 || frame[23] == Protocol::UDP.0 && length(38) + 20 != length(16)
}

/// Asserts that a frame is read as the full parse reads it.
fn assert_same(usual: &Usual, frame: &[u8], parsed: &Parsed) {
    assert!(is_usual(parsed));
    let tenant = Tenant::new(77).unwrap();
    assert_eq!(Some(usual.key(tenant)), FlowKey4::of(frame, parsed, tenant));
    assert_eq!((u32::from(usual.len), usual.protocol()), (parsed.l3_len, parsed.protocol));
    let edge = [TcpFlags::SYN, TcpFlags::FIN, TcpFlags::RST].map(|flag| parsed.tcp_flags.contains(flag));
    let kind = match parsed.l4 {
        L4::Udp => Kind::Udp,
        _ if edge.contains(&true) => Kind::TcpEdge,
        _ => Kind::Tcp,
    };
    assert_eq!((usual.kind, usual.end()), (kind, parsed.end()));
    assert_eq!(ttl_and_traffic_class(frame), Some((parsed.ttl, parsed.traffic_class)));
    assert_eq!(Usual::parsed(frame), Some(*parsed));
}

/// Legal packets that are usual; half of what is generated otherwise is not.
fn usual_packet() -> impl Strategy<Value = Vec<u8>> {
    let usual = |frame: &Vec<u8>| is_usual(&parse(frame).unwrap()) && !is_left(frame);
    generate::whole_packet().prop_map(|packet| packet.frame()).prop_filter("usual", usual)
}

proptest! {
    /// What is not left to the full parse is read as that reads it; and nothing usual is left to it.
    #[test]
    fn the_usual_are_read_as_by_the_full_parse(packet in generate::packet()) {
        let frame = packet.frame();
        let parsed = parse(&frame).unwrap();
        let usual = Usual::read(&frame, &Front::ANY);
        prop_assert_eq!(usual.is_some(), is_usual(&parsed) && !is_left(&frame));
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
        whole: bool,
    ) {
        let at = at.index(frame.len().min(54));
        frame[at] = value;
        if whole {
            repair(&mut frame);
        }
        for frame in [&frame[..], &frame[..cut.index(frame.len() + 1)]] {
            if let Some(usual) = Usual::read(frame, &Front::ANY) {
                assert_same(&usual, frame, &parse(frame).unwrap());
            }
        }
    }

    #[test]
    fn changes_are_those_of_the_slow_way(frame in usual_packet(), src: (u32, u16), dst: (u32, u16)) {
        let usual = Usual::read(&frame, &Front::ANY).unwrap();
        let (parsed, mut hopped, mut wanted) = (parse(&frame).unwrap(), frame.clone(), frame.clone());
        prop_assume!(parsed.ttl > 2);
        hop(&mut hopped);
        prop_assert!(decrement_ttl(&mut wanted, &parsed));
        prop_assert_eq!(&hopped, &wanted);

        let from = usual.key(Tenant::DEFAULT);
        let to = FlowKey4::new(
            Tenant::DEFAULT,
            usual.protocol(),
            (src.0.into(), src.1),
            (dst.0.into(), dst.1),
        );
        let there = Translation4::new(&from, &to);
        there.apply(&mut wanted, &parsed);
        let mut translated = frame.clone();
        hop_and_translate(&mut translated, &there);
        prop_assert_eq!(&translated, &wanted);

        // And back, by the same differences.
        let (header, transport) = there.deltas();
        let back = Translation4::with_deltas(&from, header.inverse(), transport.inverse());
        hop_and_translate(&mut translated, &back);
        let parsed = parse(&hopped).unwrap();
        prop_assert!(decrement_ttl(&mut hopped, &parsed));
        prop_assert_eq!(translated, hopped);
    }

    #[test]
    fn a_front_is_that_of_the_frames_that_have_it(
        frame in usual_packet(),
        at in 0_usize..14,
        bit in 0_u32..8,
    ) {
        let station = |at: usize| EthAddr(*frame[at..].first_chunk().unwrap());
        let (dst, src) = (station(0), station(6));
        let fronts = [Front::ANY, Front::to(dst), Front::between(src, dst)];
        for front in fronts {
            prop_assert!(Usual::read(&frame, &front).is_some());
        }
        let mut other = frame.clone();
        other[at] ^= 1 << bit;
        let passes = fronts.map(|front| Usual::read(&other, &front).is_some());
        prop_assert_eq!(passes, [at < 12, (6..12).contains(&at), false]);
    }

    /// Tunnel packets as they should be, with a byte or two that is not.
    #[test]
    fn tunnel_packets_are_read_as_the_slow_way_reads_them(
        inner in usual_packet(),
        padding in 0_usize..3,
        traffic_classes: (u8, u8),
        odd in prop::collection::vec((0_usize..92, any::<u8>()), 0..3),
    ) {
        let (outer_mac, inner_mac) = (EthAddr([2, 0, 0, 0, 0, 1]), EthAddr([2, 0, 0, 0, 0, 2]));
        let mut inner = [inner, vec![0; padding]].concat();
        inner[..6].copy_from_slice(&inner_mac.0);
        inner[15] = traffic_classes.0;
        repair(&mut inner);
        let payload = [&[8, 0, 0, 0, 0, 1, 2, 0][..], &inner].concat();
        let mut frame = testkit::udp4("10.0.0.1:1".parse().unwrap(), "10.0.0.2:4789".parse().unwrap(), &payload);
        frame[..6].copy_from_slice(&outer_mac.0);
        frame[15] = traffic_classes.1;
        for (at, value) in odd {
            frame[at] = value;
        }
        repair(&mut frame);
        let expected = Tunnelled::new(outer_mac, [10, 0, 0, 2].into(), 4789, 0x102, inner_mac);
        let usual = tunnelled(&frame, &expected);
        let wanted = slow(&frame, outer_mac, inner_mac);
        if let Some((src, usual)) = usual {
            let (wanted_src, inner) = wanted.expect("what passes is not refused");
            prop_assert_eq!(src, wanted_src);
            assert_same(&usual, inner, &parse(inner).unwrap());
            let ((_, outer), (_, class)) =
                (ttl_and_traffic_class(&frame).unwrap(), ttl_and_traffic_class(inner).unwrap());
            prop_assert_eq!(encap::inner_traffic_class(class, outer), Some(class));
        } else if let Some((_, inner)) = wanted {
            // Left to the slow way is only what is not usual.
            let marked = frame[15] & 3 != 0 && frame[15] & 3 != inner[15] & 3;
            let padded = parse(inner).is_ok_and(|parsed| parsed.end() < inner.len());
            prop_assert!(marked || padded || !parse(inner).is_ok_and(|parsed| is_usual(&parsed) && !is_left(inner)));
        }
    }
}

/// Checksums around those at which a hop carries; 0xffff is not what a sender computes, but it adds up.
#[test]
fn a_hop_carries_as_on_the_slow_way() {
    for checksum in [0_u16, 1, 0xff, 0x100, 0xfefe, 0xfeff, 0xff00, 0xfffe, 0xffff] {
        let mut frame = testkit::udp4("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap(), b"hop");
        let mut adds_up = |id: u16| {
            frame[18..20].copy_from_slice(&id.to_be_bytes());
            repair(&mut frame);
            frame[24..26] == if checksum == 0xffff { [0, 0] } else { checksum.to_be_bytes() }
        };
        assert!((0..=u16::MAX).any(&mut adds_up));
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        let mut wanted = frame.clone();
        assert!(decrement_ttl(&mut wanted, &parse(&frame).unwrap()));
        hop(&mut frame);
        assert_eq!(frame, wanted, "{checksum:04x}");
    }
}

/// Makes the header checksum right.
fn repair(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let checksum = crate::checksum::checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
}

/// The other end and the inner frame of a tunnel packet of the usual kind, by the full parse.
fn slow(frame: &[u8], outer_mac: EthAddr, inner_mac: EthAddr) -> Option<(Ipv4Addr, &[u8])> {
    let parsed = parse(frame).ok().filter(is_usual)?;
    let key = FlowKey4::of(frame, &parsed, Tenant::DEFAULT)?;
    let ours = parsed.l4 == L4::Udp && key.dst() == Ipv4Addr::new(10, 0, 0, 2) && key.dst_port() == 4789;
    let tunnel = encap::decap(frame, &parsed).ok().filter(|_| ours && frame[..6] == outer_mac.0)?;
    let inner = &frame[tunnel.inner_offset..][..tunnel.inner_len];
    (!is_left(frame) && tunnel.vni == 0x102 && inner[..6] == inner_mac.0).then_some((key.src(), inner))
}
