//! Flows of another process, the one before this.
//!
//! What it left is read, not used: each record that makes sense is entered into this process's own tables as if the flow had
//! just been opened, with its age and state. So nothing that is wrong there can be worse than a flow that is not kept, and
//! the number of workers and the size of the tables may be others.
//!
//! Numbers of services and endpoints mean nothing here any more; but a record says by its keys which they are. It is
//! entered as decided under an epoch that is never in force, so that its ways are looked up at its next packet. Likewise
//! flows without a record go on as what they were: nothing else tells whose answers theirs are.
//!
//! # While packets are forwarded
//! Workers do not wait for that: each enters a few flows in each round. Until all are, that a key is not found says
//! nothing ([partial](super::index::Index::set_partial)), and before such a packet is decided about its flow is looked for where
//! the process before had it, by the index that this left, and entered if it is there. So a flow goes on with its first
//! packet, however many there are.
//!
//! # Death
//! Each flow is marked as ended where it was once it is entered here, and by then it lies in this process's segment. Until
//! all are entered the keeper has both: a process that takes over then finds each flow in one of them. It enters
//! all before its first packet, so that there are never more than two. An index is good at any instant of its process, since
//! nobody who reads takes a lock; and a record that was being written is none yet.

mod flow;
mod left;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use culvert_packet::flow::{FlowKey4, FlowKey6};
use zerocopy::FromBytes as _;

use self::flow::{Found, placed};
pub(super) use self::left::Part;
pub use self::left::{Left, LeftError};
use super::arena::CHUNK;
use super::overflow::{LENDERS, LOANS};
use super::segment::Places;
use super::{FlowTables, FlowWorker, InsertError, Key, Tick};
use crate::balance::{CLIENTS_BUCKET, ClientBucket, Moment};
use crate::table::{FlowPolicy, Snapshot};

/// Buckets of clients that are read at once.
const BUCKETS: usize = 512;

/// Records that a worker looks at in a round: some 10 microseconds.
const UNIT: u64 = 32;
const _: () = assert!((CHUNK as u64).is_multiple_of(UNIT), "a unit is part of one table");

/// What became of the flows that another process left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TakenOver {
    /// They go on.
    pub flows: u64,
    /// Their time was over.
    pub over: u64,
    /// Their service or endpoint is in no table.
    pub gone: u64,
    /// They did not find room.
    pub no_room: u64,
    /// Records that make no sense.
    pub damaged: u64,
    /// Clients whose endpoint is remembered.
    pub clients: u64,
}

/// A takeover under way, or done.
#[derive(Debug)]
pub struct Takeover {
    /// What is taken over, that of the last process first.
    lefts: Vec<Left>,
    /// For IPv4 and IPv6.
    progress: [Progress; 2],
    flows: AtomicU64,
    over: AtomicU64,
    gone: AtomicU64,
    no_room: AtomicU64,
    damaged: AtomicU64,
    clients: u64,
}

/// How much has been looked at of all records of one IP version.
#[derive(Debug)]
struct Progress {
    records: u64,
    /// The next that nobody looks at.
    next: AtomicU64,
    done: AtomicU64,
}

impl Progress {
    fn new(records: u64) -> Self {
        Self { records, next: AtomicU64::new(0), done: AtomicU64::new(0) }
    }

    /// The next few records, for the caller alone.
    fn take(&self) -> Option<std::ops::Range<u64>> {
        let more = |next: u64| (next < self.records).then_some(next + UNIT);
        let from = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(from..from + UNIT)
    }

    /// Notes that these have been looked at; whether they were the last.
    fn finish(&self, count: u64) -> bool {
        self.done.fetch_add(count, Ordering::AcqRel) + count == self.records
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire) == self.records
    }

    fn left(&self) -> u64 {
        self.records.saturating_sub(self.next.load(Ordering::Relaxed))
    }
}

