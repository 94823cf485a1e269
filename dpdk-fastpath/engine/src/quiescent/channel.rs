//! Both sides of the publication. `tests/model` checks this file, with atomics of its own, in every order of events.

use std::fmt;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use super::sync::{Arc, AtomicPtr, AtomicU64, Mutex, Ordering, PoisonError, fence, yield_now};

/// Slot value of a reader that holds no snapshot.
const PARKED: u64 = u64::MAX;

/// A value on cache lines of its own; 128 bytes since Intel's prefetcher fetches lines in pairs.
#[repr(align(128))]
struct OwnLine<T>(T);

struct Shared<T> {
    current: AtomicPtr<T>,
    epoch: AtomicU64,
    readers: Box<[OwnLine<AtomicU64>]>,
    /// Snapshots whose publisher went away before every reader had let go of them.
    orphans: Mutex<Vec<NonNull<T>>>,
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let orphans = self.orphans.get_mut().unwrap_or_else(PoisonError::into_inner);
        orphans.extend(NonNull::new(self.current.load(Ordering::Acquire)));
        for snapshot in orphans.drain(..) {
            // SAFETY: each came from `Box::into_raw` in `channel` or `publish`; a pointer is current, retired or
            // orphaned, never two of these, and nobody shares `self` any more.
            drop(unsafe { Box::from_raw(snapshot.as_ptr()) });
        }
    }
}

/// The publishing side. Not `Clone`: there is one.
pub struct Publisher<T> {
    shared: Arc<Shared<T>>,
    /// Replaced snapshots with the epoch that replaced them, oldest first.
    retired: Vec<(u64, NonNull<T>)>,
}

/// The reading side of one worker. Not `Clone`: there are as many as were asked for.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    index: usize,
    parked: bool,
}

// SAFETY: a reader hands out `&T` on the thread that holds it and shares nothing else but atomics; a reader that is
// the last to go drops the `T`s on its thread.
unsafe impl<T: Send + Sync> Send for Reader<T> {}
// SAFETY: a publisher hands out `&T`, drops `T`s on its thread and shares nothing else but atomics.
unsafe impl<T: Send + Sync> Send for Publisher<T> {}

/// A publisher of `first`, and `readers` readers of it, parked at first.
pub fn channel<T>(first: T, readers: usize) -> (Publisher<T>, Vec<Reader<T>>) {
    let shared = Arc::new(Shared {
        current: AtomicPtr::new(Box::into_raw(Box::new(first))),
        epoch: AtomicU64::new(0),
        readers: (0..readers).map(|_| OwnLine(AtomicU64::new(PARKED))).collect(),
        orphans: Mutex::new(Vec::new()),
    });
    let readers =
        (0..readers).map(|index| Reader { shared: Arc::clone(&shared), index, parked: true }).collect();
    (Publisher { shared, retired: Vec::new() }, readers)
}

impl<T> Reader<T> {
    /// Lets go of the snapshot pinned before and returns the current one. Call once per burst.
    #[inline]
    pub fn pin(&mut self) -> &T {
        let slot = &self.shared.readers[self.index].0;
        slot.store(self.shared.epoch.load(Ordering::Acquire), Ordering::Release);
        if self.parked {
            self.parked = false;
            fence(Ordering::SeqCst);
        }
        let current = self.shared.current.load(Ordering::Acquire);
        // SAFETY: never null, and not freed while this reader's slot holds an epoch older than the one that retires
        // it. The slot changes only in `pin`, `park` and `drop`, which need the exclusive borrow that the returned
        // reference keeps.
        unsafe { &*current }
    }

    /// Lets go of the snapshot, so that nobody waits for this reader until it [`pin`](Self::pin)s again.
    pub fn park(&mut self) {
        self.parked = true;
        self.shared.readers[self.index].0.store(PARKED, Ordering::Release);
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.park();
    }
}

impl<T> Publisher<T> {
    /// Makes `next` what every later [`Reader::pin`] returns. What it replaces stays until it can be
    /// [reclaimed](Self::reclaim).
    pub fn publish(&mut self, next: T) {
        let old = self.shared.current.swap(Box::into_raw(Box::new(next)), Ordering::AcqRel);
        let epoch = self.shared.epoch.fetch_add(1, Ordering::AcqRel) + 1;
        self.retired.extend(NonNull::new(old).map(|old| (epoch, old)));
        self.reclaim();
    }

    /// Drops the snapshots that no reader can still be looking at; returns how many are left. Never waits.
    pub fn reclaim(&mut self) -> usize {
        if !self.retired.is_empty() {
            fence(Ordering::SeqCst);
            let passed = self.shared.readers.iter().map(|slot| slot.0.load(Ordering::Acquire)).min();
            let passed = passed.unwrap_or(PARKED);
            let free = self.retired.partition_point(|(epoch, _)| *epoch <= passed);
            for (_, snapshot) in self.retired.drain(..free) {
                // SAFETY: it came from `Box::into_raw` and was taken out of `current` by `publish`. Every reader is
                // parked or has pinned since, so that none holds a reference to it, and none can find it again.
                drop(unsafe { Box::from_raw(snapshot.as_ptr()) });
            }
        }
        self.retired.len()
    }

    /// Waits until every reader uses the current snapshot or is parked, and drops all others; `false` if that took
    /// longer than `limit`.
    pub fn synchronize(&mut self, limit: Duration) -> bool {
        let start = Instant::now();
        while self.reclaim() > 0 {
            if start.elapsed() > limit {
                return false;
            }
            yield_now();
        }
        true
    }

    /// The snapshot published last.
    pub fn current(&self) -> &T {
        // SAFETY: only `publish` retires the current snapshot, and it needs `&mut self`.
        unsafe { &*self.shared.current.load(Ordering::Acquire) }
    }
}

impl<T> Drop for Publisher<T> {
    fn drop(&mut self) {
        if self.reclaim() > 0 {
            let orphans = self.retired.drain(..).map(|(_, snapshot)| snapshot);
            self.shared.orphans.lock().unwrap_or_else(PoisonError::into_inner).extend(orphans);
        }
    }
}

impl<T> fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("retired", &self.retired.len()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("index", &self.index)
            .field("parked", &self.parked)
            .finish_non_exhaustive()
    }
}
