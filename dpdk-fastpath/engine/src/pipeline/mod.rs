//! What a worker does with a burst of packets: one packet's way.
//!
//! ```text
//!   pod port                                   uplink
//!   pod: parse, MAC and address its own?       uplink: parse, for our tunnel endpoint?
//!     ARP, ND for the router -> answer           ARP, ND, ping for it -> answer; neighbours -> learned
//!        |                                       tunnel: VNI a tenant's? node known? -> inner packet
//!        +---------------------+--------------------+
//!                              |
//!                look up flows of the whole burst        (three passes: hash, prefetch, compare)
//!                  |                       |
//!      established, error               route
//!      decision still good?        router or endpoint address -> ping answered, else refused
//!      translate                   service address -> service: choose endpoint, enter flow, translate
//!                  |               pod here, pod elsewhere; unknown -> unreachable
//!                  +-----------+-----------+
//!                              |
//!           output: hops left? fits? -> hop off, Ethernet header or tunnel headers
//!                  |                       |
//!              pod port                 uplink
//! ```
//!
//! Nearly all packets are whole TCP or UDP packets over plain IPv4 that nothing stands against. Those take a shorter way,
//! `usual`, from the parse to the port; it leaves to the others whatever it is not sure about. So do most first packets of
//! flows, by `opening`. The passes over a burst are in `passes`. What comes through a tunnel between addresses that no flow
//! is answered between is delivered after the first of them. Connections that look the same to an endpoint are kept apart by `beside`.
//!
//! Each box is a file; its first lines say what comes in and what goes out. A stage may end a packet: dropped, with its
//! reason counted; turned into an answer (echo reply, ICMP error, TCP reset), which goes back to where the packet came
//! from; or kept as news of a neighbour or of the way to another node.
//!
//! A worker looks at one [`Snapshot`] for a whole burst. There is no allocation, no system call and no log here, and no
//! lock but that of two index buckets when a flow is opened.

mod affinity;
mod allowance;
mod beside;
mod error;
mod established;
mod fragment;
mod frame;
mod neighbour;
mod opened;
mod opening;
mod output;
mod overflow;
mod passes;
mod path;
mod pod;
mod recent;
mod repeated;
mod route;
mod service;
mod shortcut;
mod source_port;
mod stage;
#[cfg(test)]
mod tests;
mod upkeep;
mod uplink;
mod usual;
mod verdict;

use std::sync::Arc;

use culvert_packet::flow::{FlowKey4, FlowKey6};
use culvert_packet::{PacketBuf, Parsed};

use self::allowance::Allowances;
use self::opened::LeftOpened;
use self::opening::{Asked, Opening};
use self::recent::Recent;
use self::route::DestinationBits;
use self::shortcut::Shortcut;
use self::stage::{Origin, Stage};
use self::usual::{Expected, Lane};
use self::verdict::Exits;
pub use self::verdict::{Learned, Leaving, Neighbour, PathMtu, Verdict};
use crate::counter::{CounterWriter, DropReason, ServiceTally};
use crate::flow::{FlowTables, FlowWorker, Key, Moment, Table, Tick, prefetch};
use crate::table::{PortIndex, PortKind, Snapshot};

/// Packets that are looked up together, at most: with many flows, so many that fetching one's bucket and record takes less
/// time than looking at the others.
const BATCH: usize = 128;

/// The same with few flows, which are in the cache: all that is touched stays in its first level.
const SMALL_BATCH: usize = 64;

/// Up to so many IPv4 flows are few: with what leads to them they take 2 MB.
const FEW_FLOWS: u32 = 16 * 1024;

/// No slot: of a lane whose packet opens no flow, or is neither usual nor another IPv4 packet; or of a service that is not
/// known.
const NOWHERE: u32 = u32::MAX;

