//! How many open flows each endpoint has.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use culvert_api::config::fastpath::FastPathConfig;

use crate::flow::Zeroed;

/// Endpoints whose flows are counted: those in higher slots seem to have none.
const COUNTED: usize = 1 << 20;

/// Open flows of all endpoints, by their slot. A flow is open from its first packet until both sides have closed it, one
/// has reset it, or it is forgotten.
///
/// Every worker writes an array of its own, and who wants to know adds these up. A flow opened by one worker may end with
/// another, so that one array alone says nothing. A sum lacks what other workers do at this very moment, which is one flow
/// each at the most. A slot's previous occupant is counted along until its flows are swept.
pub struct Loads {
    joined: AtomicUsize,
    /// Of each worker: flows opened less flows ended, modulo 2^32.
    counts: Box<[Zeroed<AtomicU32>]>,
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

    /// Open flows of the endpoint in a slot.
    #[inline]
    pub fn of(&self, slot: u32) -> u32 {
        let workers = self.joined.load(Ordering::Relaxed).min(self.counts.len());
        let counts = self.counts[..workers].iter().filter_map(|counts| counts.get(slot as usize));
        let sum = counts.fold(0_u32, |sum, count| sum.wrapping_add(count.load(Ordering::Relaxed)));
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

    /// The endpoint in a slot has `change` open flows more.
    #[inline]
    pub fn add(&mut self, slot: u32, change: i32) {
        // Nobody else writes there: no locked instruction.
        if let Some(count) = self.loads.counts[self.worker].get(slot as usize) {
            let sum = count.load(Ordering::Relaxed).wrapping_add_signed(change);
            count.store(sum, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_summed_over_workers_wherever_they_end() {
        let loads = Loads::new().unwrap();
        let (mut first, mut second) = (loads.join(), loads.join());
        assert_eq!((first.worker(), second.worker()), (0, 1));
        (0..5).for_each(|_| first.add(3, 1));
        (0..4).for_each(|_| second.add(3, -1));
        assert_eq!((loads.of(3), loads.of(4)), (1, 0));
        second.add(3, -1);
        second.add(3, -1);
        assert_eq!(loads.of(3), 0, "not fewer than none");
    }

    #[test]
    fn slots_beyond_those_that_are_counted_are_empty() {
        let loads = Loads::new().unwrap();
        let mut writer = loads.join();
        writer.add(COUNTED as u32, 1);
        writer.add(COUNTED as u32 - 1, 1);
        assert_eq!((loads.of(COUNTED as u32), loads.of(COUNTED as u32 - 1)), (0, 1));
    }
}