impl FlowTables {
    /// Begins to take over what other processes left, as far as its services and endpoints are those of `view` and its time
    /// is not over `now`, by the clock that began at its [start](Left::start). The workers, of whom none may run yet, [do
    /// that](FlowWorker::take_over_some) from now on; if there is more than the last process left, or if its flows cannot be
    /// looked for there, they have done it when this returns.
    ///
    /// # Errors
    /// When the rest of what was left cannot be read.
    pub fn take_over(
        &self,
        workers: &mut [FlowWorker],
        mut lefts: Vec<Left>,
        view: &Snapshot,
        (tick, moment): (Tick, Moment),
    ) -> Result<Arc<Takeover>, LeftError> {
        lefts.sort_by_key(|left| std::cmp::Reverse(left.number));
        let at_once = lefts.len() > 1 || !lefts.iter().all(Left::is_searchable);
        let records = [
            lefts.iter().map(|left| left.v4.records()).sum(),
            lefts.iter().map(|left| left.v6.records()).sum(),
        ];
        self.v4.expect(records[0] as usize);
        self.v6.expect(records[1] as usize);
        let mut clients = 0;
        // One that took over has the rest from the beginning.
        if let Some(last) = lefts.first() {
            self.head[0].number.store(last.number.saturating_add(1), Ordering::Relaxed);
            clients = self.take_clients(last, moment)?;
            self.take_loans(last, view, tick)?;
        }
        let [flows, over, gone, no_room, damaged] = Default::default();
        let progress = records.map(Progress::new);
        let takeover = Arc::new(Takeover { lefts, progress, flows, over, gone, no_room, damaged, clients });
        self.v4.set_partial(records[0] > 0);
        self.v6.set_partial(records[1] > 0);
        takeover.keep_room(self);
        for worker in &mut *workers {
            worker.takeover = Some(Arc::clone(&takeover));
        }
        while at_once && !workers.is_empty() && !takeover.is_done() {
            for worker in &mut *workers {
                worker.take_over_some(view, tick);
            }
        }
        Ok(takeover)
    }

    fn take_clients(&self, left: &Left, moment: Moment) -> io::Result<u64> {
        let Places { clients, loans, .. } = left.places;
        let mut taken = 0;
        let mut bytes = vec![0; BUCKETS * CLIENTS_BUCKET];
        for at in (clients..loans).step_by(bytes.len()) {
            let bytes = &mut bytes[..(loans - at).min(BUCKETS * CLIENTS_BUCKET)];
            left.file.read_exact_at(bytes, at as u64)?;
            for bucket in bytes.chunks_exact(CLIENTS_BUCKET) {
                if let Ok(bucket) = ClientBucket::read_from_bytes(bucket) {
                    taken += self.affinity.take_over(&bucket, moment);
                }
            }
        }
        Ok(taken)
    }

    fn take_loans(&self, left: &Left, view: &Snapshot, now: Tick) -> io::Result<()> {
        let loans = read_words(&left.file, left.places.loans, LOANS)?;
        let lenders = read_words(&left.file, left.places.lenders, LENDERS)?;
        let slots = view.services().map(|service| (service.identity(), service.slot())).collect();
        self.overflow.take_over(left.overflowed, &loans, &lenders, &slots, now);
        Ok(())
    }
}

fn read_words(file: &File, at: usize, count: usize) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; count * size_of::<u64>()];
    file.read_exact_at(&mut bytes, at as u64)?;
    Ok(bytes.as_chunks().0.iter().copied().map(u64::from_ne_bytes).collect())
}

impl FlowWorker {
    /// Whether there may be flows that another process left and that are not entered yet.
    #[inline(always)]
    pub fn takes_over(&self) -> bool {
        self.takeover.is_some()
    }

    /// Enters a few flows that another process left, if there are any that nobody else is about to enter; returns how many.
    pub fn take_over_some(&mut self, view: &Snapshot, now: Tick) -> u64 {
        let Some(takeover) = self.takeover.clone() else { return 0 };
        let flows = takeover
            .enter_some::<FlowKey4>(self, view, now)
            .or_else(|| takeover.enter_some::<FlowKey6>(self, view, now));
        if flows.is_none() && takeover.is_done() {
            self.takeover = None;
        }
        flows.unwrap_or(0)
    }

    /// Enters the flow with this key, if another process left one. `true` if it was entered by this call.
    #[cold]
    pub fn recall<K: Key>(&mut self, key: &K, hash: u64, view: &Snapshot, now: Tick) -> bool {
        let Some(takeover) = self.takeover.clone() else { return false };
        takeover.lefts.iter().any(|left| {
            let found = K::part(left).find(key, hash);
            found.is_some_and(|index| takeover.enter::<K>(self, left, index, view, now))
        })
    }
}

