//! The usual packet in the usual tunnel: VXLAN over IPv4, to one endpoint and network.

use std::net::Ipv4Addr;

use super::{HEAD, IP, Usual, half, length, word};
use crate::checksum::words_are_valid;
use crate::encap::OVERHEAD_V4;
use crate::eth::{EthAddr, EthHeader};
use crate::ip::Protocol;
use crate::ipv4::Ipv4Header;

/// Bytes of the outer headers and of the inner one of Ethernet, and words of eight.
const FRONT: usize = OVERHEAD_V4 + EthHeader::LEN;
const WORDS: usize = FRONT / 8;
/// Bytes of all headers of the shortest usual packet in a tunnel.
const WHOLE: usize = OVERHEAD_V4 + HEAD;

const _: () = assert!(FRONT.is_multiple_of(8));

/// What the usual tunnel packets to one endpoint have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(align(64))]
pub struct Tunnelled {
    /// What is in front of the inner IP header, as it lies in memory, and which bits of that count.
    want: [u64; WORDS],
    mask: [u64; WORDS],
}

impl Tunnelled {
    /// To UDP port `port` of an endpoint, whose Ethernet addresses outside and inside of the tunnel are these, in the
    /// network with this VNI.
    pub fn new(outer: EthAddr, endpoint: Ipv4Addr, port: u16, vni: u32, inner: EthAddr) -> Self {
        const ALL: [u8; 6] = [0xff; 6];
        let [_, vni @ ..] = vni.to_be_bytes();
        let (mut want, mut mask) = ([0; FRONT], [0; FRONT]);
        let mut expect = |at: usize, bytes: &[u8], bits: &[u8]| {
            want[at..at + bytes.len()].copy_from_slice(bytes);
            mask[at..at + bytes.len()].copy_from_slice(&bits[..bytes.len()]);
        };
        expect(0, &outer.0, &ALL);
        // IPv4 without options, and no fragment of it.
        expect(12, &[8, 0, 0x45], &ALL);
        expect(20, &[0, 0], &[0x3f, 0xff]);
        expect(23, &[Protocol::UDP.0], &ALL);
        expect(30, &endpoint.octets(), &ALL);
        expect(36, &port.to_be_bytes(), &ALL);
        // The flag that says that the VNI counts, and the VNI; the rest is reserved and ignored (RFC 7348, section 5).
        expect(42, &[8], &[8]);
        expect(46, &vni, &ALL);
        expect(50, &inner.0, &ALL);
        expect(62, &[8, 0], &ALL);
        let words = |bytes: [u8; FRONT]| std::array::from_fn(|at| word(&bytes, 8 * at));
        Self { want: words(want), mask: words(mask) }
    }

    /// 0 if a frame begins so.
    #[inline(always)]
    fn difference(&self, frame: &[u8; WHOLE]) -> u64 {
        (0..WORDS).fold(0, |all, at| all | (word(frame, 8 * at) ^ self.want[at]) & self.mask[at])
    }
}

/// Reads a tunnel packet; verified is all that [`parse`](crate::parse::parse) and
/// [`decap`](crate::encap::decap) verify. Returned are the tunnel's other end, and the packet inside, whose frame begins at
/// [`OVERHEAD_V4`] and ends with the packet. `None` for packets of another kind, among them those whose traffic class would change
/// and those with anything behind one of their parts, such as padding, and for whatever is wrong.
#[inline(always)]
pub fn tunnelled(frame: &[u8], expected: &Tunnelled) -> Option<(Ipv4Addr, Usual)> {
    /// Version and header length, and no fragment; of the inner packet.
    const PLAIN: u64 = u64::from_ne_bytes([0x45, 0, 0, 0, 0, 0, 0, 0]);
    const COUNTS: u64 = u64::from_ne_bytes([0xff, 0, 0, 0, 0, 0, 0x3f, 0xff]);
    let whole: &[u8; WHOLE] = frame.first_chunk()?;
    let inner = frame.get(OVERHEAD_V4..)?;
    let head: &[u8; HEAD] = inner.first_chunk()?;
    let first = word(head, IP);
    let difference = expected.difference(whole) | (first ^ PLAIN) & COUNTS;
    // What the outer packet has more than the inner one is as much as the outer headers: both begin behind Ethernet's.
    let outer_len = u16::try_from(frame.len() - IP).ok()?;
    let len = outer_len - OVERHEAD_V4 as u16;
    if difference != 0
        || length(whole, IP + 2) != outer_len.to_be()
        || length(whole, IP + Ipv4Header::LEN + 4) != (outer_len - Ipv4Header::LEN as u16).to_be()
        || length(head, IP + 2) != len.to_be()
        || !words_are_valid([word(whole, IP), word(whole, IP + 8), half(whole, IP + 16).into()])
        || !words_are_valid([first, word(head, IP + 8), half(head, IP + 16).into()])
    {
        return None;
    }
    let usual = Usual::of(inner, head, len)?;
    let (mark, class) = (whole[15] & 3, head[15]);
    let src = Ipv4Addr::from([whole[26], whole[27], whole[28], whole[29]]);
    ((mark == 0) | (mark == class & 3)).then_some((src, usual))
}
