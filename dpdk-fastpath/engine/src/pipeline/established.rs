//! A packet of a tracked flow.
//!
//! In: a packet and the flow that it belongs to. Out: it is translated and goes where the flow goes. A flow whose decision
//! was made under another epoch is checked first, once: if its endpoint is gone, UDP and pings are decided anew, and TCP and SCTP are
//! refused, unless the node is told otherwise; else its ways are looked up again.

use culvert_packet::PacketBuf;
use culvert_packet::parse::L4;

use super::shortcut;
use super::stage::{Origin, Packet, Stage, Step};
use super::verdict::Verdict;
use crate::counter::DropReason;
use crate::flow::{Hit, Key, Out, Record, Route, Signal};
use crate::table::LostConnections;

impl Stage<'_> {
    /// Forwards a packet whose flow was looked up.
    #[inline]
    pub(super) fn forward<K: Key, B: PacketBuf>(
        &mut self,
        packet: Packet<'_, B>,
        key: &K,
        hit: Option<Hit<K>>,
    ) -> Verdict {
        match hit {
            // Requests come from the client's own port only: that is where its address was checked.
            Some(hit) if hit.reply || packet.origin == Origin::Pod => self.established(packet, key, hit),
            Some(_) => self.route(packet, key),
            None => self.answer_or_route(packet, key),
        }
    }

    /// Sends a packet of a flow if the decision made for that still holds, or can be mended.
    pub(super) fn established<K: Key, B: PacketBuf>(
        &mut self,
        packet: Packet<'_, B>,
        key: &K,
        mut hit: Hit<K>,
    ) -> Verdict {
        if !hit.reply && hit.state().may_be_reopened() && Signal::from(packet.parsed).opens() {
            return self.anew(packet, key, &hit);
        }
        if hit.reply && self.is_stray(&packet, key, &hit) {
            return self.stray(packet, key, &hit);
        }
        let mut exists = true;
        if hit.record.route.epoch != self.view.epoch() {
            exists = self.view.has_backend(hit.record.backend);
            if !exists && !hit.reply {
                return self.endpoint_gone(packet, key, &hit);
            }
            let route = self.ways(&hit);
            if exists {
                K::table(self.tables).reroute(&hit, route);
            }
            hit.record.route = route;
        }
        self.follow(packet, key, hit, exists)
    }

    /// Translates and sends a packet of a flow whose decision holds. If the endpoint does not exist any more, it counts for
    /// no service: the slot may have a new occupant.
    fn follow<K: Key, B: PacketBuf>(
        &mut self,
        packet: Packet<'_, B>,
        key: &K,
        hit: Hit<K>,
        exists: bool,
    ) -> Verdict {
        let Route { forward, reply, .. } = hit.record.route;
        let out = if hit.reply { reply } else { forward };
        if out == Out::Nowhere {
            let Record { original, translated, .. } = hit.record;
            let dst = if hit.reply { original.source().0 } else { translated.destination().0 };
            return self.nowhere(packet, key.tenant(), dst);
        }
        match self.clear(packet, out) {
            Step::Continue(packet) => {
                let Record { original, translated, service, backend, .. } = hit.record;
                let to = if hit.reply { original.reversed() } else { translated };
                if let Err(reason) = self.note_first(&packet, key, &to, (service, backend)) {
                    return self.drop(reason);
                }
                let opened = K::table(self.tables).touch(&hit, self.now, packet.parsed);
                if opened != 0 {
                    self.flows.loads.add(hit.record.backend, opened);
                }
                if exists {
                    self.counters.service_packet(hit.record.service, packet.parsed.l3_len.into());
                }
                self.transmit(packet, out, |frame, parsed| hit.translate(frame, parsed))
            }
            Step::Break(end) => end,
        }
    }

    /// Where both directions of a flow go by the present tables.
    pub(super) fn ways<K: Key>(&mut self, hit: &Hit<K>) -> Route {
        let tenant = hit.record.original.tenant();
        Route {
            epoch: self.view.epoch(),
            forward: self.out(tenant, hit.record.translated.destination().0),
            reply: self.out(tenant, hit.record.original.source().0),
        }
    }

    fn endpoint_gone<K: Key, B: PacketBuf>(
        &mut self,
        packet: Packet<'_, B>,
        key: &K,
        hit: &Hit<K>,
    ) -> Verdict {
        // Whoever still opens a connection can as well open it to another endpoint.
        if matches!(packet.parsed.l4, L4::Udp | L4::Echo) || Signal::from(packet.parsed).opens() {
            return self.anew(packet, key, hit);
        }
        match self.local.flows.lost {
            LostConnections::Reselect => self.anew(packet, key, hit),
            LostConnections::Drop => {
                self.end(hit);
                self.drop(DropReason::FLOW_ENDPOINT_GONE)
            }
            LostConnections::Reset => {
                self.end(hit);
                self.refuse(packet, DropReason::FLOW_ENDPOINT_GONE)
            }
        }
    }

    /// Forgets the flow and decides as for its first packet.
    fn anew<K: Key, B: PacketBuf>(&mut self, packet: Packet<'_, B>, key: &K, hit: &Hit<K>) -> Verdict {
        self.end(hit);
        self.route(packet, key)
    }

    /// Forgets the flow; `false` if another worker did.
    pub(super) fn end<K: Key>(&mut self, hit: &Hit<K>) -> bool {
        let Some(state) = K::table(self.tables).remove(hit) else { return false };
        shortcut::forget(self.slots, &hit.record);
        self.counters.flows_expired(1);
        if state.is_open() {
            self.flows.loads.add(hit.record.backend, -1);
        }
        true
    }
}
