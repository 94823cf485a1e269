//! The index: from the hash of a key to the slots that may be its. It grows with the flows.
//!
//! # Levels
//! An index that has room for the configured limit is larger than what few flows need, and each look-up would touch another
//! line of it: an empty one of 8 MB costs as much per packet as a full one. So there are levels, each four times as large
//! as the one before it, or twice, and the last as large as the limit asks for. Once a level holds four keys per bucket, or
//! has no room for one, the next one is taken into use: new keys are entered there, and the others are moved, a bucket with
//! each flow that is entered, and some by whoever sweeps. It never shrinks. Memory of levels that are no longer used is
//! given back.
//!
//! # Readers
//! They take no lock and announce nothing. While keys are moved there are two levels, and a key is entered in the new one
//! before it leaves the old, so that who looks in the old one first finds it. Who finds nothing looks whether the levels are
//! still those that it looked in ([`Shape`]), and looks again if not: a key leaves a level only after the shape says so. The
//! first glance is at the level that has more of the keys.
//!
//! # Writers
//! Where the shape has two levels, who changes where a key is holds the lock of its primary bucket in the old one, and then
//! takes those in the new one. Having a lock, it looks at the shape again. The mover takes the lock of each bucket that it
//! empties: so nobody enters a key there afterwards who has not seen the new shape.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::bucket::{Bucket, BucketLock, Slot};
use super::memory::Zeroed;
use super::prefetch::{prefetch, prefetch_element};

mod growth;
mod remains;
#[cfg(test)]
mod tests;

pub(super) use self::remains::Remains;

/// Buckets of the first level: 64 KB, which stay in the cache.
const SMALLEST: u32 = 1024;

/// Keys per bucket, on average, from which on the next level is used.
const FULL: usize = 4;

/// Used slots of a bucket from which on a key goes to the emptier of its two. Nearly all are in their primary one then; of
/// four keys per bucket, a twentieth is not, and one in ten thousand finds no slot.
const CROWDED: usize = 6;

/// The same when it cannot grow and there are more than one key per bucket, and more than two: all of up to four still have to
/// find a slot. As computed, of 84 million keys that fill tables of a million connections, one finds none with four slots from one
/// key per bucket on, three with these, and 28 with six up to two; with two keys per bucket 3.4, 1.1 and 0.3 % are in their
/// secondary one.
const CROWDED_LATER: [usize; 2] = [5, 4];

/// Buckets by which keys are found.
pub(super) struct Index {
    /// A level of so many buckets begins at the bucket of that number, which makes none overlap another. What is never used
    /// takes no memory.
    buckets: Zeroed<Bucket>,
    shape: AtomicU64,
    largest: u32,
    /// The bucket whose keys are to be moved next, and above that the size of the level that they are moved to: of another
    /// level it says nothing.
    moving: AtomicU64,
    /// Levels below that of this size have been given back.
    given_back: AtomicU32,
    /// Whether keys are missing that will be entered: that one is in no bucket says nothing then.
    partial: AtomicBool,
}

/// Which levels are in use: the size of the one that keys are entered in, and of the one that they are moved from, if there
/// is one. No shape comes twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape(u64);

impl Shape {
    /// That of no index.
    const NONE: Self = Self(0);

    const fn new(size: u32, older: u32) -> Self {
        Self((older as u64) << 32 | size as u64)
    }

    const fn size(self) -> u32 {
        self.0 as u32
    }

    const fn older(self) -> Option<u32> {
        match (self.0 >> 32) as u32 {
            0 => None,
            older => Some(older),
        }
    }
}

#[inline(always)]
const fn signature(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// The buckets of a level, a power of two of them.
#[derive(Clone, Copy)]
struct Level<'a>(&'a [Bucket]);

impl<'a> Level<'a> {
    #[inline(always)]
    const fn primary_number(self, hash: u64) -> usize {
        hash as usize & (self.0.len() - 1)
    }

