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
//! `usual`, from the parse to the port; it leaves to the others whatever it is not sure about.
//!
//! Each box is a file; its first lines say what comes in and what goes out. A stage may end a packet: dropped, with its
//! reason counted; turned into an answer (echo reply, ICMP error, TCP reset), which goes back to where the packet came
//! from; or kept as news of a neighbour or of the way to another node.
//!
//! A worker looks at one [`Snapshot`] for a whole burst. There is no allocation, no system call and no log here, and no
//! lock but that of two index buckets when a flow is opened.

mod affinity;
mod allowance;
mod error;
mod established;
mod fragment;
mod frame;
mod neighbour;
mod output;
mod overflow;
mod path;
mod pod;
mod recent;
mod route;
mod service;
mod shortcut;
mod stage;
#[cfg(test)]
mod tests;
mod upkeep;
mod uplink;
mod usual;
mod verdict;

use std::sync::Arc;

use culvert_packet::flow::{FlowKey4, FlowKey6};
use culvert_packet::parse::L4;
use culvert_packet::usual::Usual;
use culvert_packet::{Malformed, PacketBuf, Parsed};

use self::allowance::Allowances;
use self::recent::Recent;
use self::route::DestinationBits;
use self::shortcut::Shortcut;
use self::stage::{Admitted, Origin, Packet, Stage, Step};
use self::usual::{Expected, Lane};
use self::verdict::Exits;
pub use self::verdict::{Learned, Leaving, Neighbour, PathMtu, Verdict};
use crate::counter::{CounterWriter, DropReason, ServiceTally};
use crate::flow::{FlowTables, FlowWorker, Hit, Key, Moment, OutBits, Table, Tick, prefetch, unmarked};
use crate::table::{Port, PortIndex, PortKind, Snapshot};

/// Packets that are looked up together, at most: with many flows, so many that fetching one's bucket and record takes less
/// time than looking at the others.
const BATCH: usize = 128;

/// The same with few flows, which are in the cache: all that is touched stays in its first level.
const SMALL_BATCH: usize = 64;

/// Up to so many IPv4 flows are few: with what leads to them they take 2 MB.
const FEW_FLOWS: u32 = 16 * 1024;

