//! What a worker does with a burst of packets: one packet's way.
//!
//! ```text
//!   pod port                                   uplink
//!   pod: parse, MAC and address its own?       uplink: parse, for our tunnel endpoint?
//!     ARP, ND for the router -> answer           ARP, ND, ping for it -> answer; neighbours -> learned
//!        |                                       VXLAN: node known? VNI, MAC ours? -> inner packet
//!        +---------------------+--------------------+
//!                              |
//!                look up flows of the whole burst        (three passes: hash, prefetch, compare)
//!                  |                       |
//!            established                 route
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
//! from; or kept as news of a neighbour.
//!
//! A worker looks at one [`Snapshot`] for a whole burst. There is no allocation, no system call and no log here, and no
//! lock but that of two index buckets when a flow is opened.

mod established;
mod frame;
mod neighbour;
mod output;
mod pod;
mod recent;
mod route;
mod service;
mod stage;
#[cfg(test)]
mod tests;
mod uplink;
mod usual;
mod verdict;

use std::sync::Arc;

use culvert_packet::flow::{FlowKey4, FlowKey6};
use culvert_packet::parse::L4;
use culvert_packet::tcp::TcpFlags;
use culvert_packet::{PacketBuf, Parsed, parse};

use self::recent::Recent;
use self::route::Destination;
use self::stage::{Admitted, Origin, Packet, Stage, Step};
use self::usual::{Expected, Lane};
use self::verdict::End;
pub use self::verdict::{Neighbour, Verdict};
use crate::counter::{CounterWriter, DropReason, ServiceTally};
use crate::flow::{FlowTables, FlowWorker, Key, Moment, Sweep, Tick, prefetch};
use crate::table::{Port, PortIndex, PortKind, Snapshot};

/// Packets that are looked up together: enough to hide a cache miss, few enough to stay in the first-level cache.
const BATCH: usize = 64;

/// How far ahead packets' first bytes are fetched.
const AHEAD: usize = 4;

/// Records that one [`Pipeline::age`] looks at, per table.
const AGED: u32 = 16;

/// One worker's way of packets, with what it needs of its own.
#[derive(Debug)]
pub struct Pipeline {
    /// Those of `flows`.
    tables: Arc<FlowTables>,
    flows: FlowWorker,
    counters: CounterWriter,
    /// Admitted packets of the batch: IPv4, of these those that are not usual, and IPv6.
    lanes: Box<[Lane; BATCH]>,
    batch4: Vec<Batched<FlowKey4>>,
    batch6: Vec<Batched<FlowKey6>>,
    destinations: Recent<Destination>,
    vteps: Recent<Option<u32>>,
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

impl Pipeline {
    /// With its share of the flow tables and its counters.
    pub fn new(flows: FlowWorker, counters: CounterWriter) -> Self {
        Self {
            tables: Arc::clone(&flows.tables),
            flows,
            counters,
            lanes: Box::new([Lane::EMPTY; BATCH]),
            batch4: Vec::with_capacity(BATCH),
            batch6: Vec::with_capacity(BATCH),
            destinations: Recent::new(),
            vteps: Recent::new(),
            #[cfg(test)]
            nothing_is_usual: false,
        }
    }

    /// The worker's counters, for what happens outside the pipeline: packets sent, polls.
    #[inline]
    pub fn counters(&mut self) -> &mut CounterWriter {
        &mut self.counters
    }

    /// Decides on a burst that `in_port` received: `verdicts` holds one for each buffer afterwards, in their order, and
    /// the buffers to be sent are ready. What was received and what is dropped is counted.
    pub fn process<B: PacketBuf>(
        &mut self,
        view: &Snapshot,
        now: Tick,
        in_port: PortIndex,
        bufs: &mut [B],
        verdicts: &mut Vec<Verdict>,
    ) {
        // Each is replaced.
        verdicts.resize(bufs.len(), Verdict::Drop(DropReason::NO_ROUTE));
        for (bufs, verdicts) in bufs.chunks_mut(BATCH).zip(verdicts.chunks_mut(BATCH)) {
            self.batch(view, now, in_port, bufs, verdicts);
        }
    }

