//! Ethernet II (IEEE 802.3).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Malformed;
use crate::view::{Extent, views, wire};

/// An Ethernet address as it is on the wire, of any kind: unicast, multicast, broadcast or all zeros.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(transparent)]
pub struct EthAddr(pub [u8; 6]);

impl EthAddr {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// No station: the target of an ARP request.
    pub const ZERO: Self = Self([0; 6]);

    /// Whether the group bit is set; true for the broadcast address as well.
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether this is the broadcast address.
    #[inline]
    pub fn is_broadcast(self) -> bool {
        self == Self::BROADCAST
    }

    /// Whether one station can have this address: neither a group nor all zeros.
    #[inline]
    pub fn is_unicast(self) -> bool {
        !self.is_multicast() && self != Self::ZERO
    }

    /// The group address that carries an IPv4 multicast group (RFC 1112, section 6.4).
    pub const fn of_ipv4_multicast(group: Ipv4Addr) -> Self {
        let [_, b, c, d] = group.octets();
        Self([0x01, 0x00, 0x5e, b & 0x7f, c, d])
    }

    /// The group address that carries an IPv6 multicast group (RFC 2464, section 7).
    pub const fn of_ipv6_multicast(group: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self([0x33, 0x33, a, b, c, d])
    }
}

impl From<[u8; 6]> for EthAddr {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

impl fmt::Display for EthAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for EthAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an Ethernet frame carries (IEEE 802 numbers, IANA).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4.
    pub const IPV4: Self = Self(0x0800);
    /// ARP.
    pub const ARP: Self = Self(0x0806);
    /// A customer VLAN tag (802.1Q).
    pub const VLAN: Self = Self(0x8100);
    /// A service VLAN tag (802.1ad).
    pub const SERVICE_VLAN: Self = Self(0x88a8);
    /// IPv6.
    pub const IPV6: Self = Self(0x86dd);
    /// A whole Ethernet frame in a tunnel: what Geneve carries.
    pub const TRANSPARENT_ETHERNET: Self = Self(0x6558);
}

impl fmt::Debug for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

wire! {
    /// The 14 bytes in front of every frame.
    pub struct EthHeader {
        dst: EthAddr,
        src: EthAddr,
        ether_type: U16,
    }
}

impl EthHeader {
    /// A header with these fields.
    pub const fn new(dst: EthAddr, src: EthAddr, ether_type: EtherType) -> Self {
        Self { dst, src, ether_type: U16::new(ether_type.0) }
    }

    /// Who shall receive the frame.
    #[inline]
    pub const fn dst(&self) -> EthAddr {
        self.dst
    }

    /// Who sent the frame.
    #[inline]
    pub const fn src(&self) -> EthAddr {
        self.src
    }

    /// What follows this header. Values below 0x0600 are a length (802.3).
    #[inline]
    pub const fn ether_type(&self) -> EtherType {
        EtherType(self.ether_type.get())
    }

    /// Sets who shall receive the frame.
    #[inline]
    pub fn set_dst(&mut self, dst: EthAddr) {
        self.dst = dst;
    }

    /// Sets who sent the frame.
    #[inline]
    pub fn set_src(&mut self, src: EthAddr) {
        self.src = src;
    }

    /// Sets what follows this header.
    #[inline]
    pub fn set_ether_type(&mut self, ether_type: EtherType) {
        self.ether_type = U16::new(ether_type.0);
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the shape that all views share")]
#[inline]
fn check(_: &EthHeader, len: usize) -> Result<Extent, Malformed> {
    Ok(Extent { header: EthHeader::LEN, total: len })
}

views! {
    /// An Ethernet frame without its frame check sequence.
    Eth, EthMut: EthHeader, Malformed::EthTruncated, check
}
