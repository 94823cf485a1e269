//! The usual packet: a whole TCP or UDP packet over IPv4 without options, behind an untagged Ethernet header.
//!
//! Nearly all packets are of this kind, and all their headers have a fixed place. So they are read with a handful of wide
//! loads, whose fields are compared together, and changed with a handful of stores. What is unusual is for
//! [`parse`](crate::parse::parse) and [`rewrite`](crate::rewrite).

use std::net::Ipv4Addr;

use crate::checksum::{Delta, words_are_valid};
use crate::eth::{EthAddr, EthHeader, EtherType};
use crate::flow::{FlowKey4, Tenant};
use crate::ip::Protocol;
use crate::ipv4::Ipv4Header;
use crate::parse::{Fragment, L3, L4, Parsed};
use crate::rewrite::Translation4;
use crate::sctp::SctpChunks;
use crate::tcp::{TcpFlags, TcpHeader};
use crate::udp::UdpHeader;

const IP: usize = EthHeader::LEN;
const TRANSPORT: usize = IP + Ipv4Header::LEN;
/// Bytes of the headers of the shortest usual packet.
const HEAD: usize = TRANSPORT + UdpHeader::LEN;
/// Checksums of TCP and UDP.
const TCP_CHECKSUM: usize = TRANSPORT + 16;
const UDP_CHECKSUM: usize = TRANSPORT + 6;

/// First byte of the first IPv4 address that is no unicast address.
const MULTICAST: u8 = 224;

/// What the first 15 bytes of a frame ought to be: its stations, as far as they matter, and that IPv4 without options
/// follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Front {
    want: [u64; 2],
    mask: [u64; 2],
}

impl Front {
    /// IPv4 from anybody to anybody.
    pub const ANY: Self = Self::of([0; 12], [0; 12]);

    /// IPv4 to a station.
    pub const fn to(dst: EthAddr) -> Self {
        let [a, b, c, d, e, f] = dst.0;
        const ALL: u8 = 0xff;
        Self::of([a, b, c, d, e, f, 0, 0, 0, 0, 0, 0], [ALL, ALL, ALL, ALL, ALL, ALL, 0, 0, 0, 0, 0, 0])
    }

    /// IPv4 from one station to another.
    pub const fn between(src: EthAddr, dst: EthAddr) -> Self {
        let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (dst.0, src.0);
        Self::of([a, b, c, d, e, f, g, h, i, j, k, l], [0xff; 12])
    }

    const fn of(stations: [u8; 12], mask: [u8; 12]) -> Self {
        const _: () = assert!(EtherType::IPV4.0 == 0x0800);
        Self { want: words(stations, [8, 0, 0x45, 0]), mask: words(mask, [0xff, 0xff, 0xff, 0]) }
    }

    /// 0 if a frame begins so.
    #[inline(always)]
    fn difference(&self, head: &[u8; HEAD]) -> u64 {
        let (first, second) = (word(head, 0) ^ self.want[0], word(head, 8) ^ self.want[1]);
        (first & self.mask[0]) | (second & self.mask[1])
    }
}

/// Twelve bytes and four, as they lie in memory.
const fn words(stations: [u8; 12], rest: [u8; 4]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = stations;
    let [w, x, y, z] = rest;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, w, x, y, z])]
}

/// A packet of the usual kind: what it takes to find out where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usual {
    /// Source and destination as in the header.
    addresses: u64,
    /// Protocol above source and destination as in the header.
    protocol_and_ports: u64,
    /// Length of the IP packet in bytes, at least 28.
    pub len: u16,
    /// What it may mean for its flow.
    pub kind: Kind,
}

/// What a usual packet may mean for its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UDP.
    Udp,
    /// TCP, in the midst of a connection.
    Tcp,
    /// TCP, with a control bit that opens or closes connections.
    TcpEdge,
}

const OPENING_OR_CLOSING: u8 = TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0;

impl Usual {
    /// Reads a frame that begins with `front`; verified is all that [`parse`](crate::parse::parse) verifies. `None` for
    /// packets of another kind, among them those to no unicast address and UDP that leaves a part of its IP packet unused, and for
    /// whatever is wrong.
    #[inline(always)]
    pub fn read(frame: &[u8], front: &Front) -> Option<Self> {
        let head: &[u8; HEAD] = frame.first_chunk()?;
        Self::of(frame, head, plain_len(head, frame.len(), front.difference(head))?)
    }

