//! The index: where a key's record is.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::FromZeros;

/// Slots of a bucket.
const SLOTS: usize = 7;

const LOCKED: u64 = 1;
const ONE_OVERFLOWED: u64 = 2;

/// One cache line of the index. A key has a primary bucket, and a secondary one for when that is full.
#[derive(Debug, FromZeros)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    /// Bit 0: somebody links or unlinks a key whose primary bucket this is. From bit 1 on: how many keys whose primary
    /// bucket this is are in their secondary one.
    control: AtomicU64,
    slots: [AtomicU64; SLOTS],
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

    #[inline]
    pub(super) const fn index(self) -> u32 {
        (self.0 & (REPLY - 1)) as u32 - 1
    }

    #[inline]
    pub(super) const fn is_reply(self) -> bool {
        self.0 & REPLY != 0
    }

    #[inline]
    const fn signature(word: u64) -> u32 {
        (word >> 32) as u32
    }
}

impl Bucket {
    /// The slots with this signature.
    #[inline]
    pub(super) fn matches(&self, signature: u32) -> impl Iterator<Item = Slot> {
        let words = self.slots.iter().map(|slot| slot.load(Ordering::Acquire));
        words.filter(move |&word| word != 0 && Slot::signature(word) == signature).map(Slot)
    }

    /// The first slot with this signature, if no free one looks the same. Without a branch for each slot, since which of
    /// them it is cannot be predicted.
    #[inline(always)]
    pub(super) fn first(&self, signature: u32) -> Option<Slot> {
        let mut matches = 0_u32;
        for (at, slot) in self.slots.iter().enumerate() {
            let equal = Slot::signature(slot.load(Ordering::Relaxed)) == signature;
            matches |= u32::from(equal) << at;
        }
        let word = self.slots.get(matches.trailing_zeros() as usize)?.load(Ordering::Acquire);
        (word != 0 && Slot::signature(word) == signature).then_some(Slot(word))
    }

    /// Whether keys whose primary bucket this is may be in their secondary one.
    #[inline]
    pub(super) fn has_overflowed(&self) -> bool {
        self.control.load(Ordering::Acquire) >= ONE_OVERFLOWED
    }

    /// How many slots are used.
    pub(super) fn used(&self) -> usize {
        self.slots.iter().filter(|slot| slot.load(Ordering::Relaxed) != 0).count()
    }

    /// Takes a free slot; `false` if there is none.
    pub(super) fn put(&self, slot: Slot) -> bool {
        self.slots.iter().any(|word| {
            word.load(Ordering::Relaxed) == 0
                && word.compare_exchange(0, slot.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })
    }

    /// Frees the slot; `false` if it is not here.
    pub(super) fn take(&self, slot: Slot) -> bool {
        self.slots.iter().any(|word| {
            word.load(Ordering::Relaxed) == slot.0
                && word.compare_exchange(slot.0, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })
    }

    /// Keeps others from linking or unlinking keys whose primary bucket this is, for the few instructions that it takes.
    pub(super) fn lock(&self) -> BucketLock<'_> {
        loop {
            let free = self.control.load(Ordering::Relaxed) & !LOCKED;
            let taken =
                self.control.compare_exchange_weak(free, free | LOCKED, Ordering::Acquire, Ordering::Relaxed);
            if taken.is_ok() {
                return BucketLock { bucket: self, unlocked: free };
            }
            spin_loop();
        }
    }
}

/// A locked bucket.
pub(super) struct BucketLock<'a> {
    bucket: &'a Bucket,
    /// The control word once the lock is gone.
    unlocked: u64,
}

impl BucketLock<'_> {
    /// One more key goes to its secondary bucket. Readers know at once.
    pub(super) fn overflow(&mut self) {
        self.unlocked += ONE_OVERFLOWED;
        self.bucket.control.store(self.unlocked | LOCKED, Ordering::Release);
    }

    /// One key less is in its secondary bucket.
    pub(super) fn shrink(&mut self) {
        self.unlocked -= ONE_OVERFLOWED;
    }
}

impl Drop for BucketLock<'_> {
    fn drop(&mut self) {
        self.bucket.control.store(self.unlocked, Ordering::Release);
    }
}
