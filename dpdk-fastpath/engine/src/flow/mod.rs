//! Tracked flows: one table for IPv4 and one for IPv6, shared by all workers.
//!
//! # Layout
//! A tracked connection is one [`Record`]: a single cache line for IPv4 (64 bytes), two for IPv6, good for *both*
//! directions. It holds the flow as it arrives, the flow that it becomes, where each direction goes, which service and
//! backend it was made for, and its age and state. An index finds it by either direction: buckets of one cache line with
//! seven slots, a slot being 32 bits of the key's hash and the number of the record; their first word holds a tag for each
//! slot, so that one load tells which of them is meant. It grows with the flows. That makes two cache misses for a
//! packet of a flow that is in no cache, both of which can be prefetched, and at most 128 bytes for an IPv4 connection.
//! Between which addresses flows are answered is counted, too (`answers`): a packet between others needs no look-up.
//!
//! # Many workers
//! Reading takes no lock and writes nothing. A record is read whole and used only if its sequence number shows that it
//! stayed the same flow meanwhile. The line is written once per [`Tick`] at most, and when the state of a connection
//! changes; never per packet.
//!
//! Opening a flow locks one bucket per direction for the time of a few instructions, so that two workers that open the
//! same flow agree: the second finds the first's. Each worker takes records from its own [`Arena`], which claims them in
//! chunks as they are needed, up to the configured limit, and it alone ages and reuses them. Any worker may end any flow.
//! When there is no room, flows go on [without a record](Overflow).
//!
//! # Staleness
//! A record names the [epoch](crate::table::Snapshot::epoch) under which its decision was last found right. Under another
//! it is checked again at its next packet; see [`pipeline`](crate::pipeline).

mod answers;
mod arena;
mod bucket;
mod fragments;
mod index;
mod key;
mod line;
mod listing;
mod memory;
mod out;
mod overflow;
mod prefetch;
mod record;
mod segment;
mod state;
mod steady;
mod table;
mod takeover;
#[cfg(test)]
mod tests;
mod tick;
mod timeouts;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use culvert_api::config::fastpath::FastPathConfig;
use culvert_packet::flow::{FlowKey4, FlowKey6};

use self::arena::Budget;
use self::index::Index;
use self::segment::{Head, Source};
use crate::balance::{Affinity, Calendar, LoadWriter, Loads, Turns};

pub use self::answers::AnswersView;
pub use self::arena::{Arena, Sweep};
pub use self::fragments::{Fragmented, Fragments};
pub use self::key::{Deltas, Key};
pub(crate) use self::memory::Zeroed;
pub use self::out::{Out, OutBits};
pub use self::overflow::{Forgetting, Lender, Overflow, marked, unmarked};
pub use self::prefetch::prefetch;
pub use self::record::{NO_SERVICE, Record, Route};
pub use self::segment::Segment;
pub use self::state::{Signal, State};
pub use self::steady::{Calm, Moment, Steady};
pub use self::table::{Burst, Derived, Hit, InsertError, Probe, Table};
pub use self::takeover::{Left, LeftError, TakenOver, Takeover};
pub use self::tick::Tick;
pub use self::timeouts::Timeouts;

/// There is not enough memory for the flow tables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("flows {flows}, affinityClients {clients}: no memory for so many; choose fewer")]
pub struct FlowMemoryError {
    flows: u32,
    clients: u32,
}

/// Clients whose affinity is remembered where nothing else is said.
pub const DEFAULT_CLIENTS: u32 = FastPathConfig::DEFAULT_AFFINITY_CLIENTS;

/// The name under which a [`Segment`] is kept.
pub const KEPT_AS: &str = "flows";

/// The flows of both IP versions, which share one limit.
#[derive(Debug)]
pub struct FlowTables {
    /// IPv4.
    pub v4: Table<FlowKey4>,
    /// IPv6.
    pub v6: Table<FlowKey6>,
    /// Open flows of every endpoint.
    pub loads: Arc<Loads>,
    /// Which endpoint each client used last.
    pub affinity: Affinity,
    /// Flows for which there is no room.
    pub overflow: Overflow,
    head: Arc<Zeroed<Head>>,
    /// What all this lies in, if another process is to take it over.
    segment: Option<Segment>,
}

