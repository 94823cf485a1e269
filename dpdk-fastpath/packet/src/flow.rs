//! What identifies a flow, and its hash.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ip::Protocol;
use crate::ipv4::Ipv4Header;
use crate::ipv6::Ipv6Header;
use crate::parse::{L3, Parsed};

/// A tenant, whose addresses may be the same as another's: 24 bits, as many as there are VNIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tenant(u32);

impl Tenant {
    /// The tenant where there is only one.
    pub const DEFAULT: Self = Self(0);

    /// Tenant `id`; `None` from 2^24 on.
    pub const fn new(id: u32) -> Option<Self> {
        if id >> 24 == 0 { Some(Self(id)) } else { None }
    }

    /// The plain number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// An IPv4 flow in one direction: 16 bytes, compared and hashed as two words.
///
/// The ports of an ICMP echo are both its identifier, so that the reply is the reverse of the request. A
/// fragment other than the first and what has no ports has 0.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(8))]
pub struct FlowKey4 {
    /// Source and destination, the bytes as they are in a header.
    addresses: u64,
    /// From the lowest bit on: source and destination, the bytes as they are in a header; protocol; tenant.
    rest: u64,
}

/// An IPv6 flow in one direction: 40 bytes; else as [`FlowKey4`].
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(8))]
pub struct FlowKey6 {
    src: [u8; 16],
    dst: [u8; 16],
    ports: u32,
    tenant_protocol: u32,
}

/// Two ports as they are in a header.
#[inline]
const fn ports(src: u16, dst: u16) -> u32 {
    let ([a, b], [c, d]) = (src.to_be_bytes(), dst.to_be_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

macro_rules! flow_key {
    ($name:ident) => {
        impl $name {
            /// Source port or echo identifier.
            #[inline]
            pub const fn src_port(&self) -> u16 {
                let [a, b, ..] = self.ports().to_ne_bytes();
                u16::from_be_bytes([a, b])
            }

            /// Destination port or echo identifier.
            #[inline]
            pub const fn dst_port(&self) -> u16 {
                let [.., a, b] = self.ports().to_ne_bytes();
                u16::from_be_bytes([a, b])
            }

            /// Transport protocol.
            #[inline]
            pub const fn protocol(&self) -> Protocol {
                Protocol(self.tenant_protocol() as u8)
            }

            /// Whose addresses these are.
            #[inline]
            pub const fn tenant(&self) -> Tenant {
                Tenant(self.tenant_protocol() >> 8)
            }
        }

        impl Hash for $name {
            #[inline]
            fn hash<H: Hasher>(&self, state: &mut H) {
                state.write_u64(self.hash64());
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("tenant", &self.tenant().get())
                    .field("protocol", &self.protocol())
                    .field("src", &(self.src(), self.src_port()))
                    .field("dst", &(self.dst(), self.dst_port()))
                    .finish()
            }
        }
    };
}

flow_key!(FlowKey4);
flow_key!(FlowKey6);

impl FlowKey4 {
    /// The key of these fields.
    #[inline]
    pub const fn new(tenant: Tenant, protocol: Protocol, src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16)) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (src.0.octets(), dst.0.octets());
        let addresses = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        Self::of_words(tenant, addresses, (protocol.0 as u64) << 32 | ports(src.1, dst.1) as u64)
    }

    /// The key of addresses and, below a protocol, ports as they are in headers.
    #[inline(always)]
    pub(crate) const fn of_words(tenant: Tenant, addresses: u64, protocol_and_ports: u64) -> Self {
        Self { addresses, rest: (tenant.0 as u64) << 40 | protocol_and_ports }
    }

    #[inline(always)]
    const fn ports(&self) -> u32 {
        self.rest as u32
    }

    #[inline(always)]
    const fn tenant_protocol(&self) -> u32 {
        (self.rest >> 32) as u32
    }

    /// Addresses and ports as they are in headers.
    #[inline(always)]
    pub const fn to_words(self) -> (u64, u32) {
        (self.addresses, self.ports())
    }

    /// Tenant and destination address in one number, which differs from that of any other two.
    #[inline(always)]
    pub const fn destination_bits(&self) -> u64 {
        let [.., a, b, c, d] = self.addresses.to_ne_bytes();
        self.rest >> 40 << 32 | u32::from_ne_bytes([a, b, c, d]) as u64
    }

    /// Source address.
    #[inline]
    pub const fn src(&self) -> Ipv4Addr {
        let [a, b, c, d, ..] = self.addresses.to_ne_bytes();
        Ipv4Addr::new(a, b, c, d)
    }

    /// Destination address.
    #[inline]
    pub const fn dst(&self) -> Ipv4Addr {
        let [.., a, b, c, d] = self.addresses.to_ne_bytes();
        Ipv4Addr::new(a, b, c, d)
    }

    /// The key of the packets that come back.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(self) -> Self {
        // Both words in halves, whichever of them is the first.
        let rest = self.rest >> 32 << 32 | self.ports().rotate_left(16) as u64;
        Self { addresses: self.addresses.rotate_left(32), rest }
    }

    /// The key of a packet; `None` if it is not IPv4.
    #[inline]
    pub fn of(frame: &[u8], parsed: &Parsed, tenant: Tenant) -> Option<Self> {
        if parsed.l3 != L3::Ipv4 {
            return None;
        }
        let (header, _) = Ipv4Header::ref_from_prefix(frame.get(usize::from(parsed.l3_offset)..)?).ok()?;
        let (src, dst) = ((header.src(), parsed.src_port), (header.dst(), parsed.dst_port));
        Some(Self::new(tenant, parsed.protocol, src, dst))
    }

    /// A hash of all fields, the same in every run on every little-endian machine. Nothing in it is secret.
    #[inline(always)]
    pub fn hash64(&self) -> u64 {
        // A product with zero would forget the other factor. Neither factor is zero for what is a flow: that would take
        // addresses of class E on both sides, and protocol 255.
        let hash = fold(self.addresses ^ ADDRESSES, self.rest ^ REST).wrapping_mul(SPREAD);
        hash ^ hash >> 32
    }
}

