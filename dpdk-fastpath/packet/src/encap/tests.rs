use proptest::collection::vec;
use proptest::prelude::*;

mod marking;
mod scapy;

use super::*;
use crate::Malformed;
use crate::buf::{PacketBuf, TestBuf};
use crate::eth::EtherType;
use crate::parse::{L3, parse, verify_transport};
use crate::testkit::generate::{host_v4, host_v6, packet, unicast_mac};
use crate::testkit::oracle::assert_checksums;
use crate::testkit::{self, MAC_A, MAC_B};
use crate::vxlan;

fn tunnel(endpoints: Endpoints) -> Tunnel {
    Tunnel {
        outer_dst: EthAddr([2, 0, 0, 0, 1, 1]),
        outer_src: EthAddr([2, 0, 0, 0, 1, 2]),
        endpoints,
        encapsulation: Encapsulation::Vxlan,
        vni: 4096,
        udp_port: vxlan::PORT,
        marking: Marking::default(),
        zero_checksum6: false,
        inner_dst: EthAddr([2, 0x63, 192, 168, 0, 2]),
        inner_src: EthAddr([2, 0x63, 192, 168, 0, 1]),
    }
}

fn v4_tunnel() -> Tunnel {
    tunnel(Endpoints::V4 { src: [192, 168, 0, 1].into(), dst: [192, 168, 0, 2].into() })
}

fn any_marking() -> impl Strategy<Value = Marking> {
    let dscp = prop_oneof![(0u8..64).prop_map(Dscp::Pipe), Just(Dscp::Copy), Just(Dscp::Uniform)];
    let ecn = prop_oneof![Just(Ecn::Normal), Just(Ecn::Compatibility)];
    let ttl = prop_oneof![any::<u8>().prop_map(OuterTtl::Fixed), Just(OuterTtl::Copy)];
    (dscp, ecn, ttl).prop_map(|(dscp, ecn, ttl)| Marking { dscp, ecn, ttl })
}

fn any_tunnel() -> impl Strategy<Value = Tunnel> {
    let endpoints = prop_oneof![
        (host_v4(), host_v4()).prop_map(|(src, dst)| Endpoints::V4 { src, dst }),
        (host_v6(), host_v6()).prop_map(|(src, dst)| Endpoints::V6 { src, dst }),
    ];
    let encapsulation = prop_oneof![Just(Encapsulation::Vxlan), Just(Encapsulation::Geneve)];
    let macs = [unicast_mac(), unicast_mac(), unicast_mac(), unicast_mac()];
    let fields = (any_marking(), any::<bool>(), 0..1u32 << 24, any::<u16>());
    (endpoints, encapsulation, macs, fields).prop_map(|(endpoints, encapsulation, macs, fields)| {
        let ([outer_dst, outer_src, inner_dst, inner_src], (marking, zero_checksum6, vni, udp_port)) =
            (macs, fields);
        Tunnel {
            outer_dst,
            outer_src,
            endpoints,
            encapsulation,
            vni,
            udp_port,
            marking,
            zero_checksum6,
            inner_dst,
            inner_src,
        }
    })
}

#[test]
fn the_outer_headers_are_these_bytes() {
    let mut buf = TestBuf::new(&testkit::eth(EtherType(0x88b5), b"hi"));
    Template::new(&v4_tunnel()).encap(&mut buf, 50_000, 2, 9).unwrap();
    let wanted: &[&[u8]] = &[
        &[2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 1, 2, 0x08, 0x00],
        &[0x45, 0x02, 0, 52, 0, 0, 0x40, 0, 64, 17, 0xb9, 0x63, 192, 168, 0, 1, 192, 168, 0, 2],
        &[0xc3, 0x50, 0x12, 0xb5, 0, 32, 0, 0],
        &[0x08, 0, 0, 0, 0, 0x10, 0, 0],
        &[2, 0x63, 192, 168, 0, 2, 2, 0x63, 192, 168, 0, 1, 0x88, 0xb5, b'h', b'i'],
    ];
    assert_eq!(buf.data(), wanted.concat());
}

#[test]
fn lengths_at_the_limits_are_carried_and_past_them_refused_unchanged() {
    let template = Template::new(&v4_tunnel());
    for (len, verdict) in
        [(13, Err(EncapError::Length)), (14, Ok(())), (65_499, Ok(())), (65_500, Err(EncapError::Length))]
    {
        let frame = vec![7; len];
        let mut buf = TestBuf::new(&frame);
        assert_eq!(template.encap(&mut buf, 50_000, 0, 64), verdict, "{len} bytes");
        if verdict.is_ok() {
            let parsed = parse(buf.data()).unwrap();
            assert_eq!(decap(buf.data(), &parsed).map(|d| d.inner_len), Ok(len));
        } else {
            assert_eq!(buf.data(), frame);
        }
    }
}

