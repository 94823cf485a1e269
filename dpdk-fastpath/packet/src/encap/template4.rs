//! Outer headers over IPv4.

use std::net::Ipv4Addr;

use zerocopy::IntoBytes;

use super::{ADDRESSES, EncapError, MAX_INNER, OVERHEAD_V4, Tunnel, UDP_TUNNEL, Writer};
use crate::buf::PacketBuf;
use crate::checksum::{Delta, Sum, fold};
use crate::eth::{EthHeader, EtherType};
use crate::ip::Protocol;
use crate::ipv4::Ipv4Header;
use crate::udp::UdpHeader;

const TEMPLATE: usize = OVERHEAD_V4 + ADDRESSES;

// Fields that are filled in, counted from the first byte of the outer frame.
const CLASS: usize = 15;
const TOTAL_LEN: usize = 16;
const TTL: usize = 22;
const CHECKSUM: usize = 24;
const SOURCE_PORT: usize = 34;
const UDP_LEN: usize = 38;

/// The outer headers of a tunnel over IPv4, complete but for lengths, UDP source port, traffic class and checksum, and the
/// Ethernet addresses of the inner frame behind them: what is copied in front of a packet. One cache line.
///
/// The outer packet has don't-fragment set (RFC 7348, section 4.3 forbids fragments) and identification 0, which RFC 6864
/// allows for it. The outer UDP checksum is 0 (RFC 7348, section 5; RFC 8926, section 3.3): the inner packet has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Template4 {
    /// In place of the checksum: the sum of the IPv4 header without total length and traffic class.
    /// In place of the traffic class: what all packets have of it.
    bytes: [u8; TEMPLATE],
    /// Which bits of the traffic class come from the inner packet.
    class_mask: u8,
}

const _: () = assert!(size_of::<Template4>() == 64);

impl Template4 {
    /// Headers of no tunnel.
    pub const NONE: Self = Self { bytes: [0; TEMPLATE], class_mask: 0 };

    pub(super) fn new(tunnel: &Tunnel, src: Ipv4Addr, dst: Ipv4Addr) -> Self {
        let (class, class_mask) = tunnel.marking.class();
        let mut ip = Ipv4Header::new(src, dst, Protocol::UDP, tunnel.marking.fixed_ttl(), 0);
        ip.set_total_len(0);
        let sum = Sum::ZERO.bytes(ip.as_bytes()).fold();
        let mut writer = Writer::<TEMPLATE>::new();
        writer.put(EthHeader::new(tunnel.outer_dst, tunnel.outer_src, EtherType::IPV4).as_bytes());
        writer.put(ip.as_bytes());
        writer.put(UdpHeader::new(0, tunnel.udp_port, 0).as_bytes());
        writer.put(&tunnel.encapsulation.header(tunnel.vni));
        writer.put(&tunnel.inner_dst.0);
        writer.put(&tunnel.inner_src.0);
        let mut bytes = writer.bytes;
        bytes[CLASS] = class;
        bytes[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
        Self { bytes, class_mask }
    }

    /// Bytes that [`encap`](Self::encap) puts in front of a frame.
    #[inline(always)]
    pub const fn overhead(&self) -> usize {
        OVERHEAD_V4
    }

    /// Outer headers and inner addresses, in their order. In place of the IPv4 checksum there is the sum of its header without
    /// total length and traffic class, big-endian; in place of the traffic class what all packets have of it.
    pub const fn bytes(&self) -> &[u8; TEMPLATE] {
        &self.bytes
    }

    /// Which bits of the traffic class come from the inner packet.
    pub const fn class_mask(&self) -> u8 {
        self.class_mask
    }

    /// The outer traffic class for an inner one.
    #[inline(always)]
    pub const fn outer_traffic_class(&self, inner: u8) -> u8 {
        self.bytes[CLASS] | inner & self.class_mask
    }

    /// Puts the Ethernet frame in `buf` into the tunnel, and the tunnel's own addresses into its Ethernet header.
    ///
    /// The frame is taken whole: cut its padding off before, at [`Parsed::end`](crate::Parsed::end). `source_port` spreads
    /// flows over paths ([`flow::entropy_port`](crate::flow::entropy_port)); `traffic_class` is that of the outer packet,
    /// usually [`outer_traffic_class`](Self::outer_traffic_class) of the inner. On an error nothing has changed.
    #[inline(always)]
    pub fn encap(
        &self,
        buf: &mut impl PacketBuf,
        source_port: u16,
        traffic_class: u8,
    ) -> Result<(), EncapError> {
        let inner_len = buf.len();
        if !(EthHeader::LEN..=MAX_INNER).contains(&inner_len) {
            return Err(EncapError::Length);
        }
        let frame = buf.prepend(OVERHEAD_V4).ok_or(EncapError::Headroom)?;
        self.fill(frame, inner_len as u16, source_port, traffic_class).ok_or(EncapError::Headroom)
    }

    /// The same for a frame with an IPv4 packet of `len` bytes in it, and nothing else; `traffic_class` is that of the packet.
    /// Returns the frame inside. `None`, and nothing has changed, if it cannot be.
    #[inline(always)]
    pub fn encap_usual<'b>(
        &self,
        buf: &'b mut impl PacketBuf,
        len: u16,
        source_port: u16,
        traffic_class: u8,
    ) -> Option<&'b mut [u8]> {
        if usize::from(len) > MAX_INNER - EthHeader::LEN {
            return None;
        }
        let frame = buf.prepend(OVERHEAD_V4)?;
        let inner_len = len + EthHeader::LEN as u16;
        self.fill(frame, inner_len, source_port, self.outer_traffic_class(traffic_class))?;
        frame.get_mut(OVERHEAD_V4..)
    }

    /// Writes the headers into the room in front of a frame.
    #[inline(always)]
    fn fill(&self, frame: &mut [u8], inner_len: u16, source_port: u16, traffic_class: u8) -> Option<()> {
        let head = frame.first_chunk_mut::<TEMPLATE>()?;
        head.copy_from_slice(&self.bytes);
        let udp_len = inner_len + UDP_TUNNEL as u16;
        let total_len = (udp_len + Ipv4Header::LEN as u16).to_be_bytes();
        let sum = [[self.bytes[CHECKSUM], self.bytes[CHECKSUM + 1]], [0, traffic_class], total_len];
        let sum = sum.map(|bytes| u32::from(u16::from_le_bytes(bytes))).iter().sum();
        head[CLASS] = traffic_class;
        head[TOTAL_LEN..TOTAL_LEN + 2].copy_from_slice(&total_len);
        head[CHECKSUM..CHECKSUM + 2].copy_from_slice(&(!fold(sum)).to_le_bytes());
        head[SOURCE_PORT..SOURCE_PORT + 2].copy_from_slice(&source_port.to_be_bytes());
        head[UDP_LEN..UDP_LEN + 2].copy_from_slice(&udp_len.to_be_bytes());
        Some(())
    }
}

/// Gives the outer packet of a frame that a template was put in front of a time to live, where it was made with 0.
pub(super) fn set_ttl(frame: &mut [u8], ttl: u8) {
    if let Some(head) = frame.first_chunk_mut::<OVERHEAD_V4>() {
        let before = u16::from_be_bytes([head[CHECKSUM], head[CHECKSUM + 1]]);
        let checksum = Delta::of_word(0, u16::from(ttl) << 8).apply(before);
        head[TTL] = ttl;
        head[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
    }
}
