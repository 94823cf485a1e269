//! Connections to services that the short cut opens by itself.
//!
//! In: a connection to a service that a worker has opened. Out: the kernel knows how the service's endpoints are chosen, if by
//! hash alone, and opens the next ones. And in: what it has opened. Out: their flows, as if their first packets had come here.
//! No packet is looked at before those are entered that were opened before it came, so that here it is never seen what was opened
//! there and is not known.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use culvert_dpdk::tsc;
use culvert_packet::flow::{FlowKey4, Tenant};
use culvert_packet::ip::Protocol;
use culvert_shortcut::layout::BACKENDS;
use culvert_shortcut::{Choice, Direction, Slots, Unheard};

use super::shortcut::{self, out};
use super::stage::Stage;
use super::upkeep::make_room;
use super::{Pipeline, Shortcut};
use crate::counter::CounterWriter;
use crate::flow::{FlowWorker, Hit, InsertError, Key, Record, Route, State, Tick};
use crate::table::{Balancing, ServiceKey, Snapshot};

/// How often a flow is tried to be entered: each time another one is in its place, or there is no room.
const TRIES: u32 = 4;

impl Stage<'_> {
    /// Tells the kernel how the endpoints of a flow's service are chosen, unless it knows.
    pub(super) fn tell_choices(&mut self, slots: &Slots, record: &Record<FlowKey4>, now: u64) {
        let (view, serial) = (self.view, self.view.serial());
        let served = (record.original.dst(), record.original.dst_port());
        if slots.is_opened_by_kernel(serial, served) {
            return;
        }
        let Some(service) = view.service_near(record.service, &asked(served)) else { return };
        let by_hash = service.balancing() == Balancing::Maglev && service.affinity().is_none();
        let (choices, backends) = (service.choices(), service.backends());
        // Flows that are not known may have the answers of what would be opened.
        if !by_hash || backends.len() > BACKENDS || self.overflows() || self.flows.takes_over() {
            return;
        }
        let mut all = [Choice { address: Ipv4Addr::UNSPECIFIED, port: 0, to: None }; BACKENDS];
        for (choice, backend) in all.iter_mut().zip(backends) {
            let IpAddr::V4(address) = backend.address else { return };
            // So may flows through another service.
            let is_sole = view.is_sole(service, backend.endpoint());
            let to = self.pod_at(backend.address).filter(|end| is_sole && slots.is_open(*end));
            *choice = Choice { address, port: backend.port, to };
        }
        let choices = choices.iter().map(|index| *index as u8);
        slots.open_by_kernel((serial, served), choices, all[..backends.len()].iter().copied(), now);
    }
}

/// What another process's short cut has opened.
#[derive(Debug)]
pub(super) struct LeftOpened {
    unheard: Arc<Unheard>,
    /// Cycles of the time stamp counter after its end for which something may still be heard.
    rest: u64,
    /// When that was, if it was.
    ended: Option<u64>,
}

impl Pipeline {
    /// Enters what the short cut of another process has opened, too. The time stamp counter counts `hz` in a second.
    pub fn hear_from(&mut self, unheard: Arc<Unheard>, hz: u64) {
        self.left = Some(LeftOpened { unheard, rest: hz, ended: None });
    }

    /// Enters the flows of connections that the kernel has opened so far; `again` those for which there was no room, too.
    #[inline(always)]
    pub(super) fn enter_opened(&mut self, view: &Snapshot, now: Tick, again: bool) {
        let is_due = |slots: &Slots| slots.are_any_opened() || again && slots.are_any_waiting();
        if self.shortcut.as_ref().is_some_and(|shortcut| is_due(&shortcut.slots)) {
            self.enter_all_opened(view, now);
        }
        if self.left.is_some() {
            self.enter_left(view, now);
        }
    }

    #[cold]
    fn enter_all_opened(&mut self, view: &Snapshot, now: Tick) {
        let Self { shortcut: Some(Shortcut { slots, .. }), flows, counters, .. } = self else { return };
        let mut entering = Entering { slots: Some(slots), flows, counters, view, now };
        slots.hear_of_opened(|epoch, direction| entering.enter(Some(epoch), direction));
    }

    #[cold]
    fn enter_left(&mut self, view: &Snapshot, now: Tick) {
        let Self { left: Some(LeftOpened { unheard, rest, ended }), shortcut, flows, counters, .. } = self
        else {
            return;
        };
        if unheard.are_any() {
            let slots = shortcut.as_ref().map(|shortcut| &*shortcut.slots);
            let mut entering = Entering { slots, flows, counters, view, now };
            unheard.hear(|_, direction| entering.enter(None, direction));
        }
        let is_over = |ended: u64| tsc::now().wrapping_sub(ended) > *rest;
        match ended {
            Some(ended) if is_over(*ended) => self.left = None,
            None if unheard.has_ended() => *ended = Some(tsc::now()),
            _ => {}
        }
    }

    /// Whether the kernel may open connections that are heard of some moments later.
    pub(super) fn has_room_for_opened(&self, now: Tick) -> bool {
        let FlowWorker { tables, arena4, .. } = &self.flows;
        arena4.has_room(&tables.v4) && !tables.overflow.is_active(now) && !self.flows.takes_over()
    }
}