    /// Reads a frame with such a head and a plain IP packet of `len` bytes; what is above that is verified.
    #[inline(always)]
    fn of(frame: &[u8], head: &[u8; HEAD], len: u16) -> Option<Self> {
        if head[30] >= MULTICAST {
            return None;
        }
        let kind = match Protocol(head[23]) {
            Protocol::UDP => {
                if !is_filled(head, len) {
                    return None;
                }
                Kind::Udp
            }
            Protocol::TCP => {
                let &[offset, flags] = frame.get(TRANSPORT + 12..)?.first_chunk()?;
                let header = usize::from(offset >> 4) * 4;
                if header < TcpHeader::LEN || Ipv4Header::LEN + header > usize::from(len) {
                    return None;
                }
                if flags & OPENING_OR_CLOSING == 0 { Kind::Tcp } else { Kind::TcpEdge }
            }
            _ => return None,
        };
        let protocol_and_ports = u64::from(head[23]) << 32 | u64::from(half(head, TRANSPORT));
        Some(Self { addresses: word(head, IP + 12), protocol_and_ports, len, kind })
    }

    /// What [`parse`](crate::parse::parse) says of a usual packet without padding, without looking at everything again; `None`
    /// if the frame is too short to be one.
    #[inline]
    pub fn parsed(frame: &[u8]) -> Option<Parsed> {
        const DONT_FRAGMENT: u8 = 0x40;
        let head: &[u8; HEAD] = frame.first_chunk()?;
        let protocol = Protocol(head[23]);
        let (l4, tcp_flags) = match protocol {
            Protocol::TCP => (L4::Tcp, TcpFlags(*frame.get(TRANSPORT + 13)?)),
            _ => (L4::Udp, TcpFlags(0)),
        };
        Some(Parsed {
            l3: L3::Ipv4,
            vlan: None,
            l3_offset: IP as u8,
            l4_offset: TRANSPORT as u16,
            l3_len: u16::from_be_bytes([head[16], head[17]]).into(),
            protocol,
            l4,
            src_port: u16::from_be_bytes([head[34], head[35]]),
            dst_port: u16::from_be_bytes([head[36], head[37]]),
            tcp_flags,
            sctp_chunks: SctpChunks::NONE,
            icmp_type: 0,
            fragment: Fragment::Whole,
            ttl: head[22],
            traffic_class: head[15],
            dont_fragment: head[20] & DONT_FRAGMENT != 0,
            partial: false,
        })
    }

    /// The key of the packet's flow.
    #[inline(always)]
    pub const fn key(&self, tenant: Tenant) -> FlowKey4 {
        FlowKey4::of_words(tenant, self.addresses, self.protocol_and_ports)
    }

    /// [`Protocol::TCP`] or [`Protocol::UDP`].
    #[inline(always)]
    pub const fn protocol(&self) -> Protocol {
        self.key(Tenant::DEFAULT).protocol()
    }

    /// Source address.
    #[inline(always)]
    pub const fn src(&self) -> Ipv4Addr {
        self.key(Tenant::DEFAULT).src()
    }

    /// Destination address.
    #[inline(always)]
    pub const fn dst(&self) -> Ipv4Addr {
        self.key(Tenant::DEFAULT).dst()
    }

    /// Where the frame ends without its padding.
    #[inline(always)]
    pub const fn end(&self) -> usize {
        IP + self.len as usize
    }
}

/// Length of the IP packet in a frame of `frame` bytes, if its header is plain, adds up, and nothing else is different from
/// what it ought to be.
#[inline(always)]
fn plain_len(head: &[u8; HEAD], frame: usize, difference: u64) -> Option<u16> {
    /// "More fragments", and the offset.
    const FRAGMENT: u64 = u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 0x3f, 0xff]);
    // The header up to the fragment offset, up to the source, and the rest.
    let words = [word(head, IP), word(head, IP + 8), half(head, IP + 16).into()];
    let len = u16::from_be_bytes([head[16], head[17]]);
    if difference | words[0] & FRAGMENT != 0 {
        return None;
    }
    (usize::from(len) <= frame - IP && words_are_valid(words)).then_some(len)
}

