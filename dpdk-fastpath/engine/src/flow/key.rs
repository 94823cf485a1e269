//! What the tables for IPv4 and IPv6 have of their own.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;

use culvert_packet::checksum::Delta;
use culvert_packet::flow::{FlowKey4, FlowKey6, Tenant};
use culvert_packet::ip::Protocol;
use culvert_packet::parse::Parsed;
use culvert_packet::quote::Quote;
use culvert_packet::rewrite::{Translation4, Translation6};
use zerocopy::FromZeros;

use super::arena::Arena;
use super::fragments::Fragments;
use super::line::{Line4, Line6};
use super::table::Table;
use super::takeover::Part;
use super::{FlowTables, FlowWorker, Left};
use crate::balance::LoadWriter;

/// The key of a flow in one direction, IPv4 or IPv6.
pub trait Key: Copy + Eq + fmt::Debug + Send + Sync + 'static {
    /// The key as words in memory.
    #[doc(hidden)]
    type Words: Copy + Default + AsRef<[u64]> + AsMut<[u64]>;

    /// Memory of one record.
    #[doc(hidden)]
    type Line: FromZeros + AsRef<[AtomicU64]> + fmt::Debug + Send + Sync;

    /// 0 for IPv4, 1 for IPv6.
    #[doc(hidden)]
    const VERSION: usize;

    /// The key of these ends; `None` if they are not of this IP version.
    fn between(tenant: Tenant, protocol: Protocol, src: (IpAddr, u16), dst: (IpAddr, u16)) -> Option<Self>;

    /// Source address and port.
    fn source(&self) -> (IpAddr, u16);

    /// Destination address and port.
    fn destination(&self) -> (IpAddr, u16);

    /// Whose addresses these are.
    fn tenant(&self) -> Tenant;

    /// Transport protocol.
    fn protocol(&self) -> Protocol;

    /// A hash of all fields.
    fn hash64(&self) -> u64;

    /// The table for flows of this IP version.
    fn table(tables: &FlowTables) -> &Table<Self>;

    /// The same table, with a worker's records in it and its count of open flows.
    fn parts(worker: &mut FlowWorker) -> (&Table<Self>, &mut Arena<Self>, &mut LoadWriter);

    /// What another process left of this IP version.
    #[doc(hidden)]
    fn part(left: &Left) -> &Part<Self>;

    /// A worker's memory of packets of this IP version that come in fragments.
    fn fragments(worker: &mut FlowWorker) -> &mut Fragments<Self>;

    /// The key of the packets that come back.
    #[must_use]
    fn reversed(self) -> Self;

    /// Rewrites a packet of this flow into one of flow `to`.
    fn translate(&self, to: &Self, frame: &mut [u8], parsed: &Parsed);

    /// The key of the packet that an ICMP error quotes; `None` if that is of another IP version.
    fn quoted(quote: &Quote, frame: &[u8], tenant: Tenant) -> Option<Self>;

    /// Makes an ICMP error one about a packet of this flow, from `ends.0` to `ends.1`. No effect on what is of another IP
    /// version.
    fn translate_error(&self, quote: &Quote, frame: &mut [u8], parsed: &Parsed, ends: (IpAddr, IpAddr));

    /// What such a rewrite does to checksums, as far as records keep that.
    #[doc(hidden)]
    fn deltas(&self, to: &Self) -> Deltas;

    #[doc(hidden)]
    fn words(self) -> Self::Words;

    #[doc(hidden)]
    fn from_words(words: Self::Words) -> Self;
}

/// What the translation of a flow does to the IPv4 header checksum and to that of TCP or UDP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deltas {
    pub(super) header: Delta,
    pub(super) transport: Delta,
}

impl From<&Translation4> for Deltas {
    #[inline(always)]
    fn from(translation: &Translation4) -> Self {
        let (header, transport) = translation.deltas();
        Self { header, transport }
    }
}

impl Deltas {
    pub(super) const fn to_bits(self) -> u32 {
        (self.header.to_bits() as u32) << 16 | self.transport.to_bits() as u32
    }

