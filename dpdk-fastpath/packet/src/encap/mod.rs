//! Into a VXLAN or Geneve tunnel and out of it.
//!
//! What all packets of a tunnel have in common is compiled once, into a [`Template`]; per packet it is copied, and lengths,
//! UDP source port, traffic class and checksums are filled in. How the fields of the inner packet and those of the outer
//! depend on each other is said by [`Marking`].

mod decap;
mod marking;
mod template;
mod template4;
mod template6;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use self::decap::{Decap, DecapError, decap, decap_geneve};
pub use self::marking::{Dscp, Ecn, Marking, OuterTtl, inner_traffic_class};
pub use self::template::Template;
pub use self::template4::Template4;
pub use self::template6::Template6;
use crate::eth::{EthAddr, EthHeader};
use crate::geneve::{self, GeneveHeader};
use crate::ipv4::Ipv4Header;
use crate::ipv6::Ipv6Header;
use crate::udp::UdpHeader;
use crate::vxlan::{self, VxlanHeader};

/// Two Ethernet addresses in the order they have on the wire.
const ADDRESSES: usize = 12;
const UDP_TUNNEL: usize = UdpHeader::LEN + VxlanHeader::LEN;
/// Outer headers over IPv4, of VXLAN and of Geneve without options.
pub const OVERHEAD_V4: usize = EthHeader::LEN + Ipv4Header::LEN + UDP_TUNNEL;
/// Outer headers over IPv6, of VXLAN and of Geneve without options.
pub const OVERHEAD_V6: usize = EthHeader::LEN + Ipv6Header::LEN + UDP_TUNNEL;

const _: () = assert!(VxlanHeader::LEN == GeneveHeader::LEN);

/// Longest frame that fits into a tunnel: over IPv4 the outer header counts in the 16-bit length, too; the bound serves both.
const MAX_INNER: usize = u16::MAX as usize - Ipv4Header::LEN - UDP_TUNNEL;

/// What is between UDP and the inner Ethernet frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encapsulation {
    /// VXLAN (RFC 7348).
    #[default]
    Vxlan,
    /// Geneve (RFC 8926), without options.
    Geneve,
}

impl Encapsulation {
    /// The UDP port that IANA gave to it.
    pub const fn port(self) -> u16 {
        match self {
            Self::Vxlan => vxlan::PORT,
            Self::Geneve => geneve::PORT,
        }
    }

    /// The header for network `vni`, of which the low 24 bits count.
    fn header(self, vni: u32) -> [u8; VxlanHeader::LEN] {
        match self {
            Self::Vxlan => zerocopy::transmute!(VxlanHeader::new(vni)),
            Self::Geneve => zerocopy::transmute!(GeneveHeader::new(vni)),
        }
    }
}

/// What a tunnel's packets have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// Ethernet address of the next hop in the underlay.
    pub outer_dst: EthAddr,
    /// Ethernet address of our underlay interface.
    pub outer_src: EthAddr,
    /// The two tunnel endpoints.
    pub endpoints: Endpoints,
    /// What the inner frame is wrapped in.
    pub encapsulation: Encapsulation,
    /// Virtual network identifier, of which the low 24 bits count.
    pub vni: u32,
    /// UDP destination port, usually [`Encapsulation::port`].
    pub udp_port: u16,
    /// Traffic class and time to live of the outer packet.
    pub marking: Marking,
    /// Whether outer packets over IPv6 have no UDP checksum (RFC 6935); over IPv4 they never have one.
    pub zero_checksum6: bool,
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

/// Puts headers one behind the other.
struct Writer<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Writer<N> {
    const fn new() -> Self {
        Self { bytes: [0; N], at: 0 }
    }

    fn put(&mut self, part: &[u8]) {
        self.bytes[self.at..self.at + part.len()].copy_from_slice(part);
        self.at += part.len();
    }
}
