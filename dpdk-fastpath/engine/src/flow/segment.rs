//! The memory of flows that another process can take over.
//!
//! A file in memory (memfd_create(2)), in hugepages if they can be had, that holds what is known of flows and of clients with
//! affinity: a [`Head`], the records of both tables, the buckets of clients, and what there is of flows without a record,
//! each at a page's beginning. What only leads to records, or can be counted from them, does not lie there: the next process
//! makes that anew.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use zerocopy::{FromBytes, FromZeros};

use super::memory::{Mapping, Zeroed};

pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"cv-flows");

/// To be raised with any change of what lies in a segment, or of what it means: the head, the words of a record, the states
/// by number, the buckets of clients, the loans, the ticks.
const VERSION: u64 = 2;

/// What a segment must have been written with to be understood: the version, and the sizes of what lies in it.
pub(super) const LAYOUT: u64 = VERSION << 48
    | (size_of::<super::line::Line4>() as u64) << 32
    | (size_of::<super::line::Line6>() as u64) << 16
    | crate::balance::CLIENTS_BUCKET as u64;

/// Bytes that are reserved for the head.
pub(super) const HEAD: usize = 4096;

/// Of the hugepages that are asked for.
const HUGEPAGE: usize = 2 << 20;

/// The beginning of a segment.
#[derive(Debug, FromBytes)]
#[repr(C)]
pub(super) struct Head {
    /// [`MAGIC`], written last.
    pub(super) magic: AtomicU64,
    /// [`LAYOUT`].
    pub(super) layout: AtomicU64,
    /// The time stamp counter at tick 0.
    pub(super) start: AtomicU64,
    /// Records of each table.
    pub(super) records: AtomicU32,
    /// Buckets of clients.
    pub(super) clients: AtomicU32,
    /// Chunks of the records of IPv4 and IPv6 that have been claimed, from the first on.
    pub(super) claimed: [AtomicU32; 2],
    /// When the last packet went without a record; see [`Overflow`](super::Overflow).
    pub(super) overflowed: AtomicU32,
}

/// Where the arrays of a segment lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) lines4: usize,
    pub(super) lines6: usize,
    pub(super) clients: usize,
    pub(super) loans: usize,
    pub(super) lenders: usize,
    /// Bytes in all.
    pub(super) end: usize,
}

impl Places {
    pub(super) fn new(records: u32, clients: usize) -> Option<Self> {
        let behind = |at: usize, count: usize, size: usize| {
            at.checked_add(count.checked_mul(size)?)?.checked_next_multiple_of(HEAD)
        };
        let records = records as usize;
        let lines4 = HEAD;
        let lines6 = behind(lines4, records, size_of::<super::line::Line4>())?;
        let at_clients = behind(lines6, records, size_of::<super::line::Line6>())?;
        let loans = behind(at_clients, clients, crate::balance::CLIENTS_BUCKET)?;
        let lenders = behind(loans, super::overflow::LOANS, size_of::<u64>())?;
        let end = behind(lenders, super::overflow::LENDERS, size_of::<u64>())?;
        Some(Self { lines4, lines6, clients: at_clients, loans, lenders, end })
    }
}

/// Where the memory of tables comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// From nowhere in particular: it ends with the process.
    Own,
    /// From a segment.
    Segment(Arc<Mapping>, Places),
}

/// A segment that tables of this process lie in.
#[derive(Debug)]
pub struct Segment {
    file: OwnedFd,
    hugepages: bool,
}

impl Segment {
    /// One for so many records and buckets of clients, all of it zero. With `hugepages` it lies in these if there are enough
    /// for all of it; `None` if there is no memory.
    pub(super) fn create(records: u32, clients: usize, hugepages: bool) -> Option<(Self, Source)> {
        let places = Places::new(records, clients)?;
        let huge = hugepages.then(|| Self::of_pages(places.end, true)).flatten();
        let (segment, mapping) = huge.or_else(|| Self::of_pages(places.end, false))?;
        Some((segment, Source::Segment(Arc::new(mapping), places)))
    }

    fn of_pages(len: usize, hugepages: bool) -> Option<(Self, Mapping)> {
        let (flags, len) = match hugepages {
            // To map them is to reserve them.
            true => (MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB, len.checked_next_multiple_of(HUGEPAGE)?),
            false => (MemfdFlags::empty(), len),
        };
        let file = memfd_create(super::KEPT_AS, flags | MemfdFlags::CLOEXEC).ok()?;
        ftruncate(&file, len as u64).ok()?;
        let mapping = Mapping::of(file.as_fd(), len)?;
        Some((Self { file, hugepages }, mapping))
    }

    /// Whether it lies in hugepages.
    pub fn is_in_hugepages(&self) -> bool {
        self.hugepages
    }

    /// Another descriptor of it.
    ///
    /// # Errors
    /// When the process has none left.
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.file.try_clone()
    }
}

impl AsFd for Segment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Source {
    /// An array: of its own, or the part of the segment that begins at that place.
    pub(super) fn array<T: FromZeros>(&self, at: impl Fn(&Places) -> usize, len: usize) -> Option<Zeroed<T>> {
        match self {
            Self::Own => Zeroed::new(len),
            Self::Segment(mapping, places) => Zeroed::within(mapping, at(places), len),
        }
    }

    /// The head.
    pub(super) fn head(&self, records: u32, clients: usize) -> Option<Arc<Zeroed<Head>>> {
        let array: Zeroed<Head> = self.array(|_| 0, 1)?;
        let head = &array[0];
        head.layout.store(LAYOUT, Ordering::Relaxed);
        head.records.store(records, Ordering::Relaxed);
        head.clients.store(clients as u32, Ordering::Relaxed);
        head.magic.store(MAGIC, Ordering::Release);
        Some(Arc::new(array))
    }
}

const _: () = assert!(size_of::<Head>() <= HEAD);
