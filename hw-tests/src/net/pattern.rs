//! Bytes that both ends of a download can make by themselves.

/// The first `len` bytes of a stream that repeats only after 2^64 - 1 words, so that data which was shifted, lost or
/// doubled on the way shows (xorshift64).
pub fn pattern(len: usize) -> Vec<u8> {
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use super::pattern;

    #[test]
    fn a_shorter_pattern_is_the_beginning_of_a_longer_one() {
        assert_eq!(pattern(1001)[..997], pattern(997));
    }

    #[test]
    fn no_two_kilobytes_are_the_same() {
        let bytes = pattern(64 << 10);
        let chunks: std::collections::HashSet<_> = bytes.chunks(1024).collect();
        assert_eq!(chunks.len(), 64);
    }
}
