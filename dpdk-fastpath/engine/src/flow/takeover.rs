//! Flows of another process, the one before this.
//!
//! What it left is read, not used: each record that makes sense is entered into this process's own tables as if the flow had
//! just been opened, with its age and state. So nothing that is wrong there can be worse than a flow that is not kept,
//! the number of workers and the size of the tables may be others, and a process that is killed while it does this leaves
//! for the next what it found itself.
//!
//! Numbers of services and endpoints mean nothing here any more; but a record says by its keys which they are. It is
//! entered as decided under an epoch that is never in force, so that its ways are looked up at its next packet. Likewise
//! flows without a record go on as what they were: nothing else tells whose answers theirs are.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::Ordering;

use culvert_packet::flow::{FlowKey4, FlowKey6};
use culvert_packet::ip::Protocol;
use zerocopy::{FromBytes as _, FromZeros as _};

use super::arena::CHUNK;
use super::overflow::{LENDERS, LOANS};
use super::record::{DELTAS_AND_GENERATION, Meta, ROUTE, Words};
use super::segment::{HEAD, Head, LAYOUT, MAGIC, Places};
use super::{FlowTables, FlowWorker, Key, Out, Record, Route, State, Tick};
use crate::balance::{CLIENTS_BUCKET, ClientBucket, Moment};
use crate::table::{FlowPolicy, ServiceKey, Snapshot};

#[cfg(test)]
mod tests;

/// Buckets of clients that are read at once.
const BUCKETS: usize = 512;

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
    file: File,
    places: Places,
    claimed: [u32; 2],
    overflowed: u32,
    start: u64,
}

/// What became of the flows that another process left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TakenOver {
    /// They go on.
    pub flows: u64,
    /// Their time was over.
    pub over: u64,
    /// Their service or endpoint is in no table.
    pub gone: u64,
    /// They did not find room.
    pub no_room: u64,
    /// Records that make no sense.
    pub damaged: u64,
    /// Clients whose endpoint is remembered.
    pub clients: u64,
}

impl Left {
    /// What lies behind the descriptor of a [`Segment`](super::Segment).
    ///
    /// # Errors
    /// When it cannot be understood.
    pub fn open(file: OwnedFd) -> Result<Self, LeftError> {
        let file = File::from(file);
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
        let records = head.records.into_inner();
        let claimed = head.claimed.map(std::sync::atomic::AtomicU32::into_inner);
        let bounds = || LeftError::Bounds { len, records, claimed };
        let places = Places::new(records, head.clients.into_inner() as usize).ok_or_else(bounds)?;
        let fits = |chunks: u32| u64::from(chunks) * u64::from(CHUNK) <= records.into();
        if places.end as u64 > len || !claimed.into_iter().all(fits) {
            return Err(bounds());
        }
        let (overflowed, start) = (head.overflowed.into_inner(), head.start.into_inner());
        Ok(Self { file, places, claimed, overflowed, start })
    }

    /// The time stamp counter at tick 0.
    pub fn start(&self) -> u64 {
        self.start
    }
}

impl FlowTables {
    /// Takes over what another process left, as far as its services and endpoints are those of `view` and its time is not
    /// over `now`, by the clock that began at its [start](Left::start). The workers, of whom none may run yet, share the
    /// flows.
    ///
    /// # Errors
    /// When it cannot be read to its end; what was read until then is taken over.
    pub fn take_over(
        &self,
        workers: &mut [FlowWorker],
        left: &Left,
        view: &Snapshot,
        (tick, moment): (Tick, Moment),
    ) -> Result<TakenOver, LeftError> {
        let mut taken = TakenOver::default();
        let Places { lines4, lines6, clients, loans, lenders, .. } = left.places;
        let [claimed4, claimed6] = left.claimed;
        self.v4.expect(claimed4 as usize * CHUNK as usize);
        self.v6.expect(claimed6 as usize * CHUNK as usize);
        take_table::<FlowKey4>(&left.file, lines4, claimed4, workers, view, tick, &mut taken)?;
        take_table::<FlowKey6>(&left.file, lines6, claimed6, workers, view, tick, &mut taken)?;
        let mut bytes = vec![0; BUCKETS * CLIENTS_BUCKET];
        for at in (clients..loans).step_by(bytes.len()) {
            let bytes = &mut bytes[..(loans - at).min(BUCKETS * CLIENTS_BUCKET)];
            left.file.read_exact_at(bytes, at as u64)?;
            for bucket in bytes.chunks_exact(CLIENTS_BUCKET) {
                if let Ok(bucket) = ClientBucket::read_from_bytes(bucket) {
                    taken.clients += self.affinity.take_over(&bucket, moment);
                }
            }
        }
        let loans = read_words(&left.file, loans, LOANS)?;
        let lenders = read_words(&left.file, lenders, LENDERS)?;
        let slots = view.services().map(|service| (service.identity(), service.slot())).collect();
        self.overflow.take_over(left.overflowed, &loans, &lenders, &slots, tick);
        Ok(taken)
    }
}

fn read_words(file: &File, at: usize, count: usize) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; count * size_of::<u64>()];
    file.read_exact_at(&mut bytes, at as u64)?;
    Ok(bytes.as_chunks().0.iter().copied().map(u64::from_ne_bytes).collect())
}

