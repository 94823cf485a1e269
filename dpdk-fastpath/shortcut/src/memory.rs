//! Maps of the kernel as memory.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::layout::{Bucket, DOORS, Door, Globals, OPENINGS, Opening, PLACE_BUCKETS, PlaceBucket, WAYS, Way};

/// What the programs in the kernel read, and count in. Unmapped when nobody holds it any more.
#[derive(Debug)]
pub struct Memory {
    buckets: Region<Bucket>,
    doors: Region<Door>,
    ways: Region<Way>,
    places: Region<PlaceBucket>,
    occupied: Region<AtomicU64>,
    openings: Region<Opening>,
    opened: Region<AtomicU64>,
    globals: Region<Globals>,
}

impl Memory {
    /// Maps what the kernel has: `find` gives the descriptor of a map of this name.
    pub(crate) fn map<'a>(
        buckets: usize,
        find: impl Fn(&str) -> io::Result<BorrowedFd<'a>>,
    ) -> io::Result<Self> {
        Ok(Self {
            buckets: Region::map(find("buckets")?, buckets)?,
            doors: Region::map(find("doors")?, DOORS as usize)?,
            ways: Region::map(find("ways")?, WAYS as usize)?,
            places: Region::map(find("places")?, PLACE_BUCKETS)?,
            occupied: Region::map(find("occupied")?, buckets.div_ceil(64))?,
            openings: Region::map(find("openings")?, OPENINGS)?,
            opened: Region::map(find("opened")?, buckets.div_ceil(64))?,
            globals: Region::map(find("globals")?, 1)?,
        })
    }

    /// Memory of the process's own, without a kernel that reads it.
    ///
    /// # Errors
    /// When there is not so much.
    pub fn own(buckets: usize) -> io::Result<Self> {
        Ok(Self {
            buckets: Region::own(buckets)?,
            doors: Region::own(DOORS as usize)?,
            ways: Region::own(WAYS as usize)?,
            places: Region::own(PLACE_BUCKETS)?,
            occupied: Region::own(buckets.div_ceil(64))?,
            openings: Region::own(OPENINGS)?,
            opened: Region::own(buckets.div_ceil(64))?,
            globals: Region::own(1)?,
        })
    }

    /// Connections.
    pub(crate) fn buckets(&self) -> &[Bucket] {
        self.buckets.values()
    }

    /// Pods, by the numbers of their ports.
    pub(crate) fn doors(&self) -> &[Door] {
        self.doors.values()
    }

    /// Other nodes.
    pub(crate) fn ways(&self) -> &[Way] {
        self.ways.values()
    }

    /// Who has which address.
    pub(crate) fn places(&self) -> &[PlaceBucket] {
        self.places.values()
    }

    /// A bit for each bucket that may have slots in use.
    pub(crate) fn occupied(&self) -> &[AtomicU64] {
        self.occupied.values()
    }

    /// Services whose connections the kernel opens.
    pub(crate) fn openings(&self) -> &[Opening] {
        self.openings.values()
    }

    /// A bit for each bucket in which the kernel may have opened connections to services, of which nobody knows yet.
    pub(crate) fn opened(&self) -> &[AtomicU64] {
        self.opened.values()
    }

    /// What holds for all.
    pub(crate) fn globals(&self) -> &Globals {
        &self.globals.values()[0]
    }
}

/// Lets the programs of another process, whatever version that is of, use none of their slots any more: `globals` is their map of
/// that name.
///
/// # Errors
/// When it is no such map.
pub fn end_epoch_of(globals: BorrowedFd<'_>) -> io::Result<()> {
    // In all versions the epoch is what comes first.
    let first = Region::<[AtomicU32; 2]>::map(globals, 1)?;
    let [epoch, _] = &first.values()[0];
    epoch.store(0, Ordering::SeqCst);
    Ok(())
}

/// So many values, which the kernel may read and write, too.
#[derive(Debug)]
pub(crate) struct Region<T> {
    first: NonNull<T>,
    len: usize,
}

/// What may be in memory that others write at the same time.
///
/// # Safety
/// Only atomics of integers, so that any bytes make a value, zeros too; its size is a multiple of eight, to which the kernel
/// rounds up what is in an array.
pub(crate) unsafe trait Shared: Sync {}

// SAFETY: layout.rs has nothing but atomics, and checks the sizes.
unsafe impl Shared for Bucket {}
// SAFETY: as above.
unsafe impl Shared for Door {}
// SAFETY: as above.
unsafe impl Shared for Way {}
// SAFETY: as above.
unsafe impl Shared for PlaceBucket {}
// SAFETY: as above.
unsafe impl Shared for AtomicU64 {}
// SAFETY: as above.
unsafe impl Shared for Opening {}
// SAFETY: as above.
unsafe impl Shared for Globals {}
// SAFETY: the same.
unsafe impl Shared for [AtomicU32; 2] {}

// SAFETY: the memory belongs to the process, not to a thread, and stays until the region is dropped.
unsafe impl<T: Sync> Send for Region<T> {}
// SAFETY: it hands out shared references only.
unsafe impl<T: Sync> Sync for Region<T> {}

impl<T: Shared> Region<T> {
    /// Maps an array of so many values, which was made with `BPF_F_MMAPABLE`.
    pub(crate) fn map(array: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Self::new(len, libc::MAP_SHARED, array.as_raw_fd())
    }

    /// So many values, all zero.
    fn own(len: usize) -> io::Result<Self> {
        Self::new(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    fn new(len: usize, flags: libc::c_int, descriptor: libc::c_int) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8) && size_of::<T>() > 0 && align_of::<T>() <= 4096) };
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let bytes = len.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new mapping, at an address of the kernel's choice; one that is longer than the array is refused.
        let first = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, descriptor, 0) };
        if first == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let first = NonNull::new(first.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { first, len })
    }

    pub(crate) fn values(&self) -> &[T] {
        // SAFETY: so many values are mapped for as long as the region lives, aligned to a page; any bytes make a value, and
        // whoever writes them writes atomics (`Shared`).
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<T> Drop for Region<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, with this length; nobody has a reference into it any more.
        unsafe { libc::munmap(self.first.as_ptr().cast(), self.len * size_of::<T>()) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn own_memory_is_zero_and_stays_as_it_is_written() {
        let memory = Memory::own(3).unwrap();
        assert_eq!(
            (memory.buckets().len(), memory.doors().len(), memory.ways().len()),
            (3, DOORS as usize, WAYS as usize)
        );
        assert!(
            memory
                .buckets()
                .iter()
                .flat_map(|bucket| &bucket.slots)
                .all(|slot| slot.epoch.load(Relaxed) == 0)
        );
        memory.buckets()[2].slots[3].epoch.store(7, Relaxed);
        memory.globals().epoch.store(8, Relaxed);
        assert_eq!(memory.buckets()[2].slots[3].epoch.load(Relaxed), 7);
        assert_eq!(memory.globals().epoch.load(Relaxed), 8);
    }

    #[test]
    fn more_memory_than_there_can_be_is_refused() {
        assert!(Memory::own(usize::MAX / 8).is_err());
        assert!(Memory::own(1 << 50).is_err());
    }
}