/// One worker's way of packets, with what it needs of its own.
#[derive(Debug)]
pub struct Pipeline {
    /// Those of `flows`.
    tables: Arc<FlowTables>,
    flows: FlowWorker,
    counters: CounterWriter,
    /// Of all packets that have come.
    bytes: u64,
    /// Usual packets of the batch, each in its place; other admitted ones, IPv4 and IPv6.
    lanes: Box<[Lane; BATCH]>,
    batch4: Vec<Batched<FlowKey4>>,
    batch6: Vec<Batched<FlowKey6>>,
    destinations: Recent<DestinationBits>,
    vteps: Recent<u32>,
    services: Recent<u32, Asked>,
    openings: Vec<Opening>,
    allowances: Allowances,
    /// What the packets of a burst told.
    learned: Vec<Learned>,
    /// By which decided connections go, if there is such a way.
    shortcut: Option<Shortcut>,
    /// That of another process, as long as something may be heard of it.
    left: Option<LeftOpened>,
    /// Whether no packet counts as usual, to compare the two ways.
    #[cfg(test)]
    nothing_is_usual: bool,
}

/// An admitted packet that waits for the next pass.
#[derive(Debug, Clone, Copy)]
struct Batched<K> {
    /// Place of the buffer in the batch.
    at: usize,
    parsed: Parsed,
    origin: Origin,
    key: K,
    hash: u64,
}

impl<K: Key> Batched<K> {
    /// With its hash; what a look-up needs first is fetched.
    #[inline(never)]
    fn new(table: &Table<K>, at: usize, parsed: Parsed, origin: Origin, key: K) -> Self {
        let hash = key.hash64();
        table.burst().prefetch(hash);
        Self { at, parsed, origin, key, hash }
    }
}

/// Packets of one port that go through the passes together.
struct Batch<'a, B> {
    bufs: &'a mut [B],
    /// What is known of the usual ones, and what becomes of each.
    lanes: &'a mut [Lane],
    verdicts: &'a mut [Verdict],
    others4: &'a mut Vec<Batched<FlowKey4>>,
    others6: &'a mut Vec<Batched<FlowKey6>>,
}

impl Pipeline {
    /// With its share of the flow tables and its counters.
    pub fn new(flows: FlowWorker, counters: CounterWriter) -> Self {
        Self {
            tables: Arc::clone(&flows.tables),
            flows,
            counters,
            bytes: 0,
            lanes: Box::new([Lane::EMPTY; BATCH]),
            batch4: Vec::with_capacity(BATCH),
            batch6: Vec::with_capacity(BATCH),
            destinations: Recent::new(),
            vteps: Recent::new(),
            services: Recent::new(),
            openings: Vec::with_capacity(BATCH),
            allowances: Allowances::new(),
            learned: Vec::with_capacity(BATCH),
            shortcut: None,
            left: None,
            #[cfg(test)]
            nothing_is_usual: false,
        }
    }

    /// The worker's counters, for what happens outside the pipeline: packets sent, polls.
    #[inline]
    pub fn counters(&mut self) -> &mut CounterWriter {
        &mut self.counters
    }

    /// What the packets of the last burst told that ended as [`Verdict::Learned`], in their order.
    pub fn learned(&self) -> &[Learned] {
        &self.learned
    }

    /// Bytes of all packets that have come, from the Ethernet header on. Begins anew at 2^64.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Decides on a burst that `in_port` received: `verdicts` holds one for each buffer afterwards, in their order, and
    /// the buffers to be sent are ready. What was received and what is dropped is counted. Returns what the verdicts have
    /// in common.
    pub fn process<B: PacketBuf>(
        &mut self,
        view: &Snapshot,
        now: Tick,
        in_port: PortIndex,
        bufs: &mut [B],
        verdicts: &mut Vec<Verdict>,
    ) -> Leaving {
        self.learned.clear();
        self.enter_opened(view, now, false);
        // Each is replaced.
        verdicts.resize(bufs.len(), Verdict::Drop(DropReason::NO_ROUTE));
        let mut exits = Exits::NONE;
        let together = if self.tables.v4.claimed() > FEW_FLOWS { BATCH } else { SMALL_BATCH };
        for (bufs, verdicts) in bufs.chunks_mut(together).zip(verdicts.chunks_mut(together)) {
            self.batch(view, now, in_port, bufs, verdicts, &mut exits);
        }
        exits.common()
    }

