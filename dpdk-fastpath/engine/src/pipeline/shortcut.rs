//! The short cut: connections of TCP and UDP that are decided go by programs in the kernel, as far as there is such a way.
//!
//! Some packets of each burst are offered: if it is clear where both directions of their connection come from and go to, and
//! the ends can be reached, both get a slot in the table that the kernel looks into. From then on the pipeline sees no more
//! than the packets that open connections, and whatever is unusual; of UDP the first [few](super::repeated). What went by the slots
//! is asked for from time to time: it keeps the flows alive, moves their states on, and is counted as if it had come through here.

use std::sync::Arc;
use std::time::Duration;

use culvert_dpdk::tsc;
use culvert_packet::PacketBuf;
use culvert_packet::flow::{FlowKey4, Tenant, entropy_port};
use culvert_packet::ip::Protocol;
use culvert_packet::parse::L4;
use culvert_packet::tcp::TcpFlags;
use culvert_shortcut::{Direction, End, Passed, Slots};
use nix::time::{ClockId, clock_gettime};

use super::repeated::Repeated;
use super::route::Destination;
use super::stage::{Origin, Stage};
use super::{Batch, Pipeline, Verdict};
use crate::flow::{FlowWorker, Hit, Key, Out, Record, State, Table, Tick};
use crate::table::{PortIndex, Snapshot};

/// Packets of a burst that are offered, at most, of each kind.
const OFFERED: usize = 4;

/// Parts of a second between two looks at what went by the slots, at the least.
const REVIEWS: u64 = 1000;

/// How long a worker sleeps at the most as long as there are slots in use.
const NAP: Duration = Duration::from_millis(10);

/// Buckets of slots that one look is about, with packets waiting and without. A slot is looked at twice before it is free again:
/// of tens of thousands of connections in a second each has two, and who finds none, or one of an earlier connection from the
/// same port, goes by the workers.
const REVIEWED: [usize; 2] = [512, 8192];

/// Bytes of an Ethernet header, and of what is in front of a packet on the underlay.
const FRAME: u64 = 14;
const TUNNEL: u64 = 64;

/// Where the control bits of TCP are in a packet without IP options.
const FLAGS: usize = 33;

/// A worker's part in the short cut.
#[derive(Debug)]
pub(super) struct Shortcut {
    pub(super) slots: Arc<Slots>,
    /// Whether it is this worker that looks at what went by. One does.
    reviews: bool,
    /// Where the next look begins, and when the last one was.
    cursor: usize,
    reviewed: u64,
    /// Cycles of the time stamp counter between two looks.
    pause: u64,
    /// Of flows that have no slots yet.
    pub(super) repeated: Repeated,
}

impl Pipeline {
    /// Lets connections go by these slots; one worker `reviews` them. The time stamp counter counts `hz` in a second.
    pub fn take_shortcut(&mut self, slots: Arc<Slots>, reviews: bool, hz: u64) {
        let (pause, repeated) = (hz / REVIEWS, Repeated::new());
        self.shortcut = Some(Shortcut { slots, reviews, cursor: 0, reviewed: 0, pause, repeated });
    }

    /// Takes notice of what went by the short cut, a part at a time; a larger one if it is `idle`. To be called in every round.
    #[inline]
    pub fn review_shortcut(&mut self, view: &Snapshot, now: Tick, idle: bool) {
        if !self.shortcut.as_ref().is_some_and(|shortcut| shortcut.reviews) {
            return;
        }
        let count = tsc::now();
        let is_due = |shortcut: &Shortcut| count.wrapping_sub(shortcut.reviewed) >= shortcut.pause;
        if !self.shortcut.as_ref().is_some_and(is_due) {
            return;
        }
        self.enter_opened(view, now, true);
        let has_room = self.has_room_for_opened(now);
        let Self { shortcut: Some(shortcut), flows, counters, .. } = self else { return };
        let Shortcut { slots, cursor, reviewed, .. } = shortcut;
        *reviewed = count;
        slots.memory().set_alive(monotonic().filter(|_| has_room));
        if slots.is_empty() {
            return;
        }
        slots.review(cursor, REVIEWED[usize::from(idle)], view.epoch(), count, |passed| {
            let &Passed { from, to, packets, bytes, .. } = passed;
            let frames = |end| bytes + packets * if let End::Door(_) = end { FRAME } else { TUNNEL };
            let port = |end| if let End::Door(port) = end { Some(PortIndex(port)) } else { view.uplink() };
            port(from).into_iter().for_each(|port| counters.received(port, packets, frames(from)));
            port(to).into_iter().for_each(|port| counters.sent(port, packets, frames(to), 0));
            counters.shortcut(packets, bytes);
            if let Some(service) = catch_up(flows, view, now, passed) {
                counters.service_packets(service, packets, bytes);
            }
        });
    }

