use std::sync::atomic::AtomicU32;
use std::thread;

use super::*;

/// Hashes of the keys, whose numbers are those of their records; as a table has them, from the slots alone.
struct Keys {
    index: Index,
    ended: Vec<AtomicU32>,
}

/// A hash as good as any, the same for each number.
fn hash(number: u32) -> u64 {
    let mixed = u64::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(27)
}

fn slot(number: u32) -> Slot {
    Slot::new(signature(hash(number)), false, number)
}

impl Keys {
    fn new(most: u32) -> Self {
        let ended = (0..most).map(|_| AtomicU32::new(0)).collect();
        Self {
            index: Index::new(Zeroed::new(Index::buckets_for(most as usize).unwrap() as usize).unwrap())
                .unwrap(),
            ended,
        }
    }

    /// As a table does it when it claims a chunk of records.
    fn tend(&self, keys: u32) {
        self.index.fit(keys as usize);
        self.advance(usize::MAX);
    }

    fn advance(&self, buckets: usize) {
        let hash_of = |slot: Slot| {
            let number = slot.index();
            (self.ended[number as usize].load(Ordering::Acquire) == 0).then(|| hash(number))
        };
        self.index.advance(buckets, hash_of, |_| ());
    }

    fn link(&self, number: u32, keys: u32) -> Result<(), LinkError> {
        let own = slot(number);
        loop {
            match self.index.link(hash(number), own, keys as usize, |slot| slot == own) {
                Err(LinkError::Full(size)) if self.index.grow(size, |_| ()) => {}
                linked => return linked,
            }
        }
    }

    fn unlink(&self, number: u32) {
        self.ended[number as usize].store(1, Ordering::Release);
        self.index.unlink(hash(number), slot(number));
    }

    fn has(&self, number: u32) -> bool {
        let (hash, own) = (hash(number), slot(number));
        let found = self.index.find(hash, |slot| (slot == own).then_some(())).is_some();
        assert_eq!(found, self.index.find(hash, |slot| (slot == own).then_some(())).is_some());
        match self.index.view().glance(hash) {
            Slot::ABSENT => assert!(!found, "{number} is there, and a glance is sure that it is not"),
            Slot::UNCLEAR if found => assert_ne!(self.index.clarify(hash), Slot::ABSENT, "{number}"),
            _ => {}
        }
        found
    }

    /// Looks for some of the keys that are there, the first `linked` of them, until these are `most`.
    fn look(&self, mut number: u32, linked: &AtomicU32, most: u32) {
        loop {
            let known = linked.load(Ordering::Acquire);
            for _ in 0..known.min(512) {
                number = (number + 4099) % known;
                assert!(self.has(number), "{number} of {known}: {:?}", self.index);
            }
            if known == most {
                break;
            }
        }
    }

    fn levels(&self) -> (u32, Option<u32>) {
        (self.index.shape().size(), self.index.shape().older())
    }

    /// Slots in use in all levels.
    fn used(&self) -> usize {
        self.index.buckets.iter().map(|bucket| bucket.lock().used()).sum()
    }
}

#[test]
fn an_index_grows_with_its_keys_up_to_what_the_limit_asks_for() {
    let keys = Keys::new(300_000);
    let mut sizes = vec![keys.levels().0];
    for number in 0..300_000 {
        assert_eq!(keys.link(number, number), Ok(()));
        if number % 512 == 0 {
            keys.tend(number);
            let (size, older) = keys.levels();
            assert_eq!(older, None, "moved at once, as nobody limited it");
            if size != sizes[sizes.len() - 1] {
                assert!((0..=number).all(|known| keys.has(known)), "{size} buckets");
                sizes.push(size);
            }
        }
    }
    assert_eq!(sizes, [1024, 4096, 16_384, 32_768, 131_072]);
    assert_eq!(keys.used(), 300_000);
    assert!((0..300_000).all(|number| keys.has(number)));
}

