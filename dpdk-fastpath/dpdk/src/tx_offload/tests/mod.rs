//! What a NIC makes of a packet that is left to it is what our own segmenter makes of it.

mod nic;

use std::net::SocketAddr;
use std::num::NonZeroU16;

use culvert_packet::buf::{PacketBuf, TestBuf};
use culvert_packet::encap::{Encapsulation, Endpoints, Marking, Template, Tunnel};
use culvert_packet::eth::EthAddr;
use culvert_packet::offload::segment::Segments;
use culvert_packet::offload::tunnel::Tunnelled;
use culvert_packet::offload::{Offload, complete};
use culvert_packet::parse::parse;
use culvert_packet::tcp::TcpFlags;
use culvert_packet::testkit::{self, oracle::assert_checksums};
use culvert_packet::vlan::Tci;
use proptest::prelude::*;

use self::nic::{OuterId, sum, transmit};
use super::*;

/// A pod's packet, as its kernel hands it over.
#[derive(Debug, Clone, Copy)]
struct Pod {
    v6: bool,
    udp: bool,
    /// Of four bytes each.
    options: usize,
    payload: usize,
    flags: u8,
    /// Where sequence number and identification begin.
    sequence: u32,
    id: u16,
}

impl Pod {
    const PLAIN: Self =
        Self { v6: false, udp: false, options: 0, payload: 3000, flags: 0x10, sequence: 1, id: 1 };

    fn any() -> impl Strategy<Value = Self> {
        let fields =
            (any::<[bool; 2]>(), 0..=10_usize, 1..63_000_usize, any::<u8>(), any::<u32>(), any::<u16>());
        fields.prop_map(|([v6, udp], options, payload, flags, sequence, id)| Self {
            v6,
            udp,
            options,
            payload,
            flags,
            sequence,
            id,
        })
    }

    fn frame(self) -> Vec<u8> {
        let ends = match self.v6 {
            true => ["[fd00::5]:40000", "[fd00:1::7]:8080"],
            false => ["10.244.1.5:40000", "10.244.2.7:8080"],
        };
        let [src, dst] = ends.map(|end| end.parse::<SocketAddr>().unwrap());
        let bytes: Vec<u8> = (0..self.payload + 4 * self.options).map(|i| (i * 7 + i / 251) as u8).collect();
        let mut frame = match self.udp {
            true => testkit::udp(src, dst, &bytes[..self.payload]),
            false => testkit::tcp(src, dst, TcpFlags(self.flags), &bytes),
        };
        let (ip, l4) = (14, if self.v6 { 54 } else { 34 });
        if !self.udp {
            frame[l4 + 4..l4 + 8].copy_from_slice(&self.sequence.to_be_bytes());
            frame[l4 + 12] = (5 + self.options as u8) << 4;
        }
        if !self.v6 {
            frame[ip + 4..ip + 6].copy_from_slice(&self.id.to_be_bytes());
        }
        testkit::fill_checksums(&mut frame);
        // In place of its checksum, the pseudo header's sum.
        let len = frame.len() - l4;
        let addresses = if self.v6 { &frame[ip + 8..l4] } else { &frame[ip + 12..l4] };
        let total = sum(addresses) + if self.udp { 17 } else { 6 } + len as u32;
        let partial = ((total & 0xffff) + (total >> 16)) as u16;
        let field = l4 + if self.udp { 6 } else { 16 };
        frame[field..field + 2].copy_from_slice(&partial.to_be_bytes());
        frame
    }
}

fn tunnel(encapsulation: Encapsulation, v6: bool, zero_checksum6: bool) -> Template {
    let ends = if v6 { ["fd00:9::1", "fd00:9::2"] } else { ["192.168.0.1", "192.168.0.2"] };
    let [src, dst] = ends.map(|end| end.parse().unwrap());
    Template::new(&Tunnel {
        outer_dst: EthAddr([2, 0, 0, 0, 1, 1]),
        outer_src: EthAddr([2, 0, 0, 0, 1, 2]),
        endpoints: Endpoints::new(src, dst).unwrap(),
        encapsulation,
        vni: 4096,
        udp_port: encapsulation.port(),
        marking: Marking::default(),
        zero_checksum6,
        inner_dst: EthAddr([2, 0x63, 192, 168, 0, 2]),
        inner_src: EthAddr([2, 0x63, 192, 168, 0, 1]),
    })
}

fn any_tunnel() -> impl Strategy<Value = Option<Template>> {
    let encapsulation = prop_oneof![Just(Encapsulation::Vxlan), Just(Encapsulation::Geneve)];
    let template = (encapsulation, any::<[bool; 2]>()).prop_map(|(e, [v6, zero])| tunnel(e, v6, zero));
    prop_oneof![1 => Just(None), 5 => template.prop_map(Some)]
}

