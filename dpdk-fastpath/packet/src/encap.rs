//! Into a VXLAN tunnel and out of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, IntoBytes};

use crate::Malformed;
use crate::buf::PacketBuf;
use crate::checksum::Sum;
use crate::eth::{EthAddr, EthHeader, EtherType};
use crate::ip::Protocol;
use crate::ipv4::Ipv4Header;
use crate::ipv6::Ipv6Header;
use crate::parse::{L4, Parsed};
use crate::udp::UdpHeader;
use crate::vxlan::{Vxlan, VxlanHeader};

/// Two Ethernet addresses in the order they have on the wire.
const ADDRESSES: usize = 12;
const UDP_VXLAN: usize = UdpHeader::LEN + VxlanHeader::LEN;
/// Outer headers over IPv4.
pub const OVERHEAD_V4: usize = EthHeader::LEN + Ipv4Header::LEN + UDP_VXLAN;
/// Outer headers over IPv6.
pub const OVERHEAD_V6: usize = EthHeader::LEN + Ipv6Header::LEN + UDP_VXLAN;
const TEMPLATE_V4: usize = OVERHEAD_V4 + ADDRESSES;
const TEMPLATE_V6: usize = OVERHEAD_V6 + ADDRESSES;

/// What a tunnel's packets have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// Ethernet address of the next hop in the underlay.
    pub outer_dst: EthAddr,
    /// Ethernet address of our underlay interface.
    pub outer_src: EthAddr,
    /// The two tunnel endpoints.
    pub endpoints: Endpoints,
    /// VXLAN network identifier, of which the low 24 bits count.
    pub vni: u32,
    /// UDP destination port, usually [`vxlan::PORT`](crate::vxlan::PORT).
    pub udp_port: u16,
    /// Time to live of the outer packet.
    pub ttl: u8,
    /// Ethernet address of the remote endpoint inside the tunnel.
    pub inner_dst: EthAddr,
    /// Our Ethernet address inside the tunnel.
    pub inner_src: EthAddr,
}

/// Underlay addresses of the two ends of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoints {
    /// Over IPv4.
    V4 {
        /// Ours.
        src: Ipv4Addr,
        /// The remote's.
        dst: Ipv4Addr,
    },
    /// Over IPv6.
    V6 {
        /// Ours.
        src: Ipv6Addr,
        /// The remote's.
        dst: Ipv6Addr,
    },
}

impl Endpoints {
    /// The endpoints of these addresses; `None` if they are of different IP versions.
    pub const fn new(src: IpAddr, dst: IpAddr) -> Option<Self> {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Some(Self::V4 { src, dst }),
            (IpAddr::V6(src), IpAddr::V6(dst)) => Some(Self::V6 { src, dst }),
            _ => None,
        }
    }
}

/// Why a packet cannot go into a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncapError {
    /// The buffer has too little headroom.
    #[error("no headroom for the outer headers")]
    Headroom,
    /// Shorter than an Ethernet header, or the outer packet would not fit into the length fields.
    #[error("frame length cannot be carried")]
    Length,
}

/// The outer headers of a tunnel, complete but for lengths, UDP source port and traffic class, and the
/// Ethernet addresses of the inner frame behind them: what is copied in front of a packet, 62 bytes over
/// IPv4.
///
/// The outer IPv4 packet has don't-fragment set (RFC 7348, section 4.3 forbids fragments) and identification
/// 0, which RFC 6864 allows for it. The outer UDP checksum is 0, over IPv6 too: RFC 6935 allows that for
/// tunnels, and an inner packet has its own checksum as RFC 6936 demands.
///
/// Over IPv4 all of it lies in one cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct VxlanTemplate {
    bytes: [u8; TEMPLATE_V6],
    /// The sum of the IPv4 header without total length and traffic class.
    sum: u16,
    v6: bool,
}

const _: () = assert!(size_of::<VxlanTemplate>() == 128 && TEMPLATE_V4 <= 64);

