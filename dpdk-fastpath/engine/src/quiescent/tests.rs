use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use super::*;

/// A snapshot that says when it is dropped.
struct Counted {
    value: u64,
    double: u64,
    drops: Arc<AtomicUsize>,
}

impl Counted {
    fn new(value: u64, drops: &Arc<AtomicUsize>) -> Self {
        Self { value, double: value * 2, drops: Arc::clone(drops) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.double = u64::MAX;
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_replaced_snapshot_lives_until_every_reader_has_pinned_again() {
    let drops = Arc::new(AtomicUsize::new(0));
    let (mut publisher, mut readers) = channel(Counted::new(1, &drops), 2);
    let [a, b] = &mut readers[..] else { unreachable!() };
    assert_eq!((a.pin().value, b.pin().value), (1, 1));

    publisher.publish(Counted::new(2, &drops));
    assert_eq!(publisher.current().value, 2);
    assert_eq!(publisher.reclaim(), 1);
    assert_eq!(a.pin().value, 2);
    assert_eq!((publisher.reclaim(), drops.load(Ordering::Relaxed)), (1, 0));
    assert_eq!(b.pin().value, 2);
    assert_eq!((publisher.reclaim(), drops.load(Ordering::Relaxed)), (0, 1));
}

#[test]
fn nobody_waits_for_a_parked_or_dropped_reader() {
    let drops = Arc::new(AtomicUsize::new(0));
    let (mut publisher, mut readers) = channel(Counted::new(1, &drops), 2);
    for reader in &mut readers {
        reader.pin();
    }
    readers[0].park();
    readers.pop();
    publisher.publish(Counted::new(2, &drops));
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    assert_eq!(readers[0].pin().value, 2);
    publisher.publish(Counted::new(3, &drops));
    assert!(!publisher.synchronize(Duration::from_millis(1)));
}

#[test]
fn what_a_reader_holds_outlives_the_publisher_and_is_dropped_once() {
    let drops = Arc::new(AtomicUsize::new(0));
    let (mut publisher, mut readers) = channel(Counted::new(1, &drops), 1);
    let held = readers[0].pin();
    publisher.publish(Counted::new(2, &drops));
    drop(publisher);
    assert_eq!((held.value, held.double), (1, 2));
    assert_eq!(drops.load(Ordering::Relaxed), 0);
    drop(readers);
    assert_eq!(drops.load(Ordering::Relaxed), 2);
}

#[test]
fn readers_see_whole_snapshots_in_order_while_they_are_replaced() {
    const LAST: u64 = 20_000;
    let drops = Arc::new(AtomicUsize::new(0));
    let (mut publisher, readers) = channel(Counted::new(0, &drops), 3);
    let start = Barrier::new(4);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (i, mut reader) in readers.into_iter().enumerate() {
            let (start, done) = (&start, &done);
            scope.spawn(move || {
                start.wait();
                let mut seen = 0;
                for burst in 0_u64.. {
                    let last = done.load(Ordering::Acquire);
                    let snapshot = reader.pin();
                    assert_eq!(snapshot.double, snapshot.value * 2, "a dropped snapshot was read");
                    assert!(snapshot.value >= seen, "an older snapshot came back");
                    seen = snapshot.value;
                    if last {
                        break;
                    }
                    if i == 0 && burst % 7 == 0 {
                        reader.park();
                    }
                }
                assert_eq!(seen, LAST);
            });
        }
        start.wait();
        for value in 1..=LAST {
            publisher.publish(Counted::new(value, &drops));
        }
        assert!(publisher.synchronize(Duration::from_secs(60)));
        done.store(true, Ordering::Release);
    });
    drop(publisher);
    assert_eq!(drops.load(Ordering::Relaxed), LAST as usize + 1);
}
