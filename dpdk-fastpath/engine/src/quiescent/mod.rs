//! Publication of immutable snapshots by pointer, with quiescent-state reclamation.
//!
//! One thread publishes, a fixed number of readers look. A reader takes the current snapshot with [`Reader::pin`] once
//! per burst and by the same call gives back the one before. It never waits, and executes no locked instruction while
//! it stays on line. A reader about to sleep calls [`Reader::park`], so that nobody waits for it.
//!
//! The publisher swaps the pointer and advances the *epoch*. Once every reader has passed a burst boundary since, the
//! replaced snapshot is dropped, always on the publisher's own thread.
//!
//! # Why this is sound
//! A reader's slot holds the epoch that it read at its last burst boundary, or that it is parked.
//! - On line: the slot gets epoch `e` only after the epoch was loaded as `e` (acquire), so the pointer loaded next is
//!   the one published with `e`, or a later one. The release store of the slot comes after every access to the
//!   snapshot before; the publisher, which acquires it, may free that snapshot.
//! - Coming back from parked: the slot's store and the pointer's load must not change places. A sequentially
//!   consistent fence between them, and one in the publisher between swap and check, make sure that either the reader
//!   sees the new pointer or the publisher sees the reader.

mod channel;

#[cfg(test)]
mod tests;

pub use channel::{Publisher, Reader, channel};

/// What a model checker replaces.
mod sync {
    pub(super) use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering, fence};
    pub(super) use std::sync::{Arc, Mutex, PoisonError};
    pub(super) use std::thread::yield_now;
}