impl Takeover {
    /// Whether all is entered.
    pub fn is_done(&self) -> bool {
        self.progress.iter().all(Progress::is_done)
    }

    /// What became of all that was looked at so far.
    pub fn taken(&self) -> TakenOver {
        let [flows, over, gone, no_room, damaged] =
            [&self.flows, &self.over, &self.gone, &self.no_room, &self.damaged]
                .map(|count| count.load(Ordering::Relaxed));
        TakenOver { flows, over, gone, no_room, damaged, clients: self.clients }
    }

    /// New flows are not to take the room of those that are still to come.
    fn keep_room(&self, tables: &FlowTables) {
        let left: u64 = self.progress.iter().map(Progress::left).sum();
        tables.v4.keep_room((left / u64::from(CHUNK)) as u32);
    }

    /// Enters what the next few records hold, and returns how many flows that are; `None` if there is no such record.
    fn enter_some<K: Key>(&self, worker: &mut FlowWorker, view: &Snapshot, now: Tick) -> Option<u64> {
        let progress = &self.progress[K::VERSION];
        let all = progress.take()?;
        self.keep_room(&worker.tables);
        let mut first = all.start;
        let left = self.lefts.iter().find(|left| {
            let records = K::part(left).records();
            let is_here = first < records;
            first -= if is_here { 0 } else { records };
            is_here
        })?;
        let records = first as u32..(first + UNIT) as u32;
        // While these are looked at, the buckets that they go into are fetched.
        let burst = K::table(&worker.tables).burst();
        for hashes in records.clone().filter_map(|index| K::part(left).hashes(index)) {
            hashes.into_iter().for_each(|hash| burst.prefetch(hash));
        }
        let flows = records.filter(|&index| self.enter::<K>(worker, left, index, view, now)).count();
        if progress.finish(UNIT) {
            K::table(&worker.tables).set_partial(false);
            self.keep_room(&worker.tables);
        }
        Some(flows as u64)
    }

    /// Enters the flow that a record holds, if it does and nobody else has taken it. `true` if it goes on by that.
    fn enter<K: Key>(
        &self,
        worker: &mut FlowWorker,
        left: &Left,
        index: u32,
        view: &Snapshot,
        now: Tick,
    ) -> bool {
        let part = K::part(left);
        let Some(found) = part.take(index) else { return false };
        let outcome = self.outcome(worker, left, &found, view, now);
        part.finish(index);
        outcome.is_some_and(|count| {
            count.fetch_add(1, Ordering::Relaxed);
            std::ptr::eq(count, &raw const self.flows)
        })
    }

    /// Enters a flow; returns where that is counted, or nothing if it has been already.
    fn outcome<K: Key>(
        &self,
        worker: &mut FlowWorker,
        left: &Left,
        found: &Found<K>,
        view: &Snapshot,
        now: Tick,
    ) -> Option<&AtomicU64> {
        let &Found::Flow(record, meta, state) = found else { return Some(&self.damaged) };
        let Some(record) = placed(record, view) else { return Some(&self.gone) };
        let timeouts = view.local().map_or(FlowPolicy::DEFAULT, |local| local.flows).timeouts;
        let seen = left.last_packet(meta.seen(), state, now);
        if now.seconds_since(seen) > timeouts.of(record.original.protocol(), state, false) {
            return Some(&self.over);
        }
        let (table, arena, loads) = K::parts(worker);
        arena.set_inherits(true);
        let entered = table.insert(arena, &record, seen, state);
        arena.set_inherits(false);
        match entered {
            Ok(()) => {
                if state.is_open() {
                    loads.add(record.backend, 1);
                }
                Some(&self.flows)
            }
            Err(InsertError::Full) => Some(&self.no_room),
            // The last process was killed just when it had entered it.
            Err(_) if !self.lefts.first().is_some_and(|last| std::ptr::eq(last, left)) => None,
            // No two flows have a key in common, where all is well.
            Err(_) => Some(&self.damaged),
        }
    }
}
