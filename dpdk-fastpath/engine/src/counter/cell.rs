//! A counter with one writer.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread adds to and any thread reads. Adding is a plain load, add and store: no locked
/// instruction. Two threads that added would lose counts, so only [`CounterWriter`](super::CounterWriter), which is
/// not `Clone`, adds.
#[derive(Debug, Default)]
pub(super) struct Cell(AtomicU64);

impl Cell {
    #[inline]
    pub(super) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
