//! What the tables for IPv4 and IPv6 have of their own.

use std::fmt;
use std::sync::atomic::AtomicU64;

use culvert_packet::flow::{FlowKey4, FlowKey6};
use culvert_packet::parse::Parsed;
use culvert_packet::rewrite::{Translation4, Translation6};
use zerocopy::FromZeros;

use super::line::{Line4, Line6};

/// The key of a flow in one direction, IPv4 or IPv6.
pub trait Key: Copy + Eq + fmt::Debug + Send + Sync + 'static {
    /// The key as words in memory.
    #[doc(hidden)]
    type Words: Copy + Default + AsRef<[u64]> + AsMut<[u64]>;

    /// Memory of one record.
    #[doc(hidden)]
    type Line: FromZeros + AsRef<[AtomicU64]> + fmt::Debug + Send + Sync;

    /// A hash of all fields.
    fn hash64(&self) -> u64;

    /// The key of the packets that come back.
    #[must_use]
    fn reversed(self) -> Self;

    /// Rewrites a packet of this flow into one of flow `to`.
    fn translate(&self, to: &Self, frame: &mut [u8], parsed: &Parsed);

    #[doc(hidden)]
    fn words(self) -> Self::Words;

    #[doc(hidden)]
    fn from_words(words: Self::Words) -> Self;
}

macro_rules! key {
    ($key:ty, $words:ty, $line:ty, $translation:ty) => {
        impl Key for $key {
            type Words = $words;
            type Line = $line;

            #[inline]
            fn hash64(&self) -> u64 {
                Self::hash64(self)
            }

            #[inline]
            fn reversed(self) -> Self {
                Self::reversed(self)
            }

            #[inline]
            fn translate(&self, to: &Self, frame: &mut [u8], parsed: &Parsed) {
                <$translation>::new(self, to).apply(frame, parsed);
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

key!(FlowKey4, [u64; 2], Line4, Translation4);
key!(FlowKey6, [u64; 5], Line6, Translation6);
