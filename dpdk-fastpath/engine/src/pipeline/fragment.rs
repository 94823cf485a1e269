//! Packets that come in fragments.
//!
//! In: a fragment. Out: the first one of a packet goes on as any packet would, since it has the ports; what becomes of it is
//! noted, if that is a translation. Those that follow are translated likewise, if they come through the same port, soon, and
//! overwrite nothing of the first one.
//!
//! Nothing is put together and nothing is held back. A fragment to a service that comes before its first one is dropped, as
//! other proxies without reassembly do it; senders have sent the first one first for two decades. Fragments between
//! pods need no first one: their way depends on addresses only.

use culvert_packet::flow::{FlowKey4, FlowKey6, Tenant};
use culvert_packet::fragment::Piece;
use culvert_packet::ip::Protocol;
use culvert_packet::parse::{Fragment, L4};
use culvert_packet::{PacketBuf, Parsed};

use super::route::Destination;
use super::stage::{Origin, Packet, Stage, Step};
use super::verdict::Verdict;
use crate::counter::DropReason;
use crate::flow::{Fragmented, Key, Out};
use crate::table::BackendId;

impl Stage<'_> {
    /// Ends a fragment that follows a first one; the others go on.
    #[cold]
    pub(super) fn fragment<'b, K: Key, B: PacketBuf>(
        &mut self,
        packet: Packet<'b, B>,
        key: &K,
    ) -> Step<Packet<'b, B>> {
        let Some((name, piece)) = named(&packet, key) else { return Step::Continue(packet) };
        if packet.parsed.fragment == Fragment::First {
            // Another packet has the identification now.
            K::fragments(self.flows).forget(&name);
            return Step::Continue(packet);
        }
        match K::fragments(self.flows).find(&name, self.in_port, self.now) {
            Some(fragmented) if piece.start < fragmented.end => self.stop(DropReason::FRAGMENT_OVERLAP),
            Some(fragmented) => Step::Break(self.follow_first(packet, key, &fragmented)),
            None => {
                let (tenant, dst) = (key.tenant(), key.destination().0);
                if packet.origin == Origin::Pod && self.destination(tenant, dst) == Destination::Vip {
                    return self.stop(DropReason::FRAGMENT_WITHOUT_FIRST);
                }
                Step::Continue(packet)
            }
        }
    }

    /// Sends a fragment after the first one. Where that is now the tables say, not the first one.
    fn follow_first<K: Key, B: PacketBuf>(
        &mut self,
        packet: Packet<'_, B>,
        key: &K,
        &Fragmented { to, service, backend, .. }: &Fragmented<K>,
    ) -> Verdict {
        let (tenant, dst) = (key.tenant(), to.destination().0);
        let out = self.out(tenant, dst);
        if out == Out::Nowhere {
            return self.nowhere(packet, tenant, dst);
        }
        match self.clear(packet, out) {
            Step::Continue(packet) => {
                // The slot of a service that is gone may have a new occupant.
                if self.view.has_backend(backend) {
                    self.counters.service_packet(service, packet.parsed.l3_len.into());
                }
                self.transmit(packet, out, |frame, parsed| key.translate(&to, frame, parsed))
            }
            Step::Break(end) => end,
        }
    }

    /// Notes what becomes of a packet if this is its first fragment, and which service, by its slot, and endpoint it is of.
    ///
    /// # Errors
    /// Why it cannot become that.
    #[inline]
    pub(super) fn note_first<K: Key, B>(
        &mut self,
        packet: &Packet<'_, B>,
        key: &K,
        to: &K,
        served: (u32, BackendId),
    ) -> Result<(), DropReason>
    where
        B: PacketBuf,
    {
        if packet.parsed.is_fragment() { self.note_fragment(packet, key, to, served) } else { Ok(()) }
    }

    #[cold]
    fn note_fragment<K: Key, B: PacketBuf>(
        &mut self,
        packet: &Packet<'_, B>,
        key: &K,
        to: &K,
        (service, backend): (u32, BackendId),
    ) -> Result<(), DropReason> {
        let ports = |key: &K| (key.source().1, key.destination().1);
        if packet.parsed.l4 == L4::Sctp && ports(key) != ports(to) {
            return Err(DropReason::SERVICE_FRAGMENT);
        }
        if let Some((name, piece)) = named(packet, key) {
            let fragmented =
                Fragmented { packet: name, port: self.in_port, to: *to, service, backend, end: piece.end };
            K::fragments(self.flows).enter(fragmented, self.now);
        }
        Ok(())
    }
}

/// What the fragments of a packet are known by, and which piece this is.
fn named<K: Key, B: PacketBuf>(packet: &Packet<'_, B>, key: &K) -> Option<(K, Piece)> {
    let piece = Piece::of(packet.buf.data(), packet.parsed)?;
    let ((src, _), (dst, _)) = (key.source(), key.destination());
    // Of IPv6 the fragment header may name an extension header in one fragment and, as parsed, the protocol behind it in
    // another.
    let protocol = if src.is_ipv4() { key.protocol() } else { Protocol::FRAGMENT };
    let [a, b, c, d] = piece.identification.to_be_bytes();
    let halves = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    Some((K::between(key.tenant(), protocol, (src, halves.0), (dst, halves.1))?, piece))
}

/// A hash that all fragments between two hosts have, so that they take the same way through the underlay and to the same
/// queue of the other node.
#[cold]
pub(super) fn hash(frame: &[u8], parsed: &Parsed) -> u64 {
    let parsed = Parsed { src_port: 0, dst_port: 0, protocol: Protocol::FRAGMENT, ..*parsed };
    match FlowKey4::of(frame, &parsed, Tenant::DEFAULT) {
        Some(key) => key.hash64(),
        None => FlowKey6::of(frame, &parsed, Tenant::DEFAULT).map_or(0, |key| key.hash64()),
    }
}
