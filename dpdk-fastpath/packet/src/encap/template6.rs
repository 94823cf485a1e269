//! Outer headers over IPv6.

use std::net::Ipv6Addr;

use zerocopy::IntoBytes;

use super::{ADDRESSES, EncapError, MAX_INNER, OVERHEAD_V6, Tunnel, UDP_TUNNEL, Writer};
use crate::buf::PacketBuf;
use crate::checksum::Sum;
use crate::eth::{EthHeader, EtherType};
use crate::ip::Protocol;
use crate::ipv6::Ipv6Header;
use crate::udp::UdpHeader;

const TEMPLATE: usize = OVERHEAD_V6 + ADDRESSES;

// Fields that are filled in, counted from the first byte of the outer frame.
const CLASS: usize = 14;
const PAYLOAD_LEN: usize = 18;
const HOP_LIMIT: usize = 21;
const SOURCE_PORT: usize = 54;
const UDP_LEN: usize = 58;
const CHECKSUM: usize = 60;
const TUNNEL_HEADER: usize = 62;

/// The outer headers of a tunnel over IPv6, as [`Template4`](super::Template4).
///
/// The UDP checksum is computed over the whole outer packet, inner packet included, since receivers drop what has none unless
/// they are told otherwise (RFC 8200, section 8.1); or it is 0, where both ends know of it (RFC 6935): an inner packet has
/// its own, as RFC 6936 demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Template6 {
    /// In place of the traffic class: what all packets have of it.
    bytes: [u8; TEMPLATE],
    /// Which bits of the traffic class come from the inner packet.
    class_mask: u8,
    /// Sum of the pseudo header without length, the destination port and what is behind the UDP header; `None` if there is to
    /// be no checksum.
    sum: Option<u16>,
}

impl Template6 {
    pub(super) fn new(tunnel: &Tunnel, src: Ipv6Addr, dst: Ipv6Addr) -> Self {
        let (class, class_mask) = tunnel.marking.class();
        let mut writer = Writer::<TEMPLATE>::new();
        writer.put(EthHeader::new(tunnel.outer_dst, tunnel.outer_src, EtherType::IPV6).as_bytes());
        writer.put(Ipv6Header::new(src, dst, Protocol::UDP, tunnel.marking.fixed_ttl(), 0).as_bytes());
        writer.put(UdpHeader::new(0, tunnel.udp_port, 0).as_bytes());
        writer.put(&tunnel.encapsulation.header(tunnel.vni));
        writer.put(&tunnel.inner_dst.0);
        writer.put(&tunnel.inner_src.0);
        let mut bytes = writer.bytes;
        let fixed =
            Sum::pseudo_v6(src, dst, Protocol::UDP, 0).word(tunnel.udp_port).bytes(&bytes[TUNNEL_HEADER..]);
        // The UDP header as it was written has the length of an empty datagram, which is not summed here.
        bytes[UDP_LEN..UDP_LEN + 2].fill(0);
        set_class(&mut bytes, class);
        let sum = (!tunnel.zero_checksum6).then(|| fixed.fold());
        Self { bytes, class_mask, sum }
    }

    /// Bytes that [`encap`](Self::encap) puts in front of a frame.
    pub const fn overhead(&self) -> usize {
        OVERHEAD_V6
    }

    /// The outer traffic class for an inner one.
    pub const fn outer_traffic_class(&self, inner: u8) -> u8 {
        (self.bytes[CLASS] << 4 | self.bytes[CLASS + 1] >> 4) | inner & self.class_mask
    }

    /// As [`Template4::encap`](super::Template4::encap).
    #[inline(never)]
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
        let udp_len = (inner_len + UDP_TUNNEL) as u16;
        let frame = buf.prepend(OVERHEAD_V6).ok_or(EncapError::Headroom)?;
        let Some((head, rest)) = frame.split_first_chunk_mut::<TEMPLATE>() else {
            return Err(EncapError::Headroom);
        };
        *head = self.bytes;
        set_class(head, traffic_class);
        head[PAYLOAD_LEN..PAYLOAD_LEN + 2].copy_from_slice(&udp_len.to_be_bytes());
        head[SOURCE_PORT..SOURCE_PORT + 2].copy_from_slice(&source_port.to_be_bytes());
        head[UDP_LEN..UDP_LEN + 2].copy_from_slice(&udp_len.to_be_bytes());
        if let Some(fixed) = self.sum {
            // The length is in the pseudo header, too.
            let sum = Sum::ZERO.bytes(rest).word(fixed).word(udp_len).word(udp_len).word(source_port);
            head[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.udp_checksum().to_be_bytes());
        }
        Ok(())
    }
}

/// Sets the eight bits behind the version; those of the flow label are 0.
const fn set_class(head: &mut [u8; TEMPLATE], class: u8) {
    head[CLASS] = 0x60 | class >> 4;
    head[CLASS + 1] = class << 4;
}

/// Gives the outer packet of a frame that a template was put in front of a hop limit. No checksum covers it.
pub(super) fn set_ttl(frame: &mut [u8], ttl: u8) {
    if let Some(hop_limit) = frame.get_mut(HOP_LIMIT) {
        *hop_limit = ttl;
    }
}
