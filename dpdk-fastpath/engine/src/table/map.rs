//! Hash maps for keys that no attacker chooses.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use rapidhash::fast::RapidHasher;

/// A map with a fast hash that is the same in every run. Its keys come from the agent, not from packets, so that
/// nobody can make them collide.
pub(super) type Map<K, V> = HashMap<K, V, BuildHasherDefault<RapidHasher<'static>>>;
