//! The memory of flows that another process can take over.
//!
//! A file in memory (memfd_create(2)), in hugepages if they can be had, that holds what is known of flows and of clients with
//! affinity: a [`Head`], the records of both tables and the indices that lead to them, the buckets of clients, and what there
//! is of flows without a record, each at a page's beginning, and indices that fill a hugepage at one's. What can be counted
//! from records does not lie there: the next process does that anew.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use zerocopy::{FromBytes, FromZeros};

use super::memory::{HUGEPAGE, Mapping, Zeroed};

pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"cv-flows");

/// To be raised with any change of what lies in a segment, or of what it means: the head, the words of a record, the states
/// by number, the buckets of an index and its levels, the buckets of clients, the loans, the ticks.
const VERSION: u64 = 5;

/// What a segment must have been written with to be understood: the version, and the sizes of what lies in it.
pub(super) const LAYOUT: u64 = VERSION << 48
    | (size_of::<super::line::Line4>() as u64) << 32
    | (size_of::<super::line::Line6>() as u64) << 16
    | crate::balance::CLIENTS_BUCKET as u64;

/// Bytes that are reserved for the head.
pub(super) const HEAD: usize = 4096;

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
    /// What the hash of some keys is: by another function nothing is found in an index.
    pub(super) hashes: AtomicU64,
    /// Counts the segments since the keeper began: each process takes over from the one before it.
    pub(super) number: AtomicU64,
    /// Records of each table.
    pub(super) records: AtomicU32,
    /// Buckets of each index.
    pub(super) buckets: AtomicU32,
    /// Buckets of clients.
    pub(super) clients: AtomicU32,
    /// Chunks of the records of IPv4 and IPv6 that have been claimed, from the first on.
    pub(super) claimed: [AtomicU32; 2],
    /// Size of the largest level of the indices for IPv4 and IPv6 that keys may be in.
    pub(super) reached: [AtomicU32; 2],
    /// When the last packet went without a record; see [`Overflow`](super::Overflow).
    pub(super) overflowed: AtomicU32,
}

/// Where the arrays of a segment lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) lines4: usize,
    pub(super) lines6: usize,
    pub(super) index4: usize,
    pub(super) index6: usize,
    pub(super) clients: usize,
    pub(super) loans: usize,
    pub(super) lenders: usize,
    /// Bytes in all.
    pub(super) end: usize,
}

impl Places {
    pub(super) fn new(records: u32, buckets: u32, clients: usize) -> Option<Self> {
        let behind = |at: usize, count: usize, size: usize| {
            at.checked_add(count.checked_mul(size)?)?.checked_next_multiple_of(HEAD)
        };
        let (records, buckets) = (records as usize, buckets as usize);
        let index = size_of::<super::bucket::Bucket>();
        // So that hugepages of it can be given back.
        let page = if buckets.checked_mul(index)? < HUGEPAGE { HEAD } else { HUGEPAGE };
        let aligned = |at: usize| at.checked_next_multiple_of(page);
        let lines4 = HEAD;
        let lines6 = behind(lines4, records, size_of::<super::line::Line4>())?;
        let index4 = aligned(behind(lines6, records, size_of::<super::line::Line6>())?)?;
        let index6 = aligned(behind(index4, buckets, index)?)?;
        let at_clients = behind(index6, buckets, index)?;
        let loans = behind(at_clients, clients, crate::balance::CLIENTS_BUCKET)?;
        let lenders = behind(loans, super::overflow::LOANS, size_of::<u64>())?;
        let end = behind(lenders, super::overflow::LENDERS, size_of::<u64>())?;
        Some(Self { lines4, lines6, index4, index6, clients: at_clients, loans, lenders, end })
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
    /// One for so many records, buckets of an index, and buckets of clients, all of it zero. With `hugepages` it lies in these if there are enough
    /// for all of it; `None` if there is no memory.
    pub(super) fn create(
        records: u32,
        buckets: u32,
        clients: usize,
        hugepages: bool,
    ) -> Option<(Self, Source)> {
        let places = Places::new(records, buckets, clients)?;
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
        // Of hugepages nothing is given back: if others took them, what is written there later would kill this process.
        let of = if hugepages { Mapping::of } else { Mapping::of_sparse };
        let mapping = of(file.as_fd(), len)?;
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
    pub(super) fn head(&self, records: u32, buckets: u32, clients: usize) -> Option<Arc<Zeroed<Head>>> {
        let array: Zeroed<Head> = self.array(|_| 0, 1)?;
        let head = &array[0];
        head.layout.store(LAYOUT, Ordering::Relaxed);
        head.hashes.store(hashes(), Ordering::Relaxed);
        head.number.store(1, Ordering::Relaxed);
        head.records.store(records, Ordering::Relaxed);
        head.buckets.store(buckets, Ordering::Relaxed);
        head.clients.store(clients as u32, Ordering::Relaxed);
        head.magic.store(MAGIC, Ordering::Release);
        Some(Arc::new(array))
    }
}

const _: () = assert!(size_of::<Head>() <= HEAD);

/// What tells the hash functions of this program from others: hashes of two keys.
pub(super) fn hashes() -> u64 {
    use culvert_packet::flow::{FlowKey4, FlowKey6, Tenant};
    use culvert_packet::ip::Protocol;
    let v4 =
        FlowKey4::new(Tenant::DEFAULT, Protocol::TCP, ([192, 0, 2, 1].into(), 1), ([192, 0, 2, 2].into(), 2));
    let (one, two) = (0x2001_0db8_u128 << 96 | 1, 0x2001_0db8_u128 << 96 | 2);
    let v6 = FlowKey6::new(Tenant::DEFAULT, Protocol::TCP, (one.into(), 1), (two.into(), 2));
    v4.hash64() ^ v6.hash64().rotate_left(32)
}
