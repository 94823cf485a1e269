//! Geneve (RFC 8926).

use zerocopy::byteorder::network_endian::{U16, U32};

use crate::Malformed;
use crate::eth::EtherType;
use crate::view::{Extent, view, wire};

/// The UDP port that IANA gave to Geneve.
pub const PORT: u16 = 6081;

/// Bits of the first byte that are the version; the others are the length of the options in words.
const VERSION: u8 = 0xc0;
/// The O flag of the second byte: a control message.
const CONTROL: u8 = 0x80;
/// The C flag of the second byte: there are options that must be understood.
const CRITICAL: u8 = 0x40;

wire! {
    /// The eight bytes between UDP and the options.
    pub struct GeneveHeader {
        version_and_length: u8,
        flags: u8,
        protocol: U16,
        vni: U32,
    }
}

impl GeneveHeader {
    /// The header of an Ethernet frame in network `vni`, of which the low 24 bits count, without options.
    pub const fn new(vni: u32) -> Self {
        Self {
            version_and_length: 0,
            flags: 0,
            protocol: U16::new(EtherType::TRANSPARENT_ETHERNET.0),
            vni: U32::new(vni << 8),
        }
    }

    /// Virtual network identifier, 24 bits.
    pub const fn vni(&self) -> u32 {
        self.vni.get() >> 8
    }

    /// What is behind the options.
    pub const fn protocol(&self) -> EtherType {
        EtherType(self.protocol.get())
    }

    /// Whether this is a control message, for a tunnel endpoint itself.
    pub const fn is_control(&self) -> bool {
        self.flags & CONTROL != 0
    }

    /// Whether there are options that must be understood.
    pub const fn has_critical_options(&self) -> bool {
        self.flags & CRITICAL != 0
    }

    /// Length of the options in bytes.
    pub const fn options_len(&self) -> usize {
        (self.version_and_length & !VERSION) as usize * 4
    }
}

fn check(header: &GeneveHeader, len: usize) -> Result<Extent, Malformed> {
    if header.version_and_length & VERSION != 0 {
        return Err(Malformed::GeneveVersion);
    }
    let header = GeneveHeader::LEN + header.options_len();
    if header > len {
        return Err(Malformed::GeneveTruncated);
    }
    Ok(Extent { header, total: len })
}

view! {
    /// A Geneve packet with its options. Reserved bits are ignored, as RFC 8926, section 3.4 demands.
    Geneve: GeneveHeader, Malformed::GeneveTruncated, check
}