#[test]
fn a_small_index_begins_with_all_it_needs() {
    let keys = Keys::new(512);
    assert_eq!(keys.levels(), (128, None));
    for number in 0..512 {
        assert_eq!(keys.link(number, number), Ok(()));
        keys.tend(number);
    }
    assert_eq!(keys.levels(), (128, None));
}

#[test]
fn few_keys_take_a_second_look_until_there_are_many_for_an_index_that_cannot_grow() {
    const MOST: u32 = 1 << 18;
    let keys = Keys::new(MOST);
    let mut share = Vec::new();
    for number in 0..MOST {
        assert_eq!(keys.link(number, number), Ok(()));
        keys.tend(number);
        if (number + 1).is_multiple_of(MOST / 4) {
            let view = keys.index.view();
            let unclear = (0..=number).filter(|known| view.glance(hash(*known)) == Slot::UNCLEAR).count();
            share.push(unclear as f64 / f64::from(number + 1));
        }
    }
    // Of each other key in the bucket, one in 256 has the same tag.
    for (share, most) in share.iter().zip([0.004, 0.020, 0.090, 0.160]) {
        assert!(*share < most, "{share}: must be below {most}");
    }
}

#[test]
fn at_most_half_the_keys_take_a_second_look_while_they_are_moved() {
    const KEYS: u32 = 4000;
    let keys = Keys::new(100_000);
    for number in 0..KEYS {
        keys.link(number, number).unwrap();
    }
    assert!(keys.index.grow(1024, |_| ()));
    let mut most = 0;
    while keys.levels().1.is_some() {
        let view = keys.index.view();
        let unclear = (0..KEYS).filter(|known| view.glance(hash(*known)) == Slot::UNCLEAR).count();
        most = most.max(unclear);
        keys.advance(64);
    }
    // And some that are not in their primary bucket.
    assert!((0.45..0.60).contains(&(most as f64 / f64::from(KEYS))), "{most} of {KEYS}");
}

#[test]
fn a_level_without_room_for_a_key_is_followed_by_the_next() {
    let index = Keys::new(100_000).index;
    let link = |number| index.link(7, Slot::new(0, false, number), 14, |_| false);
    // Two buckets of seven slots.
    for number in 0..14 {
        assert_eq!(link(number), Ok(()));
    }
    assert_eq!(link(14), Err(LinkError::Full(1024)));
    let mut announced = 0;
    assert!(index.grow(1024, |size| announced = size));
    assert_eq!((announced, index.shape().size(), index.shape().older()), (4096, 4096, Some(1024)));
    assert!(index.grow(1024, |_| unreachable!("somebody else was faster")));
    for number in 14..28 {
        assert_eq!(link(number), Ok(()));
    }
    assert_eq!(link(28), Err(LinkError::Full(4096)));
    assert!(!index.grow(4096, |_| unreachable!("keys are still being moved")));
    for number in 0..28 {
        assert!(index.find(7, |slot| (slot.index() == number).then_some(())).is_some());
    }
}

#[test]
fn keys_come_and_go_while_others_are_moved() {
    let keys = Keys::new(100_000);
    for number in 0..2100 {
        keys.link(number, number).unwrap();
    }
    assert!(keys.index.grow(1024, |size| assert_eq!(size, 4096)));
    assert_eq!(keys.levels(), (4096, Some(1024)));
    for step in 0..1024 {
        assert_eq!(keys.levels(), (4096, Some(1024)));
        keys.advance(1);
        // One that may have been moved or not, and one that is new.
        keys.unlink(step * 2);
        assert!(!keys.has(step * 2) && keys.has(step * 2 + 1));
        keys.link(3000 + step, 2100 + step).unwrap();
        assert!(keys.has(3000 + step));
        assert_eq!(keys.link(step * 2 + 1, 0), Err(LinkError::Exists(slot(step * 2 + 1))));
        assert_eq!(keys.link(3000 + step, 0), Err(LinkError::Exists(slot(3000 + step))));
    }
    keys.advance(1);
    assert_eq!(keys.levels(), (4096, None), "there is nothing left to move");
    assert_eq!(keys.used(), 2100);
    assert_eq!(keys.index.buckets[1024..2048].iter().map(|bucket| bucket.lock().used()).sum::<usize>(), 0);
}

