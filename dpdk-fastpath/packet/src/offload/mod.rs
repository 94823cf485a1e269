//! Packets that are not yet what goes over a wire: longer than the MTU, or without their checksum.
//!
//! A pod's kernel leaves both to its NIC, and ours is the NIC: it hands over up to 64 KB at once, a *super-packet*, with one
//! header for what will be many segments. Looking up a flow and translating is then done once for all of them. A
//! super-packet goes to another pod of the node as it is; for the underlay it is [cut](segment), by its device if that can
//! be [asked](request) to. What comes from there in segments can be [merged](merge) again, for the same reason.
//!
//! [`vnet`] is how the kernel says it at a tap, and [`Offload`] how it is said inside.

pub mod merge;
pub mod request;
pub mod segment;
pub mod tunnel;
pub mod vnet;

use std::num::NonZeroU16;

use crate::checksum::Sum;
use crate::eth::EthHeader;
use crate::ip::Protocol;
use crate::ipv4::Ipv4Header;
use crate::ipv6::Ipv6Header;
use crate::parse::{L3, L4, Parsed};

/// What is still to be done about a packet before it may go over a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    /// The packet, which is TCP or UDP and no fragment, is to be cut into segments of so many bytes behind the transport
    /// header; the last may be shorter. Its checksum is partial.
    pub segment: Option<NonZeroU16>,
    /// In place of its checksum the TCP or UDP header has the sum of the pseudo header only, not complemented.
    pub partial: bool,
}

impl Offload {
    /// A packet as it is on a wire.
    pub const NONE: Self = Self { segment: None, partial: false };

    /// Length of the longest IP packet that will go over a wire.
    #[inline]
    pub fn wire_len(self, frame: &[u8], parsed: &Parsed) -> u32 {
        match self.segment {
            None => parsed.l3_len,
            Some(size) => {
                let ip = usize::from(parsed.l4_offset) - usize::from(parsed.l3_offset);
                let headers = ip + transport_header(frame, parsed);
                parsed.l3_len.min(headers as u32 + u32::from(size.get()))
            }
        }
    }
}

/// Where the checksum lies in the transport header; `None` for protocols other than TCP and UDP.
const fn checksum_offset(l4: L4) -> Option<usize> {
    match l4 {
        L4::Tcp => Some(16),
        L4::Udp => Some(6),
        _ => None,
    }
}

/// The sum of the pseudo header for `len` bytes of TCP or UDP in this packet.
fn pseudo(frame: &[u8], parsed: &Parsed, len: usize) -> Sum {
    pseudo_at(frame, usize::from(parsed.l3_offset), parsed.l3 != L3::Ipv4, parsed.protocol, len)
}

/// The same of a packet whose IP header begins at `ip`.
fn pseudo_at(frame: &[u8], ip: usize, v6: bool, protocol: Protocol, len: usize) -> Sum {
    let addresses = match v6 {
        false => &frame[ip + 12..ip + Ipv4Header::LEN],
        true => &frame[ip + 8..ip + Ipv6Header::LEN],
    };
    Sum::ZERO.bytes(addresses).word(u16::from(protocol.0)).long(len as u32)
}

/// Length of the transport header of a TCP or UDP packet.
fn transport_header(frame: &[u8], parsed: &Parsed) -> usize {
    match parsed.l4 {
        L4::Tcp => usize::from(frame[usize::from(parsed.l4_offset) + 12] >> 4) * 4,
        _ => crate::udp::UdpHeader::LEN,
    }
}

/// Puts the checksum of a packet in its place, of whose words but the checksum's this is the sum.
fn finish(sum: Sum, protocol: Protocol) -> [u8; 2] {
    let checksum = if protocol == Protocol::UDP { sum.udp_checksum() } else { sum.checksum() };
    checksum.to_be_bytes()
}

/// Completes the checksum of a packet that has a partial one and is not to be cut.
pub fn complete(frame: &mut [u8], parsed: &Parsed) {
    let Some(field) = checksum_offset(parsed.l4) else { return };
    let (start, end) = (usize::from(parsed.l4_offset), parsed.end());
    let message = &mut frame[start..end];
    let checksum = finish(Sum::ZERO.bytes(message), parsed.protocol);
    message[field..field + 2].copy_from_slice(&checksum);
}

/// Sets the lengths in the IP header of a packet of `len` bytes behind the Ethernet header, and leaves its checksum to
/// be updated by [`update_header`].
fn set_len(frame: &mut [u8], parsed: &Parsed, len: usize) {
    let ip = usize::from(parsed.l3_offset);
    match parsed.l3 {
        L3::Ipv4 => frame[ip + 2..ip + 4].copy_from_slice(&(len as u16).to_be_bytes()),
        _ => frame[ip + 4..ip + 6].copy_from_slice(&((len - Ipv6Header::LEN) as u16).to_be_bytes()),
    }
}

/// Computes the checksum of the IPv4 header anew; nothing to do for IPv6.
fn update_header(frame: &mut [u8], parsed: &Parsed) {
    if parsed.l3 != L3::Ipv4 {
        return;
    }
    let header = &mut frame[usize::from(parsed.l3_offset)..usize::from(parsed.l4_offset)];
    header[10..12].fill(0);
    let checksum = Sum::ZERO.bytes(header).checksum();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

const _: () = assert!(EthHeader::LEN == 14 && size_of::<Offload>() <= 4);

#[cfg(test)]
mod tests;
