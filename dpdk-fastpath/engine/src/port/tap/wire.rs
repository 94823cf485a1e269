//! To a wire: packets become what goes over it.

use std::io::IoSlice;

use culvert_packet::offload::tunnel::Tunnelled;
use culvert_packet::offload::vnet::VnetHeader;
use culvert_packet::offload::{Offload, complete};
use culvert_packet::udp::UdpHeader;
use culvert_packet::{PacketBuf, parse};
use zerocopy::IntoBytes;

/// Most segments in one write: as many as any kernel that cuts UDP takes (UDP_MAX_SEGMENTS was 64).
const SEGMENTS: usize = 64;

/// Most bytes behind the outer UDP header in one write, so that the IP packet has at most 65,535.
const PAYLOAD: usize = 65_535 - 40 - 8;

/// Room for the tunnel header and all headers of one segment: options of IPv4 and TCP, or extension headers.
const HEAD: usize = 256;

/// A checksum that the kernel is to complete.
const PARTIAL: Offload = Offload { segment: None, partial: true };

/// Cuts super-packets in tunnels.
pub(super) struct Cutter {
    outer: [u8; HEAD],
    heads: [[u8; HEAD]; SEGMENTS],
}

impl Cutter {
    pub(super) fn new() -> Self {
        Self { outer: [0; HEAD], heads: [[0; HEAD]; SEGMENTS] }
    }

    /// Writes a packet in as few calls as can be; `false` if not all of it was taken, or if it cannot be.
    pub(super) fn write(
        &mut self,
        packet: &mut impl PacketBuf,
        write: impl Fn(&[IoSlice<'_>]) -> bool,
    ) -> bool {
        let offload = packet.offload();
        if offload.segment.is_some() {
            return self.cut(packet.data(), offload, write);
        }
        if offload.partial {
            finish(packet.data_mut());
        }
        write(&[IoSlice::new(VnetHeader::wire(false).as_bytes()), IoSlice::new(packet.data())])
    }

    /// Writes the segments of a super-packet: headers made here, payloads from where they are.
    fn cut(&mut self, frame: &[u8], offload: Offload, write: impl Fn(&[IoSlice<'_>]) -> bool) -> bool {
        let Self { outer, heads } = self;
        let Some(tunnel) = Tunnelled::read(frame) else { return false };
        let Some(segments) = tunnel.segments(frame, offload) else { return false };
        let udp_end = usize::from(tunnel.outer.l4_offset) + UdpHeader::LEN;
        // Tunnel header and inner headers, which each segment has.
        let tunnel_header = tunnel.inner_offset - udp_end;
        let head = tunnel_header + segments.head_len();
        let each = tunnel_header + segments.len(0);
        if head > HEAD || udp_end > HEAD || each > PAYLOAD {
            return false;
        }
        let outer = &mut outer[..udp_end];
        outer.copy_from_slice(&frame[..udp_end]);
        let step = (PAYLOAD / each).min(SEGMENTS);
        let mut all = true;
        for first in (0..segments.count()).step_by(step) {
            let count = step.min(segments.count() - first);
            let mut payloads = [&[][..]; SEGMENTS];
            let mut len = 0;
            for ((nth, bytes), payload) in (first..).zip(&mut heads[..count]).zip(&mut payloads) {
                bytes[..tunnel_header].copy_from_slice(&frame[udp_end..tunnel.inner_offset]);
                *payload = segments.write_head(nth, &mut bytes[tunnel_header..head]);
                len += head + payload.len();
            }
            // Of several the kernel computes the checksums in any case.
            tunnel.set_payload(outer, len, count > 1 || tunnel.has_checksum());
            let header = match count {
                1 if tunnel.has_checksum() => VnetHeader::of(outer, &tunnel.outer, PARTIAL),
                1 => VnetHeader::wire(false),
                _ => VnetHeader::udp_segments(&tunnel.outer, each as u16),
            };
            let mut parts = [IoSlice::new(&[]); 2 + 2 * SEGMENTS];
            parts[0] = IoSlice::new(header.as_bytes());
            parts[1] = IoSlice::new(outer);
            for (pair, (bytes, payload)) in parts[2..].chunks_mut(2).zip(heads[..count].iter().zip(&payloads))
            {
                pair[0] = IoSlice::new(&bytes[..head]);
                pair[1] = IoSlice::new(payload);
            }
            all &= write(&parts[..2 + 2 * count]);
        }
        all
    }
}

/// Completes the checksum of a packet, or of the packet inside it.
fn finish(frame: &mut [u8]) {
    if let Some(tunnel) = Tunnelled::read(frame) {
        complete(&mut frame[tunnel.inner_offset..], &tunnel.inner);
        tunnel.seal(frame);
    } else if let Ok(parsed) = parse(frame) {
        complete(frame, &parsed);
    }
}

#[cfg(test)]
mod tests;
