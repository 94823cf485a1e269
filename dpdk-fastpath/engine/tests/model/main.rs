//! The publication of snapshots in every order of events that the memory model allows, by loom.
//!
//! loom runs each test once for every interleaving, and for every older value that a load may return. A snapshot's
//! contents lie in a cell that loom watches: a read that does not happen before its drop, or after it, fails the test.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::cell::UnsafeCell;
use loom::thread;

use self::channel::{Publisher, Reader};

#[path = "../../src/quiescent/channel.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod channel;

/// loom's stand-ins for what the engine takes from the standard library.
mod sync {
    pub(super) use std::sync::PoisonError;

    pub(super) use loom::sync::atomic::{AtomicPtr, AtomicU64, Ordering, fence};
    pub(super) use loom::sync::{Arc, Mutex};
    pub(super) use loom::thread::yield_now;
}

/// A snapshot whose reads and whose drop loom watches.
struct Snapshot {
    value: UnsafeCell<u64>,
    drops: Arc<AtomicUsize>,
}

impl Snapshot {
    fn read(&self) -> u64 {
        // SAFETY: loom fails the test if a write, that is the drop, is not ordered with this read.
        self.value.with(|value| unsafe { *value })
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        // SAFETY: as in `read`.
        self.value.with_mut(|value| unsafe { *value = u64::MAX });
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs `test` in all orders in which no thread is interrupted more than three times, where it need not be: more find
/// nothing new in algorithms of this size, and take hours.
fn check(test: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(test);
}

/// Makes snapshots 0, 1, 2..., and counts how many are dropped.
#[derive(Clone, Default)]
struct Source(Arc<AtomicUsize>);

impl Source {
    fn snapshot(&self, value: u64) -> Snapshot {
        Snapshot { value: UnsafeCell::new(value), drops: Arc::clone(&self.0) }
    }

    /// Snapshot 0, published to `readers` readers.
    fn channel(&self, readers: usize) -> (Publisher<Snapshot>, Vec<Reader<Snapshot>>) {
        channel::channel(self.snapshot(0), readers)
    }

    fn dropped(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Pins `times` times: never a snapshot older than the one before.
fn pin(reader: &mut Reader<Snapshot>, times: usize) {
    let mut last = 0;
    for _ in 0..times {
        let seen = reader.pin().read();
        assert!(seen >= last && seen != u64::MAX, "{seen} after {last}");
        last = seen;
    }
}

#[test]
fn a_snapshot_in_use_is_not_dropped_while_others_replace_it() {
    check(|| {
        let source = Source::default();
        let (mut publisher, mut readers) = source.channel(1);
        let mut reader = readers.remove(0);
        let worker = thread::spawn(move || pin(&mut reader, 3));
        publisher.publish(source.snapshot(1));
        publisher.publish(source.snapshot(2));
        publisher.reclaim();
        worker.join().unwrap();
        assert_eq!(publisher.reclaim(), 0, "a reader that is gone keeps nothing");
        drop(publisher);
        assert_eq!(source.dropped(), 3);
    });
}

#[test]
fn a_reader_that_wakes_up_never_finds_a_dropped_snapshot() {
    check(|| {
        let source = Source::default();
        let (mut publisher, mut readers) = source.channel(1);
        let mut reader = readers.remove(0);
        let worker = thread::spawn(move || {
            pin(&mut reader, 1);
            reader.park();
            pin(&mut reader, 2);
        });
        publisher.publish(source.snapshot(1));
        publisher.reclaim();
        worker.join().unwrap();
    });
}

#[test]
fn the_slowest_of_two_readers_is_waited_for() {
    check(|| {
        let source = Source::default();
        let (mut publisher, readers) = source.channel(2);
        let workers: Vec<_> =
            readers.into_iter().map(|mut reader| thread::spawn(move || pin(&mut reader, 2))).collect();
        publisher.publish(source.snapshot(1));
        publisher.reclaim();
        for worker in workers {
            worker.join().unwrap();
        }
        drop(publisher);
        assert_eq!(source.dropped(), 2);
    });
}

#[test]
fn a_publisher_that_goes_leaves_what_is_in_use_to_the_last_reader() {
    check(|| {
        let source = Source::default();
        let (mut publisher, mut readers) = source.channel(1);
        let mut reader = readers.remove(0);
        let worker = thread::spawn(move || pin(&mut reader, 2));
        publisher.publish(source.snapshot(1));
        drop(publisher);
        worker.join().unwrap();
        assert_eq!(source.dropped(), 2);
    });
}
