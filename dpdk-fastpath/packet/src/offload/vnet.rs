//! The header in front of each frame of a tap with `IFF_VNET_HDR` (linux/virtio_net.h, `struct virtio_net_hdr_v1`; VIRTIO
//! 1.2, section 5.1.6), in little-endian order (`TUNSETVNETLE`).

use std::num::NonZeroU16;

use zerocopy::byteorder::little_endian::U16;

use super::tunnel::Tunnelled;
use super::{Offload, checksum_offset, transport_header};
use crate::checksum::Sum;
use crate::parse::{L3, L4, Parsed};
use crate::tcp::TcpFlags;
use crate::udp::UdpHeader;
use crate::view::wire;
use crate::{Malformed, parse};

wire! {
    /// The header, 12 bytes.
    pub struct VnetHeader {
        flags: u8,
        gso_type: u8,
        header_len: U16,
        gso_size: U16,
        checksum_start: U16,
        checksum_offset: U16,
        buffers: U16,
    }
}

/// The checksum is partial.
const NEEDS_CHECKSUM: u8 = 1;
/// The checksum has been found right.
const CHECKSUM_VALID: u8 = 2;

/// Nothing to be cut.
const WHOLE: u8 = 0;
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;
const UDP: u8 = 5;
/// To be or-ed: the first segment has CWR.
const ECN: u8 = 0x80;

/// Why a frame with its header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// The frame itself.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// A flag that nobody asked the kernel for.
    #[error("unknown flag")]
    Flag,
    /// To be cut in a way that nobody asked for.
    #[error("unknown kind of segments")]
    Kind,
    /// To be cut, but it is not a whole packet of the protocol that the header says.
    #[error("not a packet that can be cut")]
    NotThatProtocol,
    /// To be cut into segments of no bytes.
    #[error("segments of 0 bytes")]
    NoSize,
    /// The checksum is said to be where there is none.
    #[error("checksum outside of the packet")]
    Checksum,
}

impl VnetHeader {
    /// Length of the header without the last field (`struct virtio_net_hdr`), as it is at a packet socket.
    pub const SHORT: usize = 10;

    /// Of a frame as it is on a wire; `valid` if its transport checksum is known to be right.
    pub const fn wire(valid: bool) -> Self {
        let flags = if valid { CHECKSUM_VALID } else { 0 };
        let zero = U16::ZERO;
        Self {
            flags,
            gso_type: WHOLE,
            header_len: zero,
            gso_size: zero,
            checksum_start: zero,
            checksum_offset: zero,
            buffers: zero,
        }
    }

    /// Of a packet with this offload.
    pub fn of(frame: &[u8], parsed: &Parsed, offload: Offload) -> Self {
        let (true, Some(field)) = (offload.partial, checksum_offset(parsed.l4)) else {
            return Self::wire(false);
        };
        let partial = Self {
            flags: NEEDS_CHECKSUM,
            checksum_start: U16::new(parsed.l4_offset),
            checksum_offset: U16::new(field as u16),
            ..Self::wire(false)
        };
        let Some(size) = offload.segment else { return partial };
        let congested = parsed.tcp_flags.contains(TcpFlags::CWR);
        let kind = match (parsed.l4, parsed.l3) {
            (L4::Udp, _) => UDP,
            (_, L3::Ipv4) => TCP_V4,
            _ => TCP_V6,
        };
        Self {
            gso_type: if congested && kind != UDP { kind | ECN } else { kind },
            header_len: U16::new(parsed.l4_offset + transport_header(frame, parsed) as u16),
            gso_size: U16::new(size.get()),
            ..partial
        }
    }

    /// Whether it is said of a super-packet.
    pub const fn is_super(&self) -> bool {
        self.gso_type != WHOLE
    }