    fn batch<B: PacketBuf>(
        &mut self,
        view: &Snapshot,
        now: Tick,
        in_port: PortIndex,
        bufs: &mut [B],
        verdicts: &mut [Verdict],
    ) {
        let mut bytes = 0;
        for buf in &*bufs {
            bytes += buf.len() as u64;
        }
        self.counters.received(in_port, bufs.len() as u64, bytes);
        let (port, local) = match (view.port(in_port), view.local()) {
            (Some(port), Some(local)) => (port, local),
            (None, _) => return self.drop_all(in_port, DropReason::NO_SUCH_PORT, verdicts),
            (_, None) => return self.drop_all(in_port, DropReason::NOT_PROGRAMMED, verdicts),
        };
        let expected = Expected::at(port, local);
        #[cfg(test)]
        let expected = if self.nothing_is_usual { Expected::Nothing } else { expected };
        let Self { tables, flows, counters, lanes, batch4, batch6, destinations, vteps, .. } = self;
        destinations.renew(view.serial());
        vteps.renew(view.serial());
        let (tally, learned) = (ServiceTally::default(), None);
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
            tally,
            learned,
        };
        batch4.clear();
        batch6.clear();

        // First pass: what is it, and where may its flow be?
        let mut admitted = 0;
        for at in 0..bufs.len() {
            if let Some(next) = bufs.get(at + AHEAD) {
                prefetch(next.data());
            }
            let buf = &mut bufs[at];
            let (key, slot, len, tcp_flags) = if let Some((usual, slot)) = stage.admit_usual(&expected, buf) {
                (usual.key(port.tenant), slot, usual.len, usual.tcp_flags)
            } else {
                match stage.admit(port, buf) {
                    Step::Break(end) => {
                        verdicts[at] = stage.verdict(end);
                        continue;
                    }
                    Step::Continue(Admitted::V4(parsed, origin, key)) => {
                        batch4.push(Batched { at, parsed, origin, key, hash: key.hash64() });
                        (key, 0, 0, TcpFlags(0))
                    }
                    Step::Continue(Admitted::V6(parsed, origin, key)) => {
                        let hash = key.hash64();
                        stage.tables.v6.prefetch_bucket(hash);
                        batch6.push(Batched { at, parsed, origin, key, hash });
                        continue;
                    }
                }
            };
            let hash = key.hash64();
            stage.tables.v4.prefetch_bucket(hash);
            lanes[admitted] = Lane { key, hash, slot, len, tcp_flags, at: at as u8, ..Lane::EMPTY };
            admitted += 1;
        }
        stage.finish4(port.kind, &mut lanes[..admitted], batch4, bufs, verdicts);
        if !batch6.is_empty() {
            stage.finish6(batch6, bufs, verdicts);
        }
        stage.tally.flush(stage.counters);
    }

    #[cold]
    fn drop_all(&mut self, in_port: PortIndex, reason: DropReason, verdicts: &mut [Verdict]) {
        for verdict in verdicts {
            self.counters.dropped(in_port, reason);
            *verdict = Verdict::Drop(reason);
        }
    }

    /// Forgets some of this worker's flows that are over. To be called every few dozen rounds, and while there is nothing
    /// to do: each call looks at a few records only.
    pub fn age(&mut self, view: &Snapshot, now: Tick) {
        let sweep = Sweep { now, pressure: false, records: AGED };
        let FlowWorker { tables, arena4, arena6 } = &mut self.flows;
        let ended = arena4.sweep(&tables.v4, sweep, |record| !view.has_backend(record.backend))
            + arena6.sweep(&tables.v6, sweep, |record| !view.has_backend(record.backend));
        self.counters.flows_expired(ended);
    }
}

