//! What a process leaves.

use std::fs::File;
use std::hint::spin_loop;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use culvert_packet::flow::{FlowKey4, FlowKey6};
use zerocopy::FromBytes as _;

use super::flow::{Found, read};
use crate::flow::arena::CHUNK;
use crate::flow::index::Remains;
use crate::flow::memory::Mapping;
use crate::flow::record::{Meta, Words};
use crate::flow::segment::{HEAD, Head, LAYOUT, MAGIC, Places, hashes};
use crate::flow::{Key, State, Tick, Zeroed};

/// Why what another process left cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum LeftError {
    /// The system refused.
    #[error("flow memory cannot be read")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("flow memory was never set up")]
    Foreign,
    /// It was written by a version that lays it out in another way.
    #[error("flow memory is of layout {found:#x}, this version's is {LAYOUT:#x}")]
    Layout {
        /// Its layout.
        found: u64,
    },
    /// The kernel does not let it be seen.
    #[error("flow memory of {len} bytes cannot be mapped")]
    Memory {
        /// Its length.
        len: u64,
    },
    /// Its head makes no sense.
    #[error(
        "flow memory of {len} bytes says that it holds {records} records, {claimed:?} chunks of them used"
    )]
    Bounds {
        /// Its length.
        len: u64,
        /// Records of each table.
        records: u32,
        /// Chunks of both tables.
        claimed: [u32; 2],
    },
}

/// What another process left.
#[derive(Debug)]
pub struct Left {
    pub(super) file: File,
    pub(super) places: Places,
    pub(super) overflowed: u32,
    pub(super) number: u64,
    start: u64,
    is_searchable: bool,
    unseen: bool,
    pub(in crate::flow) v4: Part<FlowKey4>,
    pub(in crate::flow) v6: Part<FlowKey6>,
}

/// Flows of one IP version, with the index that leads to them. What is taken over is marked there as ended, so that another
/// process finds only what is left.
#[derive(Debug)]
pub struct Part<K: Key> {
    lines: Zeroed<K::Line>,
    index: Remains,
    /// A bit for each record that somebody has taken, and may not have entered yet.
    taken: Zeroed<AtomicU64>,
}

impl Left {
    /// What lies behind the descriptor of a [`Segment`](crate::flow::Segment).
    ///
    /// # Errors
    /// When it cannot be understood.
    pub fn open(file: BorrowedFd<'_>) -> Result<Self, LeftError> {
        let file = File::from(file.try_clone_to_owned()?);
        let len = file.metadata()?.len();
        let mut bytes = [0; size_of::<Head>()];
        if len < HEAD as u64 {
            return Err(LeftError::Foreign);
        }
        file.read_exact_at(&mut bytes, 0)?;
        let head = Head::read_from_bytes(&bytes).map_err(|_| LeftError::Foreign)?;
        if head.magic.into_inner() != MAGIC {
            return Err(LeftError::Foreign);
        }
        let found = head.layout.into_inner();
        if found != LAYOUT {
            return Err(LeftError::Layout { found });
        }
        let (records, buckets) = (head.records.into_inner(), head.buckets.into_inner());
        let claimed = head.claimed.map(AtomicU32::into_inner);
        let bounds = || LeftError::Bounds { len, records, claimed };
        let places = Places::new(records, buckets, head.clients.into_inner() as usize).ok_or_else(bounds)?;
        let fits = |chunks: u32| u64::from(chunks) * u64::from(CHUNK) <= records.into();
        if places.end as u64 > len || !claimed.into_iter().all(fits) {
            return Err(bounds());
        }
        let mapping = usize::try_from(len).ok().and_then(|len| Mapping::of(file.as_fd(), len));
        let mapping = Arc::new(mapping.ok_or(LeftError::Memory { len })?);
        let [reached4, reached6] = head.reached.map(AtomicU32::into_inner);
        let [claimed4, claimed6] = claimed;
        let buckets = buckets as usize;
        let v4 = Part::new(&mapping, (places.lines4, claimed4), (places.index4, buckets), reached4);
        let v6 = Part::new(&mapping, (places.lines6, claimed6), (places.index6, buckets), reached6);
        Ok(Self {
            file,
            places,
            overflowed: head.overflowed.into_inner(),
            number: head.number.into_inner(),
            start: head.start.into_inner(),
            is_searchable: head.hashes.into_inner() == hashes(),
            unseen: false,
            v4: v4.ok_or_else(bounds)?,
            v6: v6.ok_or_else(bounds)?,
        })
    }

