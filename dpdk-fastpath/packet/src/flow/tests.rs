use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::parse::parse;
use crate::testkit::{self, generate};

fn key4() -> impl Strategy<Value = FlowKey4> {
    (any::<[u8; 12]>(), 0..1u32 << 24, any::<u8>()).prop_map(|(b, tenant, protocol)| {
        FlowKey4::new(
            Tenant::new(tenant).unwrap(),
            Protocol(protocol),
            ([b[0], b[1], b[2], b[3]].into(), u16::from_be_bytes([b[4], b[5]])),
            ([b[6], b[7], b[8], b[9]].into(), u16::from_be_bytes([b[10], b[11]])),
        )
    })
}

fn key6() -> impl Strategy<Value = FlowKey6> {
    (any::<(u128, u128, u16, u16)>(), 0..1u32 << 24, any::<u8>()).prop_map(
        |((src, dst, src_port, dst_port), tenant, protocol)| {
            let (src, dst) = (Ipv6Addr::from_bits(src), Ipv6Addr::from_bits(dst));
            FlowKey6::new(Tenant::new(tenant).unwrap(), Protocol(protocol), (src, src_port), (dst, dst_port))
        },
    )
}

#[test]
fn keys_have_no_padding_and_the_tenant_has_24_bits() {
    assert_eq!((size_of::<FlowKey4>(), size_of::<FlowKey6>()), (16, 40));
    assert_eq!(Tenant::new(1 << 24), None);
    assert_eq!(Tenant::new((1 << 24) - 1).map(Tenant::get), Some(0xff_ffff));
}

#[test]
fn the_reply_to_an_echo_is_the_reverse_of_the_request() {
    let request = testkit::echo_request([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 77, 1, b"");
    let parsed = parse(&request).unwrap();
    let key = FlowKey4::of(&request, &parsed, Tenant::DEFAULT).unwrap();
    assert_eq!((key.src_port(), key.dst_port()), (77, 77));
    let mut reply = request;
    crate::answer::echo_reply(&mut reply, &parsed).unwrap();
    let back = FlowKey4::of(&reply, &parse(&reply).unwrap(), Tenant::DEFAULT).unwrap();
    assert_eq!(back, key.reversed());
}

#[test]
fn entropy_ports_are_the_dynamic_ones() {
    assert_eq!((entropy_port(0), entropy_port(u64::MAX)), (49152, 65535));
}

/// Flows as a load generator or a scan makes them: neighbours in one field.
fn neighbours(n: u32) -> impl Iterator<Item = FlowKey4> {
    (0..n).map(|i| {
        let src = Ipv4Addr::from_bits(0x0a00_0000 + i / 64);
        let port = 32768 + (i % 64) as u16;
        FlowKey4::new(Tenant::DEFAULT, Protocol::TCP, (src, port), ([10, 96, 0, 1].into(), 80))
    })
}

#[test]
fn neighbouring_flows_do_not_collide_and_fill_buckets_evenly() {
    const FLOWS: u32 = 1 << 16;
    const BUCKETS: usize = 1 << 10;
    let hashes: HashSet<u64> = neighbours(FLOWS).map(|key| key.hash64()).collect();
    assert_eq!(hashes.len(), FLOWS as usize);
    for (part, shift) in [("low", 0), ("high", 54)] {
        let mut buckets = [0u32; BUCKETS];
        for hash in &hashes {
            buckets[(hash >> shift) as usize % BUCKETS] += 1;
        }
        let mean = f64::from(FLOWS) / BUCKETS as f64;
        let chi_square: f64 = buckets.iter().map(|&n| (f64::from(n) - mean).powi(2) / mean).sum();
        // 1023 degrees of freedom: mean 1023, standard deviation 45; six of them.
        assert!((750.0..1300.0).contains(&chi_square), "{part} bits: chi square {chi_square}");
    }
}

#[test]
fn every_bit_of_a_key_changes_about_half_of_the_hash() {
    let check = |name: &str, len: usize, hash: &dyn Fn(&[u8]) -> u64| {
        let bytes: Vec<u8> = (0..len as u8).map(|i| i.wrapping_mul(151)).collect();
        let before = hash(&bytes);
        for bit in 0..len * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let changed = (hash(&flipped) ^ before).count_ones();
            // Mean 32, standard deviation 4.
            assert!((12..=52).contains(&changed), "{name} bit {bit}: {changed} bits changed");
        }
    };
    check("v4", 16, &|bytes| FlowKey4::read_from_bytes(bytes).unwrap().hash64());
    check("v6", 40, &|bytes| FlowKey6::read_from_bytes(bytes).unwrap().hash64());
}

proptest! {
    #[test]
    fn reversed_twice_is_the_same_key(a in key4(), b in key6()) {
        prop_assert_eq!(a.reversed().reversed(), a);
        prop_assert_eq!(b.reversed().reversed(), b);
        prop_assert_eq!((a.reversed().src(), a.reversed().src_port()), (a.dst(), a.dst_port()));
        prop_assert_eq!((a.reversed().tenant(), a.reversed().protocol()), (a.tenant(), a.protocol()));
    }

    #[test]
    fn a_key_holds_the_fields_of_its_packet(packet in generate::packet(), tenant in 0..1u32 << 24) {
        let frame = packet.frame();
        let parsed = parse(&frame).unwrap();
        let tenant = Tenant::new(tenant).unwrap();
        let (v4, v6) = (FlowKey4::of(&frame, &parsed, tenant), FlowKey6::of(&frame, &parsed, tenant));
        let (src_port, dst_port) = packet.ports();
        match packet.net {
            generate::Net::V4 { src, dst, .. } => {
                let right = FlowKey4::new(tenant, packet.protocol(), (src, src_port), (dst, dst_port));
                prop_assert_eq!((v4, v6), (Some(right), None));
            }
            generate::Net::V6 { src, dst, .. } => {
                let right = FlowKey6::new(tenant, packet.protocol(), (src, src_port), (dst, dst_port));
                prop_assert_eq!((v4, v6), (None, Some(right)));
            }
        }
    }

    #[test]
    fn equal_keys_have_equal_hashes_and_others_do_not(a in key4(), b in key4()) {
        prop_assert_eq!(a == b, a.hash64() == b.hash64());
    }
}
