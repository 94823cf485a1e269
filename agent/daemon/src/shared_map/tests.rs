use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Map = SharedMap<u16, u8>;
type Twin = BTreeMap<u16, u8>;

/// What is different, found by looking at every entry.
fn reference(old: &Twin, new: &Twin) -> Vec<(u16, Option<u8>, Option<u8>)> {
    let mut keys: Vec<u16> = old.keys().chain(new.keys()).copied().collect();
    keys.sort_unstable();
    keys.dedup();
    let values = keys.into_iter().map(|key| (key, old.get(&key).copied(), new.get(&key).copied()));
    values.filter(|(_, old, new)| old != new).collect()
}

fn found(old: &Map, new: &Map) -> Vec<(u16, Option<u8>, Option<u8>)> {
    let plain = |value: Option<&Arc<u8>>| value.map(|value| **value);
    old.differences(new).iter().map(|d| (*d.key, plain(d.old), plain(d.new))).collect()
}

/// Every chunk has its size, and its place in the order.
fn check(map: &Map) {
    let sizes: Vec<usize> = map.chunks.iter().map(|chunk| chunk.len()).collect();
    assert!(sizes.iter().all(|size| (1..=MOST).contains(size)), "{sizes:?}");
    assert_eq!(sizes.iter().sum::<usize>(), map.len());
    assert!(map.keys().is_sorted_by(|a, b| a < b));
}

/// Puts and removals, near each other and far apart, enough of them to split chunks and to empty them.
fn any_changes(count: usize) -> impl Strategy<Value = Vec<(u16, Option<u8>)>> {
    let key = prop_oneof![0..600u16, 100..120u16];
    prop::collection::vec((key, prop::option::weighted(0.6, 0..4u8)), 0..count)
}

fn apply(map: &mut Map, twin: &mut Twin, changes: &[(u16, Option<u8>)]) {
    for &(key, value) in changes {
        match value {
            Some(value) => {
                map.insert(key, value);
                twin.insert(key, value);
            }
            None => assert_eq!(map.remove(&key), twin.remove(&key).is_some()),
        }
    }
}

proptest! {
    #[test]
    fn it_is_a_map_and_its_clones_differ_in_what_was_changed(
        size in 0..600u16,
        shared in any_changes(700),
        changes in [any_changes(30), any_changes(700)],
        from in 0..620u16,
    ) {
        let mut map: Map = (0..size).map(|key| (key, 9)).collect();
        let mut twin: Twin = (0..size).map(|key| (key, 9)).collect();
        apply(&mut map, &mut twin, &shared);
        check(&map);
        let (mut maps, mut twins) = ([map.clone(), map.clone()], [twin.clone(), twin.clone()]);
        for n in [0, 1] {
            apply(&mut maps[n], &mut twins[n], &changes[n]);
            check(&maps[n]);
            prop_assert!(maps[n].iter().map(|(k, v)| (*k, **v)).eq(twins[n].clone()));
            prop_assert!(maps[n].range_from(&from).map(|(k, v)| (*k, **v)).eq(twins[n].range(from..).map(|(k, v)| (*k, *v))));
            prop_assert_eq!(maps[n].get(&from).map(|v| **v), twins[n].get(&from).copied());
            prop_assert_eq!(found(&map, &maps[n]), reference(&twin, &twins[n]));
        }
        prop_assert!(map.iter().map(|(k, v)| (*k, **v)).eq(twin.clone()), "its clones' changes are theirs");
        prop_assert_eq!(found(&maps[0], &maps[1]), reference(&twins[0], &twins[1]));
        prop_assert_eq!(maps[0] == maps[1], twins[0] == twins[1]);
        let mut like = maps[0].clone();
        like.become_like(&maps[1]);
        check(&like);
        prop_assert_eq!(&like, &maps[1]);
    }
}

#[test]
fn a_change_leaves_all_chunks_but_one_shared() {
    let map: Map = (0..10_000).map(|key| (key, 1)).collect();
    for change in [(5_000, Some(2)), (5_000, None), (10_000, Some(1))] {
        let mut changed = map.clone();
        apply(&mut changed, &mut Twin::from_iter([(5_000, 1)]), &[change]);
        let shared = |chunk: &&Chunk<u16, u8>| map.chunks.iter().any(|other| Arc::ptr_eq(chunk, other));
        assert!(changed.chunks.iter().filter(shared).count() + 1 >= map.chunks.len(), "{change:?}");
        assert_eq!(changed.differences(&map).len(), 1);
    }
}

#[test]
fn an_equal_value_stays_the_one_that_is_shared() {
    let map: Map = (0..100).map(|key| (key, 1)).collect();
    let mut again = map.clone();
    again.insert(7, 1);
    assert!(Arc::ptr_eq(&map.chunks, &again.chunks));
    let mut rebuilt: Map = (0..100).map(|key| (key, if key == 7 { 2 } else { 1 })).collect();
    std::mem::swap(&mut rebuilt, &mut again);
    rebuilt.become_like(&again);
    let kept = map.iter().zip(rebuilt.iter()).filter(|((_, a), (_, b))| Arc::ptr_eq(a, b)).count();
    assert_eq!(kept, 99);
}

#[test]
fn what_comes_in_order_fills_its_chunks() {
    let map: Map = (0..6_400).map(|key| (key, 1)).collect();
    assert_eq!(map.chunks.len(), 100);
}
