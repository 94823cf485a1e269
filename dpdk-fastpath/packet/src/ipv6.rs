//! IPv6 and its extension headers (RFC 8200).

use std::net::Ipv6Addr;

use zerocopy::FromBytes;
use zerocopy::byteorder::network_endian::{U16, U32};

use crate::Malformed;
use crate::ip::Protocol;
use crate::view::{Extent, views, wire};

wire! {
    /// The 40 bytes in front of every IPv6 packet.
    pub struct Ipv6Header {
        version_class_label: U32,
        payload_len: U16,
        next_header: u8,
        hop_limit: u8,
        src: [u8; 16],
        dst: [u8; 16],
    }
}

impl Ipv6Header {
    /// A header with traffic class and flow label 0.
    pub const fn new(src: Ipv6Addr, dst: Ipv6Addr, next: Protocol, hop_limit: u8, payload_len: u16) -> Self {
        Self {
            version_class_label: U32::new(6 << 28),
            payload_len: U16::new(payload_len),
            next_header: next.0,
            hop_limit,
            src: src.octets(),
            dst: dst.octets(),
        }
    }

    /// Version, 6.
    #[inline]
    pub const fn version(&self) -> u8 {
        (self.version_class_label.get() >> 28) as u8
    }

    /// DSCP (6 bits) and ECN (2 bits), RFC 2474 and RFC 3168.
    #[inline]
    pub const fn traffic_class(&self) -> u8 {
        (self.version_class_label.get() >> 20) as u8
    }

    /// Flow label, 20 bits (RFC 6437).
    #[inline]
    pub const fn flow_label(&self) -> u32 {
        self.version_class_label.get() & 0xf_ffff
    }

    /// Length of what follows these 40 bytes.
    #[inline]
    pub const fn payload_len(&self) -> u16 {
        self.payload_len.get()
    }

    /// What follows: an upper-layer protocol or an extension header.
    #[inline]
    pub const fn next_header(&self) -> Protocol {
        Protocol(self.next_header)
    }

    /// Hops that are left.
    #[inline]
    pub const fn hop_limit(&self) -> u8 {
        self.hop_limit
    }

    /// Source address.
    #[inline]
    pub const fn src(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(self.src)
    }

    /// Destination address.
    #[inline]
    pub const fn dst(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(self.dst)
    }

    /// Sets DSCP and ECN.
    #[inline]
    pub fn set_traffic_class(&mut self, traffic_class: u8) {
        let rest = self.version_class_label.get() & !(0xff << 20);
        self.version_class_label = U32::new(rest | u32::from(traffic_class) << 20);
    }

    /// Sets the flow label, of which the low 20 bits count.
    #[inline]
    pub fn set_flow_label(&mut self, label: u32) {
        let rest = self.version_class_label.get() & !0xf_ffff;
        self.version_class_label = U32::new(rest | label & 0xf_ffff);
    }

    /// Sets the length of what follows the header.
    #[inline]
    pub fn set_payload_len(&mut self, len: u16) {
        self.payload_len = U16::new(len);
    }

    /// Sets what follows the header.
    #[inline]
    pub fn set_next_header(&mut self, next: Protocol) {
        self.next_header = next.0;
    }

    /// Sets the hops that are left.
    #[inline]
    pub fn set_hop_limit(&mut self, hop_limit: u8) {
        self.hop_limit = hop_limit;
    }

    /// Sets the source address.
    #[inline]
    pub fn set_src(&mut self, src: Ipv6Addr) {
        self.src = src.octets();
    }

    /// Sets the destination address.
    #[inline]
    pub fn set_dst(&mut self, dst: Ipv6Addr) {
        self.dst = dst.octets();
    }
}

#[inline]
pub(crate) fn check(header: &Ipv6Header, len: usize) -> Result<Extent, Malformed> {
    if header.version() != 6 {
        return Err(Malformed::Ipv6BadVersion);
    }
    let total = Ipv6Header::LEN + usize::from(header.payload_len());
    if total > len {
        return Err(Malformed::Ipv6PayloadLength);
    }
    Ok(Extent { header: Ipv6Header::LEN, total })
}

views! {
    /// An IPv6 packet; the payload begins with its extension headers, if there are any.
    Ipv6, Ipv6Mut: Ipv6Header, Malformed::Ipv6Truncated, check
}

impl Ipv6<'_> {
    /// Finds the upper-layer protocol behind the extension headers.
    pub fn upper(&self) -> Result<Upper, Malformed> {
        walk(self.next_header(), self.payload)
    }
}

wire! {
    /// The fragment header (RFC 8200, section 4.5).
    pub struct FragmentHeader {
        next_header: u8,
        reserved: u8,
        offset_more: U16,
        identification: U32,
    }
}