impl FlowKey6 {
    #[inline(always)]
    const fn ports(&self) -> u32 {
        self.ports
    }

    #[inline(always)]
    const fn tenant_protocol(&self) -> u32 {
        self.tenant_protocol
    }

    /// The key of these fields.
    #[inline]
    pub const fn new(tenant: Tenant, protocol: Protocol, src: (Ipv6Addr, u16), dst: (Ipv6Addr, u16)) -> Self {
        Self {
            src: src.0.octets(),
            dst: dst.0.octets(),
            ports: ports(src.1, dst.1),
            tenant_protocol: tenant.0 << 8 | protocol.0 as u32,
        }
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

    /// The key of the packets that come back.
    #[inline]
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, ports: self.ports.rotate_left(16), ..self }
    }

    /// The key of a packet; `None` if it is not IPv6.
    #[inline]
    pub fn of(frame: &[u8], parsed: &Parsed, tenant: Tenant) -> Option<Self> {
        if parsed.l3 != L3::Ipv6 {
            return None;
        }
        let (header, _) = Ipv6Header::ref_from_prefix(frame.get(usize::from(parsed.l3_offset)..)?).ok()?;
        let (src, dst) = ((header.src(), parsed.src_port), (header.dst(), parsed.dst_port));
        Some(Self::new(tenant, parsed.protocol, src, dst))
    }

    /// A hash of all fields, the same in every run on every little-endian machine. Nothing in it is secret.
    #[inline]
    pub fn hash64(&self) -> u64 {
        let words: [u64; 5] = zerocopy::transmute!(*self);
        mix(words.into_iter().fold(SEED, absorb))
    }
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const SPREAD: u64 = 0xd6e8_feb8_6659_fd93;
/// As a key's first word: addresses of class E.
const ADDRESSES: u64 = u64::from_le_bytes([0xf1, 0x9c, 0x64, 0xe7, 0xf7, 0x2b, 0x95, 0x3d]);
/// As a key's second word: protocol 255, which is reserved.
const REST: u64 = u64::from_le_bytes([0x8b, 0x3d, 0x71, 0xd9, 0xff, 0xa6, 0x4e, 0x93]);

/// Both halves of a product: each bit of it depends on many of both factors.
#[inline(always)]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

/// Takes in one word. For a given state this is a bijection of the word and the other way round, so that keys
/// which differ in one word never collide.
#[inline]
const fn absorb(state: u64, word: u64) -> u64 {
    let product = (state ^ word).wrapping_mul(SPREAD);
    product ^ product >> 32
}

/// Spreads every bit over all (the finalizer of SplitMix64).
#[inline]
const fn mix(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

/// The outer UDP source port of a flow with this hash: the dynamic ports 49152-65535 (RFC 7348, section 5).
#[inline]
pub const fn entropy_port(hash: u64) -> u16 {
    0xc000 | (hash >> 50) as u16
}

#[cfg(test)]
mod tests;
