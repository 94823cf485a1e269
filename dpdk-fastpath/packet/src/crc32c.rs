//! The checksum of SCTP, CRC32c (RFC 9260, appendix A), whole and as a difference.
//!
//! A CRC is linear: when bits of a message flip, the CRC changes by the CRC of the flipped bits alone, whatever the
//! message is. So a change of some bytes needs these bytes and their distance from the end, and nothing else of the packet;
//! and a CRC that was wrong before is wrong by the same bits afterwards.
//!
//! Numbers are the register of the reflected algorithm: on the wire they are in little-endian order.

/// The polynomial of Castagnoli, reflected: the highest bit is the coefficient of 1.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// 1, as a polynomial.
const ONE: u32 = 1 << 31;

/// What a byte does to the register.
const BYTES: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = times_x(byte as u32, 8);
        byte += 1;
    }
    table
};

/// x to the power of 8 n + 32, and to that of 8 * 256 n: what the register makes of a bit that it takes in when n bytes
/// follow, and what 256 times as many do to it then.
const SHIFTS: [[u32; 256]; 2] = {
    let mut table = [[ONE; 256]; 2];
    table[0][0] = times_x(ONE, 32);
    let step = times_x(ONE, 8 * 256);
    let mut n = 1;
    while n < 256 {
        table[0][n] = times_x(table[0][n - 1], 8);
        table[1][n] = product(table[1][n - 1], step);
        n += 1;
    }
    table
};

/// `a` times x to the power of `n`, modulo the polynomial.
const fn times_x(mut a: u32, n: u32) -> u32 {
    let mut i = 0;
    while i < n {
        a = a >> 1 ^ (POLYNOMIAL & (a & 1).wrapping_neg());
        i += 1;
    }
    a
}

/// `a` times `b`, modulo the polynomial.
const fn product(mut a: u32, b: u32) -> u32 {
    let mut sum = 0;
    let mut i = 0;
    // From the coefficient of 1 on.
    while i < 32 {
        sum ^= a & (b << i >> 31).wrapping_neg();
        a = times_x(a, 1);
        i += 1;
    }
    sum
}

/// The CRC of what the slices are together.
pub fn crc32c(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().copied().flatten();
    !bytes.fold(!0, |crc, &byte| crc >> 8 ^ BYTES[usize::from(crc as u8 ^ byte)])
}

/// What changes in the CRC of a message when four of its bytes do: those which `behind` bytes, less than 65536, follow.
/// `old` and `new` are the bytes in their order. To be added by exclusive or.
#[inline]
pub const fn delta(old: [u8; 4], new: [u8; 4], behind: u16) -> u32 {
    let flipped = u32::from_le_bytes(old) ^ u32::from_le_bytes(new);
    if flipped == 0 {
        return 0;
    }
    let [high, low] = behind.to_be_bytes();
    product(product(flipped, SHIFTS[0][low as usize]), SHIFTS[1][high as usize])
}

#[cfg(test)]
mod tests;
