//! What the index is made of.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::FromZeros;

/// Slots of a bucket.
const SLOTS: usize = 7;

/// One cache line of the index. A key has a primary bucket, and a secondary one for when that is full.
///
/// Anybody reads it at any time, and only who holds its lock changes it.
#[derive(Debug, FromZeros)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    control: AtomicU64,
    slots: [AtomicU64; SLOTS],
}

/// The first word of a bucket. From its lowest bit on: one bit for the lock; seven that say how many keys whose primary
/// bucket this is are in their secondary one; and a byte for each slot, the tag, so that one word tells which slots are
/// worth a look. A tag is made of seven bits of the hash and never 0, which is that of a free slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Control(u64);

impl Control {
    const LOCKED: u64 = 1;
    const OVERFLOW: u64 = 0xfe;
    const ONE_OVERFLOWED: u64 = 2;
    const TAGS: u32 = 8;
    const LOW_BITS: u64 = 0x0001_0101_0101_0101;
    /// The lowest and the highest bits of all tags, where they are.
    const LOWEST: u64 = Self::LOW_BITS << Self::TAGS;
    const HIGHEST: u64 = Self::LOWEST << 7;

    #[inline(always)]
    const fn tag(signature: u32) -> u64 {
        (signature >> 25) as u64 + 1
    }

    /// A bit for each slot that has this tag, or 0 for the free ones: the highest of the tag's byte, which is the second
    /// byte for the first slot. What is above the first of these bits may be wrong.
    #[inline(always)]
    const fn with_tag(self, tag: u64) -> u64 {
        let difference = self.0 ^ Self::LOWEST.wrapping_mul(tag);
        difference.wrapping_sub(Self::LOWEST) & !difference & Self::HIGHEST
    }

    /// The first slot of those with a tag, of which there is one.
    #[inline(always)]
    const fn first(slots: u64) -> usize {
        (slots.trailing_zeros() as usize / 8 - 1) % SLOTS
    }

    #[inline(always)]
    const fn has_overflowed(self) -> bool {
        self.0 & Self::OVERFLOW != 0
    }

    #[inline(always)]
    const fn first_free(self) -> Option<usize> {
        match self.with_tag(0) {
            0 => None,
            free => Some(Self::first(free)),
        }
    }

    #[inline(always)]
    const fn used(self) -> usize {
        // Tags are at most 128: with 127 more the highest bit is that of used slots. The product adds them up.
        let used = ((self.0 >> Self::TAGS) + Self::LOW_BITS * 0x7f) >> 7 & Self::LOW_BITS;
        (used.wrapping_mul(Self::LOW_BITS) >> (8 * (SLOTS - 1)) & 0xff) as usize
    }

    #[inline(always)]
    const fn with_slot(self, slot: usize, tag: u64) -> Self {
        let shift = Self::TAGS + slot as u32 * 8;
        Self(self.0 & !(0xff << shift) | tag << shift)
    }
}

/// A used slot: 32 bits of the key's hash, the direction, and the number of the record. Never 0, which is a free slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(u64);

const REPLY: u64 = 1 << 31;

impl Slot {
    /// Records are numbered below this.
    pub(super) const MAX_INDEX: u32 = (REPLY - 1) as u32;

    pub(super) const fn new(signature: u32, reply: bool, index: u32) -> Self {
        let direction = if reply { REPLY } else { 0 };
        Self((signature as u64) << 32 | direction | (index as u64 + 1))
    }

    /// What [`Bucket::glance`] says if the key is in no bucket.
    pub(super) const ABSENT: Self = Self(0);
    /// What it says if that takes a closer look.
    pub(super) const UNCLEAR: Self = Self(REPLY);

    /// The number of the record; of no record for the two that are no slots.
    #[inline(always)]
    pub(super) const fn index(self) -> u32 {
        self.place() as u32
    }

    /// The same as a place among all records.
    #[inline(always)]
    pub(super) const fn place(self) -> usize {
        ((self.0 & (REPLY - 1)) as usize).wrapping_sub(1)
    }

    #[inline(always)]
    pub(super) const fn is_reply(self) -> bool {
        self.0 & REPLY != 0
    }

    /// Whether there is something in it.
    pub(super) const fn is_used(self) -> bool {
        self.0 != 0
    }

    #[inline(always)]
    const fn signature(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl Bucket {
    /// The slot that the key with this signature most likely has, if this is its primary bucket; or [`Slot::ABSENT`] or
    /// [`Slot::UNCLEAR`].
    #[inline(always)]
    pub(super) fn glance(&self, signature: u32) -> Slot {
        let control = Control(self.control.load(Ordering::Acquire));
        let slots = control.with_tag(Control::tag(signature));
        if slots == 0 {
            return if control.has_overflowed() { Slot::UNCLEAR } else { Slot::ABSENT };
        }
        let slot = Slot(self.slots[Control::first(slots)].load(Ordering::Acquire));
        // No free slot passes for one: whose signature is 0 would be unclear.
        if slot.signature() == signature && slot.0 != 0 { slot } else { Slot::UNCLEAR }
    }

    /// The slots with this signature.
    #[inline]
    pub(super) fn matches(&self, signature: u32) -> impl Iterator<Item = Slot> {
        let slots = self.slots.iter().map(|slot| Slot(slot.load(Ordering::Acquire)));
        slots.filter(move |&slot| slot.0 != 0 && slot.signature() == signature)
    }

    /// All slots as they are just now, free ones included.
    #[inline]
    pub(super) fn slots(&self) -> [Slot; SLOTS] {
        self.slots.each_ref().map(|slot| Slot(slot.load(Ordering::Relaxed)))
    }

    /// Whether keys whose primary bucket this is may be in their secondary one.
    #[inline]
    pub(super) fn has_overflowed(&self) -> bool {
        Control(self.control.load(Ordering::Acquire)).has_overflowed()
    }

    /// Keeps others from changing the bucket, for the few instructions that it takes.
    #[inline(always)]
    pub(super) fn lock(&self) -> BucketLock<'_> {
        loop {
            let free = self.control.load(Ordering::Relaxed) & !Control::LOCKED;
            let taken = self.control.compare_exchange_weak(
                free,
                free | Control::LOCKED,
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            if taken.is_ok() {
                return BucketLock { bucket: self, control: Control(free) };
            }
            spin_loop();
        }
    }

    /// Locks two buckets, always in the same order, so that two who want both never wait for each other.
    pub(super) fn lock_both<'a>(&'a self, other: &'a Self) -> (BucketLock<'a>, BucketLock<'a>) {
        debug_assert!(!std::ptr::eq(self, other));
        if std::ptr::from_ref(self) < std::ptr::from_ref(other) {
            let own = self.lock();
            (own, other.lock())
        } else {
            let others = other.lock();
            (self.lock(), others)
        }
    }
}

/// A locked bucket. Its tags change for others when it is dropped, which is when a new slot is found.
pub(super) struct BucketLock<'a> {
    bucket: &'a Bucket,
    /// The control word once the lock is gone.
    control: Control,
}