    #[inline(always)]
    fn primary(self, hash: u64) -> &'a Bucket {
        &self.0[self.primary_number(hash)]
    }

    #[inline]
    fn secondary(self, hash: u64) -> &'a Bucket {
        // Odd, so that it is another bucket.
        let step = signature(hash).wrapping_mul(0x9e37_79b1) as usize | 1;
        &self.0[(hash as usize ^ step) & (self.0.len() - 1)]
    }

    /// What `pick` makes of the first slot that may be the key's and that it does not refuse.
    #[inline(always)]
    fn find<T>(self, hash: u64, mut pick: impl FnMut(Slot) -> Option<T>) -> Option<T> {
        let (primary, signature) = (self.primary(hash), signature(hash));
        if primary.glance(signature) == Slot::ABSENT {
            return None;
        }
        let found = primary.matches(signature).find_map(&mut pick);
        if found.is_none() && primary.has_overflowed() {
            return self.secondary(hash).matches(signature).find_map(pick);
        }
        found
    }

    /// Enters a key, unless `check` objects, which is asked with the lock of its primary bucket; `false` if there is no room. Nearly all are in their primary bucket, up to `crowded` of them, which spares most look-ups the other.
    #[inline(always)]
    fn enter<E>(
        self,
        hash: u64,
        slot: Slot,
        crowded: usize,
        check: impl Fn(&BucketLock<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        {
            let mut primary = self.primary(hash).lock();
            check(&primary)?;
            if primary.used() < crowded && primary.put(slot) {
                return Ok(true);
            }
        }
        self.enter_either(hash, slot, check)
    }

    /// Enters a key in the emptier one of its buckets.
    #[inline(never)]
    fn enter_either<E>(
        self,
        hash: u64,
        slot: Slot,
        check: impl Fn(&BucketLock<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let (mut primary, mut secondary) = self.primary(hash).lock_both(self.secondary(hash));
        check(&primary)?;
        if primary.used() <= secondary.used() && primary.put(slot) {
            return Ok(true);
        }
        let entered = secondary.put(slot);
        if entered {
            primary.overflow();
        }
        Ok(entered)
    }

    /// Removes a key, if `moved` agrees, which is asked when the lock of its primary bucket is held; `false` if it is not
    /// here.
    fn remove(self, hash: u64, slot: Slot, moved: impl Fn() -> bool) -> bool {
        {
            let mut primary = self.primary(hash).lock();
            if primary.has(slot) {
                return moved() && primary.take(slot);
            }
        }
        let (mut primary, mut secondary) = self.primary(hash).lock_both(self.secondary(hash));
        // It may be in the primary one by now only if it was entered just now, which nobody does with a key that is here.
        if !secondary.has(slot) || !moved() {
            return false;
        }
        primary.shrink();
        secondary.take(slot)
    }
}

/// What `pick` makes of the first slot in one of two levels that may be the key's and that it does not refuse.
#[inline(always)]
fn find<T>(
    older: Option<Level<'_>>,
    level: Level<'_>,
    hash: u64,
    mut pick: impl FnMut(Slot) -> Option<T>,
) -> Option<T> {
    let found = older.and_then(|older| older.find(hash, &mut pick));
    if found.is_some() { found } else { level.find(hash, pick) }
}

/// The size of the last level that so many buckets are for.
fn largest(buckets: &[Bucket]) -> Option<u32> {
    let largest = u32::try_from(buckets.len() / 2).ok()?;
    (largest >= 2 && largest.is_power_of_two() && buckets.len().is_power_of_two()).then_some(largest)
}

/// The size of the first level.
const fn first(largest: u32) -> u32 {
    if largest < SMALLEST { largest } else { SMALLEST }
}

/// The size of the level after that of such a size, which is not the last.
const fn after(size: u32, largest: u32) -> u32 {
    match largest / size {
        ..=4 => largest,
        // The last is not to be much larger than the last but one.
        8 => size * 2,
        _ => size * 4,
    }
}

/// The sizes of all levels, the smallest first.
fn sizes(largest: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(first(largest)), move |&size| (size < largest).then(|| after(size, largest)))
}

/// The index as it is while some keys are looked up together.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    /// Of two levels the one that has more of the keys.
    level: Level<'a>,
    shape: &'a AtomicU64,
    /// The shape, if it has but one level and no key is missing.
    settled: Shape,
}