/// No slot: of a lane whose packet is neither usual nor another IPv4 packet, or of a service that is not known.
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
    vteps: Recent<Option<u32>>,
    allowances: Allowances,
    /// What the packets of a burst told.
    learned: Vec<Learned>,
    /// By which decided connections go, if there is such a way.
    shortcut: Option<Shortcut>,
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
            allowances: Allowances::new(),
            learned: Vec::with_capacity(BATCH),
            shortcut: None,
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
            allowances,
            learned,
            shortcut,
            ..
        } = self;
        let slots = shortcut.as_ref().map(|shortcut| &*shortcut.slots);
        destinations.renew(view.serial());
        vteps.renew(view.serial());
        batch4.clear();
        batch6.clear();
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
            allowances,
            tally,
            learned,
            slots,
        };
        let mut batch =
            Batch { lanes: &mut lanes[..bufs.len()], bufs, verdicts, others4: batch4, others6: batch6 };
        let moment = Moment::new(view.epoch(), now);
        match &expected {
            Expected::Pod(front, source) => stage.first_pass(port, &moment, &mut batch, |_, buf| {
                Some((Stage::admit_usual_from_pod(front, *source, buf)?, 0))
            }),
            Expected::Tunnel(expected) => stage.first_pass(port, &moment, &mut batch, |stage, buf| {
                stage.admit_usual_from_tunnel(expected, buf)
            }),
            Expected::Nothing => stage.first_pass(port, &moment, &mut batch, |_, _| None),
        }
        stage.second_pass(port.kind, &mut batch);
        match port.kind {
            PortKind::Pod | PortKind::Host => stage.third_pass(&moment, true, &mut batch, exits),
            PortKind::Uplink => stage.third_pass(&moment, false, &mut batch, exits),
        }
        if !batch.others6.is_empty() {
            stage.finish6(&mut batch);
            exits.add_other();
        }
        if let Some(slots) = slots {
            stage.offer_some(slots, port.kind != PortKind::Uplink, &batch);
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

impl Stage<'_> {
    /// Lets a packet in, of whatever kind.
    #[inline(never)]
    fn admit<B: PacketBuf>(&mut self, port: &Port, buf: &mut B) -> Step<Admitted> {
        match port.kind {
            PortKind::Pod | PortKind::Host => self.admit_from_pod(port, buf),
            PortKind::Uplink => self.admit_from_uplink(port, buf),
        }
    }

    /// First pass: what is it, and where may its flow be?
    #[inline(always)]
    fn first_pass<B: PacketBuf>(
        &mut self,
        port: &Port,
        moment: &Moment,
        batch: &mut Batch<'_, B>,
        mut admit_usual: impl FnMut(&mut Self, &mut B) -> Option<(Usual, u32)>,
    ) {
        let Batch { bufs, lanes, verdicts, others4, others6 } = batch;
        let tenant = port.tenant;
        let flows = self.tables.v4.burst();
        for (at, (buf, lane)) in bufs.iter_mut().zip(&mut **lanes).enumerate() {
            let Some((usual, slot)) = admit_usual(self, buf) else {
                (lane.len, lane.slot) = (0, NOWHERE);
                match self.admit(port, buf) {
                    Step::Break(verdict) => verdicts[at] = verdict,
                    Step::Continue(Admitted::V4(parsed, origin, key)) => {
                        lane.slot = others4.len() as u32;
                        others4.push(Batched::new(&self.tables.v4, at, parsed, origin, key));
                    }
                    Step::Continue(Admitted::V6(parsed, origin, key)) => {
                        others6.push(Batched::new(&self.tables.v6, at, parsed, origin, key));
                    }
                }
                continue;
            };
            let key = usual.key(tenant);
            let hash = key.hash64();
            flows.prefetch(hash);
            (lane.key, lane.hash, lane.calm) = (key, hash, moment.calm(usual.kind));
            (lane.slot, lane.len) = (slot, usual.len);
        }
    }

    /// Second pass: which record may be the flow's, or which will be that of a flow that is to be opened?
    #[inline(always)]
    fn second_pass<B>(&mut self, kind: PortKind, batch: &mut Batch<'_, B>) {
        let overflows = self.overflows();
        let mut unclear = 0_u128;
        let flows = self.tables.v4.burst();
        const _: () = assert!(BATCH <= u128::BITS as usize);
        for (at, lane) in batch.lanes.iter_mut().enumerate().filter(|(_, lane)| lane.is_usual()) {
            lane.probe = flows.probe(lane.hash);
            if !lane.probe.is_likely() {
                if !lane.probe.is_absent() {
                    unclear |= 1 << at;
                }
                let destination = self.recent_destination(&lane.key);
                // Where it goes is not sure as long as it may be an answer to a flow without a record.
                let unsure = overflows && unmarked(lane.key.dst_port()).is_some();
                lane.out = if unsure { OutBits::NOWHERE } else { destination.out() };
                if destination.is_vip() && kind != PortKind::Uplink {
                    lane.slot = self.expect(&lane.key, lane.hash);
                }
            }
        }
        // What that needs has been fetched meanwhile.
        while let Some(lane) = batch.lanes.get_mut(unclear.trailing_zeros() as usize) {
            lane.probe = flows.clarify(lane.hash);
            unclear &= unclear - 1;
        }
        for other in &*batch.others4 {
            flows.probe(other.hash);
        }
    }

    /// Third pass: compare, decide, rewrite.
    #[inline(always)]
    fn third_pass<B: PacketBuf>(
        &mut self,
        moment: &Moment,
        from_pod: bool,
        batch: &mut Batch<'_, B>,
        exits: &mut Exits,
    ) {
        let Batch { lanes, bufs, verdicts, others4, .. } = batch;
        for ((lane, buf), verdict) in lanes.iter().zip(&mut **bufs).zip(&mut **verdicts) {
            if lane.is_usual()
                && let Some(port) = self.forward_usual(moment, from_pod, lane, buf)
            {
                exits.add(port);
                *verdict = Verdict::Send(port);
                continue;
            }
            exits.add_other();
            if let Some(other) = self.forward_other(from_pod, lane, others4, buf) {
                *verdict = other;
            }
        }
    }

    /// Forwards an IPv4 packet that is not usual, or that something is to be said or noted about; `None` if it is none that
    /// was let in.
    #[inline(never)]
    fn forward_other<B: PacketBuf>(
        &mut self,
        from_pod: bool,
        lane: &Lane,
        others: &[Batched<FlowKey4>],
        buf: &mut B,
    ) -> Option<Verdict> {
        if !lane.is_usual() {
            let &Batched { ref parsed, origin, ref key, hash, .. } = others.get(lane.slot as usize)?;
            return Some(self.find_or_route(Packet { buf, parsed, origin, hash, service: NOWHERE }, key));
        }
        let (origin, service) =
            if from_pod { (Origin::Pod, lane.slot) } else { (Origin::Tunnel(lane.slot), NOWHERE) };
        let Some(ref parsed) = Usual::parsed(buf.data()) else {
            return Some(self.drop(Malformed::Ipv4Truncated));
        };
        Some(self.find_or_route(Packet { buf, parsed, origin, hash: lane.hash, service }, &lane.key))
    }

    /// The later passes over IPv6 packets.
    #[inline(never)]
    fn finish6<B: PacketBuf>(&mut self, batch: &mut Batch<'_, B>) {
        let flows = self.tables.v6.burst();
        for other in &*batch.others6 {
            flows.probe(other.hash);
        }
        for &Batched { at, ref parsed, origin, ref key, hash } in &*batch.others6 {
            let packet = Packet { buf: &mut batch.bufs[at], parsed, origin, hash, service: NOWHERE };
            batch.verdicts[at] = self.find_or_route(packet, key);
        }
    }

    /// Forwards a packet by its flow, if it has one, else by its destination.
    fn find_or_route<K: Key, B: PacketBuf>(&mut self, mut packet: Packet<'_, B>, key: &K) -> Verdict {
        if packet.parsed.is_fragment() {
            packet = match self.fragment(packet, key) {
                Step::Continue(packet) => packet,
                Step::Break(end) => return end,
            };
        }
        let hit = match packet.parsed.l4 {
            L4::Tcp | L4::Udp | L4::Sctp => self.flow(key, packet.hash),
            // Both ends may ping each other with the same identifier.
            L4::Echo => self.flow(key, packet.hash).filter(|hit| hit.reply != packet.parsed.is_ping()),
            L4::Icmp => return self.error(packet, key),
            L4::Opaque => None,
        };
        self.forward(packet, key, hit)
    }

    /// The flow that a packet with this key belongs to.
    #[inline]
    fn flow<K: Key>(&mut self, key: &K, hash: u64) -> Option<Hit<K>> {
        let hit = K::table(self.tables).lookup(key, hash);
        if hit.is_none() && self.flows.takes_over() { self.flow_left(key, hash) } else { hit }
    }

    /// The same of one that is not entered, unless another process left it.
    #[cold]
    fn flow_left<K: Key>(&mut self, key: &K, hash: u64) -> Option<Hit<K>> {
        let entered = self.flows.recall(key, hash, self.view, self.now);
        self.counters.flows_taken_over(entered.into());
        K::table(self.tables).lookup(key, hash)
    }
}
