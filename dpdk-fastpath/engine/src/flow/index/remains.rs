//! The index of a process that is no more.

use super::{Level, largest, sizes};
use crate::flow::Zeroed;
use crate::flow::bucket::{Bucket, Slot};

/// The buckets that a process left, whatever it was about to do. Readers take no lock, so that they find at any time what
/// somebody has entered: also when nobody goes on.
#[derive(Debug)]
pub(in crate::flow) struct Remains {
    buckets: Zeroed<Bucket>,
    largest: u32,
    reached: u32,
}

impl Remains {
    /// Keys are in levels up to that of size `reached`. `None` if these are not the buckets of an index.
    pub(in crate::flow) fn new(buckets: Zeroed<Bucket>, reached: u32) -> Option<Self> {
        let largest = largest(&buckets)?;
        Some(Self { buckets, largest, reached })
    }

    /// What `pick` makes of the first slot that may be the key's and that it does not refuse.
    pub(in crate::flow) fn find<T>(&self, hash: u64, mut pick: impl FnMut(Slot) -> Option<T>) -> Option<T> {
        // The last may have been taken into use and the one before it not be empty yet; and so on.
        sizes(self.largest).take_while(|size| *size <= self.reached).find_map(|size| {
            let size = size as usize;
            Level(&self.buckets[size..2 * size]).find(hash, &mut pick)
        })
    }
}
