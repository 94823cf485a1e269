//! What the tables said lately, in one cache line's reach.

/// Entries; a power of two.
const ENTRIES: usize = 256;

/// What is asked.
pub(super) trait Question: Copy + Eq {
    /// What is never asked.
    const NONE: Self;

    /// Most of it in one number.
    fn bits(self) -> u64;
}

impl Question for u64 {
    const NONE: Self = Self::MAX;

    #[inline(always)]
    fn bits(self) -> u64 {
        self
    }
}

/// The last answers of one snapshot to one kind of question. An answer displaces another that has the same place.
#[derive(Debug)]
pub(super) struct Recent<V, Q = u64> {
    /// Of the snapshot that gave the answers.
    serial: u64,
    entries: Box<[(Q, V); ENTRIES]>,
}

impl<V: Copy + Default, Q: Question> Recent<V, Q> {
    pub(super) fn new() -> Self {
        Self { serial: 0, entries: Box::new([(Q::NONE, V::default()); ENTRIES]) }
    }

    /// Forgets everything unless it is this snapshot's.
    #[inline(always)]
    pub(super) fn renew(&mut self, serial: u64) {
        if self.serial != serial {
            self.serial = serial;
            self.entries.fill((Q::NONE, V::default()));
        }
    }

    /// The answer to a question, or that of `ask`.
    #[inline(always)]
    pub(super) fn get(&mut self, key: Q, ask: impl FnOnce() -> V) -> V {
        let place = (key.bits().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % ENTRIES;
        let (known, value) = &mut self.entries[place];
        if *known != key {
            (*known, *value) = (key, ask());
        }
        *value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_asked_for_once_per_snapshot_and_never_anothers() {
        let mut recent = Recent::new();
        recent.renew(1);
        for key in 0..100_000_u64 {
            assert_eq!(recent.get(key, || key + 1), key + 1);
            assert_eq!(recent.get(key, || unreachable!("it is known")), key + 1);
        }
        recent.renew(1);
        assert_eq!(recent.get(99_999, || 0), 100_000);
        recent.renew(2);
        assert_eq!(recent.get(99_999, || 7), 7);
    }
}