    /// How long a worker may sleep, as far as the short cut is concerned.
    #[inline]
    pub fn longest_rest(&self) -> Option<Duration> {
        let shortcut = self.shortcut.as_ref().filter(|shortcut| shortcut.reviews)?;
        (!shortcut.slots.is_empty()).then_some(NAP)
    }
}

/// The time of `CLOCK_MONOTONIC` at the kernel's last tick, in nanoseconds.
fn monotonic() -> Option<u64> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).ok()?;
    u64::try_from(Duration::from(time).as_nanos()).ok()
}

/// Moves the flow on that packets belong to; the slot of its service, if it has one still.
fn catch_up(flows: &mut FlowWorker, view: &Snapshot, now: Tick, passed: &Passed) -> Option<u32> {
    let table = &flows.tables.v4;
    let hit = table.lookup(&passed.key, passed.key.hash64())?;
    let opened = table.catch_up(&hit, now, passed.flags);
    if opened != 0 {
        flows.loads.add(hit.record.backend, opened);
    }
    view.has_backend(hit.record.backend).then_some(hit.record.service)
}

/// Lets nothing of a flow go by the short cut any more.
pub(super) fn forget<K: Key>(slots: Option<&Slots>, record: &Record<K>) {
    let Some(slots) = slots else { return };
    let keys = [record.original, record.translated.reversed()];
    keys.iter().filter_map(eligible).for_each(|key| slots.forget(&key, tsc::now()));
}

/// The same, but for what is now another connection's.
pub(super) fn forget_but(slots: &Slots, record: &Record<FlowKey4>, other: &Direction) {
    let others = [other.key, other.becomes.reversed()];
    let own = [record.original, record.translated.reversed()];
    own.iter().filter(|key| !others.contains(key)).for_each(|key| slots.forget(key, tsc::now()));
}

/// Whether a client has a connection to an endpoint itself, as far as the short cut knows, that looks the same to the endpoint as
/// a flow that becomes `translated`, and goes `out`.
#[cold]
#[inline(never)]
pub(super) fn is_taken<K: Key>(slots: &Slots, epoch: u32, translated: &K, out: Out) -> bool {
    let Some(endpoint) = end(out) else { return false };
    eligible(&translated.reversed()).is_some_and(|key| {
        slots.direction(epoch, endpoint, &key).is_some_and(|answers| answers.becomes == key)
    })
}

/// Whether a flow's answers that come from there are still to begin; `None` if the short cut does not know.
pub(super) fn is_awaited<K: Key>(slots: &Slots, epoch: u32, from: End, key: &K) -> Option<bool> {
    slots.is_awaited(epoch, from, &eligible(key)?)
}

/// Lets no connection of the client's be opened by the kernel that a live flow stands in the way of, for as long as that has slots.
pub(super) fn hold(slots: &Slots, table: &Table<FlowKey4>, hit: &Hit<FlowKey4>, epoch: u32) {
    let Record { original, translated, route, .. } = hit.record;
    let ends =
        end(route.reply).zip(end(route.forward)).filter(|_| route.epoch == epoch && is_eligible(&original));
    if let Some(directions) = ends.and_then(|ends| directions(slots, ends, original, translated)) {
        enter(slots, table, Some(hit), epoch, &directions, tsc::now());
        directions.iter().for_each(|direction| slots.keep(direction));
    }
}