fn encapsulated(template: Option<&Template>, frame: &[u8]) -> Vec<u8> {
    let mut buf = TestBuf::new(frame);
    if let Some(template) = template {
        template.encap(&mut buf, 50_000, 0, 64).unwrap();
    }
    buf.data().to_vec()
}

/// What our own segmenter makes of it, or, if it is not to be cut, what it is with its checksums.
fn cut_by_us(frame: &[u8], tunnels: bool, size: Option<NonZeroU16>) -> Vec<Vec<u8>> {
    let tunnel = tunnels.then(|| Tunnelled::read(frame).unwrap());
    let start = tunnel.map_or(0, |tunnel| tunnel.inner_offset);
    let inner = parse(&frame[start..]).unwrap();
    let mut frames = match size {
        None => {
            let mut whole = frame.to_vec();
            complete(&mut whole[start..], &inner);
            vec![whole]
        }
        Some(size) => {
            let segments = Segments::new(&frame[start..], &inner, size).unwrap();
            let segment = |nth| {
                let mut out = vec![0; start + segments.len(nth)];
                out[..start].copy_from_slice(&frame[..start]);
                segments.write(nth, &mut out[start..]);
                out
            };
            (0..segments.count()).map(segment).collect()
        }
    };
    for frame in &mut frames {
        tunnel.inspect(|tunnel| tunnel.seal(frame));
    }
    frames
}

/// The fields and the bytes that a NIC would get.
fn asked(request: &Request, frame: &[u8]) -> (u64, u64, Vec<u8>) {
    let mut prepared = frame.to_vec();
    request.prepare(&mut prepared);
    (flags(request), fields(request), prepared)
}

proptest! {
    #[test]
    fn a_nic_makes_of_a_packet_what_our_own_segmenter_does(
        pod in Pod::any(), template in any_tunnel(), size in 1_u16..9000, whole: bool,
    ) {
        let tunnels = template.is_some();
        let frame = encapsulated(template.as_ref(), &pod.frame());
        // Not thousands of frames, either.
        let size = NonZeroU16::new(size.max((pod.payload / 100) as u16)).filter(|_| !whole);
        let request = Request::of(&frame, Offload { segment: size, partial: true }, tunnels);
        if size.is_some_and(|size| pod.payload <= usize::from(size.get())) {
            prop_assert_eq!(request, None);
            return Ok(());
        }
        let request = request.unwrap();
        let (flags, fields, prepared) = asked(&request, &frame);
        let ours = cut_by_us(&frame, tunnels, size);
        prop_assert_eq!(&transmit(flags, fields, &prepared, OuterId::Same), &ours);
        for frame in &ours {
            let outer = parse(frame).unwrap();
            let start = Tunnelled::read(frame).filter(|_| tunnels).map_or(0, |tunnel| tunnel.inner_offset);
            assert_checksums(&frame[start..]);
            // etherparse holds a zero UDP checksum over IPv6 for wrong, and it is right only by RFC 6935.
            if tunnels && (request.outer.is_some_and(|outer| outer.checksum || !outer.v6)) {
                assert_checksums(frame);
            }
            prop_assert_eq!(outer.end(), frame.len());
        }
        // Where the outer identification counts, nothing else is different.
        let counting = transmit(flags, fields, &prepared, OuterId::Counts);
        for (nth, (mut frame, ours)) in counting.into_iter().zip(ours).enumerate() {
            if request.outer.is_some_and(|outer| !outer.v6) && size.is_some() {
                assert_checksums(&frame);
                prop_assert_eq!(u16::from_be_bytes([frame[18], frame[19]]), nth as u16);
                frame[18..20].copy_from_slice(&ours[18..20]);
                frame[24..26].copy_from_slice(&ours[24..26]);
            }
            prop_assert_eq!(frame, ours);
        }
    }

    #[test]
    fn a_packet_that_a_driver_refused_is_cut_as_if_it_had_not_been_asked(
        pod in Pod::any(), template in any_tunnel(), whole: bool, spoilt: [u8; 2],
    ) {
        let tunnels = template.is_some();
        let frame = encapsulated(template.as_ref(), &pod.frame());
        let size = NonZeroU16::new(700).filter(|_| !whole);
        let Some(request) = Request::of(&frame, Offload { segment: size, partial: true }, tunnels) else {
            return Ok(());
        };
        let (_, _, mut prepared) = asked(&request, &frame);
        // Drivers change these fields, and may have begun.
        let inner = if tunnels { Tunnelled::read(&frame).unwrap().inner_offset } else { 0 };
        let field = inner + if pod.v6 { 54 } else { 34 } + if pod.udp { 6 } else { 16 };
        prepared[field..field + 2].copy_from_slice(&spoilt);
        request.restore(&mut prepared);
        prop_assert_eq!(cut_by_us(&prepared, tunnels, size), cut_by_us(&frame, tunnels, size));
    }

    #[test]
    fn no_packet_makes_a_request_panic(
        frame in prop::collection::vec(any::<u8>(), 0..200), tunnels: bool, size in 0_u16..100, known: bool, at in 0..150_usize, to: u8,
    ) {
        let mut frame = frame;
        if known {
            frame = encapsulated(Some(&tunnel(Encapsulation::Vxlan, false, false)), &Pod { payload: 150, ..Pod::PLAIN }.frame());
            frame[at] = to;
        }
        let offload = Offload { segment: NonZeroU16::new(size), partial: true };
        if let Some(request) = Request::of(&frame, offload, tunnels) {
            let (flags, fields, prepared) = asked(&request, &frame);
            prop_assert!(!transmit(flags, fields, &prepared, OuterId::Same).is_empty());
        }
    }
}