/// Whether the UDP datagram in an IP packet of `len` bytes is as long as that.
#[inline(always)]
fn is_filled(head: &[u8; HEAD], len: u16) -> bool {
    usize::from(len) >= HEAD - IP && length(head, 38) == (len - Ipv4Header::LEN as u16).to_be()
}

/// Time to live and traffic class of a usual packet; `None` if the frame is too short to be one.
#[inline(always)]
pub fn ttl_and_traffic_class(frame: &[u8]) -> Option<(u8, u8)> {
    let head: &[u8; HEAD] = frame.first_chunk()?;
    Some((head[22], head[15]))
}

/// Whether a usual packet may be the first of a flow: UDP, or TCP that asks for a connection.
#[inline(always)]
pub fn opens(frame: &[u8]) -> bool {
    match frame.get(23).copied().map(Protocol) {
        Some(Protocol::TCP) => frame.get(TRANSPORT + 13).is_some_and(|&flags| TcpFlags(flags).opens()),
        protocol => protocol == Some(Protocol::UDP),
    }
}

/// Takes one hop off the time to live of a usual packet, which must be more than one.
///
/// # Panics
/// If the frame is shorter than any usual one; as with all that changes frames.
#[inline(always)]
pub fn hop(frame: &mut [u8]) {
    let head = head(frame);
    let before = u32::from_le(half(head, IP + 8));
    // As the time to live is the upper byte of its word, the checksum, which is the upper half here, is more by its lowest bit;
    // in ones' complement, where 0xffff, which a right checksum never is, would be 0 (RFC 1624).
    let carry = u32::from(before >= 0xfffe << 16) << 16;
    let after = before.wrapping_add((1 << 16) - 1).wrapping_add(carry);
    head[22..26].copy_from_slice(&after.to_le_bytes());
}

/// Takes one hop off, and makes the packet one of another flow.
///
/// # Panics
/// As [`hop`].
#[inline(always)]
pub fn hop_and_translate(frame: &mut [u8], to: &Translation4) {
    let (addresses, ports) = to.words();
    let (header, transport) = to.deltas();
    let head = head(frame);
    change_header(head, header);
    head[26..34].copy_from_slice(&addresses);
    head[TRANSPORT..TRANSPORT + 4].copy_from_slice(&ports);
    if Protocol(head[23]) == Protocol::TCP {
        let field: &mut [u8; 2] = frame[TCP_CHECKSUM..].first_chunk_mut().expect(OTHER_FRAME);
        *field = transport.apply_to(*field);
    } else {
        let field: &mut [u8; 2] = head[UDP_CHECKSUM..].first_chunk_mut().expect(OTHER_FRAME);
        *field = transport.apply_to_udp(*field);
    }
}

/// Time to live, protocol and header checksum are four bytes in a row, changed in one go.
#[inline(always)]
fn change_header(head: &mut [u8; HEAD], delta: Delta) {
    let before = u32::from_le_bytes([head[22], head[23], head[24], head[25]]);
    let checksum = Delta::TTL.apply_both(delta, (before >> 16) as u16);
    let after = u32::from(checksum) << 16 | before.wrapping_sub(1) & 0xffff;
    head[22..26].copy_from_slice(&after.to_le_bytes());
}

const OTHER_FRAME: &str = "a frame that was read as a usual one";

#[inline(always)]
fn head(frame: &mut [u8]) -> &mut [u8; HEAD] {
    frame.first_chunk_mut().expect(OTHER_FRAME)
}

/// Eight bytes of a header, as they lie in memory.
#[inline(always)]
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// Four bytes of a header, as they lie in memory.
#[inline(always)]
fn half<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// Two bytes of a header, as they lie in memory: a length that is to be compared with another.
#[inline(always)]
fn length<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    bytes[at..].first_chunk().map_or(0, |bytes| u16::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests;
mod tunnelled;

pub use self::tunnelled::{Tunnelled, tunnelled};