impl VxlanTemplate {
    /// Compiles the headers of a tunnel.
    pub fn new(tunnel: &Tunnel) -> Self {
        let mut writer = Writer { bytes: [0; TEMPLATE_V6], at: 0 };
        let mut sum = 0;
        let udp = UdpHeader::new(0, tunnel.udp_port, 0);
        let vxlan = VxlanHeader::new(tunnel.vni);
        match tunnel.endpoints {
            Endpoints::V4 { src, dst } => {
                let mut ip = Ipv4Header::new(src, dst, Protocol::UDP, tunnel.ttl, 0);
                ip.set_total_len(0);
                sum = Sum::ZERO.bytes(ip.as_bytes()).fold();
                writer.put(EthHeader::new(tunnel.outer_dst, tunnel.outer_src, EtherType::IPV4).as_bytes());
                writer.put(ip.as_bytes());
            }
            Endpoints::V6 { src, dst } => {
                writer.put(EthHeader::new(tunnel.outer_dst, tunnel.outer_src, EtherType::IPV6).as_bytes());
                writer.put(Ipv6Header::new(src, dst, Protocol::UDP, tunnel.ttl, 0).as_bytes());
            }
        }
        writer.put(udp.as_bytes());
        writer.put(vxlan.as_bytes());
        writer.put(&tunnel.inner_dst.0);
        writer.put(&tunnel.inner_src.0);
        Self { bytes: writer.bytes, sum, v6: matches!(tunnel.endpoints, Endpoints::V6 { .. }) }
    }

    /// Bytes that [`encap`](Self::encap) puts in front of a frame.
    #[inline(always)]
    pub const fn overhead(&self) -> usize {
        if self.v6 { OVERHEAD_V6 } else { OVERHEAD_V4 }
    }

    /// Puts the Ethernet frame in `buf` into the tunnel, and the tunnel's own addresses into its Ethernet
    /// header.
    ///
    /// The frame is taken whole: cut its padding off before, at [`Parsed::end`]. `source_port` spreads flows
    /// over paths ([`flow::entropy_port`](crate::flow::entropy_port)); `traffic_class` is that of the outer
    /// packet, usually [`outer_traffic_class`] of the inner. On an error nothing has changed.
    #[inline(always)]
    pub fn encap(
        &self,
        buf: &mut impl PacketBuf,
        source_port: u16,
        traffic_class: u8,
    ) -> Result<(), EncapError> {
        let inner_len = buf.len();
        // Over IPv4 the outer header counts in the 16-bit length, too; the bound serves both.
        if !(EthHeader::LEN..=usize::from(u16::MAX) - Ipv4Header::LEN - UDP_VXLAN).contains(&inner_len) {
            return Err(EncapError::Length);
        }
        if self.v6 {
            return self.encap_v6(buf, source_port, traffic_class);
        }
        let udp_len = (inner_len + UDP_VXLAN) as u16;
        let frame = buf.prepend(OVERHEAD_V4).ok_or(EncapError::Headroom)?;
        let Some(head) = frame.first_chunk_mut::<TEMPLATE_V4>() else { return Err(EncapError::Headroom) };
        head.copy_from_slice(&self.bytes[..TEMPLATE_V4]);
        let total_len = udp_len + Ipv4Header::LEN as u16;
        let sum = Sum::ZERO.word(self.sum).word(total_len).word(u16::from(traffic_class));
        head[15] = traffic_class;
        head[16..18].copy_from_slice(&total_len.to_be_bytes());
        head[24..26].copy_from_slice(&sum.checksum().to_be_bytes());
        head[34..36].copy_from_slice(&source_port.to_be_bytes());
        head[38..40].copy_from_slice(&udp_len.to_be_bytes());
        Ok(())
    }

