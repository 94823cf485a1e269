//! How many open flows each endpoint has.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use culvert_api::config::fastpath::FastPathConfig;

use crate::flow::Zeroed;
use crate::table::BackendId;

/// Endpoints whose flows are counted: those in higher slots seem to have none.
const COUNTED: usize = 1 << 20;

/// Open flows of all endpoints, by their slot. A flow is open from its first packet until both sides have closed it, one
/// has reset it, or it is forgotten.
///
/// Every worker writes an array of its own, and who wants to know adds these up. A flow opened by one worker may end with
/// another, so that one array alone says nothing. A sum lacks what other workers do at this very moment, which is one flow
/// each at the most. Of a slot only the flows of its present generation count: those of an occupant before that end later.
pub struct Loads {
    joined: AtomicUsize,
    /// Of each worker: a [`Count`] for each slot.
    counts: Box<[Zeroed<AtomicU64>]>,
}

/// Flows opened by a worker less flows ended by it, modulo 2^32, and in the upper half the generation of their endpoint.
#[derive(Debug, Clone, Copy)]
struct Count(u64);

impl Count {
    const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    const fn flows(self) -> u32 {
        self.0 as u32
    }

    /// With `change` more flows of the endpoint's `generation`. The first of a new generation begins at nothing, one of an
    /// old generation changes nothing.
    const fn changed(self, generation: u32, change: i32) -> Self {
        // Generations go round.
        let ahead = generation.wrapping_sub(self.generation()).cast_signed();
        let flows = match ahead {
            0 => self.flows(),
            1.. => 0,
            _ => return self,
        };
        Self((generation as u64) << 32 | flows.wrapping_add_signed(change) as u64)
    }
}

impl Loads {
    /// No flows, and no worker; `None` if there is no memory. It is taken from the system as it is used.
    pub fn new() -> Option<Arc<Self>> {
        let counts = (0..FastPathConfig::MAX_WORKERS).map(|_| Zeroed::new(COUNTED)).collect::<Option<_>>()?;
        Some(Arc::new(Self { joined: AtomicUsize::new(0), counts }))
    }

    /// One more worker.
    ///
    /// # Panics
    /// If there are more than [`FastPathConfig::MAX_WORKERS`].
    pub fn join(self: &Arc<Self>) -> LoadWriter {
        let worker = self.joined.fetch_add(1, Ordering::Relaxed);
        assert!(worker < self.counts.len(), "more workers than any configuration may have");
        LoadWriter { loads: Arc::clone(self), worker }
    }

    /// Open flows of an endpoint.
    #[inline]
    pub fn of(&self, id: BackendId) -> u32 {
        let workers = self.joined.load(Ordering::Relaxed).min(self.counts.len());
        let counts = self.counts[..workers].iter().filter_map(|counts| counts.get(id.slot as usize));
        let counts = counts.map(|count| Count(count.load(Ordering::Relaxed)));
        let own = counts.filter(|count| count.generation() == id.generation);
        let sum = own.fold(0_u32, |sum, count| sum.wrapping_add(count.flows()));
        // A flow that has just moved from one array to another may be missing in both.
        sum.cast_signed().max(0).cast_unsigned()
    }
}

impl fmt::Debug for Loads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loads").field("joined", &self.joined).finish_non_exhaustive()
    }
}

/// One worker's share of [`Loads`].
#[derive(Debug)]
pub struct LoadWriter {
    loads: Arc<Loads>,
    worker: usize,
}

impl LoadWriter {
    /// Number of the worker, from 0 on.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// An endpoint has `change` open flows more.
    #[inline]
    pub fn add(&mut self, id: BackendId, change: i32) {
        // Nobody else writes there: no locked instruction.
        if let Some(count) = self.loads.counts[self.worker].get(id.slot as usize) {
            let changed = Count(count.load(Ordering::Relaxed)).changed(id.generation, change);
            count.store(changed.0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(slot: usize, generation: u32) -> BackendId {
        BackendId { slot: slot as u32, generation }
    }

    #[test]
    fn flows_are_summed_over_workers_wherever_they_end() {
        let loads = Loads::new().unwrap();
        let (mut first, mut second) = (loads.join(), loads.join());
        assert_eq!((first.worker(), second.worker()), (0, 1));
        (0..5).for_each(|_| first.add(id(3, 0), 1));
        (0..4).for_each(|_| second.add(id(3, 0), -1));
        assert_eq!((loads.of(id(3, 0)), loads.of(id(4, 0))), (1, 0));
        second.add(id(3, 0), -1);
        second.add(id(3, 0), -1);
        assert_eq!(loads.of(id(3, 0)), 0, "not fewer than none");
    }

    #[test]
    fn an_occupant_of_a_slot_has_none_of_the_flows_of_those_before_it() {
        // Also where generations go round.
        for (old, new) in [(0, 1), (7, 9), (u32::MAX - 1, 0)] {
            let loads = Loads::new().unwrap();
            let (mut first, mut second) = (loads.join(), loads.join());
            first.add(id(3, old / 2), 0);
            (0..5).for_each(|_| first.add(id(3, old), 1));
            assert_eq!((loads.of(id(3, old)), loads.of(id(3, new))), (5, 0));
            (0..2).for_each(|_| second.add(id(3, new), 1));
            first.add(id(3, new), 1);
            assert_eq!(loads.of(id(3, new)), 3);
            // The others end one by one.
            (0..3).for_each(|_| first.add(id(3, old), -1));
            (0..2).for_each(|_| second.add(id(3, old), -1));
            assert_eq!(loads.of(id(3, new)), 3);
        }
    }

    #[test]
    fn slots_beyond_those_that_are_counted_are_empty() {
        let loads = Loads::new().unwrap();
        let mut writer = loads.join();
        writer.add(id(COUNTED, 0), 1);
        writer.add(id(COUNTED - 1, 0), 1);
        assert_eq!((loads.of(id(COUNTED, 0)), loads.of(id(COUNTED - 1, 0))), (0, 1));
    }
}