/// One worker's means to open and end flows.
#[derive(Debug)]
pub struct FlowWorker {
    /// The shared tables.
    pub tables: Arc<FlowTables>,
    /// Records for IPv4.
    pub arena4: Arena<FlowKey4>,
    /// Records for IPv6.
    pub arena6: Arena<FlowKey6>,
    /// Its share of the count of open flows.
    pub loads: LoadWriter,
    /// Its turns of services.
    pub turns: Turns,
    /// Its time for affinity.
    pub calendar: Calendar,
    /// Its part in forgetting what went without a record.
    pub forgetting: Forgetting,
    /// IPv4 packets that come in fragments.
    pub fragments4: Fragments<FlowKey4>,
    /// IPv6 packets that come in fragments.
    pub fragments6: Fragments<FlowKey6>,
    /// What another process left, as long as not all of it is entered.
    takeover: Option<Arc<Takeover>>,
}

impl FlowTables {
    /// Room for `flows` connections, rounded up to whole chunks, and for the affinity of [`DEFAULT_CLIENTS`] clients. The
    /// memory is taken from the system as it fills.
    pub fn new(flows: u32) -> Result<Arc<Self>, FlowMemoryError> {
        Self::with_clients(flows, DEFAULT_CLIENTS)
    }

    /// As [`new`](Self::new), for so many clients.
    pub fn with_clients(flows: u32, clients: u32) -> Result<Arc<Self>, FlowMemoryError> {
        let tables = || Self::of(&Budget::new(flows), clients, &Source::Own, None);
        Ok(Arc::new(tables().ok_or(FlowMemoryError { flows, clients })?))
    }

    /// The same in memory that another process can [take over](Self::take_over) once it has its [descriptor](Self::segment):
    /// in hugepages, if that is wanted and there are enough.
    pub fn shared(flows: u32, clients: u32, hugepages: bool) -> Result<Arc<Self>, FlowMemoryError> {
        let tables = || {
            let budget = Budget::new(flows);
            let buckets = Index::buckets_for(budget.records() as usize * 2)?;
            let clients_buckets = Affinity::buckets_for(clients);
            let (segment, source) =
                Segment::create(budget.most_records(), buckets, clients_buckets, hugepages)?;
            Self::of(&budget, clients, &source, Some(segment))
        };
        Ok(Arc::new(tables().ok_or(FlowMemoryError { flows, clients })?))
    }

    fn of(budget: &Arc<Budget>, clients: u32, source: &Source, segment: Option<Segment>) -> Option<Self> {
        let (records, clients) = (budget.most_records(), Affinity::buckets_for(clients));
        let buckets = Index::buckets_for(budget.records() as usize * 2)?;
        let head = source.head(records, buckets, clients)?;
        let buckets = buckets as usize;
        let lines4 = source.array(|places| places.lines4, records as usize)?;
        let lines6 = source.array(|places| places.lines6, records as usize)?;
        Some(Self {
            v4: Table::new(budget, lines4, source.array(|places| places.index4, buckets)?, &head)?,
            v6: Table::new(budget, lines6, source.array(|places| places.index6, buckets)?, &head)?,
            loads: Loads::new()?,
            affinity: Affinity::of(source.array(|places| places.clients, clients)?),
            overflow: Overflow::new(source, &head)?,
            head,
            segment,
        })
    }

    /// What all this lies in; `None` if it ends with the process.
    pub fn segment(&self) -> Option<&Segment> {
        self.segment.as_ref()
    }

    /// Gives back memory that was needed for fewer flows. Takes a system call if there is any: nothing for a worker.
    pub fn give_back(&self) {
        self.v4.give_back();
        self.v6.give_back();
    }

    /// Writes down which value of the time stamp counter is tick 0, for the process that takes this over.
    pub fn set_start(&self, start: u64) {
        self.head[0].start.store(start, Ordering::Relaxed);
    }

    /// Most connections of both tables together. Workers that have hardly any, of an IP version, may exceed that by one part
    /// in eight, which they share alike: a flood through one port leaves something for the others.
    pub fn capacity(&self) -> u64 {
        self.v4.capacity()
    }

    /// A worker's share, empty at first.
    pub fn worker(self: &Arc<Self>) -> FlowWorker {
        let loads = self.loads.join();
        FlowWorker {
            tables: Arc::clone(self),
            arena4: Arena::new(&self.v4),
            arena6: Arena::new(&self.v6),
            turns: Turns::new(loads.worker()),
            calendar: Calendar::default(),
            forgetting: Forgetting::default(),
            loads,
            fragments4: Fragments::new(),
            fragments6: Fragments::new(),
            takeover: None,
        }
    }
}
