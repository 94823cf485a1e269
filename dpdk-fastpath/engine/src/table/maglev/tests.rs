use proptest::prelude::*;

use super::*;

/// Of all hashes, how many may move without need: the bound that [`Maglev`] states.
const NEEDLESS: f64 = 0.05;

fn choice(index: u16, weight: u32) -> Choice {
    // SplitMix64.
    let z = (u64::from(index) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    Choice { index, identity: z ^ z >> 31, weight }
}

fn equals(n: u16) -> Vec<Choice> {
    (0..n).map(|i| choice(i, 1)).collect()
}

fn entries(maglev: &Maglev, index: u16) -> f64 {
    maglev.table.iter().filter(|&&entry| entry == index).count() as f64
}

fn share(maglev: &Maglev, index: u16) -> f64 {
    entries(maglev, index) / maglev.table.len() as f64
}

/// The share of hashes that two tables, of the same size or not, choose differently for.
fn moved(before: &Maglev, after: &Maglev) -> f64 {
    const HASHES: u64 = 100_000;
    let hash = |i: u64| i * (u64::MAX / HASHES);
    (0..HASHES).filter(|&i| before.pick(hash(i)) != after.pick(hash(i))).count() as f64 / HASHES as f64
}

#[test]
fn without_alternatives_nothing_is_picked_and_one_takes_all() {
    assert_eq!(Maglev::new(&[]).pick(7), None);
    let one = Maglev::new(&[choice(3, 0)]);
    assert_eq!((one.pick(0), one.pick(u64::MAX)), (Some(3), Some(3)));
}

#[test]
fn the_largest_table_still_holds_every_alternative() {
    let maglev = Maglev::new(&equals(20_000));
    assert_eq!(maglev.table.len(), 524_288);
    let mut held = vec![false; 20_000];
    maglev.table.iter().for_each(|&index| held[usize::from(index)] = true);
    assert!(held.into_iter().all(|held| held));
}

#[test]
fn the_lightest_has_an_entry_and_the_heaviest_nearly_all() {
    for n in [2, 10, 80] {
        let choices: Vec<_> = (0..n).map(|i| choice(i, if i == 1 { 1000 } else { 1 })).collect();
        let maglev = Maglev::new(&choices);
        assert!((0..n).all(|i| entries(&maglev, i) >= 1.0), "of {n}");
        assert!(share(&maglev, 1) > 0.92, "{} of {n}", share(&maglev, 1));
    }
}

#[test]
fn a_table_grows_at_three_sizes_and_shrinks_only_when_it_is_far_too_large() {
    let size = |n| Maglev::new(&equals(n)).table.len();
    assert_eq!([size(1), size(2), size(10), size(11), size(81)], [1, 1024, 1024, 8192, 8192]);
    assert_eq!([size(82), size(655), size(656), size(6000)], [65_536, 65_536, 524_288, 524_288]);
    let large = Maglev::new(&equals(11));
    assert_eq!(large.successor(&equals(6)).table.len(), 8192);
    assert_eq!(large.successor(&equals(5)).table.len(), 1024);
    assert_eq!(large.successor(&[]).pick(1), None);
}

#[test]
fn one_of_a_thousand_that_comes_or_goes_moves_hardly_more_than_its_own() {
    for n in [1000, 5000] {
        let all = equals(n);
        let fewer = [&all[..17], &all[18..]].concat();
        let (more, less) = (Maglev::new(&all), Maglev::new(&fewer));
        let moved = moved(&more, &less);
        assert!(moved < 1.0 / f64::from(n) + 0.01, "{moved} of {n}");
    }
}

#[test]
fn outgrowing_a_table_is_the_only_thing_that_moves_most_of_it() {
    let (small, large) = (Maglev::new(&equals(10)), Maglev::new(&equals(11)));
    assert!(moved(&small, &large) > 0.5);
    assert!(moved(&large, &large.successor(&equals(10))) < 1.0 / 11.0 + NEEDLESS);
}

#[test]
fn a_walk_visits_every_entry_once() {
    for size in SIZES {
        for index in 0..20 {
            let mut walk = Walk::new(&choice(index, 1), size);
            let mut visited = vec![false; size as usize];
            (0..size).for_each(|_| visited[walk.next()] = true);
            assert!(visited.into_iter().all(|visited| visited), "{size}");
        }
    }
}

proptest! {
    #[test]
    fn one_that_goes_or_comes_moves_its_share_and_little_else(n in 3_u16..82, gone in 0_u16..82) {
        let gone = gone % n;
        let all = equals(n);
        let fewer: Vec<_> = all.iter().copied().filter(|c| c.index != gone).collect();
        let before = Maglev::new(&all);
        let after = before.successor(&fewer);
        prop_assert_eq!(entries(&after, gone), 0.0);
        let bound = 1.0 / f64::from(n) + NEEDLESS;
        prop_assert!(moved(&before, &after) <= bound);
        // And comes back.
        let again = after.successor(&all);
        prop_assert_eq!(&again, &before);
    }

    #[test]
    fn a_changed_weight_moves_the_difference_and_little_else(
        weights in prop::collection::vec(1_u32..=100, 2..60),
        changed in any::<prop::sample::Index>(),
        weight in 1_u32..=100,
    ) {
        let mut choices: Vec<_> = (0_u16..).zip(&weights).map(|(i, &weight)| choice(i, weight)).collect();
        let before = Maglev::new(&choices);
        let changed = changed.index(choices.len());
        choices[changed].weight = weight;
        let after = before.successor(&choices);
        let must = (share(&before, changed as u16) - share(&after, changed as u16)).abs();
        let moved = moved(&before, &after);
        prop_assert!(moved <= must + NEEDLESS, "{moved} moved, {must} must");
    }

    #[test]
    fn shares_follow_the_weights_to_two_entries(weights in prop::collection::vec(0_u32..=20, 1..60)) {
        let choices: Vec<_> = (0_u16..).zip(&weights).map(|(i, &weight)| choice(i, weight)).collect();
        let maglev = Maglev::new(&choices);
        let total: u32 = weights.iter().map(|&weight| weight.max(1)).sum();
        for (index, weight) in (0_u16..).zip(&weights) {
            let due = f64::from((*weight).max(1)) / f64::from(total) * maglev.table.len() as f64;
            let has = entries(&maglev, index);
            prop_assert!((has - due).abs() <= 2.0, "{has} entries, {due} due");
        }
    }
}
