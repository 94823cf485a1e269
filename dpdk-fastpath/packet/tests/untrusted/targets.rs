//! What is done with bytes from outside.

use culvert_packet::answer::{
    IcmpError, arp_reply, echo_reply, icmp_error, neighbour_advertisement, sctp_abort, tcp_reset,
};
use culvert_packet::encap::{decap, decap_geneve};
use culvert_packet::eth::EthAddr;
use culvert_packet::flow::{FlowKey4, FlowKey6, Tenant};
use culvert_packet::icmpv6::OVERRIDE;
use culvert_packet::parse::{L3, verify_transport};
use culvert_packet::rewrite::{Translation4, Translation6, decrement_ttl, set_traffic_class};
use culvert_packet::tcp::TcpFlags;
use culvert_packet::usual::{Front, Kind, Tunnelled, Usual, tunnelled};
use culvert_packet::{PacketBuf, Parsed, TestBuf, parse};

const OURS: EthAddr = EthAddr([2, 0, 0, 0, 0, 0xfe]);

/// Reads a frame in both ways, and makes of it whatever can be made.
pub(crate) fn frame(bytes: &[u8]) {
    let usual = Usual::read(bytes, &Front::ANY);
    let Ok(parsed) = parse(bytes) else {
        assert_eq!(usual, None, "the quick way reads what the full one refuses");
        return;
    };
    assert!(parsed.end() <= bytes.len() && usize::from(parsed.l4_offset) <= parsed.end(), "{parsed:?}");
    if let Some(usual) = usual {
        let key = FlowKey4::of(bytes, &parsed, Tenant::DEFAULT);
        assert_eq!((Some(usual.key(Tenant::DEFAULT)), usual.end()), (key, parsed.end()));
        let edge = parsed.tcp_flags.0 & (TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0) != 0;
        assert_eq!(usual.kind == Kind::TcpEdge, edge);
        assert!(!parsed.is_fragment() && parsed.vlan.is_none());
    }
    answers(bytes, &parsed);
    rewrites(bytes, &parsed);
}

/// Every answer that is given is a packet whose checksums are right; where none is given, nothing has changed.
fn answers(bytes: &[u8], parsed: &Parsed) {
    let mtu = IcmpError::PacketTooBig { mtu: 1280 };
    let gateway =
        if parsed.l3 == L3::Ipv4 { [10, 1, 0, 1].into() } else { [0xfd00, 0, 0, 0, 0, 0, 0, 1].into() };
    for answer in 0..7 {
        let mut buf = TestBuf::new(bytes);
        let given = match answer {
            0 => arp_reply(buf.data_mut(), parsed, OURS),
            1 => echo_reply(buf.data_mut(), parsed),
            2 => neighbour_advertisement(&mut buf, parsed, OURS, OVERRIDE),
            3 => tcp_reset(&mut buf, parsed),
            4 => sctp_abort(&mut buf, parsed),
            5 => icmp_error(&mut buf, parsed, gateway, mtu),
            _ => icmp_error(&mut buf, parsed, gateway, IcmpError::TimeExceeded),
        };
        if given.is_err() {
            assert_eq!(buf.data(), bytes, "answer {answer} is refused");
            continue;
        }
        let read = parse(buf.data()).unwrap_or_else(|error| panic!("answer {answer}: {error}"));
        assert_eq!(verify_transport(buf.data(), &read), Ok(()), "answer {answer}");
    }
}

/// A change of addresses and its inverse leave the packet as it was, if its checksums were right.
fn rewrites(bytes: &[u8], parsed: &Parsed) {
    let right = verify_transport(bytes, parsed).is_ok();
    let mut changed = bytes.to_vec();
    if let Some(key) = FlowKey4::of(bytes, parsed, Tenant::DEFAULT) {
        let to =
            FlowKey4::new(Tenant::DEFAULT, key.protocol(), ([10, 9, 8, 7].into(), 4242), (key.dst(), 80));
        Translation4::new(&key, &to).apply(&mut changed, parsed);
        if !parsed.is_fragment() {
            let read = parse(&changed).expect("the change of a packet is one");
            assert_eq!(verify_transport(&changed, &read).is_ok(), right);
        }
    }
    if let Some(key) = FlowKey6::of(bytes, parsed, Tenant::DEFAULT) {
        let to = FlowKey6::new(Tenant::DEFAULT, key.protocol(), (key.dst(), 4242), (key.src(), 80));
        Translation6::new(&key, &to).apply(&mut changed, parsed);
    }
    let before = changed.len();
    if decrement_ttl(&mut changed, parsed) {
        assert_eq!(parse(&changed).map(|read| read.ttl), Ok(parsed.ttl - 1));
    }
    set_traffic_class(&mut changed, parsed, 0xb9);
    assert_eq!(changed.len(), before);
}

/// Takes a frame out of whatever tunnel it is in.
pub(crate) fn tunnel(bytes: &[u8]) {
    let Ok(outer) = parse(bytes) else { return };
    let full = decap(bytes, &outer);
    for read in [full.ok(), decap_geneve(bytes, &outer).ok()].into_iter().flatten() {
        assert!(read.inner_offset + read.inner_len <= outer.end() && read.inner_len >= 14, "{read:?}");
        let mut buf = TestBuf::new(bytes);
        read.strip(&mut buf);
        assert_eq!(buf.len(), read.inner_len);
        frame(buf.data());
    }
    // The quick way takes out only what the full one would, and the same.
    let (Some(key), Ok(read)) = (FlowKey4::of(bytes, &outer, Tenant::DEFAULT), full) else { return };
    let (Some(stations), Some(inner)) = (bytes.first_chunk::<6>(), bytes.get(read.inner_offset..)) else {
        return;
    };
    let Some(inside) = inner.first_chunk::<6>() else { return };
    let expected = Tunnelled::new(EthAddr(*stations), key.dst(), key.dst_port(), read.vni, EthAddr(*inside));
    if let Some((peer, usual)) = tunnelled(bytes, &expected) {
        let inner = &inner[..read.inner_len];
        let parsed = parse(inner).expect("the quick way read it");
        assert_eq!((peer, usual.end()), (key.src(), parsed.end()));
        assert_eq!(Some(usual.key(Tenant::DEFAULT)), FlowKey4::of(inner, &parsed, Tenant::DEFAULT));
    }
}