impl View<'_> {
    /// Fetches what [`glance`](Self::glance) will look at.
    #[inline(always)]
    pub(super) fn prefetch(&self, hash: u64) {
        prefetch_element(self.level.0, self.level.primary_number(hash));
    }

    /// The slot that the key most likely has; or [`Slot::ABSENT`], which is sure, or [`Slot::UNCLEAR`], for which
    /// [`Index::clarify`] takes a closer look.
    #[inline(always)]
    pub(super) fn glance(&self, hash: u64) -> Slot {
        let slot = self.level.primary(hash).glance(signature(hash));
        if slot == Slot::ABSENT {
            let same = Shape(self.shape.load(Ordering::Relaxed)) == self.settled;
            return if same { Slot::ABSENT } else { Slot::UNCLEAR };
        }
        if slot == Slot::UNCLEAR {
            prefetch(self.level.secondary(hash));
        }
        slot
    }
}

/// Why a key was not entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkError {
    /// It is there already, and has this slot.
    Exists(Slot),
    /// There is no room in the level, which has so many buckets.
    Full(u32),
}

/// What keeps a key from being entered.
enum Objection {
    Exists(Slot),
    /// The levels are others by now.
    Reshaped,
}

impl Index {
    /// Buckets of an index for up to `keys` keys; `None` if there cannot be so many.
    pub(super) fn buckets_for(keys: usize) -> Option<u32> {
        // At most four keys per bucket of seven slots. With the rule in `enter`, a million keys then all find a slot.
        let largest = keys.div_ceil(4).checked_next_power_of_two()?.max(2);
        u32::try_from(largest * 2).ok()
    }

    /// One of these buckets, all of them zero; `None` if there cannot be so many.
    pub(super) fn new(buckets: Zeroed<Bucket>) -> Option<Self> {
        let largest = largest(&buckets)?;
        Some(Self {
            buckets,
            shape: AtomicU64::new(Shape::new(first(largest), 0).0),
            largest,
            moving: AtomicU64::new(0),
            given_back: AtomicU32::new(0),
            partial: AtomicBool::new(false),
        })
    }

    /// Says whether keys are missing that will be entered.
    pub(super) fn set_partial(&self, partial: bool) {
        self.partial.store(partial, Ordering::Release);
    }

    /// Whether keys are missing that will be entered.
    #[inline]
    pub(super) fn is_partial(&self) -> bool {
        self.partial.load(Ordering::Acquire)
    }

    #[inline(always)]
    fn shape(&self) -> Shape {
        Shape(self.shape.load(Ordering::Acquire))
    }

