//! What a device is asked to do about a packet: to cut it, and to complete its checksums.
//!
//! Said as DPDK's drivers want it (programmer's guide, "Mbuf Library"; rte_mbuf_core.h): how long which header is, and in
//! the fields of checksums what the device adds the rest to. Asked of a device is only what any of them understands: plain
//! headers, without IPv4 options, extension headers, VLAN tags, options of Geneve, and padding.

use std::num::NonZeroU16;

use super::tunnel::Tunnelled;
use super::{Offload, checksum_offset, pseudo_at, transport_header};
use crate::checksum::Sum;
use crate::encap::Encapsulation;
use crate::eth::EthHeader;
use crate::ip::Protocol;
use crate::ipv4::Ipv4Header;
use crate::ipv6::Ipv6Header;
use crate::parse::{L3, L4, Parsed, parse};
use crate::udp::UdpHeader;
use crate::vxlan::VxlanHeader;

/// What is asked of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The tunnel that the packet is in.
    pub outer: Option<Outer>,
    /// Whether the packet, the inner one if there are two, is IPv6.
    pub v6: bool,
    /// TCP or UDP.
    pub l4: L4,
    /// Length of that header in bytes.
    pub l4_len: u8,
    /// Bytes behind that header in each segment but the last. `None`: the packet stays whole, and only its checksum is
    /// wanted.
    pub segment: Option<NonZeroU16>,
}

/// A tunnel's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outer {
    /// What is between UDP and the inner Ethernet frame.
    pub encapsulation: Encapsulation,
    /// Whether the outer packet is IPv6.
    pub v6: bool,
    /// Whether it has a UDP checksum.
    pub checksum: bool,
}

impl Outer {
    /// Length of the outer Ethernet header.
    pub const L2_LEN: usize = EthHeader::LEN;

    fn of(frame: &[u8], tunnel: &Tunnelled) -> Option<Self> {
        let outer = &tunnel.outer;
        let options = tunnel.inner_offset != usize::from(outer.l4_offset) + UdpHeader::LEN + VxlanHeader::LEN;
        let fits = is_plain(outer) && !options && outer.end() == frame.len();
        fits.then(|| Self {
            encapsulation: tunnel.encapsulation,
            v6: outer.l3 != L3::Ipv4,
            checksum: tunnel.has_checksum(),
        })
    }

    /// Length of the outer IP header.
    pub const fn l3_len(self) -> usize {
        ip_header(self.v6)
    }
}

impl Request {
    /// What is to be asked about a packet with an offload, that of the inner packet if it is one of those `tunnels`; `None`
    /// if a device cannot be asked.
    pub fn of(frame: &[u8], offload: Offload, tunnels: bool) -> Option<Self> {
        let (outer, start, inner) = match tunnels {
            true => {
                let tunnel = Tunnelled::read(frame)?;
                (Some(Outer::of(frame, &tunnel)?), tunnel.inner_offset, tunnel.inner)
            }
            false => (None, 0, parse(frame).ok()?),
        };
        if !offload.partial || !is_plain(&inner) || start + inner.end() != frame.len() {
            return None;
        }
        checksum_offset(inner.l4)?;
        let l4_len = transport_header(&frame[start..], &inner);
        let payload = inner.l4_len() - l4_len;
        if offload.segment.is_some_and(|size| payload <= usize::from(size.get())) {
            return None;
        }
        let v6 = inner.l3 != L3::Ipv4;
        Some(Self { outer, v6, l4: inner.l4, l4_len: l4_len as u8, segment: offload.segment })
    }

    /// Length of what is in front of the IP header, of the inner one behind the outer one in a tunnel: there that is UDP,
    /// VXLAN or Geneve, and the inner Ethernet header.
    pub const fn l2_len(&self) -> usize {
        match self.outer {
            Some(_) => UdpHeader::LEN + VxlanHeader::LEN + EthHeader::LEN,
            None => EthHeader::LEN,
        }
    }

    /// Length of the IP header, of the inner one in a tunnel.
    pub const fn l3_len(&self) -> usize {
        ip_header(self.v6)
    }

    /// Where that begins.
    fn l3_offset(&self) -> usize {
        self.outer.map_or(0, |outer| Outer::L2_LEN + outer.l3_len()) + self.l2_len()
    }

    const fn protocol(&self) -> Protocol {
        match self.l4 {
            L4::Tcp => Protocol::TCP,
            _ => Protocol::UDP,
        }
    }

    /// Makes the packet one that a device can go on with: header checksums that it is to compute are 0, and those of UDP
    /// and TCP the sum of the pseudo header, in which the length is 0 if the device cuts and thus sets it.
    ///
    /// # Panics
    /// If that is not the packet, with the same length, that the request was made of.
    pub fn prepare(&self, frame: &mut [u8]) {
        let cut = self.segment.is_some();
        if let Some(outer) = self.outer {
            let ip = Outer::L2_LEN;
            let udp = ip + outer.l3_len();
            if cut && !outer.v6 {
                set_header_checksum(frame, ip, false);
            }
            if outer.checksum {
                let len = if cut { 0 } else { frame.len() - udp };
                let sum = pseudo_at(frame, ip, outer.v6, Protocol::UDP, len).fold();
                frame[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
            }
        }
        if cut {
            if !self.v6 {
                set_header_checksum(frame, self.l3_offset(), false);
            }
            self.set_partial(frame, 0);
        }
    }

    /// Takes that back, whatever a driver has made of these fields meanwhile; but for an outer UDP checksum, which there
    /// was none of before that meant anything.
    ///
    /// # Panics
    /// As [`prepare`](Self::prepare).
    pub fn restore(&self, frame: &mut [u8]) {
        if self.outer.is_some_and(|outer| !outer.v6) {
            set_header_checksum(frame, Outer::L2_LEN, true);
        }
        if !self.v6 {
            set_header_checksum(frame, self.l3_offset(), true);
        }
        self.set_partial(frame, frame.len() - self.l3_offset() - self.l3_len());
    }

    /// Makes the checksum of TCP or UDP the sum of the pseudo header with this length.
    fn set_partial(&self, frame: &mut [u8], len: usize) {
        let ip = self.l3_offset();
        let sum = pseudo_at(frame, ip, self.v6, self.protocol(), len).fold();
        let field = ip + self.l3_len() + checksum_offset(self.l4).unwrap_or_default();
        frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Whether only what everybody knows is in front of the transport header.
fn is_plain(parsed: &Parsed) -> bool {
    let header = usize::from(parsed.l4_offset) - usize::from(parsed.l3_offset);
    parsed.vlan.is_none() && !parsed.is_fragment() && header == ip_header(parsed.l3 != L3::Ipv4)
}

const fn ip_header(v6: bool) -> usize {
    if v6 { Ipv6Header::LEN } else { Ipv4Header::LEN }
}

/// Computes the checksum of a plain IPv4 header, or makes it 0.
fn set_header_checksum(frame: &mut [u8], at: usize, wanted: bool) {
    let header = &mut frame[at..at + Ipv4Header::LEN];
    header[10..12].fill(0);
    if wanted {
        let checksum = Sum::ZERO.bytes(header).checksum();
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}
