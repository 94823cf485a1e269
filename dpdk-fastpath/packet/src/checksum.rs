//! The Internet checksum (RFC 1071), whole and as a difference (RFC 1624).
//!
//! A [`Sum`] is a ones-complement sum in progress; a [`Delta`] is what a change of some fields adds to one.
//! Both are 16-bit numbers in host order once folded; both have two zeros, 0 and 0xffff, and this module
//! never cares which.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::ip::Protocol;

/// A ones-complement sum of 16-bit words.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

/// The sum of the big-endian words of blocks, folded.
///
/// The sum is the same in whatever order bytes lie in a word, but for the order of its own (RFC 1071, section 2): so words are
/// eight bytes as they lie in memory, in four sums that do not wait for each other.
fn blocks_sum(blocks: &[[u8; 32]]) -> u16 {
    let mut lanes = [0_u64; 4];
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
            let (sum, carry) = lane.overflowing_add(u64::from_ne_bytes(*word));
            *lane = sum + u64::from(carry);
        }
    }
    let halves = |lane: u64| (lane >> 32) + (lane & 0xffff_ffff);
    u16::from_be(Sum(lanes.into_iter().map(halves).sum()).fold())
}

impl Sum {
    /// The sum of no words.
    pub const ZERO: Self = Self(0);

    /// Adds `bytes` as big-endian words; an odd last byte counts as if a zero followed.
    #[inline]
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let (blocks, rest) = bytes.as_chunks::<32>();
        let (words, rest) = rest.as_chunks::<4>();
        let mut sum = self.0;
        if !blocks.is_empty() {
            sum += u64::from(blocks_sum(blocks));
        }
        // 32 bits at a time: 2^16 = 1 modulo 0xffff, so wide words add up to the same. 2^32 of them fit.
        for word in words {
            sum += u64::from(u32::from_be_bytes(*word));
        }
        let tail = match *rest {
            [] => 0,
            [a] => u32::from_be_bytes([a, 0, 0, 0]),
            [a, b] => u32::from_be_bytes([a, b, 0, 0]),
            [a, b, c, ..] => u32::from_be_bytes([a, b, c, 0]),
        };
        Self(sum + u64::from(tail))
    }

    /// Adds one 16-bit word.
    #[inline]
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds a 32-bit number as two words.
    #[inline]
    #[must_use]
    pub const fn long(self, long: u32) -> Self {
        Self(self.0 + long as u64)
    }

    /// The pseudo header of an upper-layer packet of `len` bytes over IPv4 (RFC 9293, section 3.1).
    #[inline]
    pub fn pseudo_v4(src: Ipv4Addr, dst: Ipv4Addr, protocol: Protocol, len: u32) -> Self {
        Self::ZERO.long(src.to_bits()).long(dst.to_bits()).word(u16::from(protocol.0)).long(len)
    }

    /// The pseudo header of an upper-layer packet of `len` bytes over IPv6 (RFC 8200, section 8.1).
    #[inline]
    pub fn pseudo_v6(src: Ipv6Addr, dst: Ipv6Addr, protocol: Protocol, len: u32) -> Self {
        Self::ZERO.bytes(&src.octets()).bytes(&dst.octets()).word(u16::from(protocol.0)).long(len)
    }

    /// The sum in 16 bits; 0 only if every word was 0.
    #[inline]
    pub const fn fold(self) -> u16 {
        // Added to itself with its halves swapped, a number has the sum of its halves in the upper one, and the carry out
        // of it has been added already.
        fold((self.0.wrapping_add(self.0.rotate_left(32)) >> 32) as u32)
    }

    /// The checksum field that makes the sum come out right, when the words so far had 0 in its place.
    #[inline]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// The same for UDP, where 0 would mean that there is no checksum (RFC 768).
    #[inline]
    pub const fn udp_checksum(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            checksum => checksum,
        }
    }

    /// Whether the words, the checksum field among them, add up as they should.
    #[inline]
    pub const fn is_valid(self) -> bool {
        // Words that add up to 0xffff in ones-complement add up to a multiple of it.
        self.0 != 0 && self.0.is_multiple_of(0xffff)
    }
}