#[test]
fn a_key_that_is_just_being_removed_is_waited_for() {
    let keys = Keys::new(100_000);
    for number in 0..2100 {
        keys.link(number, number).unwrap();
    }
    keys.index.grow(1024, |_| ());
    keys.ended[1000].store(1, Ordering::Relaxed);
    for _ in 0..10 {
        keys.advance(usize::MAX);
        assert_eq!(keys.levels(), (4096, Some(1024)));
        assert!((0..2100).all(|number| keys.has(number)));
    }
    keys.unlink(1000);
    keys.advance(usize::MAX);
    assert_eq!(keys.levels(), (4096, None));
    assert!((0..2100).all(|number| keys.has(number) == (number != 1000)));
}

#[test]
fn who_looks_finds_every_key_at_any_time_of_growth() {
    const MOST: u32 = 60_000;
    for _ in 0..3 {
        let keys = Keys::new(MOST);
        let linked = AtomicU32::new(0);
        thread::scope(|scope| {
            for reader in 0..2 {
                let (keys, linked) = (&keys, &linked);
                scope.spawn(move || keys.look(reader * 7919, linked, MOST));
            }
            for number in 0..MOST {
                keys.link(number, number).unwrap();
                linked.store(number + 1, Ordering::Release);
                if number % 256 == 0 {
                    keys.index.fit(number as usize);
                }
                if number % 8 == 0 {
                    keys.advance(3);
                }
            }
        });
        assert_eq!(keys.levels().0, 16_384);
    }
}

#[test]
fn levels_that_are_outgrown_take_no_memory_and_every_key_is_found_while_it_is_given_back() {
    const MOST: u32 = 1 << 19;
    let keys = Keys::new(MOST);
    let (linked, given) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        scope.spawn(|| keys.look(0, &linked, MOST));
        scope.spawn(|| {
            while linked.load(Ordering::Acquire) < MOST {
                keys.index.give_back();
                given.fetch_add(1, Ordering::Relaxed);
            }
        });
        for number in 0..MOST {
            keys.link(number, number).unwrap();
            linked.store(number + 1, Ordering::Release);
            if number % 512 == 0 {
                keys.index.fit(number as usize);
            }
            if number % 2 == 0 {
                keys.advance(1);
            }
        }
    });
    assert_eq!(keys.levels(), (MOST / 4, None));
    keys.index.give_back();
    assert!((0..MOST).all(|number| keys.has(number)));
    let (taken, level) = (keys.index.resident(), MOST as usize / 4 * size_of::<Bucket>());
    assert_eq!(taken, level, "bytes, given back in {} calls", given.load(Ordering::Relaxed));
}

#[test]
fn two_who_enter_the_same_keys_enter_each_once_and_leave_nothing_behind() {
    const MOST: u32 = 60_000;
    for _ in 0..3 {
        let keys = Keys::new(2 * MOST);
        let both = |work: &(dyn Fn(usize) -> Vec<u32> + Sync)| {
            thread::scope(|scope| {
                let threads = [0, 1].map(|who| scope.spawn(move || work(who)));
                threads.map(|thread| thread.join().unwrap())
            })
        };
        let entered = both(&|_| {
            let mut own = Vec::new();
            for number in 0..MOST {
                match keys.link(number, number) {
                    Ok(()) => own.push(number),
                    Err(error) => assert_eq!(error, LinkError::Exists(slot(number))),
                }
                if number % 64 == 0 {
                    keys.index.fit(number as usize);
                    keys.advance(24);
                }
            }
            own
        });
        assert_eq!(entered.iter().map(Vec::len).sum::<usize>(), MOST as usize);
        // Most are still where they were.
        keys.index.fit(MOST as usize);
        both(&|who| {
            for &number in &entered[who] {
                keys.unlink(number);
                if number % 64 == 0 {
                    keys.advance(8);
                }
            }
            Vec::new()
        });
        while keys.levels().1.is_some() {
            keys.advance(usize::MAX);
        }
        assert_eq!(keys.used(), 0);
    }
}
