//! Segments of one flow become a super-packet again, as a NIC does it (LRO, GRO).

use std::num::NonZeroU16;

use super::vnet::VnetHeader;
use super::{Offload, checksum_offset, pseudo, set_len, transport_header, update_header};
use crate::parse::{self, L3, L4, Parsed, parse};
use crate::tcp::TcpFlags;
use crate::udp::UdpHeader;

/// Most datagrams in one super-packet: the least that a Linux that cuts them again may refuse (UDP_MAX_SEGMENTS was 64).
const DATAGRAMS: usize = 64;

/// Control bits of TCP that may differ between the segments of a super-packet: they count for its end.
const LAST: u8 = TcpFlags::FIN.0 | TcpFlags::PSH.0;
/// Those with which a segment stays alone.
const ALONE: u8 = TcpFlags::SYN.0 | TcpFlags::RST.0 | TcpFlags::URG.0;

/// A super-packet in the making: the first packet, whose headers count, and how much has joined it.
///
/// Nothing is copied here: the payloads of the packets that [join](Self::join) are for the caller to put behind the first
/// packet, in their order. When no more joins, [`finish`](Self::finish) makes the first packet's headers right.
///
/// Merging loses nothing. Packets join only if cutting the super-packet gives them back: same headers, sequence numbers
/// without a gap, same size except for the last; over IPv4 the identification counts up or does not matter. Their checksums
/// must be right, for the super-packet vouches for them.
#[derive(Debug, Clone, Copy)]
pub struct Merge {
    parsed: Parsed,
    offload: Offload,
    /// Length of all headers.
    head: usize,
    /// Payload bytes of the first packet.
    size: usize,
    /// Payload bytes of all.
    payload: usize,
    /// Packets.
    count: usize,
    /// Control bits of TCP of the last one.
    last: u8,
    /// Nothing may follow.
    closed: bool,
}

impl Merge {
    /// Begins with this packet; `None` if it stays alone.
    pub fn begin(frame: &[u8], offload: Offload) -> Option<Self> {
        let parsed = parse(frame).ok()?;
        if offload.segment.is_some() || parsed.vlan.is_some() || parsed.is_fragment() {
            return None;
        }
        // No options and extension headers.
        let ip_header = usize::from(parsed.l4_offset) - usize::from(parsed.l3_offset);
        let plain = match parsed.l3 {
            L3::Ipv4 => ip_header == 20,
            _ => ip_header == 40,
        };
        let flags = parsed.tcp_flags.0;
        if !plain || !matches!(parsed.l4, L4::Tcp | L4::Udp) || flags & ALONE != 0 {
            return None;
        }
        let head = usize::from(parsed.l4_offset) + transport_header(frame, &parsed);
        let size = parsed.end() - head;
        let whole_datagram = parsed.l4 == L4::Tcp
            || usize::from(u16::from_be_bytes([frame[head - 4], frame[head - 3]])) == UdpHeader::LEN + size
                && (offload.partial || frame[head - 2..head] != [0, 0]);
        (size > 0 && whole_datagram).then_some(Self {
            parsed,
            offload,
            head,
            size,
            payload: size,
            count: 1,
            last: flags,
            closed: flags & LAST != 0,
        })
    }

    /// Takes the next packet in if it continues `first`, and returns where its payload lies.
    pub fn join(&mut self, first: &[u8], frame: &[u8], offload: Offload) -> Option<std::ops::Range<usize>> {
        if self.closed || frame.len() <= self.head || offload.partial != self.offload.partial {
            return None;
        }
        let next = Self::begin(frame, offload)?;
        let fits = next.size <= self.size
            && next.head == self.head
            && self.head - usize::from(self.parsed.l3_offset) + self.payload + next.size
                <= usize::from(u16::MAX)
            && (self.parsed.l4 == L4::Tcp || self.count < DATAGRAMS);
        if !fits || !self.continues(first, frame) {
            return None;
        }
        // Of the first packet only now, so that what stays alone costs nothing.
        if !offload.partial
            && (!is_right(frame, &next.parsed) || self.count == 1 && !is_right(first, &self.parsed))
        {
            return None;
        }
        self.payload += next.size;
        self.count += 1;
        self.last = next.last;
        self.closed = next.closed || next.size < self.size;
        Some(self.head..self.head + next.size)
    }

