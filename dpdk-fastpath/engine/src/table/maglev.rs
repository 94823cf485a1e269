//! Consistent hashing as in Maglev (Eisenbud et al., NSDI 2016, section 3.4), with weights.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

#[cfg(test)]
mod tests;

/// Table sizes, powers of two. Few and far apart, as outgrowing one moves most of what
/// was chosen: that happens to a service at its 11th, 82nd and 656th endpoint.
const SIZES: [u32; 5] = [1, 1 << 10, 1 << 13, 1 << 16, 1 << 19];

/// Entries per choice at the least: shares of equals then differ by one percent at most.
const ENTRIES_PER_CHOICE: usize = 100;

/// A table shrinks only when it could be this many times smaller.
const SHRINK: usize = 16;

/// No alternative has this index.
const FREE: u16 = u16::MAX;

/// A choice among numbered alternatives by hash. When one alternative comes, goes or changes its weight, no more than 5 %
/// of all hashes move besides those that must, and fewer the more alternatives there are: tests hold it to that. The same
/// alternatives in a table of the same size give the same choices on every node and in every run.
///
/// Shares follow the weights to two entries of the table, of which there are 100 for each alternative or more; the lightest
/// have one at least.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Maglev {
    table: Box<[u16]>,
}

/// One alternative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// What [`Maglev::pick`] returns; below 65,535.
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
        if choices.is_empty() {
            return Self::default();
        }
        let size = self.size_for(choices.len());
        let mut table = vec![FREE; size as usize];
        let mut walks: Vec<_> = choices.iter().map(|choice| Walk::new(choice, size)).collect();
        let mut take_turn = |walk: &mut Walk| {
            let entry = walk.next_free(&table);
            table[entry] = walk.index;
        };
        if choices.iter().all(|choice| choice.weight == choices[0].weight) {
            // All take turns, again and again.
            let mut left = size as usize;
            while left > 0 {
                let turns = walks.len().min(left);
                walks[..turns].iter_mut().for_each(&mut take_turn);
                left -= turns;
            }
        } else {
            take_weighted_turns(&mut walks, choices, size, take_turn);
        }
        Self { table: table.into() }
    }

    /// The size of the successor's table: this one's, unless that is too small or far too large.
    fn size_for(&self, choices: usize) -> u32 {
        let least = match choices {
            1 => 1,
            n => n * ENTRIES_PER_CHOICE,
        };
        let large_enough = |&size: &u32| size as usize >= least;
        let now = SIZES.into_iter().find(|&size| size as usize == self.table.len());
        let now = now.filter(large_enough).filter(|&size| size as usize <= least * SHRINK);
        now.or_else(|| SIZES.into_iter().find(large_enough)).unwrap_or(SIZES[SIZES.len() - 1])
    }

    /// The alternatives that it chooses among, by index: one for each part of all hashes, from the lowest on, all parts alike.
    pub fn choices(&self) -> &[u16] {
        &self.table
    }

    /// The alternative for a hash; `None` if there is none at all.
    #[inline]
    pub fn pick(&self, hash: u64) -> Option<u16> {
        // The hash as a fraction of the table.
        let entry = (u128::from(hash) * self.table.len() as u128) >> 64;
        self.table.get(entry as usize).copied()
    }
}

/// Lets each take turns in proportion to its weight: the k-th turn of one that weighs w is at the time (2k - 1) / w, so that
/// after any time everybody's turns are, rounded, what he is due (Webster's method). When one of them is changed, the
/// others' turns stay in the same order.
fn take_weighted_turns(
    walks: &mut [Walk],
    choices: &[Choice],
    size: u32,
    mut take_turn: impl FnMut(&mut Walk),
) {
    let total: u64 = choices.iter().map(|choice| u64::from(choice.weight.max(1))).sum();
    // However little it is due, each gets an entry.
    let lightest = total.div_ceil(size.into());
    let due = |turn: u64, weight: u64| ((2 * turn - 1) << 32) / weight;
    let first = |(at, choice): (usize, &Choice)| {
        let weight = u64::from(choice.weight.max(1)).max(lightest);
        Reverse((due(1, weight), at, 1, weight))
    };
    let mut queue: BinaryHeap<_> = choices.iter().enumerate().map(first).collect();
    for _ in 0..size {
        let Some(mut next) = queue.peek_mut() else { return };
        let Reverse((time, at, turn, weight)) = &mut *next;
        take_turn(&mut walks[*at]);
        *turn += 1;
        *time = due(*turn, *weight);
    }
}

/// The order in which one alternative asks for entries: a permutation of all, seemingly random. The paper's, by offset and
/// skip, has so few of them that two alternatives with the same skip are not rare in a small table; they are in each
/// other's way, and then a change moves a quarter of all hashes.
struct Walk {
    index: u16,
    step: u32,
    mask: u32,
    half: u32,
    keys: [u32; 2],
}

impl Walk {
    fn new(choice: &Choice, size: u32) -> Self {
        let keys = [choice.identity as u32, (choice.identity >> 32) as u32];
        Self { index: choice.index, step: 0, mask: size - 1, half: size.ilog2().div_ceil(2), keys }
    }

    /// The entry at the next step.
    #[inline]
    fn next(&mut self) -> usize {
        // Each line maps the numbers below the table's size to themselves, one to one.
        let mut entry = self.step.wrapping_add(self.keys[0]).wrapping_mul(self.keys[1] | 1) & self.mask;
        entry ^= entry >> self.half;
        entry = entry.wrapping_mul(self.keys[0] >> 12 | 1).wrapping_add(self.keys[1] >> 12) & self.mask;
        self.step += 1;
        entry as usize
    }

    /// The next entry of the walk that is free; there must be one.
    fn next_free(&mut self, table: &[u16]) -> usize {
        loop {
            let entry = self.next();
            if table[entry] == FREE {
                return entry;
            }
        }
    }
}
