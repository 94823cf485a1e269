//! SCTP (RFC 9260): the checksum bit by bit, and the chunks that open and close associations.

/// Chunks, as bits.
pub(crate) const INIT: u8 = 1;
pub(crate) const INIT_ACK: u8 = 2;
pub(crate) const COOKIE_ECHO: u8 = 4;
pub(crate) const COOKIE_ACK: u8 = 8;
pub(crate) const SHUTDOWN: u8 = 16;
pub(crate) const SHUTDOWN_ACK: u8 = 32;
pub(crate) const SHUTDOWN_COMPLETE: u8 = 64;
pub(crate) const ABORT: u8 = 128;

/// Each chunk's type and bit.
const CHUNKS: [(u8, u8); 8] = [
    (1, INIT),
    (2, INIT_ACK),
    (6, ABORT),
    (7, SHUTDOWN),
    (8, SHUTDOWN_ACK),
    (10, COOKIE_ECHO),
    (11, COOKIE_ACK),
    (14, SHUTDOWN_COMPLETE),
];

/// Control chunks that are looked at.
const MOST: usize = 16;

/// CRC32c.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    let mut register = u32::MAX;
    for byte in bytes {
        register ^= u32::from(*byte);
        for _ in 0..8 {
            register = if register & 1 == 1 { register >> 1 ^ 0x82f6_3b78 } else { register >> 1 };
        }
    }
    !register
}

/// What the checksum field of a packet should be, whatever it is now.
pub(crate) fn checksum(packet: &[u8]) -> [u8; 4] {
    crc(&[&packet[..8], &[0; 4], &packet[12..]].concat()).to_le_bytes()
}

/// The chunks in front of the data. INIT, INIT ACK and SHUTDOWN COMPLETE are alone, a cookie comes first; in the first
/// fragment a chunk may go on in the next one.
pub(crate) fn chunks(packet: &[u8], first_fragment: bool) -> Result<u8, &'static str> {
    let alone = INIT | INIT_ACK | SHUTDOWN_COMPLETE;
    let (mut found, mut rest) = (0, &packet[12..]);
    for at in 0..MOST {
        if rest.is_empty() || first_fragment && (found & alone != 0 || rest.len() < 4) {
            break;
        }
        if rest.len() < 4 {
            return Err("sctp-chunk");
        }
        let chunk = CHUNKS.iter().find(|(kind, _)| *kind == rest[0]).map_or(0, |(_, bit)| *bit);
        let late = at > 0 && chunk & (alone | COOKIE_ECHO | COOKIE_ACK) != 0;
        let len = usize::from(super::get16(rest, 2));
        if late || found & alone != 0 || len < 4 || len > rest.len() && !first_fragment {
            return Err("sctp-chunk");
        }
        found |= chunk;
        if [0, 64].contains(&rest[0]) {
            break;
        }
        rest = rest.get(len.div_ceil(4) * 4..).unwrap_or_default();
    }
    Ok(found)
}

/// A packet of chunks with eight bytes of value each, its checksum right.
pub(crate) fn make(ports: (u16, u16), kinds: &[u8], data: usize) -> Vec<u8> {
    let mut packet = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    packet.extend([0xaa, 0xbb, 0xcc, 0xdd, 0, 0, 0, 0]);
    for kind in kinds {
        let value = if *kind == 0 { data } else { 8 };
        packet.extend([*kind, 0]);
        packet.extend((4 + value as u16).to_be_bytes());
        packet.extend(vec![0x31; value.div_ceil(4) * 4]);
    }
    let right = checksum(&packet);
    packet[8..12].copy_from_slice(&right);
    packet
}

/// A packet with one chunk that has no value.
pub(crate) fn make_short(ports: (u16, u16), tag: [u8; 4], kind: u8, flags: u8) -> Vec<u8> {
    let head = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    let mut packet = [&head[..], &tag, &[0; 4], &[kind, flags, 0, 4]].concat();
    let right = checksum(&packet);
    packet[8..12].copy_from_slice(&right);
    packet
}

#[test]
fn the_checksum_is_that_of_rfc_9260() {
    // The check value of CRC-32/ISCSI.
    assert_eq!(crc(b"123456789"), 0xe306_9283);
}