/// Whether an IPv4 header without options adds up as it should: its words as they lie in memory, the last one of 32 bits.
/// The first one is not zero.
#[inline(always)]
pub(crate) const fn words_are_valid(words: [u64; 3]) -> bool {
    // In the machine's own order, since the sum of words with their bytes swapped is the sum with its bytes swapped; and
    // 2^64 = 1 modulo 0xffff, too, so that a carry is one more.
    let (sum, carry) = words[0].overflowing_add(words[1]);
    let (sum, again) = sum.overflowing_add(words[2] + carry as u64);
    // A multiple of 0xffff times the inverse of that is how many times it is one, any other number is more.
    const INVERSE: u64 = 0xfffe_fffe_fffe_ffff;
    sum.wrapping_add(again as u64).wrapping_mul(INVERSE) <= u64::MAX / 0xffff
}

/// The checksum of `bytes` whose checksum field is 0.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::ZERO.bytes(bytes).checksum()
}

/// What a change of covered fields does to a checksum, ready to be applied to any number of packets.
///
/// The number is kept with its bytes swapped, as a little-endian machine reads it from a packet, and is right all the same:
/// the sum of words with their bytes swapped is the sum with its bytes swapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Delta(u16);

impl Delta {
    /// No change.
    pub const NONE: Self = Self(0);
    /// The time to live, first byte of its word, less by one.
    pub const TTL: Self = Self((!0x0100_u16).swap_bytes());

    /// What it takes to get from one set of words to another.
    #[inline]
    pub const fn between(old: Sum, new: Sum) -> Self {
        Self(new.long(!old.fold() as u32).fold().swap_bytes())
    }

    /// A 16-bit field that changes.
    #[inline]
    pub const fn of_word(old: u16, new: u16) -> Self {
        Self::between(Sum::ZERO.word(old), Sum::ZERO.word(new))
    }

    /// An IPv4 address that changes.
    #[inline]
    pub const fn of_v4(old: Ipv4Addr, new: Ipv4Addr) -> Self {
        Self::between(Sum::ZERO.long(old.to_bits()), Sum::ZERO.long(new.to_bits()))
    }

    /// An IPv6 address that changes.
    #[inline]
    pub fn of_v6(old: Ipv6Addr, new: Ipv6Addr) -> Self {
        Self::between(Sum::ZERO.bytes(&old.octets()), Sum::ZERO.bytes(&new.octets()))
    }

    /// What it takes to get back.
    #[inline]
    #[must_use]
    pub const fn inverse(self) -> Self {
        Self(!self.0)
    }

    /// The change as a number, for whoever has to keep it in memory of another type.
    #[inline]
    pub const fn to_bits(self) -> u16 {
        self.0
    }

    /// The change with this number.
    #[inline]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Both changes.
    #[inline]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(fold(self.0 as u32 + other.0 as u32))
    }

    /// The checksum field after the change (RFC 1624, equation 3).
    #[inline]
    pub const fn apply(self, checksum: u16) -> u16 {
        u16::from_be_bytes(self.apply_to(checksum.to_be_bytes()))
    }

    /// The same for the checksum of UDP: none over IPv4, 0, stays none, and one that comes out as 0 is sent
    /// as 0xffff.
    #[inline]
    pub const fn apply_udp(self, checksum: u16) -> u16 {
        u16::from_be_bytes(self.apply_to_udp(checksum.to_be_bytes()))
    }

    /// As [`apply`](Self::apply), to the field's bytes.
    #[inline(always)]
    pub(crate) const fn apply_to(self, field: [u8; 2]) -> [u8; 2] {
        Self::NONE.apply_both(self, u16::from_le_bytes(field)).to_le_bytes()
    }

    /// As [`apply_udp`](Self::apply_udp), to the field's bytes.
    #[inline(always)]
    pub(crate) const fn apply_to_udp(self, field: [u8; 2]) -> [u8; 2] {
        let before = u16::from_le_bytes(field);
        if before == 0 {
            return field;
        }
        let after = Self::NONE.apply_both(self, before);
        (if after == 0 { u16::MAX } else { after }).to_le_bytes()
    }

    /// As [`apply`](Self::apply) with both changes, to a field as a little-endian machine reads it.
    #[inline(always)]
    pub(crate) const fn apply_both(self, other: Self, field: u16) -> u16 {
        !fold(!field as u32 + self.0 as u32 + other.0 as u32)
    }
}

/// The sum of a few words in 16 bits.
#[inline(always)]
pub(crate) const fn fold(sum: u32) -> u16 {
    // As in `Sum::fold`.
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

#[cfg(test)]
mod tests;
