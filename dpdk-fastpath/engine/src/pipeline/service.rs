//! The first packet of a flow to a service.
//!
//! In: a packet to a virtual address that belongs to no flow. Out: an endpoint is chosen, the flow is entered into the
//! table in both directions, and the packet goes the way that all later ones will. What cannot be served is refused: TCP
//! with a reset, SCTP with an ABORT, else with "port unreachable". When there is no room, the packet goes without a record.
//! A ping is answered here unless there are endpoints for it.

use std::net::IpAddr;

use culvert_packet::PacketBuf;
use culvert_packet::parse::L4;

use super::stage::{Packet, Stage, Step};
use super::verdict::Verdict;
use crate::balance::least_loaded;
use crate::counter::DropReason;
use crate::flow::{InsertError, Key, Out, Record, Route, Signal, State, marked};
use crate::table::{Backend, Balancing, LostConnections, Service, ServiceKey};

impl Stage<'_> {
    /// Opens a flow.
    pub(super) fn open<K: Key, B: PacketBuf>(&mut self, packet: Packet<'_, B>, key: &K) -> Verdict {
        let (vip, port) = key.destination();
        let view = self.view;
        let port = if packet.parsed.is_ping() { 0 } else { port };
        let wanted = ServiceKey { tenant: key.tenant(), vip, protocol: key.protocol(), port };
        let service = view.service_near(packet.service, &wanted);
        let may_open = matches!(packet.parsed.l4, L4::Tcp | L4::Udp | L4::Sctp) || packet.parsed.is_ping();
        let Some(service) = service.filter(|_| may_open) else { return self.not_served(packet) };
        if packet.parsed.l4 == L4::Sctp && packet.parsed.is_fragment() {
            return self.drop(DropReason::SERVICE_FRAGMENT);
        }
        let signal = Signal::from(packet.parsed);
        let opens = !matches!(packet.parsed.l4, L4::Tcp | L4::Sctp) || signal.opens();
        let reselects = self.local.flows.lost == LostConnections::Reselect && signal.goes_on();
        if !(opens || reselects || self.goes_on_without_record(service, key, packet.hash)) {
            return self.lost(packet);
        }
        let Some(backend) = self.choose(service, key, packet.hash) else {
            self.counters.service_rejected(service.slot());
            return self.refuse(packet, DropReason::SERVICE_NO_ENDPOINT);
        };
        let tenant = key.tenant();
        let out = self.out(tenant, backend.address);
        if out == Out::Nowhere {
            return self.nowhere(packet, tenant, backend.address);
        }
        match self.clear(packet, out) {
            Step::Continue(packet) => self.enter(packet, key, service, backend, out, opens),
            Step::Break(verdict) => verdict,
        }
    }

    /// A packet from the midst of a connection that nobody knows.
    fn lost<B: PacketBuf>(&mut self, packet: Packet<'_, B>) -> Verdict {
        match self.local.flows.lost {
            LostConnections::Drop => self.drop(DropReason::FLOW_UNKNOWN),
            LostConnections::Reselect | LostConnections::Reset => {
                self.refuse(packet, DropReason::FLOW_UNKNOWN)
            }
        }
    }

    /// The endpoint for a new flow.
    fn choose<'s, K: Key>(&mut self, service: &'s Service, key: &K, hash: u64) -> Option<&'s Backend> {
        match service.affinity() {
            Some(affinity) => self.choose_for_client(service, affinity, key),
            None => self.choose_anew(service, hash),
        }
    }

    /// The endpoint for a new flow that nothing ties to any.
    pub(super) fn choose_anew<'s>(&mut self, service: &'s Service, hash: u64) -> Option<&'s Backend> {
        match service.balancing() {
            Balancing::Maglev => service.pick(hash),
            // What goes without a record must go on to the same endpoint when it gets one.
            _ if self.overflows() => service.pick(hash),
            Balancing::RoundRobin => service.in_turn(self.flows.turns.take(service.slot())),
            Balancing::LeastFlow => least_loaded(service, &self.tables.loads, hash),
        }
    }

    /// A packet to a virtual address, but not to what is served there.
    fn not_served<B: PacketBuf>(&mut self, packet: Packet<'_, B>) -> Verdict {
        match packet.parsed.l4 {
            L4::Tcp | L4::Udp | L4::Sctp => self.refuse(packet, DropReason::SERVICE_PORT),
            L4::Echo => self.pinged(packet, DropReason::ICMP_UNRELATED),
            L4::Icmp => self.drop(DropReason::ICMP_UNRELATED),
            L4::Opaque => self.drop(DropReason::SERVICE_PORT),
        }
    }

    /// Enters the flow into the table and sends its first packet.
    fn enter<K: Key, B: PacketBuf>(
        &mut self,
        packet: Packet<'_, B>,
        key: &K,
        service: &Service,
        backend: &Backend,
        out: Out,
        opens: bool,
    ) -> Verdict {
        let Some(source) = self.source(key, backend) else { return self.drop(DropReason::FLOW_NO_PORT) };
        let route = Route { epoch: self.view.epoch(), forward: out, reply: Out::Pod(self.in_port) };
        let first = if opens { State::first } else { State::resumed };
        let own = key.source().1;
        // The port that it may have had without a record.
        let was_marked = self.overflows() && !packet.parsed.is_ping();
        let own = if was_marked { marked(own).unwrap_or(own) } else { own };
        // An echo has its identifier in both places.
        let port = if packet.parsed.is_ping() { own } else { backend.port };
        let target = (backend.address, port);
        let Some(translated) = K::between(key.tenant(), key.protocol(), (source, own), target) else {
            return self.drop(DropReason::FLOW_NO_PORT);
        };
        let record =
            Record { original: *key, translated, route, service: service.slot(), backend: backend.id };
        match self.enter_by_port(record, None, first(key.protocol())) {
            Ok(translated) => {
                let served = (service.slot(), backend.id);
                if let Err(reason) = self.note_first(&packet, key, &translated, served) {
                    return self.drop(reason);
                }
                self.counters.service_packet(service.slot(), packet.parsed.l3_len.into());
                self.transmit(packet, out, |frame, parsed| key.translate(&translated, frame, parsed))
            }
            // Another worker was faster.
            Err(InsertError::Exists(hit)) => self.established(packet, key, hit),
            Err(InsertError::ReplyTaken) => self.drop(DropReason::FLOW_NO_PORT),
            Err(InsertError::Full) => self.stateless(packet, key, service),
        }
    }

    /// The source address of the translated flow: the client's own, so that the endpoint sees it. A pod that reaches itself
    /// would answer to itself, so that the router's address stands in.
    fn source<K: Key>(&self, key: &K, backend: &Backend) -> Option<IpAddr> {
        let (client, _) = key.source();
        match client {
            _ if client != backend.address => Some(client),
            IpAddr::V4(_) => self.local.gateways(key.tenant()).0.map(IpAddr::V4),
            IpAddr::V6(_) => self.local.gateways(key.tenant()).1.map(IpAddr::V6),
        }
    }
}
