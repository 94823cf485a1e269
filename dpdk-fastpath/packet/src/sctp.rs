//! SCTP (RFC 9260).

use std::fmt;
use std::ops::BitOr;

use zerocopy::FromBytes;
use zerocopy::byteorder::little_endian;
use zerocopy::byteorder::network_endian::{U16, U32};

use crate::Malformed;
use crate::crc32c::crc32c;
use crate::view::wire;

wire! {
    /// The common header, which chunks follow.
    pub struct SctpHeader {
        src_port: U16,
        dst_port: U16,
        verification_tag: U32,
        checksum: little_endian::U32,
    }
}

impl SctpHeader {
    /// A header without checksum.
    pub const fn new(src_port: u16, dst_port: u16, verification_tag: u32) -> Self {
        Self {
            src_port: U16::new(src_port),
            dst_port: U16::new(dst_port),
            verification_tag: U32::new(verification_tag),
            checksum: little_endian::U32::ZERO,
        }
    }

    /// Source port.
    #[inline]
    pub const fn src_port(&self) -> u16 {
        self.src_port.get()
    }

    /// Destination port.
    #[inline]
    pub const fn dst_port(&self) -> u16 {
        self.dst_port.get()
    }

    /// What the receiver tells the association by; 0 with INIT.
    #[inline]
    pub const fn verification_tag(&self) -> u32 {
        self.verification_tag.get()
    }

    /// CRC32c over header and chunks, as [`crc32c`](crate::crc32c::crc32c) returns it.
    #[inline]
    pub const fn checksum(&self) -> u32 {
        self.checksum.get()
    }

    /// Sets the checksum field.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u32) {
        self.checksum = little_endian::U32::new(checksum);
    }
}

wire! {
    /// What every chunk begins with.
    pub struct ChunkHeader {
        kind: u8,
        flags: u8,
        length: U16,
    }
}

/// What kind of chunk it is (RFC 9260, section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkType(pub u8);

impl ChunkType {
    /// User data.
    pub const DATA: Self = Self(0);
    /// Asks for an association.
    pub const INIT: Self = Self(1);
    /// Grants it, with a cookie.
    pub const INIT_ACK: Self = Self(2);
    /// Ends the association at once.
    pub const ABORT: Self = Self(6);
    /// The sender has no more data.
    pub const SHUTDOWN: Self = Self(7);
    /// Nor has the other side.
    pub const SHUTDOWN_ACK: Self = Self(8);
    /// Brings the cookie back.
    pub const COOKIE_ECHO: Self = Self(10);
    /// The association is there.
    pub const COOKIE_ACK: Self = Self(11);
    /// The association is over.
    pub const SHUTDOWN_COMPLETE: Self = Self(14);
    /// User data, interleaved (RFC 8260).
    pub const I_DATA: Self = Self(64);
}

impl ChunkHeader {
    /// In an ABORT or SHUTDOWN COMPLETE: the verification tag is the one that the receiver of the packet sent.
    pub const TAG_REFLECTED: u8 = 1;

    /// The header of a chunk with `value_len` bytes behind it.
    pub const fn new(kind: ChunkType, flags: u8, value_len: u16) -> Self {
        Self { kind: kind.0, flags, length: U16::new(value_len + Self::LEN as u16) }
    }

    /// What kind of chunk it is.
    #[inline]
    pub const fn kind(&self) -> ChunkType {
        ChunkType(self.kind)
    }

    /// What the bits mean depends on the kind.
    #[inline]
    pub const fn flags(&self) -> u8 {
        self.flags
    }

    /// Length of header and value in bytes, without the padding that may follow.
    #[inline]
    pub const fn length(&self) -> u16 {
        self.length.get()
    }
}

/// Which of the chunks that open and close associations a packet has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SctpChunks(u8);

impl SctpChunks {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// [`ChunkType::INIT`].
    pub const INIT: Self = Self(1);
    /// [`ChunkType::INIT_ACK`].
    pub const INIT_ACK: Self = Self(2);
    /// [`ChunkType::COOKIE_ECHO`].
    pub const COOKIE_ECHO: Self = Self(4);
    /// [`ChunkType::COOKIE_ACK`].
    pub const COOKIE_ACK: Self = Self(8);
    /// [`ChunkType::SHUTDOWN`].
    pub const SHUTDOWN: Self = Self(16);
    /// [`ChunkType::SHUTDOWN_ACK`].
    pub const SHUTDOWN_ACK: Self = Self(32);
    /// [`ChunkType::SHUTDOWN_COMPLETE`].
    pub const SHUTDOWN_COMPLETE: Self = Self(64);
    /// [`ChunkType::ABORT`].
    pub const ABORT: Self = Self(128);

