//! UDP (RFC 768).

use zerocopy::byteorder::network_endian::U16;

use crate::Malformed;
use crate::view::{Extent, views, wire};

wire! {
    /// The UDP header.
    pub struct UdpHeader {
        src_port: U16,
        dst_port: U16,
        length: U16,
        checksum: U16,
    }
}

impl UdpHeader {
    /// A header with these ports and without a checksum.
    pub const fn new(src_port: u16, dst_port: u16, payload_len: u16) -> Self {
        Self {
            src_port: U16::new(src_port),
            dst_port: U16::new(dst_port),
            length: U16::new(payload_len + Self::LEN as u16),
            checksum: U16::ZERO,
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

    /// Length of header and payload in bytes.
    #[inline]
    pub const fn length(&self) -> u16 {
        self.length.get()
    }

    /// Checksum over pseudo header, header and payload; 0 if the sender made none.
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

    /// Sets the length of header and payload.
    #[inline]
    pub fn set_length(&mut self, length: u16) {
        self.length = U16::new(length);
    }

    /// Sets the checksum field.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        self.checksum = U16::new(checksum);
    }
}

#[inline]
pub(crate) fn check(header: &UdpHeader, len: usize) -> Result<Extent, Malformed> {
    let length = usize::from(header.length());
    if length < UdpHeader::LEN || length > len {
        return Err(Malformed::UdpLength);
    }
    Ok(Extent { header: UdpHeader::LEN, total: length })
}

views! {
    /// A whole UDP datagram; not the first of several fragments, whose length is that of all. Its checksum is
    /// not checked on the way in: that takes the IP header, see
    /// [`Sum::pseudo_v4`](crate::checksum::Sum::pseudo_v4).
    Udp, UdpMut: UdpHeader, Malformed::UdpTruncated, check
}