impl FragmentHeader {
    /// A header with these fields; `offset` in bytes, a multiple of eight below 65536.
    pub const fn new(next: Protocol, offset: u32, more_fragments: bool, identification: u32) -> Self {
        Self {
            next_header: next.0,
            reserved: 0,
            offset_more: U16::new(offset as u16 & !7 | more_fragments as u16),
            identification: U32::new(identification),
        }
    }

    /// What the whole packet goes on with behind this header.
    #[inline]
    pub const fn next_header(&self) -> Protocol {
        Protocol(self.next_header)
    }

    /// Where the payload belongs in the fragmentable part of the whole packet, in bytes.
    #[inline]
    pub const fn offset(&self) -> u32 {
        (self.offset_more.get() & !7) as u32
    }

    /// Whether this is not the last fragment.
    #[inline]
    pub const fn more_fragments(&self) -> bool {
        self.offset_more.get() & 1 != 0
    }

    /// What the fragments of one packet have in common.
    #[inline]
    pub const fn identification(&self) -> u32 {
        self.identification.get()
    }
}

/// What the walk over the extension headers found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upper {
    /// The first protocol that is no extension header. In a fragment other than the first: what the fragment
    /// header names, which may be an extension header in another fragment.
    pub protocol: Protocol,
    /// Where it begins, counted from the end of the fixed header.
    pub offset: usize,
    /// The fragment header, if there is one.
    pub fragment: Option<FragmentHeader>,
    /// Where what is behind the fragment header begins, counted likewise; 0 if there is none.
    pub fragmented_at: usize,
}

/// How many extension headers a packet may have. RFC 8504, section 5.3 lets a node limit them; every legal
/// use of each kind once fits.
pub const MAX_EXTENSIONS: usize = 8;

/// Walks the extension headers in `payload`, the first of which is `next`.
#[inline]
pub(crate) fn walk(next: Protocol, payload: &[u8]) -> Result<Upper, Malformed> {
    match next {
        Protocol::TCP | Protocol::UDP | Protocol::ICMPV6 => {
            Ok(Upper { protocol: next, offset: 0, fragment: None, fragmented_at: 0 })
        }
        _ => walk_extensions(next, payload),
    }
}

fn walk_extensions(mut next: Protocol, payload: &[u8]) -> Result<Upper, Malformed> {
    let mut offset = 0;
    let (mut fragment, mut fragmented_at) = (None, 0);
    for step in 0..=MAX_EXTENSIONS {
        let unit = match next {
            Protocol::HOP_BY_HOP if step > 0 => return Err(Malformed::Ipv6ExtensionChain),
            // A fragment of a fragment: which of the two a reader believes nobody knows.
            Protocol::FRAGMENT if fragment.is_some() => return Err(Malformed::Ipv6ExtensionChain),
            Protocol::FRAGMENT if step == MAX_EXTENSIONS => return Err(Malformed::Ipv6ExtensionChain),
            Protocol::FRAGMENT => {
                let Ok((header, rest)) = FragmentHeader::read_from_prefix(&payload[offset..]) else {
                    return Err(Malformed::Ipv6ExtensionTruncated);
                };
                check_fragment(&header, rest.len())?;
                offset += FragmentHeader::LEN;
                next = header.next_header();
                (fragment, fragmented_at) = (Some(header), offset);
                if header.offset() > 0 {
                    break;
                }
                continue;
            }
            Protocol::AUTHENTICATION => 4,
            Protocol::HOP_BY_HOP
            | Protocol::ROUTING
            | Protocol::DESTINATION_OPTIONS
            | Protocol::MOBILITY
            | Protocol::HIP
            | Protocol::SHIM6 => 8,
            _ => break,
        };
        if step == MAX_EXTENSIONS {
            return Err(Malformed::Ipv6ExtensionChain);
        }
        let Some(&[following, length]) = payload[offset..].first_chunk() else {
            return Err(Malformed::Ipv6ExtensionTruncated);
        };
        offset += match unit {
            4 => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        if offset > payload.len() {
            return Err(Malformed::Ipv6ExtensionTruncated);
        }
        next = Protocol(following);
    }
    Ok(Upper { protocol: next, offset, fragment, fragmented_at })
}

fn check_fragment(header: &FragmentHeader, len: usize) -> Result<(), Malformed> {
    let ragged = header.more_fragments() && !len.is_multiple_of(8);
    if ragged || header.offset() as usize + len > usize::from(u16::MAX) {
        return Err(Malformed::Ipv6Fragment);
    }
    Ok(())
}
