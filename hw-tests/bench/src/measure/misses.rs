//! What the caches did not have, by the CPU's own counters.

use perf_event::events::{Cache, CacheId, CacheOp, CacheResult};
use perf_event::{Builder, Counter};
use serde::Serialize;

/// Reads of one thread that missed: first-level cache, last-level cache, and translations of addresses.
pub(super) struct Counters([Counter; 3]);

/// What they have counted, or that per packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Misses {
    /// First-level data cache.
    pub(crate) l1: f64,
    /// Last-level cache.
    pub(crate) llc: f64,
    /// Data translation look-aside buffer.
    pub(crate) tlb: f64,
}

impl Counters {
    /// Of the calling thread, running from now on. `None` where the kernel or the CPU has no such counters, as in most
    /// virtual machines.
    pub(super) fn of_this_thread() -> Option<Self> {
        let counter = |which| {
            let event = Cache { which, operation: CacheOp::READ, result: CacheResult::MISS };
            let mut counter = Builder::new(event).build().ok()?;
            counter.enable().ok()?;
            Some(counter)
        };
        Some(Self([counter(CacheId::L1D)?, counter(CacheId::LL)?, counter(CacheId::DTLB)?]))
    }

    /// What they have counted so far.
    pub(super) fn read(&mut self) -> Option<Misses> {
        let [l1, llc, tlb] = &mut self.0;
        let read = |counter: &mut Counter| counter.read().ok().map(|count| count as f64);
        Some(Misses { l1: read(l1)?, llc: read(llc)?, tlb: read(tlb)? })
    }
}

impl Misses {
    pub(super) fn plus(self, other: Self) -> Self {
        Self { l1: self.l1 + other.l1, llc: self.llc + other.llc, tlb: self.tlb + other.tlb }
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        self.plus(earlier.times(-1.0))
    }

    pub(super) fn times(self, factor: f64) -> Self {
        Self { l1: self.l1 * factor, llc: self.llc * factor, tlb: self.tlb * factor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_workers_add_up_and_are_divided_by_packets() {
        let misses = |n: f64| Misses { l1: n, llc: 2.0 * n, tlb: 3.0 * n };
        assert_eq!(misses(9.0).since(misses(4.0)).plus(misses(1.0)).times(0.5), misses(3.0));
    }
}