    /// Of a UDP packet with a partial checksum, to be cut into packets with `size` bytes behind the UDP header.
    pub fn udp_segments(parsed: &Parsed, size: u16) -> Self {
        Self {
            flags: NEEDS_CHECKSUM,
            gso_type: UDP,
            header_len: U16::new(parsed.l4_offset + UdpHeader::LEN as u16),
            gso_size: U16::new(size),
            checksum_start: U16::new(parsed.l4_offset),
            checksum_offset: U16::new(6),
            ..Self::wire(false)
        }
    }

    /// What a frame that came with this header still lacks. Whatever the header says is held against the frame; a
    /// checksum that is missing elsewhere than in the transport header of a plain packet, as in that of a packet inside a
    /// tunnel of the pod's own, is put in its place here.
    ///
    /// # Errors
    /// For what the kernel was not asked for, and for what is not so.
    pub fn offload(&self, frame: &mut [u8]) -> Result<Offload, Refused> {
        if self.flags & !(NEEDS_CHECKSUM | CHECKSUM_VALID) != 0 {
            return Err(Refused::Flag);
        }
        let partial = self.flags & NEEDS_CHECKSUM != 0;
        if self.gso_type == WHOLE {
            return if partial { self.whole(frame) } else { Ok(Offload::NONE) };
        }
        let parsed = parse(frame)?;
        self.segments(frame, &parsed, 0)
    }

    /// The same of a packet in a tunnel of the kernel's, where the header speaks of the packet inside: it is that which is
    /// to be cut.
    ///
    /// # Errors
    /// For what is not so.
    pub fn offload_inside(&self, frame: &[u8]) -> Result<Offload, Refused> {
        let tunnel = Tunnelled::read(frame).ok_or(Refused::NotThatProtocol)?;
        self.segments(&frame[tunnel.inner_offset..], &tunnel.inner, tunnel.inner_offset)
    }

    /// How a packet is to be cut that begins so many bytes behind what the header counts from.
    fn segments(&self, frame: &[u8], parsed: &Parsed, start: usize) -> Result<Offload, Refused> {
        let size = NonZeroU16::new(self.gso_size.get()).ok_or(Refused::NoSize)?;
        let is_that = match self.gso_type & !ECN {
            TCP_V4 => (parsed.l3, parsed.l4) == (L3::Ipv4, L4::Tcp),
            TCP_V6 => (parsed.l3, parsed.l4) == (L3::Ipv6, L4::Tcp),
            UDP => parsed.l4 == L4::Udp && self.gso_type & ECN == 0,
            _ => return Err(Refused::Kind),
        };
        if !is_that || parsed.is_fragment() {
            return Err(Refused::NotThatProtocol);
        }
        if self.flags & NEEDS_CHECKSUM == 0 || !self.points_to(parsed, start) {
            return Err(Refused::Checksum);
        }
        let payload = parsed.l4_len() - transport_header(frame, parsed);
        Ok(Offload { segment: (payload > usize::from(size.get())).then_some(size), partial: true })
    }

    /// The same of a packet that is not to be cut.
    fn whole(&self, frame: &mut [u8]) -> Result<Offload, Refused> {
        if let Ok(parsed) = parse(frame)
            && !parsed.is_fragment()
            && self.points_to(&parsed, 0)
        {
            return Ok(Offload { segment: None, partial: true });
        }
        let start = usize::from(self.checksum_start.get());
        let message = frame.get_mut(start..).ok_or(Refused::Checksum)?;
        let sum = Sum::ZERO.bytes(message);
        let field = usize::from(self.checksum_offset.get());
        let field = message.get_mut(field..field + 2).ok_or(Refused::Checksum)?;
        // As the kernel does it: 0 is written as 0xffff, which is the same for all protocols but UDP, and right for that.
        field.copy_from_slice(&sum.udp_checksum().to_be_bytes());
        Ok(Offload::NONE)
    }

    /// Whether the checksum is that of the packet's own TCP or UDP header.
    fn points_to(&self, parsed: &Parsed, start: usize) -> bool {
        checksum_offset(parsed.l4) == Some(usize::from(self.checksum_offset.get()))
            && usize::from(self.checksum_start.get()) == start + usize::from(parsed.l4_offset)
    }
}
