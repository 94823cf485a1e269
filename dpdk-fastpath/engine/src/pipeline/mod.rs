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
mod route;
mod service;
mod stage;
#[cfg(test)]
mod tests;
mod uplink;
mod verdict;

use culvert_packet::PacketBuf;
use culvert_packet::parse::L4;

use self::stage::{Admitted, Keyed, Packet, Stage, Step};
pub use self::verdict::{Neighbour, Verdict};
use crate::counter::{CounterWriter, DropReason};
use crate::flow::{FlowWorker, Key, Sweep, Tick, prefetch};
use crate::table::{PortIndex, PortKind, Snapshot};

/// Packets that are looked up together: enough to hide a cache miss, few enough to stay in the first-level cache.
const BATCH: usize = 32;

/// How far ahead packets' first bytes are fetched.
const AHEAD: usize = 4;

/// Records that one [`Pipeline::age`] looks at, per table.
const AGED: u32 = 16;

/// One worker's way of packets, with what it needs of its own.
#[derive(Debug)]
pub struct Pipeline {
    flows: FlowWorker,
    counters: CounterWriter,
    /// Admitted packets of the batch, with their place in it.
    batch: Vec<(usize, Admitted)>,
}

impl Pipeline {
    /// With its share of the flow tables and its counters.
    pub fn new(flows: FlowWorker, counters: CounterWriter) -> Self {
        Self { flows, counters, batch: Vec::with_capacity(BATCH) }
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
        let Self { flows, counters, batch } = self;
        let mut stage = Stage { view, local, now, in_port, flows, counters };
        batch.clear();

        // First pass: what is it, and where may its flow be?
        for at in 0..bufs.len() {
            if let Some(next) = bufs.get(at + AHEAD) {
                prefetch(next.data());
            }
            let buf = &mut bufs[at];
            let admitted = match port.kind {
                PortKind::Pod => stage.admit_from_pod(port, buf),
                PortKind::Uplink => stage.admit_from_uplink(port, buf),
            };
            verdicts.push(match admitted {
                Step::Break(verdict) => verdict,
                Step::Continue(admitted) => {
                    match admitted.key {
                        Keyed::V4(_, hash) => stage.flows.tables.v4.prefetch_bucket(hash),
                        Keyed::V6(_, hash) => stage.flows.tables.v6.prefetch_bucket(hash),
                    }
                    batch.push((at, admitted));
                    // Replaced in the last pass.
                    Verdict::Drop(DropReason::NO_ROUTE)
                }
            });
        }
        // Second pass: which record may be the flow's?
        for (_, admitted) in &*batch {
            match admitted.key {
                Keyed::V4(_, hash) => stage.flows.tables.v4.prefetch_record(hash),
                Keyed::V6(_, hash) => stage.flows.tables.v6.prefetch_record(hash),
            }
        }
        // Third pass: compare, decide, rewrite.
        for &(at, admitted) in &*batch {
            let buf = &mut bufs[at];
            verdicts[first + at] = match admitted.key {
                Keyed::V4(key, hash) => stage.look_up(buf, &admitted, &key, hash),
                Keyed::V6(key, hash) => stage.look_up(buf, &admitted, &key, hash),
            };
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
    /// Forwards an admitted packet by its flow, or without.
    #[inline]
    fn look_up<K: Key, B: PacketBuf>(
        &mut self,
        buf: &mut B,
        admitted: &Admitted,
        key: &K,
        hash: u64,
    ) -> Verdict {
        let Admitted { parsed, origin, .. } = *admitted;
        let hit = match parsed.l4 {
            L4::Tcp | L4::Udp => K::table(&self.flows.tables).lookup(key, hash),
            L4::Echo | L4::Icmp | L4::Opaque => None,
        };
        self.forward(Packet { buf, parsed, origin, hash }, key, hit)
    }
}