fn request(frame: &[u8], tunnels: bool) -> Option<Request> {
    Request::of(frame, Offload { segment: NonZeroU16::new(1000), partial: true }, tunnels)
}

#[test]
fn what_not_every_device_understands_is_not_asked() {
    let (plain, template) = (Pod::PLAIN.frame(), tunnel(Encapsulation::Vxlan, false, false));
    let whole = encapsulated(Some(&template), &plain);
    assert!(request(&plain, false).is_some() && request(&whole, true).is_some());
    assert_eq!(request(&plain, true), None, "no tunnel");
    assert_eq!(Request::of(&plain, Offload::NONE, false), None, "nothing to be done");
    assert_eq!(request(&testkit::tagged(&plain, Tci(7)), false), None, "a VLAN tag");
    assert_eq!(
        request(&encapsulated(Some(&template), &testkit::tagged(&plain, Tci(7))), true),
        None,
        "inside"
    );
    assert_eq!(request(&testkit::padded(plain.clone(), plain.len() + 1), false), None, "padding");
    assert_eq!(request(&testkit::fragments4(&plain, 1500)[0], false), None, "a fragment");
    let (src, dst) = ("192.168.0.2:50000".parse().unwrap(), [192, 168, 0, 1].into());
    assert_eq!(request(&testkit::geneve(src, dst, 7, &[0; 4], &plain), true), None, "options of Geneve");
    let mut options = plain.clone();
    options[14] = 0x46;
    options.splice(34..34, [1; 4]);
    let len = (options.len() - 14) as u16;
    options[16..18].copy_from_slice(&len.to_be_bytes());
    testkit::fill_checksums(&mut options);
    assert!(parse(&options).is_ok());
    assert_eq!(request(&options, false), None, "IPv4 options");
}

#[test]
fn each_request_needs_what_dpdk_has_a_word_for() {
    let of = |pod: Pod, template: Option<Template>, whole: bool| {
        let frame = encapsulated(template.as_ref(), &pod.frame());
        let segment = NonZeroU16::new(1000).filter(|_| !whole);
        TxOffloads::needed(
            &Request::of(&frame, Offload { segment, partial: true }, template.is_some()).unwrap(),
        )
        .to_string()
    };
    let (tcp, udp6) = (Pod::PLAIN, Pod { udp: true, v6: true, ..Pod::PLAIN });
    let vxlan = tunnel(Encapsulation::Vxlan, false, false);
    let geneve6 = tunnel(Encapsulation::Geneve, true, false);
    assert_eq!(of(tcp, None, true), "TCP_CKSUM");
    assert_eq!(of(tcp, None, false), "IPV4_CKSUM, TCP_CKSUM, TCP_TSO");
    assert_eq!(of(udp6, None, false), "UDP_CKSUM, UDP_TSO");
    assert_eq!(of(tcp, Some(vxlan), true), "TCP_CKSUM, VXLAN_TNL_TSO");
    assert_eq!(
        of(tcp, Some(vxlan), false),
        "IPV4_CKSUM, TCP_CKSUM, TCP_TSO, OUTER_IPV4_CKSUM, VXLAN_TNL_TSO"
    );
    assert_eq!(of(udp6, Some(geneve6), false), "UDP_CKSUM, UDP_TSO, OUTER_UDP_CKSUM, GENEVE_TNL_TSO");
    assert_eq!(of(tcp, Some(tunnel(Encapsulation::Geneve, true, true)), true), "TCP_CKSUM, GENEVE_TNL_TSO");
    let set = TxOffloads::TCP_TSO.and(TxOffloads::TCP_CKSUM);
    assert!(set.contains(TxOffloads::TCP_TSO) && !set.contains(set.and(TxOffloads::UDP_TSO)));
    assert_eq!(set.without(TxOffloads::TCP_TSO), TxOffloads::TCP_CKSUM);
}