    const fn of(kind: ChunkType) -> Self {
        match kind {
            ChunkType::INIT => Self::INIT,
            ChunkType::INIT_ACK => Self::INIT_ACK,
            ChunkType::COOKIE_ECHO => Self::COOKIE_ECHO,
            ChunkType::COOKIE_ACK => Self::COOKIE_ACK,
            ChunkType::SHUTDOWN => Self::SHUTDOWN,
            ChunkType::SHUTDOWN_ACK => Self::SHUTDOWN_ACK,
            ChunkType::SHUTDOWN_COMPLETE => Self::SHUTDOWN_COMPLETE,
            ChunkType::ABORT => Self::ABORT,
            _ => Self::NONE,
        }
    }

    /// Whether all of `chunks` are there.
    #[inline]
    pub const fn contains(self, chunks: Self) -> bool {
        self.0 & chunks.0 == chunks.0
    }

    /// Whether the packet asks for a new association.
    #[inline]
    pub const fn opens(self) -> bool {
        self.0 & (Self::INIT.0 | Self::ABORT.0) == Self::INIT.0
    }
}

impl BitOr for SctpChunks {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for SctpChunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            "init",
            "init-ack",
            "cookie-echo",
            "cookie-ack",
            "shutdown",
            "shutdown-ack",
            "shutdown-complete",
            "abort",
        ];
        f.debug_set().entries((0..8).filter(|i| self.0 >> i & 1 != 0).map(|i| names[i])).finish()
    }
}

/// Control chunks in a packet that are looked at. More than a stack ever sends together.
pub const MAX_CONTROL_CHUNKS: usize = 16;

/// Reads the chunks behind the header of an SCTP packet. Looked at are those in front of the data, since data is never in
/// front of control chunks (RFC 9260, section 6.10) and never with an ABORT. Of the `first` fragment of a packet a chunk
/// may end in a later one.
///
/// Refused is what is told apart differently by different readers: INIT, INIT ACK and SHUTDOWN COMPLETE with other chunks,
/// a cookie that is not the first chunk.
#[inline]
pub(crate) fn chunks(mut rest: &[u8], first: bool) -> Result<SctpChunks, Malformed> {
    const ALONE: u8 = SctpChunks::INIT.0 | SctpChunks::INIT_ACK.0 | SctpChunks::SHUTDOWN_COMPLETE.0;
    const IN_FRONT: u8 = SctpChunks::COOKIE_ECHO.0 | SctpChunks::COOKIE_ACK.0;
    let mut found = SctpChunks::NONE;
    for at in 0..MAX_CONTROL_CHUNKS {
        if rest.is_empty() || found.0 & ALONE != 0 && first {
            break;
        }
        let Ok((header, _)) = ChunkHeader::ref_from_prefix(rest) else {
            return if first { Ok(found) } else { Err(Malformed::SctpChunk) };
        };
        let chunk = SctpChunks::of(header.kind());
        if at > 0 && (found.0 & ALONE != 0 || chunk.0 & (ALONE | IN_FRONT) != 0) {
            return Err(Malformed::SctpChunk);
        }
        found = found | chunk;
        let length = usize::from(header.length());
        if length < ChunkHeader::LEN || length > rest.len() && !first {
            return Err(Malformed::SctpChunk);
        }
        if matches!(header.kind(), ChunkType::DATA | ChunkType::I_DATA) {
            break;
        }
        // The last one's padding may be missing.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(found)
}

/// The checksum of a packet, whatever is in its checksum field. One that is shorter than a header has that of no bytes.
pub fn checksum(packet: &[u8]) -> u32 {
    match packet.split_first_chunk::<{ SctpHeader::LEN }>() {
        Some(([head @ .., _, _, _, _], chunks)) => crc32c(&[head, &[0; 4], chunks]),
        None => crc32c(&[]),
    }
}

/// Whether the checksum of a packet is right.
pub(crate) fn is_valid(packet: &[u8]) -> bool {
    SctpHeader::ref_from_prefix(packet).is_ok_and(|(header, _)| header.checksum() == checksum(packet))
}

#[cfg(test)]
mod tests;
