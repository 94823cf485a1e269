//! Packets as bytes, read and written by hand from the RFCs: nothing here knows the engine's packet code.

pub(crate) mod checksum;
pub(crate) mod dissect;
pub(crate) mod make;
pub(crate) mod quote;
pub(crate) mod sctp;
pub(crate) mod show;

/// An Ethernet address.
pub(crate) type Mac = [u8; 6];

/// Header of an Ethernet frame.
pub(crate) const ETH: usize = 14;

/// Protocol numbers (IANA).
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const SCTP: u8 = 132;

/// Control bits of TCP (RFC 9293).
pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// What is left to be done about a packet before it may go over a wire, as a pod's kernel leaves it to its NIC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// It is to be cut into segments of so many bytes behind the transport header; 0 for one that is not to be cut.
    pub(crate) segment: u16,
    /// In place of its checksum it has the sum of the pseudo header.
    pub(crate) partial: bool,
}

/// A frame in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) left: Left,
}

impl From<Vec<u8>> for Frame {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, left: Left::default() }
    }
}

/// Whether the group bit is set.
pub(crate) fn is_group(mac: Mac) -> bool {
    mac[0] & 1 == 1
}

/// Whether one station can have the address.
pub(crate) fn is_station(mac: Mac) -> bool {
    !is_group(mac) && mac != [0; 6]
}

/// The 16-bit number at an offset.
pub(crate) fn get16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Writes a 16-bit number.
pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
