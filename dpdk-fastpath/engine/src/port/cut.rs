//! Packets become what goes over a wire, for devices that do not do it themselves.

use culvert_dpdk::{Mbuf, Mempool};
use culvert_packet::PacketBuf;
use culvert_packet::offload::segment::Segments;
use culvert_packet::offload::tunnel::Tunnelled;
use culvert_packet::offload::{Offload, complete};
use culvert_packet::parse;

/// How packets for one device are cut.
#[derive(Debug, Clone)]
pub struct Cutting {
    /// Whether they go through tunnels, so that an offload is that of the packet inside.
    pub(super) tunnels: bool,
    /// For the segments.
    pub(super) pool: Mempool,
}

impl Cutting {
    /// Makes of a packet with an offload those that go over the wire, and hands them to `emit`, first first. Returns
    /// whether that could be done; if the pool runs dry, the rest is lost, as on any full queue.
    pub fn cut(&self, mut packet: Mbuf, mut emit: impl FnMut(Mbuf)) -> bool {
        let offload = packet.offload();
        packet.set_offload(Offload::NONE);
        let tunnel = if self.tunnels { Tunnelled::read(packet.data()) } else { None };
        let (start, inner) = match (&tunnel, parse(packet.data())) {
            (Some(tunnel), _) => (tunnel.inner_offset, tunnel.inner),
            (None, Ok(parsed)) if !self.tunnels => (0, parsed),
            _ => return false,
        };
        let Some(size) = offload.segment else {
            complete(&mut packet.data_mut()[start..], &inner);
            if let Some(tunnel) = &tunnel {
                tunnel.seal(packet.data_mut());
            }
            emit(packet);
            return true;
        };
        let (outer, frame) = packet.data().split_at(start);
        let Some(segments) = Segments::new(frame, &inner, size) else { return false };
        for nth in 0..segments.count() {
            let len = segments.len(nth);
            let Some(mut segment) = self.pool.alloc() else { return false };
            let Some(bytes) = segment.append(start + len) else { return false };
            let (head, rest) = bytes.split_at_mut(start);
            head.copy_from_slice(outer);
            segments.write(nth, rest);
            if let Some(tunnel) = &tunnel {
                tunnel.seal(segment.data_mut());
            }
            emit(segment);
        }
        true
    }
}
