//! TCP (RFC 9293).

use std::fmt;
use std::ops::BitOr;

use zerocopy::byteorder::network_endian::{U16, U32};

use crate::Malformed;
use crate::view::{Extent, views, wire};

/// The control bits of a TCP segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// The sender has no more data.
    pub const FIN: Self = Self(0x01);
    /// Synchronize sequence numbers: opens a connection.
    pub const SYN: Self = Self(0x02);
    /// There is no such connection any more.
    pub const RST: Self = Self(0x04);
    /// Hand the data to the receiver now.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// The sender has heard of congestion and slowed down (RFC 3168).
    pub const CWR: Self = Self(0x80);

    /// Whether all of `flags` are set.
    #[inline]
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Whether this segment asks for a new connection: SYN without ACK and RST.
    #[inline]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN.0 | Self::ACK.0 | Self::RST.0) == Self::SYN.0
    }
}

impl BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];
        f.debug_set().entries((0..8).filter(|i| self.0 >> i & 1 != 0).map(|i| names[i])).finish()
    }
}

wire! {
    /// The 20 bytes that every TCP header has.
    pub struct TcpHeader {
        src_port: U16,
        dst_port: U16,
        sequence: U32,
        acknowledgement: U32,
        offset: u8,
        flags: u8,
        window: U16,
        checksum: U16,
        urgent: U16,
    }
}

impl TcpHeader {
    /// A header without options, window and checksum.
    pub const fn new(
        src_port: u16,
        dst_port: u16,
        sequence: u32,
        acknowledgement: u32,
        flags: TcpFlags,
    ) -> Self {
        Self {
            src_port: U16::new(src_port),
            dst_port: U16::new(dst_port),
            sequence: U32::new(sequence),
            acknowledgement: U32::new(acknowledgement),
            offset: 5 << 4,
            flags: flags.0,
            window: U16::ZERO,
            checksum: U16::ZERO,
            urgent: U16::ZERO,
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

    /// Number of the first data byte, or of the SYN.
    #[inline]
    pub const fn sequence(&self) -> u32 {
        self.sequence.get()
    }

    /// Number of the next byte the sender expects; counts with [`TcpFlags::ACK`] only.
    #[inline]
    pub const fn acknowledgement(&self) -> u32 {
        self.acknowledgement.get()
    }

    /// Length of header and options in bytes, 20-60 in a checked header.
    #[inline]
    pub const fn header_len(&self) -> usize {
        (self.offset >> 4) as usize * 4
    }

    /// Control bits.
    #[inline]
    pub const fn flags(&self) -> TcpFlags {
        TcpFlags(self.flags)
    }

    /// Bytes the sender can take, before scaling.
    #[inline]
    pub const fn window(&self) -> u16 {
        self.window.get()
    }

    /// Checksum over pseudo header, header and data.
    #[inline]
    pub const fn checksum(&self) -> u16 {
        self.checksum.get()
    }

    /// Sets the source port.
    #[inline]
    pub fn set_src_port(&mut self, port: u16) {
        self.src_port = U16::new(port);
    }

    /// Sets the destination port.
    #[inline]
    pub fn set_dst_port(&mut self, port: u16) {
        self.dst_port = U16::new(port);
    }

    /// Sets the bytes the sender can take.
    #[inline]
    pub fn set_window(&mut self, window: u16) {
        self.window = U16::new(window);
    }

    /// Sets the checksum field.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        self.checksum = U16::new(checksum);
    }
}

#[inline]
pub(crate) fn check(header: &TcpHeader, len: usize) -> Result<Extent, Malformed> {
    if header.header_len() < TcpHeader::LEN || header.header_len() > len {
        return Err(Malformed::TcpOffset);
    }
    Ok(Extent { header: header.header_len(), total: len })
}

views! {
    /// A TCP segment. Its checksum is not checked on the way in: that takes the IP header,
    /// see [`Sum::pseudo_v4`](crate::checksum::Sum::pseudo_v4).
    Tcp, TcpMut: TcpHeader, Malformed::TcpTruncated, check
}
