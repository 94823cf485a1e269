//! Collections whose copies share all that is the same in both.
//!
//! A copy costs one counted reference. To change a copy costs the page or shard that the change is in, and the list of
//! them: with 30,000 services some kilobytes instead of megabytes. Reading is a load more than in a plain vector or map.

use std::array;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hash};
use std::iter;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use rapidhash::fast::RapidHasher;

/// Parts of a [`SharedMap`]: with as many services as there can be, each holds 128.
const SHARDS: usize = 512;

/// A vector in pages of `N`. What was never set has the default value.
#[derive(Debug)]
pub(super) struct Pages<T, const N: usize> {
    pages: Arc<[Arc<[T; N]>]>,
}

impl<T, const N: usize> Clone for Pages<T, N> {
    fn clone(&self) -> Self {
        Self { pages: Arc::clone(&self.pages) }
    }
}

impl<T, const N: usize> Default for Pages<T, N> {
    fn default() -> Self {
        Self { pages: Arc::new([]) }
    }
}

impl<T, const N: usize> Pages<T, N> {
    /// The value at `index`; `None` if that lies behind all that were set.
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        Some(&self.pages.get(index / N)?[index % N])
    }

    /// All values, among them those that were never set.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.iter())
    }

    /// Whether nothing has changed between the two.
    #[cfg(test)]
    pub(super) fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pages, &other.pages)
    }
}

impl<T: Clone + Default, const N: usize> Pages<T, N> {
    /// The value at `index`, to be changed.
    pub(super) fn get_mut(&mut self, index: usize) -> &mut T {
        let page = index / N;
        if page >= self.pages.len() {
            let empty = iter::repeat_with(|| Arc::new(array::from_fn(|_| T::default())));
            self.pages = self.pages.iter().cloned().chain(empty).take(page + 1).collect();
        }
        &mut Arc::make_mut(&mut Arc::make_mut(&mut self.pages)[page])[index % N]
    }
}

type Shard<K, V> = Arc<HashTable<(K, V)>>;

/// A hash map in shards. As for [`Map`](super::map::Map), its keys are none that an attacker chooses.
#[derive(Debug)]
pub(super) struct SharedMap<K, V> {
    shards: Arc<[Shard<K, V>]>,
}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self { shards: Arc::clone(&self.shards) }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        let empty = Arc::new(HashTable::new());
        Self { shards: iter::repeat_n(empty, SHARDS).collect() }
    }
}

#[inline]
fn hash<K: Hash>(key: &K) -> u64 {
    BuildHasherDefault::<RapidHasher<'static>>::default().hash_one(key)
}

/// The shard of a hash, by bits that the table in it does not look at first.
#[inline]
fn shard(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

impl<K: Copy + Eq + Hash, V: Copy> SharedMap<K, V> {
    /// The value of a key.
    #[inline]
    pub(super) fn get(&self, key: &K) -> Option<V> {
        let hash = hash(key);
        self.shards[shard(hash)].find(hash, |(known, _)| known == key).map(|&(_, value)| value)
    }

    /// Sets the value of a key.
    pub(super) fn insert(&mut self, key: K, value: V) {
        let hash = hash(&key);
        let known = |(known, _): &(K, V)| *known == key;
        match self.shard_mut(hash).entry(hash, known, |(key, _)| self::hash(key)) {
            Entry::Occupied(mut entry) => entry.get_mut().1 = value,
            Entry::Vacant(entry) => drop(entry.insert((key, value))),
        }
    }

    /// Forgets a key.
    pub(super) fn remove(&mut self, key: &K) {
        let hash = hash(key);
        if let Ok(entry) = self.shard_mut(hash).find_entry(hash, |(known, _)| known == key) {
            entry.remove();
        }
    }

    fn shard_mut(&mut self, hash: u64) -> &mut HashTable<(K, V)> {
        Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[shard(hash)])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_change_copies_one_page_and_leaves_the_others_shared() {
        let mut before = Pages::<u32, 4>::default();
        assert_eq!(before.get(0), None);
        for index in 0..10 {
            *before.get_mut(index) = index as u32;
        }
        let mut after = before.clone();
        assert!(after.is_shared_with(&before));
        *after.get_mut(5) = 99;
        let shared: Vec<_> =
            iter::zip(&*before.pages, &*after.pages).map(|(a, b)| Arc::ptr_eq(a, b)).collect();
        assert_eq!(shared, [true, false, true]);
        assert_eq!((before.get(5), after.get(5)), (Some(&5), Some(&99)));
        // The last page is not full.
        assert_eq!((after.get(11), after.get(12)), (Some(&0), None));
        assert_eq!(after.iter().sum::<u32>(), (0..10).sum::<u32>() - 5 + 99);
    }

    proptest! {
        /// Whatever is set and removed: each copy holds what it held when it was made, and the last one all of it.
        #[test]
        fn copies_of_a_map_keep_what_they_held(
            steps in prop::collection::vec((0_u16..50, prop::option::of(any::<u32>())), 1..200),
        ) {
            let mut map = SharedMap::default();
            let mut expected = BTreeMap::new();
            let mut copies = vec![];
            for (key, value) in steps {
                match value {
                    Some(value) => {
                        map.insert(key, value);
                        expected.insert(key, value);
                    }
                    None => {
                        map.remove(&key);
                        expected.remove(&key);
                    }
                }
                copies.push((map.clone(), expected.clone()));
            }
            for (map, expected) in copies {
                for key in 0..50 {
                    prop_assert_eq!(map.get(&key), expected.get(&key).copied());
                }
            }
        }
    }
}
