//! What a worker does with a burst of packets.

mod verdict;

pub use self::verdict::{Neighbour, Verdict};
