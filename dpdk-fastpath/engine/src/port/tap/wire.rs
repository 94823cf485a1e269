//! To a wire: packets become what goes over it.

use std::io::IoSlice;

use culvert_packet::ip::Protocol;
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

/// Makes as many packets as can be go to the kernel at once.
///
/// The kernel cuts a UDP packet into several with the same headers if it is told to (UDP_SEGMENT), and for it that is much
/// less work than one packet after the other: so all packets of one tunnel that only differ behind the outer headers are
/// written as one. A kernel that does not cut UDP gets them one by one.
pub(super) struct Cutter {
    /// Length of the header in front of a frame.
    header: usize,
    /// Whether the kernel cuts UDP.
    cuts_udp: bool,
    outer: [u8; HEAD],
    heads: [[u8; HEAD]; SEGMENTS],
}

impl Cutter {
    pub(super) fn new(header: usize, cuts_udp: bool) -> Self {
        Self { header, cuts_udp, outer: [0; HEAD], heads: [[0; HEAD]; SEGMENTS] }
    }

    /// Writes packets in as few calls as can be; those that are not taken, or cannot be, are shown to `drop`.
    pub(super) fn write<B: PacketBuf>(
        &mut self,
        burst: &mut [B],
        write: impl Fn(&[IoSlice<'_>]) -> bool,
        mut drop: impl FnMut(&B),
    ) {
        for packet in burst.iter_mut().filter(|packet| is_to_be_finished(packet.offload())) {
            finish(packet.data_mut());
        }
        let mut rest = &*burst;
        while let Some(first) = rest.first() {
            let train = if self.cuts_udp { train(rest) } else { 1 };
            let (now, later) = rest.split_at(train);
            let offload = first.offload();
            let written = match train {
                1 if offload.segment.is_some() => self.cut(first.data(), offload, &write),
                1 => write(&[
                    IoSlice::new(&VnetHeader::wire(false).as_bytes()[..self.header]),
                    IoSlice::new(first.data()),
                ]),
                _ => self.couple(now, &write),
            };
            if !written {
                now.iter().for_each(&mut drop);
            }
            rest = later;
        }
    }

    /// Writes a train of packets: their common outer headers once.
    fn couple<B: PacketBuf>(&mut self, train: &[B], write: impl Fn(&[IoSlice<'_>]) -> bool) -> bool {
        let first = train[0].data();
        let Some(tunnel) = Tunnelled::read(first) else { return false };
        let udp_end = usize::from(tunnel.outer.l4_offset) + UdpHeader::LEN;
        let each = first.len() - udp_end;
        let outer = &mut self.outer[..udp_end];
        outer.copy_from_slice(&first[..udp_end]);
        tunnel.set_payload(outer, train.len() * each, true);
        let header = VnetHeader::udp_segments(&tunnel.outer, each as u16);
        let mut parts = [IoSlice::new(&[]); 2 + SEGMENTS];
        parts[0] = IoSlice::new(&header.as_bytes()[..self.header]);
        parts[1] = IoSlice::new(outer);
        for (part, packet) in parts[2..].iter_mut().zip(train) {
            *part = IoSlice::new(&packet.data()[udp_end..]);
        }
        write(&parts[..2 + train.len()])
    }

    /// Writes the segments of a super-packet: headers made here, payloads from where they are.
    fn cut(&mut self, frame: &[u8], offload: Offload, write: impl Fn(&[IoSlice<'_>]) -> bool) -> bool {
        let Self { header: header_len, cuts_udp, outer, heads } = self;
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
        let step = if *cuts_udp { (PAYLOAD / each).min(SEGMENTS) } else { 1 };
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
            parts[0] = IoSlice::new(&header.as_bytes()[..*header_len]);
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

/// How many packets from the first on have the same outer headers and the same length, so that the kernel can make all of
/// them from one; at least one.
fn train<B: PacketBuf>(burst: &[B]) -> usize {
    /// Ends of the outer headers that tunnels have here, over IPv4 and over IPv6.
    const ENDS: [(usize, usize); 2] = [(23, 42), (20, 62)];
    let first = burst[0].data();
    let end = match (first.get(12..14), first.len()) {
        (Some([8, 0]), 64..) => ENDS[0],
        (Some([0x86, 0xdd]), 84..) => ENDS[1],
        _ => return 1,
    };
    let (protocol, end) = end;
    if first[protocol] != Protocol::UDP.0 || burst[0].offload().segment.is_some() {
        return 1;
    }
    // The checksum, the last two bytes, is made anew.
    let same = |packet: &&B| {
        let frame = packet.data();
        frame.len() == first.len()
            && frame[..end - 2] == first[..end - 2]
            && packet.offload().segment.is_none()
    };
    let most = (PAYLOAD / (first.len() - end)).min(SEGMENTS);
    burst.iter().take(most).take_while(same).count().max(1)
}

/// Whether only a checksum is missing.
fn is_to_be_finished(offload: Offload) -> bool {
    offload.partial && offload.segment.is_none()
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