    /// The same over IPv6. The length has been checked.
    #[inline(never)]
    fn encap_v6(
        &self,
        buf: &mut impl PacketBuf,
        source_port: u16,
        traffic_class: u8,
    ) -> Result<(), EncapError> {
        let udp_len = (buf.len() + UDP_VXLAN) as u16;
        let frame = buf.prepend(OVERHEAD_V6).ok_or(EncapError::Headroom)?;
        let Some(head) = frame.first_chunk_mut::<TEMPLATE_V6>() else { return Err(EncapError::Headroom) };
        *head = self.bytes;
        head[14] |= traffic_class >> 4;
        head[15] |= traffic_class << 4;
        head[18..20].copy_from_slice(&udp_len.to_be_bytes());
        head[54..56].copy_from_slice(&source_port.to_be_bytes());
        head[58..60].copy_from_slice(&udp_len.to_be_bytes());
        Ok(())
    }
}

struct Writer {
    bytes: [u8; TEMPLATE_V6],
    at: usize,
}

impl Writer {
    fn put(&mut self, part: &[u8]) {
        self.bytes[self.at..self.at + part.len()].copy_from_slice(part);
        self.at += part.len();
    }
}

/// Where the inner frame of a VXLAN packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decap {
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// Where the inner frame begins, counted from the first byte of the outer.
    pub inner_offset: usize,
    /// Length of the inner frame, at least an Ethernet header.
    pub inner_len: usize,
    /// DSCP and ECN of the outer packet, for [`inner_traffic_class`].
    pub traffic_class: u8,
}

impl Decap {
    /// Takes the outer headers, and what follows the inner frame, off the buffer that holds the outer frame.
    #[inline]
    pub fn strip(&self, buf: &mut impl PacketBuf) {
        buf.truncate(self.inner_offset + self.inner_len);
        buf.trim_front(self.inner_offset);
    }
}

/// Reads the VXLAN header of a UDP packet that was sent to a VXLAN port of ours; nothing in the frame
/// changes.
///
/// The outer UDP checksum is ignored, which RFC 7348, section 5 allows: the inner packet has its own.
#[inline]
pub fn decap(frame: &[u8], parsed: &Parsed) -> Result<Decap, Malformed> {
    if parsed.is_fragment() {
        return Err(Malformed::VxlanFragment);
    }
    if parsed.l4 != L4::Udp {
        return Err(Malformed::UdpTruncated);
    }
    let udp_offset = usize::from(parsed.l4_offset);
    let Ok((udp, _)) = UdpHeader::ref_from_prefix(&frame[udp_offset..]) else {
        return Err(Malformed::UdpTruncated);
    };
    let end = udp_offset + usize::from(udp.length());
    let vxlan_offset = udp_offset + UdpHeader::LEN;
    let vxlan = Vxlan::new(&frame[vxlan_offset..end])?;
    let inner_offset = vxlan_offset + VxlanHeader::LEN;
    Ok(Decap {
        vni: vxlan.vni(),
        inner_offset,
        inner_len: end - inner_offset,
        traffic_class: parsed.traffic_class,
    })
}

/// The outer traffic class for an inner one: DSCP 0, since the underlay's classes are not for pods to choose,
/// and the ECN bits of the inner packet (RFC 6040, section 4.1, normal mode).
#[inline]
pub const fn outer_traffic_class(inner: u8) -> u8 {
    inner & 3
}

/// The inner traffic class after decapsulation (RFC 6040, section 4.2); `None` if the packet must be dropped,
/// because the underlay marks congestion that the inner sender does not understand.
#[inline]
pub const fn inner_traffic_class(inner: u8, outer: u8) -> Option<u8> {
    const NOT_ECT: u8 = 0;
    const ECT_1: u8 = 1;
    const ECT_0: u8 = 2;
    const CE: u8 = 3;
    match (inner & 3, outer & 3) {
        (NOT_ECT, CE) => None,
        (ECT_0 | ECT_1, CE) => Some(inner | CE),
        (ECT_0, ECT_1) => Some(inner & !3 | ECT_1),
        _ => Some(inner),
    }
}

#[cfg(test)]
mod tests;