/// Of a connection between a client and a server; `None` if it cannot go by the short cut from the one to the other.
fn directions(
    slots: &Slots,
    (client, server): (End, End),
    original: FlowKey4,
    translated: FlowKey4,
) -> Option<[Direction; 2]> {
    if client == server || !slots.is_open(client) || !slots.is_open(server) {
        return None;
    }
    let direction = |from, key: FlowKey4, becomes, to| {
        let tunnel_port = entropy_port(key.hash64());
        Direction { from, key, becomes, to, tunnel_port }
    };
    let (question, answer) = (original.reversed(), translated.reversed());
    Some([direction(client, original, translated, server), direction(server, answer, question, client)])
}

/// Gives a connection slots, which may be a flow's.
fn enter(
    slots: &Slots,
    table: &Table<FlowKey4>,
    flow: Option<&Hit<FlowKey4>>,
    epoch: u32,
    [request, reply]: &[Direction; 2],
    now: u64,
) {
    slots.enter(epoch, request, now);
    match flow.map(|hit| (hit, hit.state())) {
        Some((hit, State::SynSent)) => slots.enter_awaited(epoch, reply, now, || table.unwatch(hit)),
        Some((_, State::Unwatched)) if slots.is_awaited(epoch, reply.from, &reply.key) == Some(true) => true,
        _ => slots.enter(epoch, reply, now),
    };
}

/// The key as slots have it, if there may be slots for it.
fn eligible<K: Key>(key: &K) -> Option<FlowKey4> {
    FlowKey4::between(key.tenant(), key.protocol(), key.source(), key.destination()).filter(is_eligible)
}

/// Whether there may be slots for such a flow.
fn is_eligible(key: &FlowKey4) -> bool {
    matches!(key.protocol(), Protocol::TCP | Protocol::UDP) && key.tenant() == Tenant::DEFAULT
}

/// Whether a packet with these control bits closes its connection, on one side at least.
fn closes(flags: TcpFlags) -> bool {
    flags.contains(TcpFlags::FIN) || flags.contains(TcpFlags::RST)
}

pub(super) const fn end(out: Out) -> Option<End> {
    match out {
        Out::Pod(port) => Some(End::Door(port.0)),
        Out::Remote(slot) => Some(End::Way(slot)),
        Out::Nowhere => None,
    }
}

pub(super) const fn out(end: End) -> Out {
    match end {
        End::Door(port) => Out::Pod(PortIndex(port)),
        End::Way(slot) => Out::Remote(slot),
    }
}