    /// Whether packets of connections went on after its process had ended, and nobody noticed.
    #[must_use]
    pub fn unseen(self, unseen: bool) -> Self {
        Self { unseen, ..self }
    }

    /// When a flow is to have had its last packet, which is known of `seen`. A connection whose handshake went by unseen would
    /// soon be over.
    pub(super) fn last_packet(&self, seen: Tick, state: State, now: Tick) -> Tick {
        if self.unseen && matches!(state, State::SynSent | State::Unwatched | State::SynReceived) {
            now
        } else {
            seen
        }
    }

    /// Whether a flow can be found there by its key: only by the hash function that its keys were entered by.
    pub(super) fn is_searchable(&self) -> bool {
        self.is_searchable
    }

    /// The time stamp counter at tick 0.
    pub fn start(&self) -> u64 {
        self.start
    }
}

impl<K: Key> Part<K> {
    fn new(
        mapping: &Arc<Mapping>,
        (lines, chunks): (usize, u32),
        (index, buckets): (usize, usize),
        reached: u32,
    ) -> Option<Self> {
        let records = chunks as usize * CHUNK as usize;
        Some(Self {
            lines: Zeroed::within(mapping, lines, records)?,
            index: Remains::new(Zeroed::within(mapping, index, buckets)?, reached)?,
            taken: Zeroed::new(records / u64::BITS as usize + 1)?,
        })
    }

    /// Records, whole chunks of them.
    pub(super) fn records(&self) -> u64 {
        self.lines.len() as u64
    }

    /// The hashes of the keys of a record, if it is that of a flow.
    pub(super) fn hashes(&self, index: u32) -> Option<[u64; 2]> {
        let (record, _) = Words::<K>::of(self.lines.get(index as usize)?).read()?;
        Some([record.original.hash64(), record.translated.reversed().hash64()])
    }

    /// The record of the flow with this key.
    pub(super) fn find(&self, key: &K, hash: u64) -> Option<u32> {
        self.index.find(hash, |slot| {
            let (record, _) = Words::<K>::of(self.lines.get(slot.place())?).read()?;
            let own = if slot.is_reply() { record.translated.reversed() } else { record.original };
            (own == *key).then_some(slot.index())
        })
    }

    /// Takes a flow, to be [finished](Self::finish) soon; `None` if there is none. If somebody else has taken it, it is
    /// entered when this returns: that is waited for as for the lock of a bucket.
    pub(super) fn take(&self, index: u32) -> Option<Found<K>> {
        let line = self.lines.get(index as usize)?;
        let words = Words::<K>::of(line);
        if !words.meta().is_live() {
            return None;
        }
        let (taken, bit) = (&self.taken[(index / u64::BITS) as usize], 1 << (index % u64::BITS));
        if taken.fetch_or(bit, Ordering::AcqRel) & bit == 0 {
            return Some(read(line));
        }
        while words.meta().is_live() {
            spin_loop();
        }
        None
    }

    /// A flow that was taken is where it belongs, or nowhere.
    pub(super) fn finish(&self, index: u32) {
        let words = Words::<K>::of(&self.lines[index as usize]);
        let meta = words.meta();
        let ended = words.change_meta(meta, Meta::new(meta.sequence(), meta.seen(), State::Ended));
        debug_assert!(ended.is_ok(), "somebody else changed a record that was taken");
    }
}
