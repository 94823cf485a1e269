//! How the index grows: the next level, and the keys that move there.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::sync::atomic::Ordering;

use super::{CROWDED, FULL, Index, Shape, Slot, after, prefetch_element, sizes};

impl Index {
    /// Takes the next level into use if there are so many keys that it is time.
    pub(in crate::flow) fn fit(&self, keys: usize) {
        let size = self.shape().size();
        if keys > FULL * size as usize {
            self.grow(size, |_| ());
        }
    }

    /// Takes the level after that of such a size into use, if nobody else has; `announce` is told its size before. `false` if
    /// there is none, or if keys are still being moved to this one.
    pub(in crate::flow) fn grow(&self, size: u32, announce: impl FnOnce(u32)) -> bool {
        let shape = self.shape();
        if shape.size() != size {
            return true;
        }
        if shape.older().is_some() || size == self.largest {
            return false;
        }
        let next = after(size, self.largest);
        announce(next);
        // Or somebody else was faster.
        let next = Shape::new(next, size);
        let _ = self.shape.compare_exchange(shape.0, next.0, Ordering::AcqRel, Ordering::Relaxed);
        true
    }

    /// The size of the level that so many keys take in the end.
    pub(in crate::flow) fn size_for(&self, keys: usize) -> u32 {
        let takes = |size: &u32| keys <= FULL * *size as usize;
        sizes(self.largest).find(takes).unwrap_or(self.largest)
    }

    /// Begins with the level that so many keys take in the end, if none has been entered yet: they need not be moved then.
    pub(in crate::flow) fn expect(&self, keys: usize) {
        self.shape.store(Shape::new(self.size_for(keys), 0).0, Ordering::Release);
    }

    /// Moves the keys of a few buckets to the new level, if there are two. `hash_of` tells the hash of the key that has a slot,
    /// or nothing if it is just being removed, and `prefetch` fetches what that looks at.
    #[inline]
    pub(in crate::flow) fn advance(
        &self,
        buckets: usize,
        hash_of: impl Fn(Slot) -> Option<u64>,
        prefetch: impl Fn(Slot),
    ) {
        if self.shape().older().is_some() {
            self.empty(buckets, hash_of, prefetch);
        }
    }

    /// Gives back the memory of the levels below the only one, unless that has been done. Who still looks there finds
    /// nothing, and then that the levels are others.
    pub(in crate::flow) fn give_back(&self) {
        let shape = self.shape();
        let size = shape.size();
        if shape.older().is_none() && self.given_back.fetch_max(size, Ordering::Relaxed) < size {
            self.buckets.give_back(size as usize);
        }
    }

    /// Several may do this at once, and whoever stops in the middle of it keeps nobody from going on: what has been moved is no
    /// longer there.
    #[cold]
    fn empty(&self, buckets: usize, hash_of: impl Fn(Slot) -> Option<u64>, prefetch: impl Fn(Slot)) {
        let shape = self.shape();
        let (size, Some(older)) = (shape.size(), shape.older()) else { return };
        let cursor = |bucket: u32| u64::from(size) << 32 | u64::from(bucket);
        for _ in 0..buckets {
            let at = self.moving.load(Ordering::Acquire);
            let bucket = match ((at >> 32) as u32).cmp(&size) {
                Less => 0,
                Equal => at as u32,
                // Meanwhile it has grown again.
                Greater => return,
            };
            if bucket == older {
                let grown = Shape::new(size, 0);
                let _ = self.shape.compare_exchange(shape.0, grown.0, Ordering::AcqRel, Ordering::Relaxed);
                return;
            }
            self.foresee(shape, older, bucket + 1, &prefetch);
            if !self.empty_one(shape, older, bucket as usize, &hash_of) {
                return;
            }
            // Or somebody else was faster.
            let _ = self.moving.compare_exchange(at, cursor(bucket + 1), Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Fetches what it takes to move the keys of the bucket after the one whose turn it is.
    fn foresee(&self, shape: Shape, older: u32, bucket: u32, prefetch: impl Fn(Slot)) {
        if bucket < older {
            let (from, to) = (self.level(older), self.level(shape.size()));
            // Nearly all go to a bucket of which these are the last bits.
            for bucket in (bucket..shape.size()).step_by(older as usize) {
                prefetch_element(to.0, bucket as usize);
            }
            from.0[bucket as usize].slots().into_iter().filter(|slot| slot.is_used()).for_each(prefetch);
            prefetch_element(from.0, bucket as usize + 1);
        }
    }

    /// Moves the keys of one bucket; `false` if some had to stay.
    fn empty_one(
        &self,
        shape: Shape,
        older: u32,
        bucket: usize,
        hash_of: impl Fn(Slot) -> Option<u64>,
    ) -> bool {
        let (from, to) = (self.level(older), self.level(shape.size()));
        let bucket = &from.0[bucket];
        let slots = bucket.lock().slots();
        slots.into_iter().filter(|slot| slot.is_used()).all(|slot| {
            let Some(hash) = hash_of(slot) else { return !bucket.lock().has(slot) };
            // It stays where it is until it is in the other level, too; unless it is no longer the same key's.
            let enter = || {
                hash_of(slot) == Some(hash)
                    && matches!(to.enter(hash, slot, CROWDED, |_| Ok::<_, ()>(())), Ok(true))
            };
            from.remove(hash, slot, enter) || !bucket.lock().has(slot)
        })
    }
}