fn take_table<K: Key>(
    file: &File,
    at: usize,
    chunks: u32,
    workers: &mut [FlowWorker],
    view: &Snapshot,
    now: Tick,
    taken: &mut TakenOver,
) -> io::Result<()> {
    let mut bytes = vec![0; CHUNK as usize * size_of::<K::Line>()];
    // Those of a chunk, while the buckets that they go into are fetched.
    let mut flows = Vec::with_capacity(CHUNK as usize);
    let mut turn = 0;
    for chunk in 0..chunks as usize {
        let from = at + chunk * bytes.len();
        file.read_exact_at(&mut bytes, from as u64)?;
        for bytes in bytes.chunks_exact(size_of::<K::Line>()) {
            let (record, meta, state) = match read::<K>(bytes) {
                Found::Nothing => continue,
                Found::Damaged => {
                    taken.damaged += 1;
                    continue;
                }
                Found::Flow(record, meta, state) => (record, meta, state),
            };
            let Some(record) = placed(record, view) else {
                taken.gone += 1;
                continue;
            };
            let timeouts = view.local().map_or(FlowPolicy::DEFAULT, |local| local.flows).timeouts;
            if now.seconds_since(meta.seen()) > timeouts.of(record.original.protocol(), state, false) {
                taken.over += 1;
                continue;
            }
            if let Some(worker) = workers.first() {
                let burst = K::table(&worker.tables).burst();
                burst.prefetch(record.original.hash64());
                burst.prefetch(record.translated.reversed().hash64());
            }
            flows.push((record, meta, state));
        }
        for (record, meta, state) in flows.drain(..) {
            turn = (turn + 1) % workers.len().max(1);
            let Some(worker) = workers.get_mut(turn) else { return Ok(()) };
            let (table, arena, loads) = K::parts(worker);
            match table.insert(arena, &record, meta.seen(), state) {
                Ok(()) => {
                    taken.flows += 1;
                    if state.is_open() {
                        loads.add(record.backend, 1);
                    }
                }
                Err(super::InsertError::Full) => taken.no_room += 1,
                // No two flows have a key in common, where all is well.
                Err(_) => taken.damaged += 1,
            }
        }
    }
    Ok(())
}

enum Found<K> {
    /// A free record, or one of a flow that has ended.
    Nothing,
    Damaged,
    Flow(Record<K>, Meta, State),
}

fn read<K: Key>(bytes: &[u8]) -> Found<K> {
    let line = K::Line::new_zeroed();
    let words = line.as_ref();
    for (word, bytes) in words.iter().zip(bytes.as_chunks().0) {
        word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
    }
    let Some((record, meta)) = Words::<K>::of(&line).read() else { return Found::Nothing };
    let Some(state) = meta.state() else { return Found::Nothing };
    // Each of these is as it is since the record was written.
    let rest = &words[2 * K::Words::default().as_ref().len()..];
    let high = |word: usize| (rest[word].load(Ordering::Relaxed) >> 32) as u32;
    let Record { original, translated, .. } = &record;
    let sound = high(ROUTE) as u8 == meta.sequence() as u8
        && high(DELTAS_AND_GENERATION) == original.deltas(translated).to_bits()
        && original.tenant() == translated.tenant()
        && original.protocol() == translated.protocol()
        && is_state_of(original.protocol(), state);
    if sound { Found::Flow(record, meta, state) } else { Found::Damaged }
}

fn is_state_of(protocol: Protocol, state: State) -> bool {
    use State as S;
    match state {
        S::SynSent | S::SynReceived | S::Established => protocol == Protocol::TCP,
        S::FinFromClient | S::FinFromServer | S::TimeWait | S::Reset => protocol == Protocol::TCP,
        S::CookieWait | S::CookieEchoed | S::Associated => protocol == Protocol::SCTP,
        S::Shutdown | S::ShutdownAck | S::Closed => protocol == Protocol::SCTP,
        S::OneWay | S::TwoWay => !matches!(protocol, Protocol::TCP | Protocol::SCTP),
        S::Ending | S::Ended => false,
    }
}

/// The record with the numbers that its service and endpoint have by these tables; `None` if there are none.
fn placed<K: Key>(record: Record<K>, view: &Snapshot) -> Option<Record<K>> {
    let Record { original, translated, .. } = record;
    let protocol = original.protocol();
    let is_ping = matches!(protocol, Protocol::ICMP | Protocol::ICMPV6);
    let port = |port: u16| if is_ping { 0 } else { port };
    let (vip, vip_port) = original.destination();
    let key = ServiceKey { tenant: original.tenant(), vip, protocol, port: port(vip_port) };
    let service = view.service(&key)?;
    let (address, endpoint_port) = translated.destination();
    let backend = service.backend((address, port(endpoint_port)))?;
    // Only connections are kept where the endpoint is not ready.
    if backend.draining && !matches!(protocol, Protocol::TCP | Protocol::SCTP) {
        return None;
    }
    let route = Route { epoch: 0, forward: Out::Nowhere, reply: Out::Nowhere };
    Some(Record { route, service: service.slot(), backend: backend.id, ..record })
}
