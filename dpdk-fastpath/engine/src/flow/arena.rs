//! The records of one worker.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::bucket::Slot;
use super::key::Key;
use super::record::Record;
use super::state::State;
use super::table::Table;
use super::tick::Tick;
use super::timeouts::Timeouts;

/// Records that are claimed at once.
pub(super) const CHUNK: u32 = 256;

/// Buckets of a growing index that are emptied with a flow that is entered.
const ENTRY_MOVES: usize = 1;

/// Buckets of a growing index that a sweep empties.
const SWEEP_MOVES: usize = 64;

/// How many chunks both tables may use together.
#[derive(Debug)]
pub(super) struct Budget {
    chunks: u32,
    used: AtomicU32,
    /// How many of the others are kept for flows that another process left.
    kept: AtomicU32,
    /// How many may ask for chunks.
    arenas: AtomicU32,
}

impl Budget {
    /// One part in so many there is beyond the limit. Arenas share it alike: each may have as much of its own even if others
    /// have used up everything.
    const RESERVE: u32 = 8;

    pub(super) fn new(flows: u32) -> Arc<Self> {
        // Numbers of records must fit, those beyond the limit included.
        let most = (Slot::MAX_INDEX - CHUNK) / (Self::RESERVE + 1) * Self::RESERVE;
        let chunks = flows.min(most).div_ceil(CHUNK).max(1);
        Arc::new(Self { chunks, used: AtomicU32::new(0), kept: AtomicU32::new(0), arenas: AtomicU32::new(0) })
    }

    /// The limit.
    pub(super) const fn records(&self) -> u32 {
        self.chunks * CHUNK
    }

    /// Records that there must be memory for in each table.
    pub(super) const fn most_records(&self) -> u32 {
        self.records() + self.chunks / Self::RESERVE * CHUNK
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.used.load(Ordering::Relaxed) + self.kept.load(Ordering::Relaxed) >= self.chunks
    }

    /// Keeps so many chunks for flows that are still to be entered, as far as there are, but for one.
    pub(super) fn keep(&self, chunks: u32) {
        let left = self.chunks.saturating_sub(self.used.load(Ordering::Relaxed) + 1);
        self.kept.store(chunks.min(left), Ordering::Relaxed);
    }

    /// One more arena.
    pub(super) fn join(&self) {
        self.arenas.fetch_add(1, Ordering::Relaxed);
    }