impl BucketLock<'_> {
    /// Whether the key with this signature is neither here nor in its secondary bucket, if this is its primary one.
    #[inline(always)]
    pub(super) const fn lacks(&self, signature: u32) -> bool {
        self.control.with_tag(Control::tag(signature)) == 0 && !self.control.has_overflowed()
    }

    /// How many slots are used.
    #[inline(always)]
    pub(super) fn used(&self) -> usize {
        self.control.used()
    }

    /// All slots, free ones included.
    pub(super) fn slots(&self) -> [Slot; SLOTS] {
        self.bucket.slots()
    }

    /// Whether the slot is here.
    pub(super) fn has(&self, slot: Slot) -> bool {
        self.slots().contains(&slot)
    }

    /// Takes a free slot; `false` if there is none.
    #[inline(always)]
    pub(super) fn put(&mut self, slot: Slot) -> bool {
        let Some(free) = self.control.first_free() else { return false };
        self.bucket.slots[free].store(slot.0, Ordering::Release);
        self.control = self.control.with_slot(free, Control::tag(slot.signature()));
        true
    }

    /// Frees the slot; `false` if it is not here.
    pub(super) fn take(&mut self, slot: Slot) -> bool {
        let found = self.bucket.slots.iter().position(|word| word.load(Ordering::Relaxed) == slot.0);
        if let Some(found) = found {
            self.bucket.slots[found].store(0, Ordering::Release);
            self.control = self.control.with_slot(found, 0);
        }
        found.is_some()
    }

    /// One more key goes to its secondary bucket.
    pub(super) fn overflow(&mut self) {
        // As many as can be counted are many: from then on there are always some.
        if self.control.0 & Control::OVERFLOW != Control::OVERFLOW {
            self.control.0 += Control::ONE_OVERFLOWED;
        }
    }

    /// One key less is in its secondary bucket.
    pub(super) fn shrink(&mut self) {
        if self.control.0 & Control::OVERFLOW != Control::OVERFLOW {
            self.control.0 -= Control::ONE_OVERFLOWED;
        }
    }
}

impl Drop for BucketLock<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.bucket.control.store(self.control.0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glance_finds_what_is_there_and_is_sure_of_what_is_not() {
        let bucket = Bucket::new_zeroed();
        // A tag for each.
        let signature = |n: u32| n << 25 | 0x77;
        let slot = |n: u32| Slot::new(signature(n), n.is_multiple_of(2), n);
        assert!((0..128).all(|n| bucket.glance(signature(n)) == Slot::ABSENT));
        for n in 0..SLOTS as u32 {
            assert!(bucket.lock().put(slot(n)));
            for known in 0..=n {
                assert_eq!(bucket.glance(signature(known)), slot(known));
                assert_eq!(bucket.glance(signature(known) + 1), Slot::UNCLEAR);
            }
            assert!((n + 1..128).all(|n| bucket.glance(signature(n)) == Slot::ABSENT));
            assert_eq!(bucket.lock().used(), n as usize + 1);
        }
        assert!(!bucket.lock().put(slot(8)));
        assert!(!bucket.lock().take(Slot::new(signature(3), true, 3)));
        assert!(bucket.lock().take(slot(3)));
        assert_eq!(bucket.glance(signature(3)), Slot::ABSENT);
        assert!(bucket.lock().put(slot(9)));
        assert_eq!(bucket.glance(signature(9)), slot(9));
    }

    #[test]
    fn what_is_no_slot_has_the_number_of_no_record() {
        for slot in [Slot::ABSENT, Slot::UNCLEAR] {
            assert!(slot.index() > Slot::MAX_INDEX);
        }
    }

    #[test]
    fn keys_in_the_other_bucket_are_counted_as_far_as_there_is_room() {
        let bucket = Bucket::new_zeroed();
        for _ in 0..100 {
            bucket.lock().overflow();
        }
        assert_eq!(bucket.glance(5 << 25), Slot::UNCLEAR);
        for left in (0..100).rev() {
            bucket.lock().shrink();
            assert_eq!(bucket.has_overflowed(), left > 0);
        }
        for _ in 0..200 {
            bucket.lock().overflow();
        }
        for _ in 0..200 {
            bucket.lock().shrink();
        }
        assert!(bucket.has_overflowed(), "what could not be counted was forgotten");
        assert!((0..128).all(|tag| bucket.glance(tag << 25) == Slot::UNCLEAR));
    }
}
