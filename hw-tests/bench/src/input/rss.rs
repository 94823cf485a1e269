//! How a NIC spreads received packets over its queues: receive-side scaling by the Toeplitz hash, as Microsoft has
//! specified it and NICs have it.

/// The key of Microsoft's specification, which most drivers load unless told otherwise.
const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// Entries of the table that maps hashes to queues, filled with the queues in turn.
const REDIRECTIONS: u32 = 128;

/// The queue of an Ethernet frame with IPv4 and ports, by addresses and ports of its outermost headers; of a tunnel's
/// packets only the source port differs. `None` if the frame is shorter than these.
pub(super) fn queue(frame: &[u8], queues: usize) -> Option<usize> {
    let input = frame.get(26..38)?;
    Some((toeplitz(input) % REDIRECTIONS) as usize % queues)
}

fn toeplitz(input: &[u8]) -> u32 {
    let key = |bit: usize| u32::from(KEY[bit / 8] >> (7 - bit % 8) & 1);
    let mut window = (0..32).fold(0, |window, bit| window << 1 | key(bit));
    let mut hash = 0;
    for (at, bit) in (0..input.len() * 8).map(|at| (at, input[at / 8] >> (7 - at % 8) & 1)) {
        if bit == 1 {
            hash ^= window;
        }
        window = window << 1 | key(at + 32);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source, destination, source port, destination port and hash, from Microsoft's "Verifying the RSS Hash Calculation".
    #[test]
    fn hashes_are_those_of_the_specification() {
        for (src, dst, ports, hash) in [
            ([66, 9, 149, 187], [161, 142, 100, 80], [2794_u16, 1766], 0x51cc_c178),
            ([199, 92, 111, 2], [65, 69, 140, 83], [14230, 4739], 0xc626_b0ea),
            ([24, 19, 198, 95], [12, 22, 207, 184], [12898, 38024], 0x5c2b_394a),
        ] {
            let ports = ports.map(u16::to_be_bytes).concat();
            assert_eq!(toeplitz(&[&src[..], &dst, &ports].concat()), hash);
        }
    }
}
