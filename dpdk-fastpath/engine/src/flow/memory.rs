//! Memory of the tables.

use std::ops::Deref;
use std::ptr::{self, NonNull};

use zerocopy::FromZeros;

/// A large array that is all zeroes at first, straight from the kernel: what is never touched takes no memory.
///
/// The kernel is asked for hugepages behind it. Look-ups go everywhere in a table, and with a million flows in small pages
/// most of them would have to wait for the page tables, too. That is advice: where the kernel does not follow it
/// (`/sys/kernel/mm/transparent_hugepage/enabled` is `never`, or memory is scarce) the table is only slower.
pub(crate) struct Zeroed<T> {
    start: NonNull<T>,
    len: usize,
}

// SAFETY: it owns its elements, as a boxed slice does.
unsafe impl<T: Send> Send for Zeroed<T> {}
// SAFETY: it hands out shared references only.
unsafe impl<T: Sync> Sync for Zeroed<T> {}

impl<T: FromZeros> Zeroed<T> {
    /// `len` elements; `None` if there is no memory.
    pub(crate) fn new(len: usize) -> Option<Self> {
        const { assert!(align_of::<T>() <= 4096 && size_of::<T>() > 0 && !std::mem::needs_drop::<T>()) };
        let bytes = len.checked_mul(size_of::<T>()).filter(|bytes| *bytes > 0)?;
        // SAFETY: a new private mapping, that replaces no other.
        let start = unsafe {
            let (protection, flags) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0)
        };
        if start == libc::MAP_FAILED {
            return None;
        }
        // SAFETY: the mapping just made; advice changes neither what it holds nor who may use it.
        unsafe { libc::madvise(start, bytes, libc::MADV_HUGEPAGE) };
        Some(Self { start: NonNull::new(start.cast())?, len })
    }
}

impl<T> Deref for Zeroed<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: so many elements fit into the mapping, which is aligned to pages; zeroes are legal for them (`new`), and
        // nobody ever gets more than shared references.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> Drop for Zeroed<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, of this length; references to it do not outlive `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len * size_of::<T>()) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn an_array_is_zero_and_as_long_as_asked_for() {
        let array: Zeroed<AtomicU64> = Zeroed::new(1_000_003).unwrap();
        assert_eq!(array.len(), 1_000_003);
        array[1_000_002].store(7, Ordering::Relaxed);
        assert_eq!(array.iter().map(|word| word.load(Ordering::Relaxed)).sum::<u64>(), 7);
    }

    #[test]
    fn more_than_there_is_is_refused() {
        assert!(Zeroed::<AtomicU64>::new(usize::MAX / 16).is_none());
        assert!(Zeroed::<AtomicU64>::new(usize::MAX).is_none());
        assert!(Zeroed::<AtomicU64>::new(0).is_none());
    }
}
