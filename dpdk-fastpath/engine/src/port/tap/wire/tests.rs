use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use culvert_packet::buf::TestBuf;
use culvert_packet::parse::verify_transport;
use culvert_packet::tcp::TcpFlags;
use culvert_packet::testkit;
use zerocopy::FromBytes;

use super::*;

/// A packet of `len` bytes of data in a tunnel, with a partial checksum; and how it arrives when it was not to be cut.
fn tunnelled(v6: bool, len: usize, segment: Option<u16>) -> (TestBuf, Vec<u8>) {
    let (src, dst): (SocketAddr, SocketAddr) = if v6 {
        ("[fd00::1]:4000".parse().unwrap(), "[fd00:1::2]:80".parse().unwrap())
    } else {
        ("10.244.1.2:4000".parse().unwrap(), "10.244.2.3:80".parse().unwrap())
    };
    let payload: Vec<u8> = (0..len).map(|n| (n / 7) as u8).collect();
    let mut inner = testkit::tcp(src, dst, TcpFlags::ACK | TcpFlags::PSH, &payload);
    let whole = inner.clone();
    let parsed = parse(&inner).unwrap();
    let field = usize::from(parsed.l4_offset) + 16;
    inner[field..field + 2].fill(0);
    let sum = culvert_packet::checksum::checksum(&inner[usize::from(parsed.l4_offset)..]);
    // What is left for the pseudo header: the sum that the whole packet has, less that of the rest.
    let right = u16::from_be_bytes([whole[field], whole[field + 1]]);
    let pseudo = u32::from(!right) + u32::from(sum);
    let pseudo = (pseudo & 0xffff) + (pseudo >> 16);
    inner[field..field + 2].copy_from_slice(&(pseudo as u16).to_be_bytes());
    let vtep: IpAddr = [192, 168, 0, 2].into();
    let mut buf = TestBuf::new(&testkit::vxlan("192.168.0.1:50000".parse().unwrap(), vtep, 7, &inner));
    buf.set_offload(Offload { segment: segment.and_then(NonZeroU16::new), partial: true });
    (buf, whole)
}

/// The packets that go over the wire: what is written, cut by the header's rule as the kernel does it (UDP_SEGMENT).
fn on_the_wire(burst: &mut [TestBuf]) -> (usize, Vec<Vec<u8>>) {
    written(burst, true)
}

/// The same, with a kernel that cuts UDP or does not.
fn written(burst: &mut [TestBuf], cuts_udp: bool) -> (usize, Vec<Vec<u8>>) {
    const OUTER: usize = 42;
    let (packets, calls) = (RefCell::new(Vec::new()), RefCell::new(0));
    let write = |parts: &[IoSlice<'_>]| {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let (header, frame) = VnetHeader::read_from_prefix(&bytes).unwrap();
        let mut frame = frame.to_vec();
        let offload = header.offload(&mut frame).unwrap();
        assert!(cuts_udp || offload.segment.is_none(), "nothing is left to a kernel that does not cut");
        let parsed = parse(&frame).unwrap();
        assert_eq!(parsed.end(), frame.len(), "lengths");
        let size = offload.segment.map_or(frame.len() - OUTER, |size| usize::from(size.get()));
        let (outer, payload) = frame.split_at(OUTER);
        *calls.borrow_mut() += 1;
        packets.borrow_mut().extend(payload.chunks(size).map(|part| [outer, part].concat()));
        true
    };
    Cutter::new(VnetHeader::LEN, cuts_udp).write(burst, write, |_| panic!("nothing is dropped"));
    (calls.into_inner(), packets.into_inner())
}

#[test]
fn a_kernel_that_does_not_cut_udp_gets_the_same_packets_one_by_one() {
    for segment in [None, Some(1000)] {
        let burst = || [0; 3].map(|_| tunnelled(false, 5000, segment).0);
        let (fewer, expected) = written(&mut burst(), true);
        let (calls, packets) = written(&mut burst(), false);
        // The lengths in the outer headers are those of what is written.
        let inner =
            |packets: &[Vec<u8>]| packets.iter().map(|packet| packet[42..].to_vec()).collect::<Vec<_>>();
        assert_eq!(inner(&packets), inner(&expected));
        assert_eq!(calls, packets.len());
        assert!(fewer < calls);
    }
}

#[test]
fn a_super_packet_in_a_tunnel_becomes_segments_in_tunnels() {
    for v6 in [false, true] {
        let (buf, _) = tunnelled(v6, 64_000, Some(1000));
        let (calls, packets) = on_the_wire(&mut [buf]);
        assert_eq!((calls, packets.len()), (2, 64), "more than 64 KB in all");
        for (nth, packet) in packets.iter().enumerate() {
            let inner = &packet[50..];
            let parsed = parse(inner).unwrap();
            verify_transport(inner, &parsed).unwrap();
            assert_eq!(parsed.tcp_flags.contains(TcpFlags::PSH), nth == 63);
            let at = usize::from(parsed.l4_offset);
            assert_eq!(inner[at + 4..at + 8], (1000 + nth as u32 * 1000).to_be_bytes());
            assert!(inner[at + 20..].iter().zip(nth * 1000..).all(|(byte, n)| *byte == (n / 7) as u8));
        }
    }
}

#[test]
fn small_segments_are_written_in_several_calls() {
    let (buf, _) = tunnelled(false, 60_000, Some(100));
    assert_eq!(on_the_wire(&mut [buf]).1.len(), 600);
}

#[test]
fn packets_of_one_length_and_flow_are_written_at_once_and_stay_in_order() {
    let lengths = [100, 100, 100, 60, 100, 100];
    let (mut burst, whole): (Vec<_>, Vec<_>) =
        lengths.map(|len| tunnelled(false, len, None)).into_iter().unzip();
    let (calls, packets) = on_the_wire(&mut burst);
    assert_eq!(calls, 3);
    let inner: Vec<_> = packets.iter().map(|packet| packet[50..].to_vec()).collect();
    assert_eq!(inner, whole);
}

#[test]
fn a_packet_that_is_not_cut_gets_its_checksum() {
    let (buf, whole) = tunnelled(true, 999, None);
    let (_, packets) = on_the_wire(&mut [buf]);
    assert_eq!(packets.len(), 1);
    assert_eq!(packets[0][50..], whole);
}

#[test]
fn what_is_no_tunnel_and_to_be_cut_is_refused() {
    let mut buf =
        TestBuf::new(&testkit::udp("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap(), b"data"));
    buf.set_offload(Offload { segment: NonZeroU16::new(1), partial: true });
    for cuts_udp in [true, false] {
        let (mut cutter, mut dropped) = (Cutter::new(VnetHeader::LEN, cuts_udp), 0);
        cutter.write(std::slice::from_mut(&mut buf), |_| panic!("written"), |_| dropped += 1);
        assert_eq!(dropped, 1);
    }
}
