//! What a worker does for its flows between bursts: a few at a time are forgotten that are over, or entered that another
//! process has left.

use culvert_shortcut::Slots;

use super::{Pipeline, shortcut};
use crate::balance::LoadWriter;
use crate::flow::{Arena, FlowWorker, Key, Record, Sweep, Table, Tick, Timeouts};
use crate::table::{FlowPolicy, Snapshot};

/// Records that one [`Pipeline::age`] looks at, per table, at the least and at the most. In between one of so many that there
/// are, so that it takes seconds to look at all, however many these are.
const AGED: std::ops::RangeInclusive<u32> = 16..=256;
const AGED_PART: u32 = 1 << 13;

/// How much more that is if nobody waits for it, as the next time may be [some while](Pipeline::longest_rest) off, or if there is
/// little room left: whoever opens flows at that rate by himself only makes room for the next one.
const IDLE: u32 = 8;

/// Flows that one of them ends at the most: what a burst of packets waits for that.
const ENDED: u64 = 32;

/// Records looked at when there is none left, and flows that are ended then at the most.
const SWEPT: u32 = 64;
const MADE_ROOM: u64 = 4;

/// How often a worker [enters some flows](FlowWorker::take_over_some) of another process in one round, with packets and without:
/// the next ones wait for some 40 and 160 microseconds at most.
const ENTERED: [u32; 2] = [4, 16];

impl Pipeline {
    /// Forgets some of this worker's flows that are over. To be called every few dozen rounds, and while there is nothing
    /// to do: each call looks at a few records only, at more if it is `idle`.
    pub fn age(&mut self, view: &Snapshot, now: Tick, idle: bool) {
        let FlowWorker { tables, arena4, arena6, loads, calendar, forgetting, .. } = &mut self.flows;
        calendar.at(now);
        tables.overflow.forget(forgetting, now);
        let slots = self.shortcut.as_ref().map(|shortcut| &*shortcut.slots);
        let mut ended = age_some(arena4, &tables.v4, (loads, slots), view, (now, idle));
        ended += age_some(arena6, &tables.v6, (loads, slots), view, (now, idle));
        self.counters.flows_expired(ended);
    }

    /// Enters some of the flows that another process left, as long as there may be any, which it tells; more if it is `idle`.
    /// To be called in every round.
    #[inline(always)]
    pub fn take_over(&mut self, view: &Snapshot, now: Tick, idle: bool) -> bool {
        let takes_over = self.flows.takes_over();
        if takes_over {
            for _ in 0..ENTERED[usize::from(idle)] {
                let flows = self.flows.take_over_some(view, now);
                self.counters.flows_taken_over(flows);
            }
        }
        takes_over
    }
}

/// Forgets some flows of one IP version that are over; returns how many.
fn age_some<K: Key>(
    arena: &mut Arena<K>,
    table: &Table<K>,
    means: (&mut LoadWriter, Option<&Slots>),
    view: &Snapshot,
    (now, idle): (Tick, bool),
) -> u64 {
    let pressure = arena.is_short(table);
    let more = |is_wanted| if is_wanted { IDLE } else { 1 };
    let records = (arena.records() / AGED_PART).clamp(*AGED.start(), *AGED.end()) * more(idle || pressure);
    let flows = ENDED * u64::from(more(idle));
    sweep(arena, table, means, view, Sweep { now, pressure, records, flows, timeouts: timeouts(view) })
}

/// Ends a few flows that do not matter much, since there is no room for a new one; returns how many. What that takes is
/// bounded, also in a flood: once all have been looked at, none is looked at again before the time has changed.
pub(super) fn make_room<K: Key>(
    arena: &mut Arena<K>,
    table: &Table<K>,
    means: (&mut LoadWriter, Option<&Slots>),
    view: &Snapshot,
    now: Tick,
) -> u64 {
    if arena.is_in_vain(now) {
        return 0;
    }
    let wanted = Sweep { now, pressure: true, records: SWEPT, flows: MADE_ROOM, timeouts: timeouts(view) };
    sweep(arena, table, means, view, wanted)
}

fn timeouts(view: &Snapshot) -> Timeouts {
    view.local().map_or(FlowPolicy::DEFAULT, |local| local.flows).timeouts
}

fn sweep<K: Key>(
    arena: &mut Arena<K>,
    table: &Table<K>,
    (loads, slots): (&mut LoadWriter, Option<&Slots>),
    view: &Snapshot,
    wanted: Sweep,
) -> u64 {
    let gone = |record: &Record<K>| !view.has_backend(record.backend);
    arena.sweep(table, wanted, gone, |record, open| {
        shortcut::forget(slots, record);
        if open {
            loads.add(record.backend, -1);
        }
    })
}
