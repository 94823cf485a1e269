//! The usual first packet of a flow to a service: UDP, or TCP with SYN and nothing else, to a service that chooses by hash.
//!
//! In: a usual packet of a pod to a virtual address that belongs to no flow. Out: the flow is entered into the table, and the
//! packet is ready to be sent. What there is to be found out is found out while lines of the index are fetched, of the whole
//! burst. All that is not like that, and whatever goes wrong, is left to [`service`](super::service), the packet as it was.

use culvert_packet::PacketBuf;
use culvert_packet::flow::FlowKey4;
use culvert_packet::rewrite::Translation4;
use culvert_packet::usual;

use super::NOWHERE;
use super::recent::Question;
use super::shortcut;
use super::stage::Stage;
use super::usual::Lane;
use crate::flow::{Deltas, Derived, Key, Out, OutBits, Record, Route, State};
use crate::table::{BackendId, Balancing, PortIndex, Service, ServiceKey};

/// What is known of a flow before it is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening {
    /// Slot of the service that the packet is for.
    pub(super) service: u32,
    /// Where it goes; nowhere if it is not to be opened here, and then nothing else is known.
    out: OutBits,
    backend: BackendId,
    translated: FlowKey4,
    /// Hash of the key of what comes back.
    answer: u64,
}

/// By what a service is told: tenant and address, protocol and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked(u64, u32);

impl Asked {
    #[inline(always)]
    fn by(key: &FlowKey4) -> Self {
        Self(key.destination_bits(), u32::from(key.protocol().0) << 16 | u32::from(key.dst_port()))
    }
}

impl Question for Asked {
    const NONE: Self = Self(u64::MAX, u32::MAX);

    #[inline(always)]
    fn bits(self) -> u64 {
        self.0 ^ u64::from(self.1) << 32
    }
}

impl Opening {
    /// Of a flow of which no more is known than the service.
    const fn through(service: u32) -> Self {
        Self {
            service,
            out: OutBits::NOWHERE,
            backend: BackendId { slot: 0, generation: 0 },
            translated: Lane::EMPTY.key,
            answer: 0,
        }
    }
}

impl Stage<'_> {
    /// Finds out what it takes to open a flow to a virtual address, and fetches it; returns its place among the openings. The
    /// flow may be opened here unless it `may_be_known`.
    #[inline(never)]
    pub(super) fn expect(&mut self, key: &FlowKey4, hash: u64, may_be_known: bool) -> u32 {
        let place = self.openings.len() as u32;
        let mut opening = self.opening(key, hash);
        if may_be_known {
            opening.out = OutBits::NOWHERE;
        }
        self.openings.push(opening);
        place
    }

    #[inline(always)]
    fn opening(&mut self, key: &FlowKey4, hash: u64) -> Opening {
        let view = self.view;
        let slot = self.services.get(Asked::by(key), || {
            let (vip, port) = key.destination();
            let service =
                view.service(&ServiceKey { tenant: key.tenant(), vip, protocol: key.protocol(), port });
            service.map_or(NOWHERE, Service::slot)
        });
        let service = view.service_in(slot);
        // What depends on the flows before this one is not known yet.
        let by_hash =
            |service: &&Service| service.balancing() == Balancing::Maglev && service.affinity().is_none();
        let backend = service.filter(by_hash).and_then(|service| service.pick(hash));
        let Some(backend) = backend else { return Opening::through(slot) };
        let target = (backend.address, backend.port);
        let Some(translated) = FlowKey4::between(key.tenant(), key.protocol(), key.source(), target) else {
            return Opening::through(slot);
        };
        let answer = translated.reversed().hash64();
        self.tables.v4.burst().prefetch(answer);
        let itself = translated.src() == translated.dst();
        let out = if itself { OutBits::NOWHERE } else { self.recent_destination(&translated).out() };
        Opening { service: slot, out, backend: backend.id, translated, answer }
    }

    /// Opens a flow by a usual packet that belongs to none, and sends it. `None`, and the packet is as it was, for all that
    /// needs a closer look.
    #[inline(always)]
    pub(super) fn open_usual<B: PacketBuf>(&mut self, lane: &Lane, buf: &mut B) -> Option<PortIndex> {
        let &Opening { service, out, backend, translated, answer } = self.openings.get(lane.slot as usize)?;
        let key = &lane.key;
        if !lane.probe.is_absent() || !usual::opens(buf.data()) || !self.may_leave(lane, out, buf) {
            return None;
        }
        let route = Route { epoch: self.view.epoch(), forward: out.into(), reply: Out::Pod(self.in_port) };
        if self.slots.is_some_and(|slots| shortcut::is_taken(slots, route.epoch, &translated, route.forward))
        {
            return None;
        }
        let record = Record { original: *key, translated, route, service, backend };
        let (table, arena, loads) = FlowKey4::parts(self.flows);
        let translation = Translation4::new(key, &translated);
        let derived = Derived { hash: lane.hash, answer, deltas: Deltas::from(&translation) };
        table.insert_derived(arena, &record, derived, self.now, State::first(key.protocol())).ok()?;
        loads.add(backend, 1);
        self.counters.service_flow(service);
        // From here on the flow is known: should the packet not go, it is looked at as any other of it.
        let port = self.transmit_usual(lane, true, out, buf, Some(&translation))?;
        self.tally.add(self.counters, service, lane.len);
        Some(port)
    }
}
