//! Out of a tunnel.

use zerocopy::FromBytes;

use crate::Malformed;
use crate::buf::PacketBuf;
use crate::eth::{EthHeader, EtherType};
use crate::geneve::Geneve;
use crate::parse::{L4, Parsed};
use crate::udp::UdpHeader;
use crate::vxlan::{Vxlan, VxlanHeader};

/// Where the inner frame of a tunnel packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decap {
    /// Virtual network identifier, 24 bits.
    pub vni: u32,
    /// Where the inner frame begins, counted from the first byte of the outer.
    pub inner_offset: usize,
    /// Length of the inner frame, at least an Ethernet header.
    pub inner_len: usize,
    /// DSCP and ECN of the outer packet, for [`Marking::inner`](super::Marking::inner).
    pub traffic_class: u8,
}

/// Why a tunnel packet is not taken out of its tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecapError {
    /// Not what it says it is.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A control message (the O flag): for the tunnel endpoint itself, never to be forwarded (RFC 8926, section 3.4).
    #[error("control message")]
    Control,
    /// It has options that must be understood (the C flag); none is here (RFC 8926, section 3.4).
    #[error("critical option")]
    CriticalOption,
    /// Its payload is no Ethernet frame.
    #[error("payload is no Ethernet frame")]
    Protocol,
}

impl Decap {
    /// Takes the outer headers, and what follows the inner frame, off the buffer that holds the outer frame.
    #[inline]
    pub fn strip(&self, buf: &mut impl PacketBuf) {
        buf.truncate(self.inner_offset + self.inner_len);
        buf.trim_front(self.inner_offset);
    }
}

/// Reads the VXLAN header of a UDP packet that was sent to a VXLAN port of ours; nothing in the frame changes.
///
/// The outer UDP checksum is not looked at: over IPv4 RFC 7348, section 5 allows that, as the inner packet has its own; over
/// IPv6 it is for [`verify_transport`](crate::parse::verify_transport).
#[inline]
pub fn decap(frame: &[u8], parsed: &Parsed) -> Result<Decap, Malformed> {
    let (offset, payload) = payload(frame, parsed)?;
    let vxlan = Vxlan::new(payload)?;
    Ok(Decap {
        vni: vxlan.vni(),
        inner_offset: offset + VxlanHeader::LEN,
        inner_len: vxlan.payload().len(),
        traffic_class: parsed.traffic_class,
    })
}

/// The same for Geneve. Options are passed over; a packet with one that must be understood is refused.
pub fn decap_geneve(frame: &[u8], parsed: &Parsed) -> Result<Decap, DecapError> {
    let (offset, payload) = payload(frame, parsed)?;
    let geneve = Geneve::new(payload)?;
    if geneve.is_control() {
        return Err(DecapError::Control);
    }
    if geneve.has_critical_options() {
        return Err(DecapError::CriticalOption);
    }
    if geneve.protocol() != EtherType::TRANSPARENT_ETHERNET {
        return Err(DecapError::Protocol);
    }
    let inner_len = geneve.payload().len();
    if inner_len < EthHeader::LEN {
        return Err(Malformed::GeneveTruncated.into());
    }
    Ok(Decap {
        vni: geneve.vni(),
        inner_offset: offset + payload.len() - inner_len,
        inner_len,
        traffic_class: parsed.traffic_class,
    })
}

/// What a whole UDP datagram carries, and where that begins in the frame.
#[inline]
fn payload<'a>(frame: &'a [u8], parsed: &Parsed) -> Result<(usize, &'a [u8]), Malformed> {
    if parsed.is_fragment() {
        return Err(Malformed::TunnelFragment);
    }
    if parsed.l4 != L4::Udp {
        return Err(Malformed::UdpTruncated);
    }
    let offset = usize::from(parsed.l4_offset);
    let Ok((udp, _)) = UdpHeader::ref_from_prefix(&frame[offset..]) else {
        return Err(Malformed::UdpTruncated);
    };
    let end = offset + usize::from(udp.length());
    Ok((offset + UdpHeader::LEN, &frame[offset + UdpHeader::LEN..end]))
}
