mod headers;

use std::net::{SocketAddr, SocketAddrV4};

use proptest::prelude::*;

use super::merge::Merge;
use super::segment::Segments;
use super::tunnel::Tunnelled;
use super::vnet::{Refused, VnetHeader};
use super::*;
use crate::parse;
use crate::tcp::TcpFlags;
use crate::testkit::oracle::assert_checksums;
use crate::testkit::{self, tagged};
use crate::vlan::Tci;

const V4: (&str, &str) = ("10.244.1.5:40000", "10.244.2.7:8080");
const V6: (&str, &str) = ("[fd00::5]:40000", "[fd00:1::7]:8080");

fn ends((a, b): (&str, &str)) -> (SocketAddr, SocketAddr) {
    (a.parse().unwrap(), b.parse().unwrap())
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// A packet as a pod's kernel hands it over: with a partial checksum.
fn partial(mut frame: Vec<u8>) -> Vec<u8> {
    let parsed = parse(&frame).unwrap();
    let at = usize::from(parsed.l4_offset) + checksum_offset(parsed.l4).unwrap();
    let sum = pseudo(&frame, &parsed, parsed.l4_len()).fold();
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn cut(frame: &[u8], size: u16) -> Vec<Vec<u8>> {
    let parsed = parse(frame).unwrap();
    let segments = Segments::new(frame, &parsed, NonZeroU16::new(size).unwrap()).unwrap();
    (0..segments.count())
        .map(|nth| {
            let mut out = vec![0; segments.len(nth)];
            segments.write(nth, &mut out);
            out
        })
        .collect()
}

fn merged(frames: &[Vec<u8>]) -> (Vec<u8>, Offload, usize) {
    let mut first = frames[0].clone();
    let mut merge = Merge::begin(&first, Offload::NONE).unwrap();
    let mut payloads = Vec::new();
    for frame in &frames[1..] {
        let Some(range) = merge.join(&first, frame, Offload::NONE) else { break };
        payloads.extend_from_slice(&frame[range]);
    }
    let header = merge.finish(&mut first);
    first.extend_from_slice(&payloads);
    let offload = header.offload(&mut first).unwrap();
    assert_eq!(first.len(), merge.frame_len());
    (first, offload, merge.count())
}

proptest! {
    #[test]
    fn what_is_cut_is_right_and_merges_into_what_it_was(
        v6: bool, tcp: bool, len in 1_usize..40_000, size in 300_u16..9000, flags in 0_u8..=255,
    ) {
        let (src, dst) = ends(if v6 { V6 } else { V4 });
        let flags = TcpFlags(flags & !(0x02 | 0x04 | 0x20) | 0x10);
        let size = if tcp { size } else { size.max((len / 60) as u16) };
        let frame = partial(if tcp {
            testkit::tcp(src, dst, flags, &payload(len))
        } else {
            testkit::udp(src, dst, &payload(len))
        });
        let segments = cut(&frame, size);
        prop_assert_eq!(segments.len(), len.div_ceil(usize::from(size)));
        for segment in &segments {
            assert_checksums(segment);
            let parsed = parse(segment).unwrap();
            prop_assert_eq!(parsed.end(), segment.len());
        }
        let (again, offload, count) = merged(&segments);
        prop_assert_eq!(count, segments.len());
        if count > 1 {
            prop_assert_eq!(offload, Offload { segment: NonZeroU16::new(size), partial: true });
            prop_assert_eq!(again, frame);
        }
    }

    #[test]
    fn a_header_says_what_was_understood_by_it(v6: bool, tcp: bool, size in 1_u16..3000, tag: bool) {
        let (src, dst) = ends(if v6 { V6 } else { V4 });
        let frame = if tcp {
            testkit::tcp(src, dst, TcpFlags::ACK | TcpFlags::CWR, &payload(3000))
        } else {
            testkit::udp(src, dst, &payload(3000))
        };
        let frame = partial(frame);
        let mut frame = if tag { tagged(&frame, Tci(7)) } else { frame };
        let parsed = parse(&frame).unwrap();
        for offload in [
            Offload::NONE,
            Offload { segment: None, partial: true },
            Offload { segment: NonZeroU16::new(size).filter(|size| size.get() < 3000), partial: true },
        ] {
            let header = VnetHeader::of(&frame, &parsed, offload);
            prop_assert_eq!(header.offload(&mut frame), Ok(offload));
        }
    }

    #[test]
    fn no_header_and_no_frame_make_it_panic(
        header: [u8; 12], frame in prop::collection::vec(any::<u8>(), 0..200), known: bool,
    ) {
        use zerocopy::FromBytes;
        let mut header = VnetHeader::read_from_bytes(&header).unwrap();
        let mut frame = frame;
        if known {
            let (src, dst) = ends(V4);
            frame = testkit::tcp(src, dst, TcpFlags::ACK, &frame);
            header = VnetHeader { flags: header.flags & 3, gso_type: header.gso_type & 0x85, ..header };
        }
        if let Ok(Offload { segment: Some(_), partial }) = header.offload_inside(&frame) {
            prop_assert!(partial && Tunnelled::read(&frame).is_some());
        }
        if let Ok(Offload { segment: Some(size), .. }) = header.offload(&mut frame) {
            let parsed = parse(&frame).unwrap();
            let segments = Segments::new(&frame, &parsed, size).unwrap();
            let mut out = vec![0; segments.len(segments.count() - 1)];
            segments.write(segments.count() - 1, &mut out);
        }
    }
}

#[test]
fn first_and_last_segments_carry_what_counts_for_the_ends() {
    let (src, dst) = ends(V4);
    let all = TcpFlags::ACK | TcpFlags::CWR | TcpFlags::FIN | TcpFlags::PSH;
    let frame = partial(testkit::tcp(src, dst, all, &payload(2500)));
    let flags: Vec<_> = cut(&frame, 1000).iter().map(|frame| parse(frame).unwrap().tcp_flags).collect();
    assert_eq!(
        flags,
        [TcpFlags::ACK | TcpFlags::CWR, TcpFlags::ACK, TcpFlags::ACK | TcpFlags::FIN | TcpFlags::PSH]
    );
}

#[test]
fn identification_counts_up_past_its_end() {
    let (src, dst) = ends(V4);
    let mut frame = testkit::udp(src, dst, &payload(3000));
    frame[18..20].copy_from_slice(&[0xff, 0xff]);
    let ids: Vec<_> = cut(&partial(frame), 1000).iter().map(|frame| [frame[18], frame[19]]).collect();
    assert_eq!(ids, [[0xff, 0xff], [0, 0], [0, 1]]);
}

/// Two segments of one connection, the second changed by `change` and with right checksums again.
fn pair(change: impl Fn(&mut Vec<u8>)) -> usize {
    let (src, dst) = ends(V4);
    let mut segments = cut(&partial(testkit::tcp(src, dst, TcpFlags::ACK, &payload(2000))), 1000);
    change(&mut segments[1]);
    testkit::fill_checksums(&mut segments[1]);
    merged(&segments).2
}

#[test]
fn only_what_continues_a_flow_is_merged() {
    assert_eq!(pair(|_| {}), 2);
    assert_eq!(pair(|frame| frame[13 + 34] |= TcpFlags::PSH.0), 2, "the last may push");
    for (why, at) in [
        ("destination of the frame", 5),
        ("traffic class", 15),
        ("don't fragment", 20),
        ("time to live", 22),
        ("source address", 29),
        ("destination port", 37),
        ("sequence number", 41),
        ("acknowledgement", 45),
        ("window", 49),
    ] {
        assert_eq!(pair(|frame| frame[at] ^= 0x40), 1, "{why}");
    }
    for flags in [TcpFlags::SYN, TcpFlags::RST, TcpFlags::URG, TcpFlags::CWR] {
        assert_eq!(pair(|frame| frame[47] |= flags.0), 1, "{flags:?}");
    }
}

#[test]
fn a_wrong_checksum_is_not_covered_up() {
    let (src, dst) = ends(V4);
    let segments = cut(&partial(testkit::tcp(src, dst, TcpFlags::ACK, &payload(3000))), 1000);
    for wrong in 0..3 {
        let mut segments = segments.clone();
        *segments[wrong].last_mut().unwrap() ^= 1;
        assert_eq!(merged(&segments).2, wrong.max(1), "packet {wrong}");
    }
}

#[test]
fn nothing_follows_the_end_of_a_record_or_a_short_segment() {
    let (src, dst) = ends(V4);
    let mut segments = cut(&partial(testkit::tcp(src, dst, TcpFlags::ACK, &payload(2500))), 1000);
    segments.swap(1, 2);
    assert_eq!(merged(&segments).2, 1, "out of order");
    let mut segments = cut(&partial(testkit::tcp(src, dst, TcpFlags::ACK, &payload(3000))), 1000);
    segments[1][47] |= TcpFlags::PSH.0;
    testkit::fill_checksums(&mut segments[1]);
    assert_eq!(merged(&segments).2, 2, "the second pushes");
}

#[test]
fn datagrams_without_checksum_stay_alone() {
    let SocketAddr::V4(src) = ends(V4).0 else { unreachable!() };
    let dst: SocketAddrV4 = V4.1.parse().unwrap();
    let mut frame = testkit::udp4(src, dst, b"data");
    frame[40..42].fill(0);
    assert!(Merge::begin(&frame, Offload::NONE).is_none());
}

#[test]
fn a_checksum_left_out_is_completed_wherever_it_is() {
    let (src, dst) = ends(V4);
    // A pod's own tunnel: the checksum that is missing is that of the packet inside.
    let inner = testkit::udp(src, dst, b"inside");
    let whole = testkit::vxlan(src, dst.ip(), 7, &inner);
    let mut frame = whole.clone();
    let start = frame.len() - inner.len() + 34;
    let parsed = parse(&inner).unwrap();
    frame[start + 6..start + 8]
        .copy_from_slice(&pseudo(&inner, &parsed, parsed.l4_len()).fold().to_be_bytes());
    let mut header = VnetHeader::wire(false);
    (header.flags, header.checksum_start, header.checksum_offset) = (1, (start as u16).into(), 6.into());
    assert_eq!(header.offload(&mut frame), Ok(Offload::NONE));
    assert_eq!(frame, whole);

    header.checksum_start = (whole.len() as u16 - 6).into();
    assert_eq!(header.offload(&mut frame), Err(Refused::Checksum));
    assert_eq!(frame, whole, "as it was");

    let mut plain = partial(testkit::udp(src, dst, b"odd"));
    let parsed = parse(&plain).unwrap();
    complete(&mut plain, &parsed);
    assert_checksums(&plain);
}

#[test]
fn a_super_packet_in_a_tunnel_is_understood_by_what_the_kernel_says_of_the_packet_inside() {
    for (pair, udp) in [(V4, false), (V6, false), (V4, true), (V6, true)] {
        let (src, dst) = ends(pair);
        let inner = match udp {
            true => testkit::udp(src, dst, &payload(3000)),
            false => testkit::tcp(src, dst, TcpFlags::ACK, &payload(3000)),
        };
        let inner = partial(inner);
        let frame = testkit::vxlan("192.168.0.1:50000".parse().unwrap(), [192, 168, 0, 2].into(), 7, &inner);
        let offload = Offload { segment: NonZeroU16::new(1000), partial: true };
        let header = VnetHeader::of(&inner, &parse(&inner).unwrap(), offload);
        let before = (frame.len() - inner.len()) as u16;
        let header = VnetHeader { checksum_start: (header.checksum_start.get() + before).into(), ..header };
        assert_eq!(header.offload_inside(&frame), Ok(offload));
        assert!(header.offload(&mut frame.clone()).is_err(), "it is not the outer packet that is to be cut");
        assert_eq!(header.offload_inside(&inner), Err(Refused::NotThatProtocol), "no tunnel");
        let elsewhere = VnetHeader { checksum_start: 34.into(), ..header };
        assert_eq!(elsewhere.offload_inside(&frame), Err(Refused::Checksum));
    }
}

#[test]
fn what_was_not_asked_for_is_refused() {
    let (src, dst) = ends(V4);
    let mut frame = partial(testkit::tcp(src, dst, TcpFlags::ACK, &payload(3000)));
    let parsed = parse(&frame).unwrap();
    let right = VnetHeader::of(&frame, &parsed, Offload { segment: NonZeroU16::new(1000), partial: true });
    assert!(right.offload(&mut frame).is_ok());
    for (header, refused) in [
        (VnetHeader { flags: 5, ..right }, Refused::Flag),
        (VnetHeader { gso_type: 3, ..right }, Refused::Kind),
        (VnetHeader { gso_type: 4, ..right }, Refused::NotThatProtocol),
        (VnetHeader { gso_type: 5, ..right }, Refused::NotThatProtocol),
        (VnetHeader { gso_size: 0.into(), ..right }, Refused::NoSize),
        (VnetHeader { flags: 0, ..right }, Refused::Checksum),
        (VnetHeader { checksum_start: 35.into(), ..right }, Refused::Checksum),
        (VnetHeader { checksum_offset: 6.into(), ..right }, Refused::Checksum),
    ] {
        assert_eq!(header.offload(&mut frame), Err(refused), "{header:?}");
    }
    frame.truncate(60);
    assert_eq!(right.offload(&mut frame), Err(Refused::Malformed(crate::Malformed::Ipv4TotalLength)));
}