impl Stage<'_> {
    /// Lets a packet in, of whatever kind.
    #[inline(never)]
    fn admit<B: PacketBuf>(&mut self, port: &Port, buf: &mut B) -> Step<Admitted> {
        match port.kind {
            PortKind::Pod => self.admit_from_pod(port, buf),
            PortKind::Uplink => self.admit_from_uplink(port, buf),
        }
    }

    /// The later passes over IPv4 packets.
    #[inline(always)]
    fn finish4<B: PacketBuf>(
        &mut self,
        kind: PortKind,
        lanes: &mut [Lane],
        others: &[Batched<FlowKey4>],
        bufs: &mut [B],
        verdicts: &mut [Verdict],
    ) {
        // Second pass: which record may be the flow's, or which will be that of a flow that is to be opened?
        for lane in &mut *lanes {
            lane.probe = self.tables.v4.probe(lane.hash);
            if lane.probe.is_likely() {
                continue;
            }
            lane.destination = self.destination(lane.key.tenant(), lane.key.dst().into());
            if lane.destination == Destination::Vip && kind == PortKind::Pod {
                self.expect(&lane.key, lane.hash);
            }
        }
        // Third pass: compare, decide, rewrite.
        let moment = Moment::new(self.view.epoch(), self.now);
        for lane in &*lanes {
            let at = usize::from(lane.at);
            if lane.len != 0
                && let Some(port) = self.forward_usual(&moment, kind == PortKind::Pod, lane, &mut bufs[at])
            {
                verdicts[at] = Verdict::Send(port);
            } else {
                let end = self.forward_unusual(kind, lane, others, &mut bufs[at]);
                verdicts[at] = self.verdict(end);
            }
        }
    }

    /// Forwards an IPv4 packet that is not usual, or that something is to be said or noted about.
    #[inline(never)]
    fn forward_unusual<B: PacketBuf>(
        &mut self,
        kind: PortKind,
        lane: &Lane,
        others: &[Batched<FlowKey4>],
        buf: &mut B,
    ) -> End {
        let &Lane { key, hash, slot, .. } = lane;
        let (parsed, origin) = match others.iter().find(|other| other.at == usize::from(lane.at)) {
            Some(other) => (other.parsed, other.origin),
            None => match parse(buf.data()) {
                Ok(parsed) if kind == PortKind::Pod => (parsed, Origin::Pod),
                Ok(parsed) => (parsed, Origin::Tunnel(slot)),
                Err(malformed) => return self.drop(malformed),
            },
        };
        self.find_or_route(Packet { buf, parsed: &parsed, origin, hash }, &key)
    }

    /// The later passes over IPv6 packets.
    #[inline(never)]
    fn finish6<B: PacketBuf>(
        &mut self,
        batch: &[Batched<FlowKey6>],
        bufs: &mut [B],
        verdicts: &mut [Verdict],
    ) {
        for packet in batch {
            self.tables.v6.probe(packet.hash);
        }
        for &Batched { at, ref parsed, origin, ref key, hash } in batch {
            let end = self.find_or_route(Packet { buf: &mut bufs[at], parsed, origin, hash }, key);
            verdicts[at] = self.verdict(end);
        }
    }

    /// Forwards a packet by its flow, if it has one, else by its destination.
    fn find_or_route<K: Key, B: PacketBuf>(&mut self, packet: Packet<'_, B>, key: &K) -> End {
        let hit = match packet.parsed.l4 {
            L4::Tcp | L4::Udp | L4::Sctp => K::table(self.tables).lookup(key, packet.hash),
            L4::Echo | L4::Icmp | L4::Opaque => None,
        };
        self.forward(packet, key, hit)
    }

    #[inline(always)]
    fn verdict(&mut self, end: End) -> Verdict {
        match (end, self.learned) {
            (End::Send(port), _) => Verdict::Send(port),
            (End::Drop(reason), _) => Verdict::Drop(reason),
            (End::Learned, Some(neighbour)) => Verdict::Learned(neighbour),
            (End::Learned, None) => Verdict::Drop(DropReason::NEIGHBOUR_IGNORED),
        }
    }
}