    /// One more chunk for an arena that has `own`; `false` if there is none for it. What is `kept` is only for those that it
    /// is kept for.
    pub(super) fn take(&self, own: u32, is_kept: bool) -> bool {
        let least = self.chunks / Self::RESERVE / self.arenas.load(Ordering::Relaxed).max(1);
        let kept = if is_kept { 0 } else { self.kept.load(Ordering::Relaxed) };
        let more = |used| (used + kept < self.chunks || own < least).then_some(used + 1);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// A chunk that was taken is not used.
    pub(super) fn give_back(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// No record.
const NONE: u32 = u32::MAX;

/// The records that one worker opens flows in, and the only one that may reuse them. Chunks once claimed are kept.
#[derive(Debug)]
pub struct Arena<K> {
    /// Numbers of the claimed chunks.
    chunks: Vec<u32>,
    /// Records of the last chunk that were never used.
    fresh: std::ops::Range<u32>,
    /// First of the records that are free again; each names the next.
    free: u32,
    /// How many these are.
    freed: u32,
    /// Whether it may use what room is kept.
    inherits: bool,
    /// Where the sweep goes on: chunk, as a place in `chunks`, and record in it.
    cursor: (usize, u32),
    /// A time, and how many records were looked at in vain then.
    vain: (Tick, u32),
    key: PhantomData<K>,
}

/// What a sweep is about.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    /// The time.
    pub now: Tick,
    /// Whether there is no room for new flows, so that embryonic and ended ones must go sooner.
    pub pressure: bool,
    /// Most records to look at.
    pub records: u32,
    /// How long flows may be silent.
    pub timeouts: Timeouts,
    /// Most flows to end, which takes longer.
    pub flows: u64,
}

impl<K: Key> Arena<K> {
    pub(super) fn new(table: &Table<K>) -> Self {
        table.join();
        Self {
            // Never grows: no allocation on the data path.
            chunks: Vec::with_capacity(table.lines.len() / CHUNK as usize),
            fresh: 0..0,
            free: NONE,
            freed: 0,
            inherits: false,
            cursor: (0, 0),
            vain: (Tick::at(Duration::ZERO), 0),
            key: PhantomData,
        }
    }

    /// Says whether flows that follow are those that room is kept for.
    pub(super) fn set_inherits(&mut self, inherits: bool) {
        self.inherits = inherits;
    }

    pub(super) fn allocate(&mut self, table: &Table<K>) -> Option<u32> {
        if self.free != NONE {
            let index = self.free;
            self.freed -= 1;
            self.free = table.words(index).next_free();
            if self.free != NONE {
                // The next flow's.
                table.prefetch(self.free);
            }
            return Some(index);
        }
        // When an index grows there are two flows for each bucket to be emptied, and at least as many come before it grows
        // again: no level is full before the one before it is empty.
        table.tend(ENTRY_MOVES);
        if let Some(index) = self.fresh.next() {
            return Some(index);
        }
        let chunk = table.claim(self.chunks.len() as u32, self.inherits)?;
        self.chunks.push(chunk);
        self.fresh = chunk * CHUNK..(chunk + 1) * CHUNK;
        self.fresh.next()
    }

    /// Takes back a record that nothing leads to any more.
    pub(super) fn give_back(&mut self, table: &Table<K>, index: u32) {
        table.words(index).set_free(self.free);
        self.free = index;
        self.freed += 1;
    }

    /// Records that were claimed.
    pub fn records(&self) -> u32 {
        self.chunks.len() as u32 * CHUNK
    }

    /// Whether there is little room left: no more can be claimed, and of what was claimed less than an eighth is free.
    pub fn is_short(&self, table: &Table<K>) -> bool {
        table.is_used_up() && (self.freed + self.fresh.len() as u32) < self.records() / 8
    }

    /// Whether many more flows can be opened at once, also if there is [little](Self::is_short) room left: if no more can be
    /// claimed, a sixteenth of what was.
    pub fn has_room(&self, table: &Table<K>) -> bool {
        !table.is_used_up() || self.freed + self.fresh.len() as u32 > self.records() / 16
    }

    /// Whether sweeps under pressure have looked at every record at this time already, and found none to end. Silence is
    /// measured in ticks: before the next one hardly any will be over.
    pub fn is_in_vain(&self, now: Tick) -> bool {
        self.vain.0 == now && self.vain.1 >= self.records()
    }

    /// Helps an index that grows, looks at the next few records, ends flows that have been silent for too long or that `is_over` says are over, and
    /// makes their records usable again. Tells `over` of each, and whether it was [open](State::is_open) until then, and
    /// returns how many flows it ended.
    pub fn sweep(
        &mut self,
        table: &Table<K>,
        sweep: Sweep,
        is_over: impl Fn(&Record<K>) -> bool,
        mut over: impl FnMut(&Record<K>, bool),
    ) -> u64 {
        table.tend(SWEEP_MOVES);
        let mut ended = 0;
        let mut looked = 0;
        while looked < sweep.records && ended < sweep.flows {
            looked += 1;
            let Some(index) = self.advance() else { break };
            let words = table.words(index);
            if let Some((record, meta)) = words.read() {
                let Some(state) = meta.state() else { continue };
                let silent = sweep.now.seconds_since(meta.seen());
                let timeout = sweep.timeouts.of(record.original.protocol(), state, sweep.pressure);
                let expired = silent > timeout || is_over(&record);
                let ending = if expired { table.end(index, meta.sequence()) } else { None };
                if let Some(state) = ending {
                    ended += 1;
                    over(&record, state.is_open());
                }
            }
            if words.meta().state() == Some(State::Ended) {
                self.give_back(table, index);
            }
        }
        if ended > 0 || self.vain.0 != sweep.now {
            self.vain = (sweep.now, 0);
        }
        if sweep.pressure && ended == 0 {
            self.vain.1 = self.vain.1.saturating_add(looked);
        }
        ended
    }

    /// The record at the cursor, which moves on; `None` if there is no record.
    fn advance(&mut self) -> Option<u32> {
        let (at, offset) = self.cursor;
        let index = *self.chunks.get(at)? * CHUNK + offset;
        self.cursor = match (at, offset + 1) {
            (_, next) if next < CHUNK => (at, next),
            (at, _) if at + 1 < self.chunks.len() => (at + 1, 0),
            _ => (0, 0),
        };
        Some(index)
    }
}
