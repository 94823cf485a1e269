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
mod verdict;

use culvert_packet::flow::{FlowKey4, FlowKey6};
use culvert_packet::parse::L4;
use culvert_packet::{PacketBuf, Parsed};

use self::recent::Recent;
use self::route::Destination;
use self::stage::{Admitted, Origin, Packet, Stage, Step};
use self::verdict::End;
pub use self::verdict::{Neighbour, Verdict};
use crate::counter::{CounterWriter, DropReason};
use crate::flow::{FlowWorker, Key, Sweep, Tick, prefetch};
use crate::table::{Port, PortIndex, PortKind, Snapshot};

/// Packets that are looked up together: enough to hide a cache miss, few enough to stay in the first-level cache.
const BATCH: usize = 32;

// A bit for each.
const _: () = assert!(BATCH <= u32::BITS as usize);

/// How far ahead packets' first bytes are fetched.
const AHEAD: usize = 4;

/// Records that one [`Pipeline::age`] looks at, per table.
const AGED: u32 = 16;

/// One worker's way of packets, with what it needs of its own.
#[derive(Debug)]
pub struct Pipeline {
    flows: FlowWorker,
    counters: CounterWriter,
    /// Admitted packets of the batch.
    batch4: Vec<Batched<FlowKey4>>,
    batch6: Vec<Batched<FlowKey6>>,
    destinations: Recent<Destination>,
    vteps: Recent<Option<u32>>,
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
            flows,
            counters,
            batch4: Vec::with_capacity(BATCH),
            batch6: Vec::with_capacity(BATCH),
            destinations: Recent::new(),
            vteps: Recent::new(),
        }
    }

    /// The worker's counters, for what happens outside the pipeline: packets received and sent, polls.
    #[inline]
    pub fn counters(&mut self) -> &mut CounterWriter {
        &mut self.counters
    }

    /// Decides on a burst that `in_port` received: `verdicts` holds one for each buffer afterwards, in their order, and
    /// the buffers to be sent are ready. Received packets and bytes are for the caller to count, drops are counted here.
    pub fn process<B: PacketBuf>(
        &mut self,
        view: &Snapshot,
        now: Tick,
        in_port: PortIndex,
        bufs: &mut [B],
        verdicts: &mut Vec<Verdict>,
    ) {
        verdicts.clear();
        for batch in bufs.chunks_mut(BATCH) {
            self.batch(view, now, in_port, batch, verdicts);
        }
    }

    fn batch<B: PacketBuf>(
        &mut self,
        view: &Snapshot,
        now: Tick,
        in_port: PortIndex,
        bufs: &mut [B],
        verdicts: &mut Vec<Verdict>,
    ) {
        let (port, local) = match (view.port(in_port), view.local()) {
            (Some(port), Some(local)) => (port, local),
            (None, _) => return self.drop_all(in_port, bufs.len(), DropReason::NO_SUCH_PORT, verdicts),
            (_, None) => return self.drop_all(in_port, bufs.len(), DropReason::NOT_PROGRAMMED, verdicts),
        };
        let first = verdicts.len();
        let Self { flows, counters, batch4, batch6, destinations, vteps } = self;
        destinations.renew(view.serial());
        vteps.renew(view.serial());
        let mut stage =
            Stage { view, local, now, in_port, flows, counters, destinations, vteps, learned: None };
        batch4.clear();
        batch6.clear();

        // First pass: what is it, and where may its flow be?
        for at in 0..bufs.len() {
            if let Some(next) = bufs.get(at + AHEAD) {
                prefetch(next.data());
            }
            // Replaced in the last pass, or at once.
            verdicts.push(Verdict::Drop(DropReason::NO_ROUTE));
            let buf = &mut bufs[at];
            let usual = match port.kind {
                PortKind::Pod => stage.admit_usual_from_pod(port, buf),
                PortKind::Uplink => stage.admit_usual_from_uplink(port, buf),
            };
            if let Some((parsed, origin, key)) = usual {
                let hash = key.hash64();
                stage.flows.tables.v4.prefetch_bucket(hash);
                batch4.push(Batched { at, parsed, origin, key, hash });
                continue;
            }
            match stage.admit(port, buf) {
                Step::Break(end) => verdicts[first + at] = stage.verdict(end),
                Step::Continue(Admitted::V4(parsed, origin, key)) => {
                    let hash = key.hash64();
                    stage.flows.tables.v4.prefetch_bucket(hash);
                    batch4.push(Batched { at, parsed, origin, key, hash });
                }
                Step::Continue(Admitted::V6(parsed, origin, key)) => {
                    let hash = key.hash64();
                    stage.flows.tables.v6.prefetch_bucket(hash);
                    batch6.push(Batched { at, parsed, origin, key, hash });
                }
            }
        }
        let verdicts = &mut verdicts[first..];
        stage.finish(batch4, bufs, verdicts);
        if !batch6.is_empty() {
            stage.finish(batch6, bufs, verdicts);
        }
    }

    #[cold]
    fn drop_all(
        &mut self,
        in_port: PortIndex,
        count: usize,
        reason: DropReason,
        verdicts: &mut Vec<Verdict>,
    ) {
        for _ in 0..count {
            self.counters.dropped(in_port, reason);
            verdicts.push(Verdict::Drop(reason));
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

    /// The last two passes over the packets of one IP version.
    #[inline]
    fn finish<K: Key, B: PacketBuf>(
        &mut self,
        batch: &[Batched<K>],
        bufs: &mut [B],
        verdicts: &mut [Verdict],
    ) {
        // Second pass: which record may be the flow's?
        for packet in batch {
            K::table(&self.flows.tables).prefetch_record(packet.hash);
        }
        // Third pass: compare, decide, rewrite.
        let mut opening = 0_u32;
        for (place, &Batched { at, ref parsed, origin, ref key, hash }) in batch.iter().enumerate() {
            let packet = Packet { buf: &mut bufs[at], parsed, origin, hash };
            let hit = match parsed.l4 {
                L4::Tcp | L4::Udp => K::table(&self.flows.tables).lookup_likely(key, hash),
                L4::Echo | L4::Icmp | L4::Opaque => None,
            };
            let end = match hit {
                // In registers from here to the end: no other function gets to see this hit.
                Some(hit) if self.may_follow(&packet, &hit) => self.follow(packet, key, hit),
                None if origin == Origin::Pod && self.expect(key, hash) => {
                    opening |= 1 << place;
                    continue;
                }
                _ => self.find_or_route(packet, key),
            };
            verdicts[at] = self.verdict(end);
        }
        // Fourth pass: open flows, for which other lines of the table had to be fetched.
        while opening != 0 {
            let &Batched { at, ref parsed, origin, ref key, hash } =
                &batch[opening.trailing_zeros() as usize];
            opening &= opening - 1;
            let end = self.find_or_route(Packet { buf: &mut bufs[at], parsed, origin, hash }, key);
            verdicts[at] = self.verdict(end);
        }
    }

    /// Forwards a packet whose flow was not found at once.
    #[inline(never)]
    fn find_or_route<K: Key, B: PacketBuf>(&mut self, packet: Packet<'_, B>, key: &K) -> End {
        let hit = match packet.parsed.l4 {
            L4::Tcp | L4::Udp => K::table(&self.flows.tables).lookup(key, packet.hash),
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
