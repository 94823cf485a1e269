//! Consistent hashing as in Maglev (Eisenbud et al., NSDI 2016, section 3.4), with weights.

/// Table sizes: primes, so that every stride visits every entry.
const SIZES: [u32; 12] = [1, 251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071, 524_287];

/// Entries per choice at the least: shares are then within one percent of what they should be.
const ENTRIES_PER_CHOICE: usize = 100;

/// A table grows when it must, since that moves most of what was chosen. It shrinks only when it could be this many
/// times smaller.
const SHRINK: usize = 16;

/// A choice among numbered alternatives by hash. When one alternative goes, the hashes that did not choose it keep, but
/// for a few percent, what they had. The same alternatives in a table of the same size give the same choices on every
/// node and in every run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Maglev {
    table: Box<[u16]>,
}

/// One alternative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// What [`Maglev::pick`] returns.
    pub index: u16,
    /// A hash of what the alternative is, the same wherever and whenever it is one. All its bits must be well spread.
    pub identity: u64,
    /// Share relative to the others; 0 counts as 1.
    pub weight: u32,
}

impl Maglev {
    /// A table over these alternatives, of the size that they need.
    pub fn new(choices: &[Choice]) -> Self {
        Self::default().successor(choices)
    }

    /// A table over these alternatives that moves as little as can be of what this one chose.
    #[must_use]
    pub fn successor(&self, choices: &[Choice]) -> Self {
        let Some(heaviest) = choices.iter().map(|choice| choice.weight.max(1)).max() else {
            return Self::default();
        };
        let least = match choices.len() {
            1 => 1,
            n => n * ENTRIES_PER_CHOICE,
        };
        let large_enough = |&size: &u32| size as usize >= least;
        let now = SIZES.into_iter().find(|&size| size as usize == self.table.len());
        let now = now.filter(large_enough).filter(|&size| size as usize <= least * SHRINK);
        let size = now.or_else(|| SIZES.into_iter().find(large_enough)).unwrap_or(SIZES[SIZES.len() - 1]);
        let mut walks: Vec<_> = choices.iter().map(|choice| Walk::new(choice, size)).collect();
        let mut table = vec![None; size as usize];
        let mut left = table.len();
        // Every round, the heaviest takes one entry, and the others take turns in proportion.
        while left > 0 {
            for (walk, choice) in walks.iter_mut().zip(choices) {
                walk.credit += u64::from(choice.weight.max(1));
                if walk.credit < u64::from(heaviest) || left == 0 {
                    continue;
                }
                walk.credit -= u64::from(heaviest);
                let entry = walk.next_free(&table);
                table[entry] = Some(choice.index);
                left -= 1;
            }
        }
        Self { table: table.into_iter().flatten().collect() }
    }

    /// The alternative for a hash; `None` if there is none at all.
    #[inline]
    pub fn pick(&self, hash: u64) -> Option<u16> {
        // The hash as a fraction of the table.
        let entry = (u128::from(hash) * self.table.len() as u128) >> 64;
        self.table.get(entry as usize).copied()
    }
}

/// The order in which one alternative asks for entries: a permutation of all.
struct Walk {
    at: u32,
    stride: u32,
    size: u32,
    credit: u64,
}

impl Walk {
    fn new(choice: &Choice, size: u32) -> Self {
        let (low, high) = (choice.identity as u32, (choice.identity >> 32) as u32);
        Self { at: low % size, stride: if size == 1 { 0 } else { high % (size - 1) + 1 }, size, credit: 0 }
    }

    /// The next entry of the walk that is free; there must be one.
    fn next_free(&mut self, table: &[Option<u16>]) -> usize {
        loop {
            let entry = self.at as usize;
            self.at = (self.at + self.stride) % self.size;
            if table[entry].is_none() {
                return entry;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn choice(index: u16, weight: u32) -> Choice {
        // SplitMix64.
        let z = (u64::from(index) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Choice { index, identity: z ^ z >> 31, weight }
    }

    fn shares(maglev: &Maglev, n: u16) -> Vec<f64> {
        let count = |i| maglev.table.iter().filter(|&&e| e == i).count();
        (0..n).map(|i| count(i) as f64 / maglev.table.len() as f64).collect()
    }

    #[test]
    fn without_alternatives_nothing_is_picked_and_one_takes_all() {
        assert_eq!(Maglev::new(&[]).pick(7), None);
        let one = Maglev::new(&[choice(3, 0)]);
        assert_eq!((one.pick(0), one.pick(u64::MAX)), (Some(3), Some(3)));
    }

    #[test]
    fn shares_follow_the_weights() {
        let maglev = Maglev::new(&[choice(0, 1), choice(1, 2), choice(2, 0), choice(3, 4)]);
        for (share, expected) in shares(&maglev, 4).into_iter().zip([0.125, 0.25, 0.125, 0.5]) {
            assert!((share - expected).abs() < 0.01, "{share} is not {expected}");
        }
    }

    #[test]
    fn the_largest_table_still_holds_every_alternative() {
        let choices: Vec<_> = (0..20_000).map(|i| choice(i, 1)).collect();
        let maglev = Maglev::new(&choices);
        assert_eq!(maglev.table.len(), 524_287);
        assert!(shares(&maglev, 20_000).into_iter().all(|share| share > 0.0));
    }

    #[test]
    fn a_table_shrinks_only_when_it_is_far_too_large() {
        let choices: Vec<_> = (0..160).map(|i| choice(i, 1)).collect();
        let large = Maglev::new(&choices);
        assert_eq!(large.table.len(), 16_381);
        assert_eq!(large.successor(&choices[..11]).table.len(), 16_381);
        assert_eq!(large.successor(&choices[..10]).table.len(), 1021);
        assert_eq!(large.successor(&[]).pick(1), None);
    }

    proptest! {
        #[test]
        fn when_one_goes_the_others_keep_almost_all_they_had(n in 3_u16..60, gone in 0_u16..60) {
            let gone = gone % n;
            let all: Vec<_> = (0..n).map(|i| choice(i, 1)).collect();
            let fewer: Vec<_> = all.iter().copied().filter(|c| c.index != gone).collect();
            let before = Maglev::new(&all);
            let after = before.successor(&fewer);
            let hashes = (0..20_000_u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let picks: Vec<_> = hashes.map(|h| (before.pick(h).unwrap(), after.pick(h).unwrap())).collect();
            prop_assert!(picks.iter().all(|&(_, now)| now != gone));
            let stayed = picks.iter().filter(|&&(was, _)| was != gone).count();
            let moved = picks.iter().filter(|&&(was, now)| was != gone && was != now).count();
            prop_assert!(moved * 100 <= stayed * 5, "{moved} of {stayed} moved");
        }

        #[test]
        fn shares_of_equals_differ_by_two_percent_at_most(n in 1_u16..200) {
            let choices: Vec<_> = (0..n).map(|i| choice(i, 3)).collect();
            let maglev = Maglev::new(&choices);
            let even = 1.0 / f64::from(n);
            for share in shares(&maglev, n) {
                prop_assert!((share - even).abs() <= even * 0.02, "{share} is not {even}");
            }
        }
    }
}