/// What it takes to enter a flow.
struct Entering<'a> {
    slots: Option<&'a Slots>,
    flows: &'a mut FlowWorker,
    counters: &'a mut CounterWriter,
    view: &'a Snapshot,
    now: Tick,
}

impl Entering<'_> {
    /// Enters the flow of a connection that was opened under this epoch, if not by another process; `false` if that has to wait.
    fn enter(&mut self, epoch: Option<u32>, opened: &Direction) -> bool {
        let Direction { from, key: original, becomes: translated, to, .. } = *opened;
        let view = self.view;
        let service = view.service(&asked((original.dst(), original.dst_port())));
        let backend = service.and_then(|service| service.backend(translated.destination()));
        let Some((service, backend)) = service.zip(backend) else {
            // The endpoint is gone, unless the tables are older than the connection.
            return match (epoch, self.slots) {
                (Some(_), Some(slots)) => slots.memory().serial() == view.serial(),
                _ => view.local().is_some(),
            };
        };
        // Epoch 0 is none: where it goes is to be decided.
        let epoch = epoch.unwrap_or(0);
        let route = Route { epoch, forward: out(to), reply: out(from) };
        let record = Record { original, translated, route, service: service.slot(), backend: backend.id };
        for _ in 0..TRIES {
            let (table, arena, loads) = FlowKey4::parts(self.flows);
            if arena.is_short(table) {
                let ended = make_room(arena, table, (loads, self.slots), view, self.now);
                self.counters.flows_expired(ended);
            }
            let found = table.lookup(&original, original.hash64());
            if let Some(hit) = found.filter(|hit| is_same(hit, &record)) {
                if !hit.state().may_be_reopened() {
                    // Its first packet came here as well.
                    table.unwatch(&hit);
                    return true;
                }
                // The client has taken the same port again, as it does when it opens many.
                if let Some(opened) = table.begin_again(&hit, self.now, State::Unwatched) {
                    table.reroute(&hit, route);
                    loads.add(backend.id, opened);
                    self.counters.flows_expired(1);
                    self.counters.service_flow(service.slot());
                    return true;
                }
            }
            if let Some(hit) = found {
                if self.stays(&hit, &record) {
                    return true;
                }
                self.end(&hit, opened);
                continue;
            }
            match table.insert(arena, &record, self.now, State::Unwatched) {
                Ok(()) => {
                    loads.add(backend.id, 1);
                    self.counters.service_flow(service.slot());
                    return true;
                }
                Err(InsertError::ReplyTaken) => {
                    let answer = translated.reversed();
                    let Some(hit) = table.lookup(&answer, answer.hash64()) else { continue };
                    if self.stays(&hit, &record) {
                        return true;
                    }
                    self.end(&hit, opened);
                }
                Err(InsertError::Exists(_) | InsertError::Full) => {}
            }
        }
        false
    }

    /// Whether a flow that the kernel does not know stands in the way of what it has opened, and nobody has answered that: it comes to
    /// nothing then, and when the client asks once more, its packet comes here. That is a flow with another source port than its
    /// client's, to the same endpoint or with the answers of the other. All else that is found in the way is over, or its endpoint
    /// another one now.
    fn stays(&self, hit: &Hit<FlowKey4>, opened: &Record<FlowKey4>) -> bool {
        let Record { original, translated, backend, .. } = hit.record;
        let is_moved = original.src_port() != translated.src_port();
        let is_of_endpoint = hit.reply || backend == opened.backend;
        let is_live = !hit.state().may_be_reopened() && self.view.has_backend(backend);
        let (Some(slots), Some(server)) = (self.slots, shortcut::end(opened.route.forward)) else {
            return false;
        };
        let answers = opened.translated.reversed();
        if !(is_moved && is_of_endpoint && is_live)
            || slots.is_awaited(opened.route.epoch, server, &answers) != Some(true)
        {
            return false;
        }
        shortcut::forget(Some(slots), opened);
        let (table, epoch) = (&self.flows.tables.v4, self.view.epoch());
        let mut hit = *hit;
        if opened.route.epoch == epoch {
            // Both are between the same two.
            table.reroute(&hit, opened.route);
            hit.record.route = opened.route;
        }
        shortcut::hold(slots, table, &hit, epoch);
        true
    }

    /// Ends a flow in whose place a connection was opened, which keeps its slots.
    fn end(&mut self, hit: &Hit<FlowKey4>, opened: &Direction) {
        let (table, _, loads) = FlowKey4::parts(self.flows);
        let Some(state) = table.remove(hit) else { return };
        self.slots.iter().for_each(|slots| shortcut::forget_but(slots, &hit.record, opened));
        self.counters.flows_expired(1);
        if state.is_open() {
            loads.add(hit.record.backend, -1);
        }
    }
}

/// Whether a flow is one between the same ends, by the same endpoint.
fn is_same(hit: &Hit<FlowKey4>, opened: &Record<FlowKey4>) -> bool {
    let of = |record: &Record<FlowKey4>| (record.original, record.translated, record.service, record.backend);
    !hit.reply && of(&hit.record) == of(opened)
}

const fn asked((vip, port): (Ipv4Addr, u16)) -> ServiceKey {
    ServiceKey { tenant: Tenant::DEFAULT, vip: IpAddr::V4(vip), protocol: Protocol::TCP, port }
}
