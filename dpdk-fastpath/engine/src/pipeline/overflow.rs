//! Flows for which there is no record.
//!
//! In: the first packet of a flow while the table is full, or a later one of a flow that had no room then; or a packet that
//! may be the answer to one, or an error about one. Out: it is translated by itself, the same way each time. As soon as there
//! is room a flow gets a record at the client's next packet, and nothing else about it changes.

use culvert_packet::PacketBuf;
use culvert_packet::ip::Protocol;
use culvert_packet::parse::verify_transport;
use culvert_packet::quote::Quote;

use super::stage::{Origin, Packet, Stage, Step};
use super::verdict::Verdict;
use crate::counter::DropReason;
use crate::flow::{Key, Lender, Out, marked, unmarked};
use crate::table::{Backend, BackendId, Service, Snapshot};

impl Stage<'_> {
    /// Whether there may be flows without a record.
    #[inline]
    pub(super) fn overflows(&self) -> bool {
        self.tables.overflow.is_active(self.now)
    }

    /// Whether a packet from the midst of a connection that nobody knows may be one of a connection without a record.
    pub(super) fn goes_on_without_record<K: Key>(&mut self, service: &Service, key: &K, hash: u64) -> bool {
        if !self.overflows() || marked(key.source().1).is_none() {
            return false;
        }
        let pair = self.by_hash(service, key, hash).and_then(|backend| pair(key, backend));
        pair.and_then(|pair| lent(self, &pair)) == Some(service.slot())
    }

    /// Translates a packet of a flow that there is no room for. It goes to the endpoint that its hash chooses, whatever the
    /// balancing of the service.
    pub(super) fn stateless<K: Key, B: PacketBuf>(
        &mut self,
        packet: Packet<'_, B>,
        key: &K,
        service: &Service,
    ) -> Verdict {
        if packet.parsed.is_ping() {
            return self.drop(DropReason::FLOW_TABLE_FULL);
        }
        let backend = self.by_hash(service, key, packet.hash);
        let lent = backend.and_then(|backend| Some((self.lend(key, service, backend)?, backend.id)));
        let Some((translated, backend)) = lent else { return self.drop(DropReason::FLOW_TABLE_FULL) };
        self.tables.overflow.note(self.now);
        self.without_record(packet, key, &translated, (service.slot(), backend))
    }

    /// What a packet becomes without a record; `None` if its answers could not be told.
    fn lend<K: Key>(&mut self, key: &K, service: &Service, backend: &Backend) -> Option<K> {
        let (tenant, protocol, (client, port)) = (key.tenant(), key.protocol(), key.source());
        if client == backend.address {
            return None;
        }
        let translated = K::between(tenant, protocol, (client, marked(port)?), backend.endpoint())?;
        // Answers to a tracked flow count as its own.
        let answers = translated.reversed();
        if self.flow(&answers, answers.hash64()).is_some() {
            return None;
        }
        let pair = pair(key, backend)?;
        let own = Lender { slot: service.slot(), name: service.identity() };
        let serves = |slot| serves(self.view, &pair, slot);
        self.tables.overflow.lend(pair.hash64(), own, self.now, serves).then_some(translated)
    }

    /// Forwards a packet that belongs to no tracked flow: as an answer to one that has no record, if that is what it is.
    pub(super) fn answer_or_route<K: Key, B: PacketBuf>(
        &mut self,
        packet: Packet<'_, B>,
        key: &K,
    ) -> Verdict {
        match self.answered_flow(key) {
            Some((to, served)) => self.without_record(packet, key, &to, served),
            None => self.route(packet, key),
        }
    }

    #[cold]
    fn without_record<K: Key, B: PacketBuf>(
        &mut self,
        packet: Packet<'_, B>,
        key: &K,
        to: &K,
        served: (u32, BackendId),
    ) -> Verdict {
        let (tenant, dst) = (key.tenant(), to.destination().0);
        let out = self.out(tenant, dst);
        if out == Out::Nowhere {
            return self.nowhere(packet, tenant, dst);
        }
        let packet = match self.clear(packet, out) {
            Step::Continue(packet) => packet,
            Step::Break(end) => return end,
        };
        if let Err(reason) = self.note_first(&packet, key, to, served) {
            return self.drop(reason);
        }
        self.counters.flow_stateless();
        self.counters.service_packet(served.0, packet.parsed.l3_len.into());
        self.transmit(packet, out, |frame, parsed| key.translate(to, frame, parsed))
    }

    /// Forwards an ICMP error about what is no packet of a tracked flow: if it is about one that left here without a record,
    /// to the client, as if it were about what that sent. `answer` is what an answer to that packet would be.
    pub(super) fn error_without_record<K: Key, B: PacketBuf>(
        &mut self,
        packet: Packet<'_, B>,
        key: &K,
        quote: &Quote,
        answer: &K,
    ) -> Verdict {
        let Some((to, _)) = self.answered_flow(answer) else { return self.route(packet, key) };
        let (reporter, endpoint) = (key.source().0, answer.source().0);
        let is_endpoint = reporter == endpoint;
        if key.destination().0 != answer.destination().0 || packet.origin == Origin::Pod && !is_endpoint {
            return self.drop(DropReason::ICMP_UNRELATED);
        }
        if let Err(malformed) = verify_transport(packet.buf.data(), packet.parsed) {
            return self.drop(malformed);
        }
        let (vip, client) = (to.source().0, to.destination().0);
        let out = self.out(key.tenant(), client);
        // The client knows the service, not its endpoint.
        let from = if is_endpoint { vip } else { reporter };
        self.send_error(packet, quote, &to.reversed(), out, (from, client))
    }

    /// What the answer to a flow without a record becomes, and the slot of the service with the endpoint; `None` for other
    /// packets.
    fn answered_flow<K: Key>(&self, key: &K) -> Option<(K, (u32, BackendId))> {
        let transport = matches!(key.protocol(), Protocol::TCP | Protocol::UDP | Protocol::SCTP);
        if !transport || !self.overflows() {
            return None;
        }
        let (tenant, protocol, (client, port)) = (key.tenant(), key.protocol(), key.destination());
        let client = (client, unmarked(port)?);
        let pair = K::between(tenant, protocol, (client.0, 0), key.source())?;
        let service = self.view.service_in(lent(self, &pair)?)?;
        let vip = (service.key().vip, service.key().port);
        let backend = service.backend(key.source())?.id;
        Some((K::between(tenant, protocol, vip, client)?, (service.slot(), backend)))
    }
}

/// The client of a flow and an endpoint.
fn pair<K: Key>(key: &K, backend: &Backend) -> Option<K> {
    K::between(key.tenant(), key.protocol(), (key.source().0, 0), backend.endpoint())
}

/// The slot of the service through which a client, the source of `pair`, reaches an endpoint without records.
fn lent<K: Key>(stage: &Stage<'_>, pair: &K) -> Option<u32> {
    let view = stage.view;
    stage.tables.overflow.service(pair.hash64(), stage.now, |slot| serves(view, pair, slot))
}

/// The service in a slot if the destination of `pair` is an endpoint of its.
fn serves<K: Key>(view: &Snapshot, pair: &K, slot: u32) -> Option<Lender> {
    let service = view.service_in(slot)?;
    let same = service.key().tenant == pair.tenant() && service.key().protocol == pair.protocol();
    service.backend(pair.destination()).filter(|_| same)?;
    Some(Lender { slot, name: service.identity() })
}
