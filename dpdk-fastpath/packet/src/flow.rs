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
    src: [u8; 4],
    dst: [u8; 4],
    src_port: u16,
    dst_port: u16,
    tenant_protocol: u32,
}

/// An IPv6 flow in one direction: 40 bytes; else as [`FlowKey4`].
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(8))]
pub struct FlowKey6 {
    src: [u8; 16],
    dst: [u8; 16],
    src_port: u16,
    dst_port: u16,
    tenant_protocol: u32,
}

macro_rules! flow_key {
    ($name:ident, $addr:ty) => {
        impl $name {
            /// The key of these fields.
            #[inline]
            pub const fn new(
                tenant: Tenant,
                protocol: Protocol,
                src: ($addr, u16),
                dst: ($addr, u16),
            ) -> Self {
                Self {
                    src: src.0.octets(),
                    dst: dst.0.octets(),
                    src_port: src.1,
                    dst_port: dst.1,
                    tenant_protocol: tenant.0 << 8 | protocol.0 as u32,
                }
            }

            /// Source address.
            #[inline]
            pub const fn src(&self) -> $addr {
                <$addr>::from_octets(self.src)
            }

            /// Destination address.
            #[inline]
            pub const fn dst(&self) -> $addr {
                <$addr>::from_octets(self.dst)
            }

            /// Source port or echo identifier.
            #[inline]
            pub const fn src_port(&self) -> u16 {
                self.src_port
            }

            /// Destination port or echo identifier.
            #[inline]
            pub const fn dst_port(&self) -> u16 {
                self.dst_port
            }

            /// Transport protocol.
            #[inline]
            pub const fn protocol(&self) -> Protocol {
                Protocol(self.tenant_protocol as u8)
            }

            /// Whose addresses these are.
            #[inline]
            pub const fn tenant(&self) -> Tenant {
                Tenant(self.tenant_protocol >> 8)
            }

            /// The key of the packets that come back.
            #[inline]
            #[must_use]
            pub const fn reversed(self) -> Self {
                Self {
                    src: self.dst,
                    dst: self.src,
                    src_port: self.dst_port,
                    dst_port: self.src_port,
                    ..self
                }
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
                    .field("src", &(self.src(), self.src_port))
                    .field("dst", &(self.dst(), self.dst_port))
                    .finish()
            }
        }
    };
}

flow_key!(FlowKey4, Ipv4Addr);
flow_key!(FlowKey6, Ipv6Addr);

impl FlowKey4 {
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
    #[inline]
    pub fn hash64(&self) -> u64 {
        let [a, b]: [u64; 2] = zerocopy::transmute!(*self);
        mix(absorb(absorb(SEED, a), b))
    }
}

impl FlowKey6 {
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

/// Takes in one word. For a given state this is a bijection of the word and the other way round, so that keys
/// which differ in one word never collide.
#[inline]
const fn absorb(state: u64, word: u64) -> u64 {
    let product = (state ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93);
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
