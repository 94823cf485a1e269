//! Endpoints in turn.

/// Numbered alternatives in turn, each as often as it weighs: of any `total` turns on end, one that weighs w has exactly
/// w, spread evenly.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Rotation {
    /// Where the share of each alternative ends.
    ends: Box<[u32]>,
    /// Step from turn to turn: near the golden section of the total, and prime to it.
    step: u32,
}

impl Rotation {
    /// A rotation over alternatives with these weights, at most 2^32 - 1 all together; 0 counts as 1.
    pub(super) fn new(weights: impl Iterator<Item = u32> + Clone) -> Self {
        let common = weights.clone().map(|weight| weight.max(1)).fold(0, gcd).max(1);
        let mut total = 0;
        let ends: Box<[_]> = weights
            .map(|weight| {
                total += weight.max(1) / common;
                total
            })
            .collect();
        let golden = (f64::from(total) * 0.618_033_988_75) as u32;
        let step = (golden.max(1)..).find(|&step| gcd(step, total) == 1).unwrap_or(1);
        Self { ends, step }
    }

    /// Whose turn it is at the `turn`-th; `None` if there is nobody.
    #[inline]
    pub(super) fn at(&self, turn: u32) -> Option<usize> {
        let total = *self.ends.last()?;
        let place = (u64::from(turn) * u64::from(self.step) % u64::from(total)) as u32;
        Some(self.ends.partition_point(|&end| end <= place))
    }
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns(rotation: &Rotation, from: u32, count: u32) -> Vec<usize> {
        (from..from + count).map(|turn| rotation.at(turn).unwrap()).collect()
    }

    #[test]
    fn equals_take_strict_turns() {
        for n in 1..=40_u32 {
            let rotation = Rotation::new((0..n).map(|_| 300));
            let first = turns(&rotation, 0, n);
            assert!((0..n as usize).all(|i| first.contains(&i)), "{first:?}");
            assert_eq!(turns(&rotation, n, n), first);
        }
        assert_eq!(Rotation::new(std::iter::empty()).at(3), None);
    }

    #[test]
    fn a_heavy_one_has_no_two_turns_more_on_end_than_it_must() {
        let rotation = Rotation::new([5, 1, 1].into_iter());
        assert_eq!(turns(&rotation, 0, 7).iter().filter(|&&i| i == 0).count(), 5);
        // Four are followed by another's.
        assert!(turns(&rotation, 0, 70).windows(5).all(|five| five.iter().any(|&i| i != 0)));
    }

    proptest! {
        #[test]
        fn everybody_has_as_many_turns_as_it_weighs(
            weights in prop::collection::vec(0_u32..=30, 1..20),
            from in 0_u32..1_000_000,
        ) {
            let rotation = Rotation::new(weights.iter().copied());
            let common = weights.iter().map(|&weight| weight.max(1)).fold(0, gcd);
            let total = weights.iter().map(|&weight| weight.max(1) / common).sum();
            let turns = turns(&rotation, from, total);
            for (index, weight) in weights.iter().enumerate() {
                let count = turns.iter().filter(|&&turn| turn == index).count() as u32;
                prop_assert_eq!(count, weight.max(&1) / common);
            }
        }
    }
}
