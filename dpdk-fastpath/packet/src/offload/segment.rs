//! A super-packet is cut into segments, as a NIC does it (TSO, USO).

use std::num::NonZeroU16;

use super::{finish, pseudo, set_len, transport_header, update_header};
use crate::parse::{L3, L4, Parsed};
use crate::tcp::TcpFlags;

/// The segments of one super-packet, which stays as it is.
///
/// Each has the super-packet's headers with lengths, checksums and, over IPv4, identification of its own: that counts up,
/// don't-fragment or not. A TCP segment has its sequence number; FIN and PSH are in the last one only, and CWR in the
/// first (RFC 3168, section 6.1.2).
#[derive(Debug, Clone, Copy)]
pub struct Segments<'a> {
    frame: &'a [u8],
    parsed: &'a Parsed,
    /// Length of all headers.
    head: usize,
    size: usize,
    count: usize,
}

impl<'a> Segments<'a> {
    /// The segments, of `size` bytes behind the transport header, of a whole TCP or UDP packet with a partial checksum.
    /// `None` for others.
    pub fn new(frame: &'a [u8], parsed: &'a Parsed, size: NonZeroU16) -> Option<Self> {
        if !matches!(parsed.l4, L4::Tcp | L4::Udp) || parsed.is_fragment() {
            return None;
        }
        let head = usize::from(parsed.l4_offset) + transport_header(frame, parsed);
        let size = usize::from(size.get());
        let count = (parsed.end() - head).div_ceil(size).max(1);
        Some(Self { frame, parsed, head, size, count })
    }

    /// How many there are, at least one.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Length in bytes of the frame that `nth` will be, from 0.
    pub fn len(&self, nth: usize) -> usize {
        self.head + self.payload(nth).len()
    }

    /// Length in bytes of the headers of each.
    pub const fn head_len(&self) -> usize {
        self.head
    }

    /// Writes a segment, from the Ethernet header on.
    ///
    /// # Panics
    /// If `out` is not as long as [`len`](Self::len) says.
    pub fn write(&self, nth: usize, out: &mut [u8]) {
        let (head, rest) = out.split_at_mut(self.head);
        rest.copy_from_slice(self.write_head(nth, head));
    }

    /// Writes the headers of a segment, from the Ethernet header on, and returns what follows them.
    ///
    /// # Panics
    /// If `head` is not as long as [`head_len`](Self::head_len) says.
    pub fn write_head(&self, nth: usize, head: &mut [u8]) -> &'a [u8] {
        let (frame, parsed) = (self.frame, self.parsed);
        let payload = self.payload(nth);
        head.copy_from_slice(&frame[..self.head]);

        let ip = usize::from(parsed.l3_offset);
        set_len(head, parsed, self.head - ip + payload.len());
        if parsed.l3 == L3::Ipv4 {
            let identification = u16::from_be_bytes([head[ip + 4], head[ip + 5]]).wrapping_add(nth as u16);
            head[ip + 4..ip + 6].copy_from_slice(&identification.to_be_bytes());
        }
        update_header(head, parsed);

        let transport = &mut head[usize::from(parsed.l4_offset)..];
        let len = transport.len() + payload.len();
        let field = match parsed.l4 {
            L4::Tcp => {
                self.number(nth, transport);
                16
            }
            _ => {
                transport[4..6].copy_from_slice(&(len as u16).to_be_bytes());
                6
            }
        };
        transport[field..field + 2].fill(0);
        // The header's length is even, so that the payload's words lie as they do in the packet.
        let sum = pseudo(frame, parsed, len).bytes(transport).bytes(payload);
        transport[field..field + 2].copy_from_slice(&finish(sum, parsed.protocol));
        payload
    }

    /// Gives a TCP header the sequence number and the control bits of a segment.
    fn number(&self, nth: usize, tcp: &mut [u8]) {
        let sequence =
            u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add((nth * self.size) as u32);
        tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
        if nth > 0 {
            tcp[13] &= !TcpFlags::CWR.0;
        }
        if nth + 1 < self.count {
            tcp[13] &= !(TcpFlags::FIN.0 | TcpFlags::PSH.0);
        }
    }

    fn payload(&self, nth: usize) -> &'a [u8] {
        let payload = &self.frame[self.head..self.parsed.end()];
        let start = (nth * self.size).min(payload.len());
        &payload[start..(start + self.size).min(payload.len())]
    }
}