impl Stage<'_> {
    /// Offers some of a burst's packets, which have been decided on.
    #[cold]
    #[inline(never)]
    pub(super) fn offer_some<B: PacketBuf>(
        &mut self,
        slots: &Slots,
        repeated: &mut Repeated,
        from_pod: bool,
        batch: &Batch<'_, B>,
    ) {
        let is_sent = |at: usize| matches!(batch.verdicts.get(at), Some(Verdict::Send(_)));
        for other in batch.others4.iter().filter(|other| is_sent(other.at)).take(OFFERED) {
            let parsed = &other.parsed;
            let goes_on = match parsed.l4 {
                L4::Tcp => !closes(parsed.tcp_flags),
                l4 => l4 == L4::Udp,
            };
            if goes_on && !parsed.is_fragment() {
                self.offer(slots, repeated, other.origin, &other.key, other.hash);
            }
        }
        let lanes = batch.lanes.iter().enumerate().filter(|(at, lane)| lane.is_usual() && is_sent(*at));
        for (at, lane) in lanes.take(OFFERED) {
            let origin = if from_pod { Origin::Pod } else { Origin::Tunnel(lane.slot) };
            // The packet is the end of the frame, whatever is in front of it by now.
            let frame = batch.bufs[at].data();
            let flags = frame.len().checked_sub(lane.len.into()).and_then(|packet| frame.get(packet + FLAGS));
            let is_last = flags.is_none_or(|flags| closes(TcpFlags(*flags)));
            if lane.key.protocol() == Protocol::UDP || !is_last {
                self.offer(slots, repeated, origin, &lane.key, lane.hash);
            }
        }
    }

    /// Lets the connection of a packet go by the short cut, if it can.
    fn offer(&mut self, slots: &Slots, repeated: &mut Repeated, origin: Origin, key: &FlowKey4, hash: u64) {
        if !is_eligible(key) {
            return;
        }
        let from = self.end_of(origin);
        // Most often it is this that fails, of pods that have not joined.
        if !slots.is_open(from) || key.protocol() == Protocol::UDP && !repeated.note(hash) {
            return;
        }
        let found = self.tables.v4.lookup(key, hash);
        let (client, server, original, translated) = match &found {
            Some(hit) => {
                let Record { original, translated, route, .. } = hit.record;
                let embryonic = matches!(
                    hit.state(),
                    State::SynSent | State::Unwatched | State::SynReceived | State::OneWay
                );
                let open = hit.state().is_open();
                let full = embryonic && !self.spares_unanswered();
                let ends = end(route.reply).zip(end(route.forward));
                let Some((client, server)) =
                    ends.filter(|_| open && !full && route.epoch == self.view.epoch())
                else {
                    return;
                };
                if from != if hit.reply { server } else { client } {
                    return;
                }
                (client, server, original, translated)
            }
            // It may have a record that is not entered yet, or be answered without one.
            None if self.flows.takes_over() || self.overflows() => return,
            // What comes back may be the answers to a flow through a Service, as far as one can tell.
            None if self.tables.v4.lookup(&key.reversed(), key.reversed().hash64()).is_some() => return,
            None => match (self.pod_at(key.source().0), self.pod_at(key.destination().0)) {
                (Some(client), Some(server)) if client == from => (client, server, *key, *key),
                _ => return,
            },
        };
        let Some(directions) = directions(slots, (client, server), original, translated) else { return };
        let (now, epoch, table) = (tsc::now(), self.view.epoch(), &self.tables.v4);
        enter(slots, table, found.as_ref(), epoch, &directions, now);
        if let Some(Hit { record, reply: false, .. }) = &found {
            self.tell_choices(slots, record, now);
        }
        // Another worker may have ended the flow meanwhile, and have found nothing to be forgotten; or opened one with the same answers.
        let is_same = |hit: &Hit<_>| (hit.record.original, hit.record.translated) == (original, translated);
        let holds = match &found {
            Some(_) => table.lookup(key, hash).as_ref().is_some_and(is_same),
            None => {
                let [there, back] = [key, &key.reversed()].map(|key| table.lookup(key, key.hash64()));
                there.is_none() && back.is_none()
            }
        };
        if !holds {
            directions.iter().for_each(|direction| slots.forget(&direction.key, now));
        }
    }

    /// [`hold`], for a flow that has just got another source port.
    pub(super) fn hold_moved<K: Key>(&self, original: &K) {
        let Some(slots) = self.slots.filter(|_| self.spares_unanswered()) else { return };
        let table = &self.tables.v4;
        let hit = eligible(original).and_then(|key| table.lookup(&key, key.hash64()));
        hit.iter().for_each(|hit| hold(slots, table, hit, self.view.epoch()));
    }

    /// Whether the state of a flow that nobody has answered may be another than it is known to be: such flows go first when there is no
    /// room.
    fn spares_unanswered(&self) -> bool {
        self.flows.arena4.has_room(&self.tables.v4)
    }

    /// Where packets come from.
    pub(super) fn end_of(&self, origin: Origin) -> End {
        match origin {
            Origin::Pod => End::Door(self.in_port.0),
            Origin::Tunnel(slot) => End::Way(slot),
        }
    }

    /// Where the pod of the default tenant is that has an address.
    pub(super) fn pod_at(&mut self, address: std::net::IpAddr) -> Option<End> {
        match self.destination(Tenant::DEFAULT, address) {
            Destination::Pod(out) => end(out),
            Destination::Local | Destination::Vip => None,
        }
    }
}