#[test]
fn without_headroom_nothing_changes() {
    let frame = testkit::eth(EtherType::IPV4, &[0; 20]);
    let mut buf = TestBuf::with_headroom(&frame, OVERHEAD_V4 - 1);
    assert_eq!(Template::new(&v4_tunnel()).encap(&mut buf, 50_000, 0, 64), Err(EncapError::Headroom));
    assert_eq!(buf.data(), frame);
}

#[test]
fn endpoints_of_two_ip_versions_are_no_tunnel() {
    let (a, b) = ("192.168.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
    assert_eq!(Endpoints::new(a, b), None);
    assert_eq!(Endpoints::new(b, a), None);
    assert!(Endpoints::new(a, a).is_some() && Endpoints::new(b, b).is_some());
}

#[test]
fn each_bad_vxlan_packet_is_refused_with_its_reason() {
    let inner = testkit::eth(EtherType(0x88b5), b"");
    let good = testkit::vxlan("192.168.0.2:50000".parse().unwrap(), [192, 168, 0, 1].into(), 7, &inner);
    let verdict =
        |frame: &[u8]| decap(frame, &parse(frame).unwrap()).map(|d| (d.vni, d.inner_offset, d.inner_len));
    assert_eq!(verdict(&good), Ok((7, 50, 14)));

    let mut no_vni = good.clone();
    no_vni[42] = 0;
    assert_eq!(verdict(&no_vni), Err(Malformed::VxlanFlags));

    let mut reserved = good.clone();
    reserved[42] = 0xff;
    reserved[49] = 0xff;
    assert_eq!(verdict(&reserved), Ok((7, 50, 14)));

    let short =
        testkit::vxlan("192.168.0.2:50000".parse().unwrap(), [192, 168, 0, 1].into(), 7, &inner[..13]);
    assert_eq!(verdict(&short), Err(Malformed::VxlanTruncated));

    let no_header =
        testkit::udp4("192.168.0.2:50000".parse().unwrap(), "192.168.0.1:4789".parse().unwrap(), &[8; 7]);
    assert_eq!(verdict(&no_header), Err(Malformed::VxlanTruncated));

    let fragment = testkit::fragments4(&good, 44).swap_remove(0);
    assert_eq!(verdict(&fragment), Err(Malformed::TunnelFragment));
}

#[test]
fn what_follows_the_udp_length_is_not_part_of_the_inner_frame() {
    let inner = testkit::eth(EtherType(0x88b5), b"abc");
    let outer = testkit::vxlan("192.168.0.2:50000".parse().unwrap(), [192, 168, 0, 1].into(), 7, &inner);
    let mut buf = TestBuf::new(&testkit::padded(outer, 90));
    let decap = decap(buf.data(), &parse(buf.data()).unwrap()).unwrap();
    decap.strip(&mut buf);
    assert_eq!(buf.data(), inner);
}

#[test]
fn each_bad_geneve_packet_is_refused_with_its_reason() {
    let inner = testkit::eth(EtherType(0x88b5), b"");
    let packet = |options: &[u8], inner: &[u8]| {
        testkit::geneve("192.168.0.2:50000".parse().unwrap(), [192, 168, 0, 1].into(), 7, options, inner)
    };
    let verdict = |frame: &[u8]| {
        decap_geneve(frame, &parse(frame).unwrap()).map(|d| (d.vni, d.inner_offset, d.inner_len))
    };
    let good = packet(&[], &inner);
    assert_eq!(verdict(&good), Ok((7, 50, 14)));
    assert_eq!(verdict(&packet(&[0; 252], &inner)), Ok((7, 302, 14)));
    let changed = |at: usize, to: u8| {
        let mut frame = good.clone();
        frame[at] = to;
        frame
    };
    // Reserved bits do not count.
    assert_eq!(verdict(&changed(43, 0x3f)), Ok((7, 50, 14)));
    assert_eq!(verdict(&changed(49, 0xff)), Ok((7, 50, 14)));
    assert_eq!(verdict(&changed(42, 0x40)), Err(Malformed::GeneveVersion.into()));
    assert_eq!(verdict(&changed(42, 0x04)), Err(Malformed::GeneveTruncated.into()), "options past the end");
    assert_eq!(
        verdict(&changed(42, 0x03)),
        Err(Malformed::GeneveTruncated.into()),
        "options instead of the frame"
    );
    assert_eq!(verdict(&changed(43, 0x80)), Err(DecapError::Control));
    assert_eq!(verdict(&changed(43, 0x40)), Err(DecapError::CriticalOption));
    assert_eq!(verdict(&changed(44, 0x08)), Err(DecapError::Protocol));
    assert_eq!(verdict(&packet(&[], &inner[..13])), Err(Malformed::GeneveTruncated.into()));
    let no_header =
        testkit::udp4("192.168.0.2:50000".parse().unwrap(), "192.168.0.1:6081".parse().unwrap(), &[0; 7]);
    assert_eq!(verdict(&no_header), Err(Malformed::GeneveTruncated.into()));
    let fragment = testkit::fragments4(&good, 44).swap_remove(0);
    assert_eq!(verdict(&fragment), Err(Malformed::TunnelFragment.into()));
}

#[test]
fn only_headers_over_ipv4_with_a_fixed_time_to_live_need_nothing_more() {
    let copied = Marking { ttl: OuterTtl::Copy, ..Marking::default() };
    let v6 = Endpoints::V6 { src: [0xfd; 16].into(), dst: [0xfe; 16].into() };
    assert!(Template::new(&v4_tunnel()).fixed4().is_some());
    assert!(Template::new(&Tunnel { marking: copied, ..v4_tunnel() }).fixed4().is_none());
    assert!(Template::new(&tunnel(v6)).fixed4().is_none());
}

proptest! {
    #[test]
    fn what_goes_in_comes_out_with_the_tunnels_inner_addresses(
        packet in packet(),
        tunnel in any_tunnel(),
        source_port: u16,
        (class, ttl) in any::<(u8, u8)>(),
    ) {
        let inner = packet.frame();
        let mut buf = TestBuf::new(&inner);
        let template = Template::new(&tunnel);
        template.encap(&mut buf, source_port, class, ttl).unwrap();
        prop_assert_eq!(buf.len(), inner.len() + template.overhead());

        let parsed = parse(buf.data()).unwrap();
        let class = tunnel.marking.outer(class);
        let ttl = if let OuterTtl::Fixed(ttl) = tunnel.marking.ttl { ttl } else { ttl };
        prop_assert_eq!((parsed.src_port, parsed.dst_port), (source_port, tunnel.udp_port));
        prop_assert_eq!((parsed.ttl, parsed.traffic_class), (ttl, class));
        prop_assert!(parsed.dont_fragment && !parsed.is_fragment());
        prop_assert_eq!(parsed.end(), buf.len());
        // etherparse holds a zero UDP checksum over IPv6 for wrong, and it is right only by RFC 6935.
        if parsed.l3 == L3::Ipv6 && tunnel.zero_checksum6 {
            prop_assert_eq!(&buf.data()[60..62], &[0, 0]);
        } else {
            assert_checksums(buf.data());
            prop_assert_eq!(verify_transport(buf.data(), &parsed), Ok(()));
        }

        let decap = match tunnel.encapsulation {
            Encapsulation::Vxlan => decap(buf.data(), &parsed).unwrap(),
            Encapsulation::Geneve => decap_geneve(buf.data(), &parsed).unwrap(),
        };
        prop_assert_eq!((decap.vni, decap.traffic_class), (tunnel.vni, class));
        decap.strip(&mut buf);
        prop_assert_eq!(buf.data(), testkit::with_macs(inner, tunnel.inner_dst, tunnel.inner_src));
    }

    #[test]
    fn the_template_makes_the_same_packet_as_the_plain_builder(
        payload in vec(any::<u8>(), 0..100),
        vni in 0..1u32 << 24,
    ) {
        let inner = testkit::eth(EtherType(0x88b5), &payload);
        let mut buf = TestBuf::new(&inner);
        let (outer_dst, outer_src, inner_dst, inner_src) = (MAC_B, MAC_A, MAC_B, MAC_A);
        let tunnel = Tunnel { vni, outer_dst, outer_src, inner_dst, inner_src, ..v4_tunnel() };
        Template::new(&tunnel).encap(&mut buf, 50_000, 0, 64).unwrap();
        let (src, dst) = ("192.168.0.1:50000".parse().unwrap(), [192, 168, 0, 2].into());
        let plain = testkit::vxlan(src, dst, vni, &inner);
        prop_assert_eq!(buf.data(), plain);
    }
}