    #[inline(always)]
    pub(super) const fn from_bits(bits: u32) -> Self {
        Self { header: Delta::from_bits((bits >> 16) as u16), transport: Delta::from_bits(bits as u16) }
    }

    /// Those of the way back, if `reply`.
    #[inline(always)]
    pub(super) const fn towards(self, reply: bool) -> Self {
        if reply { Self { header: self.header.inverse(), transport: self.transport.inverse() } } else { self }
    }
}

macro_rules! key {
    ($key:ty, $version:ident = $number:literal, $table:ident, $arena:ident, $fragments:ident, $words:ty, $line:ty, $translation:ty,
     $quoted:ident, $translate_error:ident, $deltas:expr) => {
        impl Key for $key {
            type Words = $words;
            type Line = $line;
            const VERSION: usize = $number;

            #[inline]
            fn between(
                tenant: Tenant,
                protocol: Protocol,
                src: (IpAddr, u16),
                dst: (IpAddr, u16),
            ) -> Option<Self> {
                match (src, dst) {
                    ((IpAddr::$version(src), src_port), (IpAddr::$version(dst), dst_port)) => {
                        Some(Self::new(tenant, protocol, (src, src_port), (dst, dst_port)))
                    }
                    _ => None,
                }
            }

            #[inline]
            fn source(&self) -> (IpAddr, u16) {
                (IpAddr::$version(self.src()), self.src_port())
            }

            #[inline]
            fn destination(&self) -> (IpAddr, u16) {
                (IpAddr::$version(self.dst()), self.dst_port())
            }

            #[inline]
            fn tenant(&self) -> Tenant {
                Self::tenant(self)
            }

            #[inline]
            fn protocol(&self) -> Protocol {
                Self::protocol(self)
            }

            #[inline]
            fn table(tables: &FlowTables) -> &Table<Self> {
                &tables.$table
            }

            #[inline]
            fn parts(worker: &mut FlowWorker) -> (&Table<Self>, &mut Arena<Self>, &mut LoadWriter) {
                (&worker.tables.$table, &mut worker.$arena, &mut worker.loads)
            }

            #[inline]
            fn part(left: &Left) -> &Part<Self> {
                &left.$table
            }

            #[inline]
            fn fragments(worker: &mut FlowWorker) -> &mut Fragments<Self> {
                &mut worker.$fragments
            }

            #[inline]
            fn hash64(&self) -> u64 {
                Self::hash64(self)
            }

            #[inline]
            fn reversed(self) -> Self {
                Self::reversed(self)
            }

            #[inline(always)]
            fn translate(&self, to: &Self, frame: &mut [u8], parsed: &Parsed) {
                <$translation>::new(self, to).apply(frame, parsed);
            }

            fn quoted(quote: &Quote, frame: &[u8], tenant: Tenant) -> Option<Self> {
                quote.$quoted(frame, tenant)
            }

            fn translate_error(
                &self,
                quote: &Quote,
                frame: &mut [u8],
                parsed: &Parsed,
                ends: (IpAddr, IpAddr),
            ) {
                if let (IpAddr::$version(src), IpAddr::$version(dst)) = ends {
                    quote.$translate_error(frame, parsed, (src, dst), self);
                }
            }

            #[inline(always)]
            fn deltas(&self, to: &Self) -> Deltas {
                let deltas: fn(&Self, &Self) -> Deltas = $deltas;
                deltas(self, to)
            }

            #[inline]
            fn words(self) -> $words {
                zerocopy::transmute!(self)
            }

            #[inline]
            fn from_words(words: $words) -> Self {
                zerocopy::transmute!(words)
            }
        }
    };
}

key!(
    FlowKey4,
    V4 = 0,
    v4,
    arena4,
    fragments4,
    [u64; 2],
    Line4,
    Translation4,
    key4,
    translate4,
    |from, to| Deltas::from(&Translation4::new(from, to))
);
key!(FlowKey6, V6 = 1, v6, arena6, fragments6, [u64; 5], Line6, Translation6, key6, translate6, |_, _| {
    Deltas::default()
});
