//! Ethernet headers of frames that have been parsed.

use culvert_packet::eth::{EthAddr, EthHeader};
use zerocopy::FromBytes;

/// The Ethernet header of a frame.
///
/// # Panics
/// If the frame is shorter than that, so not once it has been parsed.
#[inline(always)]
pub(super) fn eth(frame: &[u8]) -> &EthHeader {
    EthHeader::ref_from_prefix(frame).expect("a frame that was parsed").0
}

/// Sets both stations of a frame; no effect on one that is shorter than that.
#[inline(always)]
pub(super) fn set_stations(frame: &mut [u8], dst: EthAddr, src: EthAddr) {
    if let Some(addresses) = frame.first_chunk_mut::<12>() {
        addresses[..6].copy_from_slice(&dst.0);
        addresses[6..].copy_from_slice(&src.0);
    }
}