    /// Whether a packet is of the flow of `first`: if it does not [join](Self::join), none of those behind it may.
    pub fn is_same_flow(&self, first: &[u8], frame: &[u8]) -> bool {
        let (ip, l4) = (usize::from(self.parsed.l3_offset), usize::from(self.parsed.l4_offset));
        let (protocol, addresses) = if self.parsed.l3 == L3::Ipv4 { (9, 12) } else { (6, 8) };
        let same = |range: std::ops::Range<usize>| frame.get(range.clone()) == Some(&first[range]);
        same(ip + addresses..l4 + 4) && same(ip + protocol..ip + protocol + 1) && same(12..14)
    }

    /// Makes the headers of the first packet those of the super-packet, and returns what is to be said of it then.
    pub fn finish(&self, first: &mut [u8]) -> VnetHeader {
        if self.count == 1 {
            return VnetHeader::of(first, &self.parsed, self.offload);
        }
        let parsed = &self.parsed;
        let head = &mut first[..self.head];
        set_len(head, parsed, self.head - usize::from(parsed.l3_offset) + self.payload);
        update_header(head, parsed);
        let start = usize::from(parsed.l4_offset);
        let len = self.head - start + self.payload;
        let sum = pseudo(head, parsed, len).fold();
        if parsed.l4 == L4::Tcp {
            head[start + 13] |= self.last & LAST;
        } else {
            head[start + 4..start + 6].copy_from_slice(&(len as u16).to_be_bytes());
        }
        if let Some(field) = checksum_offset(parsed.l4) {
            head[start + field..start + field + 2].copy_from_slice(&sum.to_be_bytes());
        }
        let offload = Offload { segment: NonZeroU16::new(self.size as u16), partial: true };
        // What the frame itself says of its length is more than there is of it.
        VnetHeader::of(head, parsed, offload)
    }

    /// Packets so far.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Length in bytes of the frame that the super-packet is.
    pub const fn frame_len(&self) -> usize {
        self.head + self.payload
    }

    /// Whether the headers of both packets, up to the length of ours, allow the one to follow the other.
    fn continues(&self, first: &[u8], frame: &[u8]) -> bool {
        let (ip, l4) = (usize::from(self.parsed.l3_offset), usize::from(self.parsed.l4_offset));
        let same = |range: std::ops::Range<usize>| first[range.clone()] == frame[range];
        let number = |frame: &[u8], at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let same_ip = match self.parsed.l3 {
            // All but total length, identification and checksum.
            L3::Ipv4 => {
                let in_order = number(first, ip + 4).wrapping_add(self.count as u16) == number(frame, ip + 4);
                same(0..ip + 2)
                    && same(ip + 6..ip + 10)
                    && same(ip + 12..l4)
                    && (in_order || self.parsed.dont_fragment)
            }
            // All but payload length.
            _ => same(0..ip + 4) && same(ip + 6..l4),
        };
        if !same_ip || !same(l4..l4 + 4) {
            return false;
        }
        if self.parsed.l4 == L4::Udp {
            return true;
        }
        let sequence =
            |frame: &[u8]| u32::from_be_bytes([frame[l4 + 4], frame[l4 + 5], frame[l4 + 6], frame[l4 + 7]]);
        sequence(first).wrapping_add(self.payload as u32) == sequence(frame)
            // Acknowledgement and length of the header; window; options.
            && same(l4 + 8..l4 + 13)
            && same(l4 + 14..l4 + 16)
            && same(l4 + 20..self.head)
            // Only the first may have CWR.
            && (first[l4 + 13] ^ frame[l4 + 13]) & !(LAST | TcpFlags::CWR.0) == 0
            && frame[l4 + 13] & TcpFlags::CWR.0 == 0
    }
}

fn is_right(frame: &[u8], parsed: &Parsed) -> bool {
    parse::verify_transport(frame, parsed).is_ok()
}
