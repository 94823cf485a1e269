//! VXLAN (RFC 7348).

use zerocopy::byteorder::network_endian::U32;

use crate::Malformed;
use crate::eth::EthHeader;
use crate::view::{Extent, view, wire};

/// The UDP port that IANA gave to VXLAN.
pub const PORT: u16 = 4789;

/// Flags word of a packet with a valid VNI: the I flag.
const VNI_VALID: u32 = 0x0800_0000;

wire! {
    /// The eight bytes between UDP and the inner Ethernet frame.
    pub struct VxlanHeader {
        flags: U32,
        vni: U32,
    }
}

impl VxlanHeader {
    /// The header for network `vni`, of which the low 24 bits count.
    pub const fn new(vni: u32) -> Self {
        Self { flags: U32::new(VNI_VALID), vni: U32::new(vni << 8) }
    }

    /// VXLAN network identifier, 24 bits.
    #[inline]
    pub const fn vni(&self) -> u32 {
        self.vni.get() >> 8
    }

    /// Whether the VNI counts. The reserved bits are ignored, as RFC 7348, section 5 demands.
    #[inline]
    pub const fn vni_is_valid(&self) -> bool {
        self.flags.get() & VNI_VALID != 0
    }
}

#[inline]
pub(crate) fn check(header: &VxlanHeader, len: usize) -> Result<Extent, Malformed> {
    if !header.vni_is_valid() {
        return Err(Malformed::VxlanFlags);
    }
    if len < VxlanHeader::LEN + EthHeader::LEN {
        return Err(Malformed::VxlanTruncated);
    }
    Ok(Extent { header: VxlanHeader::LEN, total: len })
}

view! {
    /// A VXLAN packet; its payload is at least an Ethernet header.
    Vxlan: VxlanHeader, Malformed::VxlanTruncated, check
}
