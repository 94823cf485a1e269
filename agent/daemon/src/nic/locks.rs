//! One at a time for each of many things.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// A lock for each `K`, which exists while somebody has it or waits for it. Whoever came first goes first.
#[derive(Debug)]
pub(super) struct Locks<K>(Mutex<HashMap<K, Weak<Turn<()>>>>);

impl<K> Default for Locks<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash> Locks<K> {
    /// Waits for one's turn with `of`; it ends with the value.
    pub(super) async fn turn(&self, of: &K) -> OwnedMutexGuard<()> {
        let turn = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, turn| turn.strong_count() > 0);
            let known = all.get(of).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let turn = Arc::new(Turn::new(()));
                all.insert(of.clone(), Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn the_same_thing_waits_another_does_not_and_nothing_is_left_behind() {
        let locks = Locks::default();
        let first = locks.turn(&1).now_or_never().expect("nobody has it");
        assert!(locks.turn(&1).now_or_never().is_none());
        drop(locks.turn(&2).now_or_never().expect("nobody has the other"));
        drop(first);
        drop(locks.turn(&1).now_or_never().expect("it is free again"));
        drop(locks.turn(&3).now_or_never());
        assert!(locks.0.lock().unwrap().len() <= 1);
    }
}
