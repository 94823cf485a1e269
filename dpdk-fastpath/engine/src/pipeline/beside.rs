//! Connections of one client that look the same to an endpoint: one through a service, and one to the endpoint itself.
//!
//! A client's system chooses source ports for each destination by itself, so that it may take the same one for both. The endpoint
//! cannot tell them apart, nor can its answers be. One of TCP or SCTP to the endpoint itself gets another source port here, unless the
//! one through the service is over, which then is forgotten. The other way round nothing is known of the first one, since connections to
//! the endpoint itself are not tracked; but with TCP it shows as soon as the endpoint goes on with it where it was asked to begin another,
//! and the one through the service gets another port.

use culvert_packet::PacketBuf;

use super::shortcut;
use super::stage::{Origin, Packet, Stage, Step};
use super::verdict::Verdict;
use crate::counter::DropReason;
use crate::flow::{Hit, InsertError, Key, NO_SERVICE, Out, Record, Route, Signal, State};
use crate::table::BackendId;

impl Stage<'_> {
    /// A pod asks an endpoint for a connection of its own, by `key`. Whether none through a service has the same answers: one that
    /// is over is forgotten.
    #[inline(never)]
    pub(super) fn gives_way<K: Key>(&mut self, key: &K) -> bool {
        let answers = key.reversed();
        let hit = self.flow(&answers, answers.hash64()).filter(|hit| hit.reply);
        if let Some(hit) = &hit
            && hit.state().may_be_reopened()
        {
            self.end(hit);
            return true;
        }
        hit.is_none()
    }

    /// Opens a connection of a pod to an endpoint itself, as a flow with a source port of its own.
    pub(super) fn open_beside<K: Key, B: PacketBuf>(
        &mut self,
        packet: Packet<'_, B>,
        key: &K,
        out: Out,
    ) -> Verdict {
        let packet = match self.clear(packet, out) {
            Step::Continue(packet) => packet,
            Step::Break(end) => return end,
        };
        let route = Route { epoch: self.view.epoch(), forward: out, reply: Out::Pod(self.in_port) };
        let (service, backend) = (NO_SERVICE, BackendId::NONE);
        let record = Record { original: *key, translated: *key, route, service, backend };
        match self.enter_by_port(record, Some(key), State::first(key.protocol())) {
            Ok(translated) => {
                // Of packets that were looked up with this one some may be of this flow: none is known to belong to none any more.
                (self.doors, self.ways) = (&[], &[]);
                if let Err(reason) = self.note_first(&packet, key, &translated, (service, backend)) {
                    return self.drop(reason);
                }
                self.transmit(packet, out, |frame, parsed| key.translate(&translated, frame, parsed))
            }
            // Another worker was faster.
            Err(InsertError::Exists(hit)) => self.established(packet, key, hit),
            Err(InsertError::ReplyTaken) => self.drop(DropReason::FLOW_NO_PORT),
            Err(InsertError::Full) => self.transmit(packet, out, |_, _| {}),
        }
    }

    /// Whether what looks like an answer is none: nobody but an endpoint that has another connection between the same ports goes on
    /// where it was asked to begin (RFC 9293, section 3.10.7.4).
    #[inline]
    pub(super) fn is_stray<K: Key, B: PacketBuf>(
        &self,
        packet: &Packet<'_, B>,
        key: &K,
        hit: &Hit<K>,
    ) -> bool {
        let state = hit.state();
        matches!(state, State::SynSent | State::Unwatched)
            && Signal::from(packet.parsed).goes_on()
            && self.awaits_answer(state, packet.origin, key)
    }

    /// Whether it is sure that a flow in one of these states has had no answer.
    #[cold]
    fn awaits_answer<K: Key>(&self, state: State, origin: Origin, key: &K) -> bool {
        let from = self.end_of(origin);
        let known = self.slots.and_then(|slots| shortcut::is_awaited(slots, self.view.epoch(), from, key));
        known.unwrap_or(state == State::SynSent)
    }

    /// An endpoint goes on with a connection where it was asked for another: it is sent on as the former's, and the flow gets another
    /// source port, by which its client is going to ask once more. It is counted as a new one.
    #[cold]
    pub(super) fn stray<K: Key, B: PacketBuf>(
        &mut self,
        packet: Packet<'_, B>,
        key: &K,
        hit: &Hit<K>,
    ) -> Verdict {
        let Record { original, translated, backend, .. } = hit.record;
        if self.end(hit) && self.view.has_backend(backend) {
            let record = Record { route: self.ways(hit), ..hit.record };
            // Without room, or another port, it begins with its next packet as it did with the first.
            let moved = self.enter_by_port(record, Some(&translated), State::first(original.protocol()));
            if moved.is_ok() {
                self.hold_moved(&original);
            }
        }
        self.route(packet, key)
    }
}
