//! From whom to whom tracked flows are answered.

use std::sync::atomic::{AtomicU32, Ordering};

use super::key::Key;
use super::memory::Zeroed;

/// Places for pairs of addresses; a power of two.
const PLACES: usize = 1 << 16;

/// How many flows are answered from one address to another, of which version of IP it is. What comes between other addresses,
/// most of what a server receives, answers none, and need not be looked for among all flows: that takes a hash of the whole
/// key, and a line of memory for each flow.
///
/// Pairs share places, so that there may seem to be answers where there are none, but never the other way round.
#[derive(Debug)]
pub(super) struct Answers(Zeroed<[AtomicU32; PLACES]>);

/// The same while the packets of a burst are looked at.
#[derive(Debug, Clone, Copy)]
pub struct AnswersView<'a> {
    counts: &'a [AtomicU32; PLACES],
    /// Not 0 if there may be answers to other flows, between any addresses.
    others: u32,
}

impl Answers {
    /// Of no flows; `None` if there is no memory.
    pub(super) fn new() -> Option<Self> {
        Some(Self(Zeroed::new(1)?))
    }

    #[inline(always)]
    pub(super) fn view(&self, others: bool) -> AnswersView<'_> {
        AnswersView { counts: &self.0[0], others: others.into() }
    }

    #[inline(always)]
    fn of<K: Key>(&self, answer: &K) -> &AtomicU32 {
        &self.0[0][place(answer)]
    }

    /// One more flow has such answers: to be said before it can be found.
    #[inline(always)]
    pub(super) fn add<K: Key>(&self, answer: &K) {
        self.of(answer).fetch_add(1, Ordering::Relaxed);
    }

    /// One flow less has them, and is no longer found.
    #[inline(always)]
    pub(super) fn remove<K: Key>(&self, answer: &K) {
        self.of(answer).fetch_sub(1, Ordering::Relaxed);
    }
}

impl AnswersView<'_> {
    /// Whether a packet with this key may be the answer of a flow.
    #[inline(always)]
    pub fn may_have<K: Key>(&self, key: &K) -> bool {
        self.counts[place(key)].load(Ordering::Relaxed) | self.others != 0
    }
}

#[cfg(test)]
impl Answers {
    /// Whether they are those of so many flows as there are here, and of no others.
    pub(super) fn are<K: Key>(&self, answers: impl Iterator<Item = K>) -> bool {
        let mut counts = vec![0; PLACES];
        answers.for_each(|answer| counts[place(&answer)] += 1);
        self.0[0].iter().map(|count| count.load(Ordering::Relaxed)).eq(counts)
    }
}

/// Where flows with such answers are counted.
#[inline(always)]
fn place<K: Key>(answer: &K) -> usize {
    // Of IPv4 both addresses.
    let addresses = answer.words().as_ref()[0];
    (addresses.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PLACES.ilog2())) as usize
}
