//! Memory of the tables.

use std::fmt;
use std::ops::Deref;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use zerocopy::FromZeros;

use super::bucket::Bucket;

/// A large array that is all zeroes at first, straight from the kernel: what is never touched takes no memory.
///
/// The kernel is asked for hugepages behind it. Look-ups go everywhere in a table, and with a million flows in small pages
/// most of them would have to wait for the page tables, too. That is advice: where the kernel does not follow it
/// (`/sys/kernel/mm/transparent_hugepage/enabled` is `never`, or memory is scarce) the table is only slower.
pub(crate) struct Zeroed<T> {
    start: NonNull<T>,
    len: usize,
    /// Keeps the memory.
    mapping: Arc<Mapping>,
}

/// Of the hugepages that are asked for, in bytes.
pub(super) const HUGEPAGE: usize = 2 << 20;

/// Memory of this process, alone or shared with a file.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    /// The advice by which the kernel takes a part of it back; `None` if it is not to.
    giving_back: Option<libc::c_int>,
}

// SAFETY: it owns its elements, as a boxed slice does.
unsafe impl<T: Send> Send for Zeroed<T> {}
// SAFETY: it hands out shared references only.
unsafe impl<T: Sync> Sync for Zeroed<T> {}
// SAFETY: an address and a length, by which nothing is read or written here.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `len` bytes that are nobody else's; `None` if there is no memory.
    fn anonymous(len: usize) -> Option<Self> {
        // Most of a large table may never be used: the kernel is to promise no more than it has.
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        Self::new(len, flags, -1, Some(libc::MADV_DONTNEED))
    }

    /// The first `len` bytes of a file in memory, which has as many; `None` if there is no memory.
    pub(super) fn of(file: BorrowedFd<'_>, len: usize) -> Option<Self> {
        Self::new(len, libc::MAP_SHARED, file.as_raw_fd(), None)
    }

    /// The same of a file that takes no memory where it was never written to: a part of it can be given back.
    pub(super) fn of_sparse(file: BorrowedFd<'_>, len: usize) -> Option<Self> {
        Self::new(len, libc::MAP_SHARED, file.as_raw_fd(), Some(libc::MADV_REMOVE))
    }

    fn new(
        len: usize,
        flags: libc::c_int,
        file: libc::c_int,
        giving_back: Option<libc::c_int>,
    ) -> Option<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, that replaces no other.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, file, 0) };
        if start == libc::MAP_FAILED {
            return None;
        }
        // SAFETY: the mapping just made; advice changes neither what it holds nor who may use it.
        unsafe { libc::madvise(start, len, libc::MADV_HUGEPAGE) };
        Some(Self { start: NonNull::new(start.cast())?, len, giving_back })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, of this length; references to it do not outlive the arrays, which keep it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

impl<T: FromZeros> Zeroed<T> {
    const FITS: () = assert!(align_of::<T>() <= 4096 && size_of::<T>() > 0 && !std::mem::needs_drop::<T>());

    /// `len` elements, from the beginning of a hugepage on if they fill one; `None` if there is no memory.
    pub(crate) fn new(len: usize) -> Option<Self> {
        let bytes = len.checked_mul(size_of::<T>()).filter(|bytes| *bytes > 0)?;
        let spare = if bytes < HUGEPAGE { 0 } else { HUGEPAGE };
        let mapping = Mapping::anonymous(bytes.checked_add(spare)?)?;
        let at = if spare == 0 { 0 } else { mapping.start.align_offset(HUGEPAGE) };
        Self::within(&Arc::new(mapping), at, len)
    }

    /// `len` elements, the first bytes of a file in memory, which has as many; `None` if there is no memory.
    pub(crate) fn of(file: BorrowedFd<'_>, len: usize) -> Option<Self> {
        let bytes = len.checked_mul(size_of::<T>()).filter(|bytes| *bytes > 0)?;
        Self::within(&Arc::new(Mapping::of(file, bytes)?), 0, len)
    }

    /// `len` elements from byte `at` of a mapping on, where nobody else has any; `None` if they do not lie in it, or not
    /// as such elements must. They are zero unless the mapping was not.
    pub(super) fn within(mapping: &Arc<Mapping>, at: usize, len: usize) -> Option<Self> {
        let () = Self::FITS;
        let end = len.checked_mul(size_of::<T>())?.checked_add(at)?;
        if end > mapping.len || !at.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: `at` is not beyond the end of the mapping.
        let start = unsafe { mapping.start.add(at) }.cast();
        Some(Self { start, len, mapping: Arc::clone(mapping) })
    }
}

impl Zeroed<Bucket> {
    /// Gives back the memory of the first `len` buckets, as far as these fill hugepages: they are zero from then on. In
    /// memory that is not given back nothing changes.
    pub(super) fn give_back(&self, len: usize) {
        let Some(advice) = self.mapping.giving_back else { return };
        let bytes = len.min(self.len) * size_of::<Bucket>() / HUGEPAGE * HUGEPAGE;
        // SAFETY: these are pages of this array, where zeroes are legal; and for whoever looks there meanwhile it is as if
        // somebody had stored them, which anybody may do at any time: a bucket consists of atomics.
        unsafe { libc::madvise(self.start.as_ptr().cast(), bytes, advice) };
    }
}

#[cfg(test)]
impl<T> Zeroed<T> {
    /// Bytes that are in memory; of an array that begins at a page.
    pub(super) fn resident(&self) -> usize {
        const PAGE: usize = 4096;
        let bytes = self.len * size_of::<T>();
        let mut pages = vec![0_u8; bytes.div_ceil(PAGE)];
        // SAFETY: it lies in a mapping, which ends with the last of these pages or later; there is a byte for each page.
        let failed = unsafe { libc::mincore(self.start.as_ptr().cast(), bytes, pages.as_mut_ptr()) };
        assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
        pages.iter().filter(|page| **page & 1 != 0).count() * PAGE
    }
}

impl<T> Deref for Zeroed<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: so many elements fit into the mapping behind `start`, which is aligned for them, as mappings begin at pages
        // (`within`); zeroes are legal for them, and nobody ever gets more than shared references. Another process that
        // has the same file changes it only before this one has it or after, which the keeper sees to (who never writes
        // himself), and all elements that are shared so are atomics.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> fmt::Debug for Zeroed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zeroed").field("len", &self.len).finish_non_exhaustive()
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

    #[test]
    fn arrays_of_one_mapping_lie_side_by_side_and_nowhere_else() {
        let mapping = Arc::new(Mapping::anonymous(4096).unwrap());
        let first: Zeroed<AtomicU64> = Zeroed::within(&mapping, 0, 256).unwrap();
        let second: Zeroed<AtomicU64> = Zeroed::within(&mapping, 2048, 256).unwrap();
        drop(mapping);
        first[255].store(1, Ordering::Relaxed);
        second[0].store(2, Ordering::Relaxed);
        assert_eq!((first[255].load(Ordering::Relaxed), second[255].load(Ordering::Relaxed)), (1, 0));
        let within = |at, len| Zeroed::<AtomicU64>::within(&second.mapping, at, len).is_some();
        assert!(
            within(4096, 0)
                && !within(4096, 1)
                && !within(2048, 257)
                && !within(4, 1)
                && !within(8, usize::MAX)
        );
    }
}
