//! Every combination of what a vnet header can say, on every kind of frame.

use super::*;

/// Bytes of data in each frame; with a UDP header a multiple of eight, as a fragment must have.
const LEN: usize = 2096;

/// A frame as a kernel hands it over, with where its checksum lies; and what it is when that is complete.
struct Sample {
    what: &'static str,
    frame: Vec<u8>,
    whole: Vec<u8>,
    start: u16,
    field: u16,
    /// The kind of super-packet that it may be.
    kind: Option<u8>,
}

fn sample(what: &'static str, whole: Vec<u8>, kind: Option<u8>) -> Sample {
    let parsed = parse(&whole).unwrap();
    let (start, field) = (parsed.l4_offset, checksum_offset(parsed.l4).unwrap_or(2) as u16);
    let frame = if parsed.is_fragment() || kind.is_none() { whole.clone() } else { partial(whole.clone()) };
    Sample { what, frame, whole, start, field, kind }
}

fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for (family, v4) in [(V4, true), (V6, false)] {
        let (src, dst) = ends(family);
        let tcp = testkit::tcp(src, dst, TcpFlags::ACK | TcpFlags::PSH, &payload(LEN));
        let udp = testkit::udp(src, dst, &payload(LEN));
        let kind = if v4 { 1 } else { 4 };
        samples.push(sample("TCP, tagged", tagged(&tcp, Tci(7)), Some(kind)));
        samples.push(sample("UDP, tagged", tagged(&udp, Tci(7)), Some(5)));
        if v4 {
            let mut fragment = udp.clone();
            fragment[20] |= 0x20;
            fragment[24..26].fill(0);
            let sum = Sum::ZERO.bytes(&fragment[14..34]).checksum();
            fragment[24..26].copy_from_slice(&sum.to_be_bytes());
            samples.push(sample("first fragment", fragment, None));
        }
        samples.push(sample("TCP", tcp, Some(kind)));
        samples.push(sample("UDP", udp, Some(5)));
    }
    let (src, dst) = ends(V4);
    let inner = testkit::udp(src, dst, &payload(LEN));
    samples.push(sample("a pod's own tunnel", testkit::vxlan(src, dst.ip(), 7, &inner), Some(5)));
    samples
}

/// Every header that differs from the right one in what a kernel may get wrong, or somebody lie about.
fn headers(sample: &Sample) -> impl Iterator<Item = VnetHeader> + use<> {
    let (start, field, len) = (sample.start, sample.field, sample.frame.len() as u16);
    let flags = [0, 1, 2, 3, 4, 5, 8, 0x80, 0xff];
    let kinds = [0, 1, 2, 3, 4, 5, 6, 0x7f, 0x80, 0x81, 0x83, 0x84, 0x85, 0xff];
    let sizes = [0, 1, 7, 500, 1400, LEN as u16 - 1, LEN as u16, u16::MAX];
    let starts = [0, 1, 14, start - 1, start, start + 1, start + 8, len - 2, len - 1, len, u16::MAX];
    let fields = [0, 1, 6, 16, field, 40, len, u16::MAX - 1, u16::MAX];
    let lengths = [0, 14, start + 8, len, u16::MAX];
    let said = flags.into_iter().flat_map(move |flags| kinds.map(|kind| (flags, kind)));
    let said = said.flat_map(move |(flags, kind)| sizes.map(|size| (flags, kind, size)));
    said.flat_map(move |(flags, gso_type, size)| {
        let places = starts.into_iter().flat_map(move |start| fields.map(|field| (start, field)));
        places.flat_map(move |(start, field)| {
            // What it says of the length of headers is a hint, which is not believed: one is enough with most others.
            let many = if (gso_type, size) == (1, 500) { lengths.len() } else { 1 };
            lengths.into_iter().take(many).map(move |length| VnetHeader {
                flags,
                gso_type,
                header_len: length.into(),
                gso_size: size.into(),
                checksum_start: start.into(),
                checksum_offset: field.into(),
                buffers: 0.into(),
            })
        })
    })
}