    fn batch<B: PacketBuf>(
        &mut self,
        view: &Snapshot,
        now: Tick,
        in_port: PortIndex,
        bufs: &mut [B],
        verdicts: &mut [Verdict],
        exits: &mut Exits,
    ) {
        let mut bytes = 0;
        for buf in &*bufs {
            prefetch(buf.data());
            bytes += buf.len() as u64;
        }
        self.counters.received(in_port, bufs.len() as u64, bytes);
        self.bytes = self.bytes.wrapping_add(bytes);
        let (port, local) = match (view.port(in_port), view.local()) {
            (Some(port), Some(local)) => (port, local),
            (None, _) => return self.drop_all(in_port, DropReason::NO_SUCH_PORT, verdicts, exits),
            (_, None) => return self.drop_all(in_port, DropReason::NOT_PROGRAMMED, verdicts, exits),
        };
        let expected = Expected::at(port, local);
        #[cfg(test)]
        let expected = if self.nothing_is_usual { Expected::Nothing } else { expected };
        let Self {
            tables,
            flows,
            counters,
            lanes,
            batch4,
            batch6,
            destinations,
            vteps,
            services,
            openings,
            allowances,
            learned,
            shortcut,
            ..
        } = self;
        let (slots, repeated) =
            shortcut.as_mut().map(|Shortcut { slots, repeated, .. }| (&**slots, repeated)).unzip();
        destinations.renew(view.serial());
        vteps.renew(view.serial());
        services.renew(view.serial());
        batch4.clear();
        batch6.clear();
        openings.clear();
        const _: () = assert!(BATCH <= ServiceTally::MOST);
        let tally = ServiceTally::default();
        let (doors, ways) = (view.doors(), view.ways());
        let mut stage = Stage {
            view,
            local,
            now,
            in_port,
            tables,
            doors,
            ways,
            flows,
            counters,
            destinations,
            vteps,
            services,
            openings,
            allowances,
            tally,
            exits: Exits::NONE,
            learned,
            has_strangers: false,
            slots,
        };
        let mut batch =
            Batch { lanes: &mut lanes[..bufs.len()], bufs, verdicts, others4: batch4, others6: batch6 };
        let moment = Moment::new(view.epoch(), now);
        // The short cut wants to know of all packets.
        let answers = tables.v4.answers(slots.is_some() || stage.overflows());
        match &expected {
            Expected::Pod(front, source) => stage.first_pass(
                port,
                &moment,
                &mut batch,
                |_, buf| Some((Stage::admit_usual_from_pod(front, *source, buf)?, NOWHERE)),
                |_| false,
            ),
            Expected::Tunnel(expected) => stage.first_pass(
                port,
                &moment,
                &mut batch,
                |stage, buf| stage.admit_usual_from_tunnel(expected, buf),
                |key| !answers.may_have(key),
            ),
            Expected::Nothing => stage.first_pass(port, &moment, &mut batch, |_, _| None, |_| false),
        }
        if !stage.has_strangers || stage.deliver(&mut batch, exits) {
            stage.second_pass(port.kind, &mut batch);
            match port.kind {
                PortKind::Pod | PortKind::Host => stage.third_pass(&moment, true, &mut batch, exits),
                PortKind::Uplink => stage.third_pass(&moment, false, &mut batch, exits),
            }
        }
        if !batch.others6.is_empty() {
            stage.finish6(&mut batch);
            exits.add_other();
        }
        if let Some((slots, repeated)) = slots.zip(repeated) {
            stage.offer_some(slots, repeated, port.kind != PortKind::Uplink, &batch);
        }
        stage.tally.flush(stage.counters);
    }

    #[cold]
    fn drop_all(
        &mut self,
        in_port: PortIndex,
        reason: DropReason,
        verdicts: &mut [Verdict],
        exits: &mut Exits,
    ) {
        exits.add_other();
        for verdict in verdicts {
            self.counters.dropped(in_port, reason);
            *verdict = Verdict::Drop(reason);
        }
    }
}