    #[inline(always)]
    fn level(&self, size: u32) -> Level<'_> {
        let size = size as usize;
        Level(&self.buckets[size..2 * size])
    }

    /// The level that keys are moved from, and the one that they are entered in.
    #[inline(always)]
    fn levels(&self, shape: Shape) -> (Option<Level<'_>>, Level<'_>) {
        (shape.older().map(|size| self.level(size)), self.level(shape.size()))
    }

    /// How many buckets of the level that keys are moved from have been emptied.
    fn moved(&self, shape: Shape) -> usize {
        let at = self.moving.load(Ordering::Relaxed);
        if at >> 32 == u64::from(shape.size()) { at as u32 as usize } else { 0 }
    }

    #[inline(always)]
    pub(super) fn view(&self) -> View<'_> {
        let (shape, is_partial) = (self.shape(), self.is_partial());
        let settled = if shape.older().is_none() && !is_partial { shape } else { Shape::NONE };
        let level = if shape.older().is_some() { self.fuller(shape) } else { self.level(shape.size()) };
        View { level, shape: &self.shape, settled }
    }

    /// The level that most keys are in, of two.
    #[cold]
    fn fuller(&self, shape: Shape) -> Level<'_> {
        match self.levels(shape) {
            (Some(older), _) if self.moved(shape) < older.0.len() / 2 => older,
            (_, level) => level,
        }
    }

    /// Fetches what [`clarify`](Self::clarify) will look at while keys are moved.
    pub(super) fn prefetch_closely(&self, hash: u64) {
        let (older, level) = self.levels(self.shape());
        if let Some(older) = older {
            prefetch(older.primary(hash));
            prefetch(level.primary(hash));
        }
    }

    /// The only slot that may be the key's; [`Slot::ABSENT`] if there is none, [`Slot::UNCLEAR`] if there are several, or if
    /// it may still be entered.
    pub(super) fn clarify(&self, hash: u64) -> Slot {
        let mut last = None;
        let is_partial = self.is_partial();
        // Whoever finds a second one stops.
        let several = self.find(hash, |slot| last.replace(slot).filter(|&known| known != slot));
        match (last, several) {
            (None, _) if is_partial => Slot::UNCLEAR,
            (None, _) => Slot::ABSENT,
            (Some(slot), None) => slot,
            (Some(_), Some(_)) => Slot::UNCLEAR,
        }
    }

    /// What `pick` makes of the first slot that may be the key's and that it does not refuse.
    #[inline]
    pub(super) fn find<T>(&self, hash: u64, pick: impl FnMut(Slot) -> Option<T>) -> Option<T> {
        // Who looks has mostly been told that there is nothing to be found.
        if self.view().glance(hash) == Slot::ABSENT { None } else { self.find_closely(hash, pick) }
    }

    fn find_closely<T>(&self, hash: u64, mut pick: impl FnMut(Slot) -> Option<T>) -> Option<T> {
        let mut shape = self.shape();
        loop {
            let (older, level) = self.levels(shape);
            let found = find(older, level, hash, &mut pick);
            let now = self.shape();
            if found.is_some() || now == shape {
                return found;
            }
            shape = now;
        }
    }

    /// Enters a key, unless `same` knows one of the slots with its hash as its own. There are `keys` in all.
    #[inline(always)]
    pub(super) fn link(
        &self,
        hash: u64,
        slot: Slot,
        keys: usize,
        same: impl Fn(Slot) -> bool,
    ) -> Result<(), LinkError> {
        loop {
            let shape = self.shape();
            let (older, level) = self.levels(shape);
            let _unmoved = older.map(|older| older.primary(hash).lock());
            let check = |primary: &BucketLock<'_>| {
                let is_new = self.shape() == shape && older.is_none() && primary.lacks(signature(hash));
                if is_new { Ok(()) } else { self.object(shape, hash, &same) }
            };
            match level.enter(hash, slot, self.crowded(shape, keys), check) {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(LinkError::Full(shape.size())),
                Err(Objection::Exists(found)) => return Err(LinkError::Exists(found)),
                Err(Objection::Reshaped) => {}
            }
        }
    }

    /// What there is to be said against a key, in a closer look.
    #[inline(never)]
    fn object(&self, shape: Shape, hash: u64, same: impl Fn(Slot) -> bool) -> Result<(), Objection> {
        if self.shape() != shape {
            return Err(Objection::Reshaped);
        }
        let (older, level) = self.levels(shape);
        let found = find(older, level, hash, |slot| same(slot).then_some(slot));
        found.map_or(Ok(()), |found| Err(Objection::Exists(found)))
    }

    #[inline]
    fn crowded(&self, shape: Shape, keys: usize) -> usize {
        let largest = self.largest as usize;
        if shape.size() != self.largest || keys <= largest {
            CROWDED
        } else {
            CROWDED_LATER[usize::from(keys > 2 * largest)]
        }
    }

    /// Removes a key that has this slot; `false` if it is not there.
    pub(super) fn unlink(&self, hash: u64, slot: Slot) -> bool {
        loop {
            let shape = self.shape();
            let (older, level) = self.levels(shape);
            let remove = |level: Level<'_>| level.remove(hash, slot, || true);
            if older.is_some_and(remove) || remove(level) {
                return true;
            }
            if self.shape() == shape {
                return false;
            }
        }
    }
}

#[cfg(test)]
impl Index {
    /// Bytes that are in memory.
    pub(super) fn resident(&self) -> usize {
        self.buckets.resident()
    }

    /// How many buckets of the level that keys are moved from are empty by now, if there is one.
    pub(super) fn emptied(&self) -> Option<usize> {
        let shape = self.shape();
        shape.older().map(|_| self.moved(shape))
    }

    /// Buckets of the level that keys are entered in.
    pub(super) fn size(&self) -> u32 {
        self.shape().size()
    }
}

impl fmt::Debug for Level<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Level").field("size", &self.0.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("shape", &self.shape()).field("largest", &self.largest).finish()
    }
}