/// What the specification says that the header means, as far as it was asked for: an offload or a checksum to be completed at a
/// place of its own. `None` if it must be refused.
fn meant(sample: &Sample, header: &VnetHeader) -> Option<(Offload, Option<usize>)> {
    let (start, field) = (header.checksum_start.get(), header.checksum_offset.get());
    if header.flags & !3 != 0 {
        return None;
    }
    let needs = header.flags & 1 != 0;
    let in_place = (start, field) == (sample.start, sample.field) && sample.kind.is_some();
    let size = header.gso_size.get();
    if header.gso_type == 0 {
        let end = usize::from(start) + usize::from(field) + 2;
        return match (needs, in_place) {
            (false, _) => Some((Offload::NONE, None)),
            (true, true) => Some((Offload { segment: None, partial: true }, None)),
            (true, false) if end <= sample.frame.len() => Some((Offload::NONE, Some(end - 2))),
            (true, false) => None,
        };
    }
    let kind = match header.gso_type {
        0x81 => 1,
        0x84 => 4,
        kind => kind,
    };
    let asked = sample.kind == Some(kind) && size > 0 && needs && in_place;
    let data = LEN + if sample.what == "a pod's own tunnel" { 14 + 20 + 8 + 8 } else { 0 };
    let segment = NonZeroU16::new(size).filter(|size| data > usize::from(size.get()));
    asked.then_some((Offload { segment, partial: true }, None))
}

/// The checksum of RFC 1071, word by word; never 0.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    if sum == 0xffff { 0xffff } else { !(sum as u16) }
}

#[test]
fn every_header_means_what_the_specification_says_or_is_refused_and_changes_nothing() {
    let mut counts = [0; 3];
    for sample in samples() {
        let mut frame = sample.frame.clone();
        for header in headers(&sample) {
            let what = || format!("{}: {header:?}", sample.what);
            let result = header.offload(&mut frame);
            match meant(&sample, &header) {
                None => {
                    counts[0] += 1;
                    assert!(result.is_err(), "{}: {result:?}", what());
                    assert_eq!(frame, sample.frame, "{}", what());
                }
                Some((offload, None)) => {
                    counts[1] += 1;
                    assert_eq!(result, Ok(offload), "{}", what());
                    assert_eq!(frame, sample.frame, "{}", what());
                }
                Some((offload, Some(at))) => {
                    counts[2] += 1;
                    assert_eq!(result, Ok(offload), "{}", what());
                    let right = checksum(&sample.frame[usize::from(header.checksum_start.get())..]);
                    assert_eq!(frame[at..at + 2], right.to_be_bytes(), "{}", what());
                    frame[at..at + 2].copy_from_slice(&sample.frame[at..at + 2]);
                    assert_eq!(frame, sample.frame, "{}: more than the checksum was written", what());
                }
            }
        }
    }
    assert!(counts.iter().all(|count| *count > 1000), "{counts:?}");
}

#[test]
fn whatever_is_taken_becomes_what_was_meant_by_it() {
    for sample in samples().iter().filter(|sample| sample.kind.is_some()) {
        let parsed = parse(&sample.frame).unwrap();
        for size in [7, 500, 1399, 1400, LEN as u16 - 1] {
            let segments = cut(&sample.frame, size);
            let head = segments[0].len() - usize::from(size);
            segments.iter().for_each(|segment| assert_checksums(segment));
            let data: Vec<u8> = segments.iter().flat_map(|segment| segment[head..].to_vec()).collect();
            assert_eq!(data, sample.frame[head..], "{} in segments of {size}", sample.what);
        }
        let mut frame = sample.frame.clone();
        complete(&mut frame, &parsed);
        // UDP of a tunnel comes without.
        if sample.what != "a pod's own tunnel" {
            assert_eq!(frame, sample.whole, "{}", sample.what);
        }
        assert_checksums(&frame);
    }
}
