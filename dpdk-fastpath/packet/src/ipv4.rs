//! IPv4 (RFC 791).

use std::net::Ipv4Addr;

use zerocopy::IntoBytes;
use zerocopy::byteorder::network_endian::U16;

use crate::Malformed;
use crate::checksum::Sum;
use crate::ip::Protocol;
use crate::view::{Extent, views, wire};

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

wire! {
    /// The 20 bytes that every IPv4 header has.
    pub struct Ipv4Header {
        version_ihl: u8,
        traffic_class: u8,
        total_len: U16,
        identification: U16,
        fragment: U16,
        ttl: u8,
        protocol: u8,
        checksum: U16,
        src: [u8; 4],
        dst: [u8; 4],
    }
}

impl Ipv4Header {
    /// A header without options and fragmentation, don't-fragment set, checksum still to be updated.
    pub const fn new(src: Ipv4Addr, dst: Ipv4Addr, protocol: Protocol, ttl: u8, payload_len: u16) -> Self {
        Self {
            version_ihl: 0x45,
            traffic_class: 0,
            total_len: U16::new(payload_len + Self::LEN as u16),
            identification: U16::ZERO,
            fragment: U16::new(DONT_FRAGMENT),
            ttl,
            protocol: protocol.0,
            checksum: U16::ZERO,
            src: src.octets(),
            dst: dst.octets(),
        }
    }

    /// Version, 4.
    #[inline]
    pub const fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Length of header and options in bytes, 20-60 in a checked header.
    #[inline]
    pub const fn header_len(&self) -> usize {
        (self.version_ihl & 0xf) as usize * 4
    }

    /// DSCP (6 bits) and ECN (2 bits), RFC 2474 and RFC 3168.
    #[inline]
    pub const fn traffic_class(&self) -> u8 {
        self.traffic_class
    }

    /// Length of header, options and payload in bytes.
    #[inline]
    pub const fn total_len(&self) -> u16 {
        self.total_len.get()
    }

    /// What the fragments of one packet have in common.
    #[inline]
    pub const fn identification(&self) -> u16 {
        self.identification.get()
    }

    /// Whether routers must not fragment the packet.
    #[inline]
    pub const fn dont_fragment(&self) -> bool {
        self.fragment.get() & DONT_FRAGMENT != 0
    }

    /// Whether this is a fragment and not the last.
    #[inline]
    pub const fn more_fragments(&self) -> bool {
        self.fragment.get() & MORE_FRAGMENTS != 0
    }

    /// Where the payload belongs in that of the whole packet, in bytes.
    #[inline]
    pub const fn fragment_offset(&self) -> u32 {
        (self.fragment.get() & OFFSET) as u32 * 8
    }

    /// Time to live: hops that are left.
    #[inline]
    pub const fn ttl(&self) -> u8 {
        self.ttl
    }

    /// What the payload is.
    #[inline]
    pub const fn protocol(&self) -> Protocol {
        Protocol(self.protocol)
    }

    /// Header checksum.
    #[inline]
    pub const fn checksum(&self) -> u16 {
        self.checksum.get()
    }

    /// Source address.
    #[inline]
    pub const fn src(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.src)
    }

    /// Destination address.
    #[inline]
    pub const fn dst(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.dst)
    }

    /// Sets DSCP and ECN. Like all setters it leaves the checksum as it is.
    #[inline]
    pub fn set_traffic_class(&mut self, traffic_class: u8) {
        self.traffic_class = traffic_class;
    }

    /// Sets the length of header, options and payload.
    #[inline]
    pub fn set_total_len(&mut self, len: u16) {
        self.total_len = U16::new(len);
    }

    /// Sets what the fragments of one packet have in common.
    #[inline]
    pub fn set_identification(&mut self, identification: u16) {
        self.identification = U16::new(identification);
    }

    /// Sets the fragment fields; `offset` in bytes, a multiple of eight below 65536.
    #[inline]
    pub fn set_fragment(&mut self, dont_fragment: bool, more_fragments: bool, offset: u32) {
        let flag = |set, bit| if set { bit } else { 0 };
        let offset = (offset / 8) as u16 & OFFSET;
        self.fragment =
            U16::new(flag(dont_fragment, DONT_FRAGMENT) | flag(more_fragments, MORE_FRAGMENTS) | offset);
    }

    /// Sets the time to live.
    #[inline]
    pub fn set_ttl(&mut self, ttl: u8) {
        self.ttl = ttl;
    }

    /// Sets the checksum field.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        self.checksum = U16::new(checksum);
    }

    /// Sets the source address.
    #[inline]
    pub fn set_src(&mut self, src: Ipv4Addr) {
        self.src = src.octets();
    }

    /// Sets the destination address.
    #[inline]
    pub fn set_dst(&mut self, dst: Ipv4Addr) {
        self.dst = dst.octets();
    }

    /// Computes the checksum of a header that has no options.
    #[inline]
    pub fn update_checksum(&mut self) {
        self.checksum = U16::ZERO;
        self.checksum = U16::new(Sum::ZERO.bytes(self.as_bytes()).checksum());
    }
}

/// Checks version and lengths; not the checksum, which a quoted header in an ICMP error or one behind an
/// offload may have wrong.
#[inline]
pub(crate) fn check(header: &Ipv4Header, len: usize) -> Result<Extent, Malformed> {
    if header.version() != 4 {
        return Err(Malformed::Ipv4BadVersion);
    }
    let (header_len, total) = (header.header_len(), usize::from(header.total_len()));
    if header_len < Ipv4Header::LEN || header_len > len {
        return Err(Malformed::Ipv4HeaderLength);
    }
    if total < header_len || total > len {
        return Err(Malformed::Ipv4TotalLength);
    }
    Ok(Extent { header: header_len, total })
}

views! {
    /// An IPv4 packet. The header's checksum is not checked on the way in: see [`Ipv4::checksum_is_valid`].
    Ipv4, Ipv4Mut: Ipv4Header, Malformed::Ipv4Truncated, check
}

impl Ipv4<'_> {
    /// Whether the checksum over header and options is right.
    #[inline]
    pub fn checksum_is_valid(&self) -> bool {
        Sum::ZERO.bytes(self.header.as_bytes()).bytes(self.options).is_valid()
    }
}

impl Ipv4Mut<'_> {
    /// Computes the checksum over header and options.
    #[inline]
    pub fn update_checksum_with_options(&mut self) {
        self.header.checksum = U16::ZERO;
        let checksum = Sum::ZERO.bytes(self.header.as_bytes()).bytes(self.options).checksum();
        self.header.checksum = U16::new(checksum);
    }
}
