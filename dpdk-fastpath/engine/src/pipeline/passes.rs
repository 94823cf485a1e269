//! The three passes over a burst: read, probe, decide.
//!
//! In: what one port received. Out: a verdict for each packet, and those to be sent are ready. What one pass will look at in
//! memory the one before it fetches, for the whole burst. Strangers, which are known to answer no flow when they have been read,
//! are delivered right then.

use std::iter;

use culvert_packet::flow::FlowKey4;
use culvert_packet::parse::L4;
use culvert_packet::usual::Usual;
use culvert_packet::{Malformed, PacketBuf};

use super::stage::{Admitted, Origin, Packet, Stage, Step};
use super::usual::Lane;
use super::verdict::{Exits, Verdict};
use super::{BATCH, Batch, Batched, NOWHERE};
use crate::flow::{Calm, Hit, Key, Moment, OutBits, Probe, unmarked};
use crate::table::{Port, PortKind};

impl Stage<'_> {
    /// Lets a packet in, of whatever kind.
    #[inline(never)]
    fn admit<B: PacketBuf>(&mut self, port: &Port, buf: &mut B) -> Step<Admitted> {
        match port.kind {
            PortKind::Pod | PortKind::Host => self.admit_from_pod(port, buf),
            PortKind::Uplink => self.admit_from_uplink(port, buf),
        }
    }

    /// First pass: what is it, and where may its flow be? Those that `is_stranger` tells to answer none are marked.
    #[inline(always)]
    pub(super) fn first_pass<B: PacketBuf>(
        &mut self,
        port: &Port,
        moment: &Moment,
        batch: &mut Batch<'_, B>,
        mut admit_usual: impl FnMut(&mut Self, &mut B) -> Option<(Usual, u32)>,
        is_stranger: impl Fn(&FlowKey4) -> bool,
    ) {
        let Batch { bufs, lanes, verdicts, others4, others6 } = batch;
        let tenant = port.tenant;
        let flows = self.tables.v4.burst();
        for (at, (buf, lane)) in bufs.iter_mut().zip(&mut **lanes).enumerate() {
            let Some((usual, slot)) = admit_usual(self, buf) else {
                (lane.len, lane.slot, lane.probe, lane.calm) = (0, NOWHERE, Probe::UNCLEAR, Calm::NEVER);
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
            if is_stranger(&key) {
                (lane.key, lane.calm) = (key, Calm::STRANGER);
                (lane.slot, lane.len) = (slot, usual.len);
                self.has_strangers = true;
                continue;
            }
            let hash = key.hash64();
            flows.prefetch(hash);
            (lane.key, lane.hash, lane.calm) = (key, hash, moment.calm(usual.kind));
            (lane.slot, lane.len) = (slot, usual.len);
        }
    }

    /// Delivers strangers to pods. Returns whether there is anything left to the other passes, as is what takes a closer look.
    #[inline(never)]
    pub(super) fn deliver<B: PacketBuf>(&mut self, batch: &mut Batch<'_, B>, exits: &mut Exits) -> bool {
        let Batch { bufs, lanes, verdicts, .. } = batch;
        let (mut leaving, mut is_left) = (Exits::NONE, false);
        for ((lane, buf), verdict) in lanes.iter_mut().zip(&mut **bufs).zip(&mut **verdicts) {
            if lane.calm != Calm::STRANGER {
                is_left = true;
                continue;
            }
            let out = self.recent_destination(&lane.key).out();
            let port = out.port().and_then(|index| self.deliver_usual(index, lane.len, buf, None));
            if let Some(port) = port {
                (lane.out, lane.len, lane.probe) = (out, 0, Probe::ABSENT);
                leaving.add(port);
                *verdict = Verdict::Send(port);
            } else {
                (lane.hash, lane.calm) = (lane.key.hash64(), Calm::NEVER);
                is_left = true;
            }
        }
        exits.merge(&leaving);
        is_left
    }

    /// Second pass: which record may be the flow's, or which will be that of a flow that is to be opened?
    #[inline(always)]
    pub(super) fn second_pass<B>(&mut self, kind: PortKind, batch: &mut Batch<'_, B>) {
        let overflows = self.overflows();
        let may_be_known = overflows || self.flows.takes_over();
        let mut unclear = 0_u128;
        let flows = self.tables.v4.burst();
        const _: () = assert!(BATCH <= u128::BITS as usize);
        for (at, lane) in batch.lanes.iter_mut().enumerate() {
            if !lane.is_usual() {
                continue;
            }
            lane.probe = flows.probe(lane.hash);
            if !lane.probe.is_likely() {
                if !lane.probe.is_absent() {
                    unclear |= 1 << at;
                    continue;
                }
                self.foresee(lane, kind, overflows, may_be_known);
            }
        }
        if unclear != 0 {
            // What that needs has been fetched meanwhile.
            self.clarify(batch.lanes, unclear, kind, overflows, may_be_known);
        }
        for other in &*batch.others4 {
            flows.probe(other.hash);
        }
    }

    /// Looks more closely for the flows of some packets, a bit for each.
    #[inline(never)]
    fn clarify(
        &mut self,
        lanes: &mut [Lane],
        unclear: u128,
        kind: PortKind,
        overflows: bool,
        may_be_known: bool,
    ) {
        let flows = self.tables.v4.burst();
        for at in ones(unclear) {
            flows.prefetch_closely(lanes[at].hash);
        }
        for at in ones(unclear) {
            let lane = &mut lanes[at];
            lane.probe = flows.clarify(lane.hash);
            if !lane.probe.is_likely() {
                self.foresee(lane, kind, overflows, may_be_known);
            }
        }
    }

    /// Finds out what becomes of a packet that most likely belongs to no flow yet.
    #[inline(always)]
    fn foresee(&mut self, lane: &mut Lane, kind: PortKind, overflows: bool, may_be_known: bool) {
        let destination = self.recent_destination(&lane.key);
        // Where it goes is not sure as long as it may be an answer to a flow without a record.
        let unsure = overflows && unmarked(lane.key.dst_port()).is_some();
        lane.out = if unsure { OutBits::NOWHERE } else { destination.out() };
        if destination.is_vip() && kind != PortKind::Uplink {
            lane.slot = self.expect(&lane.key, lane.hash, may_be_known);
        }
    }

    /// Third pass: compare, decide, rewrite.
    #[inline(always)]
    pub(super) fn third_pass<B: PacketBuf>(
        &mut self,
        moment: &Moment,
        from_pod: bool,
        batch: &mut Batch<'_, B>,
        exits: &mut Exits,
    ) {
        let Batch { lanes, bufs, verdicts, others4, .. } = batch;
        for ((lane, buf), verdict) in lanes.iter().zip(&mut **bufs).zip(&mut **verdicts) {
            // One that is not usual has a probe that leads nowhere.
            if let Some(port) = self.forward_usual(moment, from_pod, lane, buf) {
                exits.add(port);
                *verdict = Verdict::Send(port);
                continue;
            }
            if let Some(other) = self.forward_other(from_pod, lane, others4, buf) {
                *verdict = other;
            }
        }
        exits.merge(&self.exits);
    }

    /// Opens a flow, or forwards an IPv4 packet that is not usual, or that something is to be said or noted about; `None` if it
    /// is none that was let in.
    #[inline(never)]
    fn forward_other<B: PacketBuf>(
        &mut self,
        from_pod: bool,
        lane: &Lane,
        others: &[Batched<FlowKey4>],
        buf: &mut B,
    ) -> Option<Verdict> {
        if from_pod
            && lane.is_usual()
            && let Some(port) = self.open_usual(lane, buf)
        {
            self.exits.add(port);
            return Some(Verdict::Send(port));
        }
        self.exits.add_other();
        if !lane.is_usual() {
            let &Batched { ref parsed, origin, ref key, hash, .. } = others.get(lane.slot as usize)?;
            return Some(self.find_or_route(Packet { buf, parsed, origin, hash, service: NOWHERE }, key));
        }
        let opening = self.openings.get(lane.slot as usize).map_or(NOWHERE, |opening| opening.service);
        let (origin, service) =
            if from_pod { (Origin::Pod, opening) } else { (Origin::Tunnel(lane.slot), NOWHERE) };
        let Some(ref parsed) = Usual::parsed(buf.data()) else {
            return Some(self.drop(Malformed::Ipv4Truncated));
        };
        Some(self.find_or_route(Packet { buf, parsed, origin, hash: lane.hash, service }, &lane.key))
    }

    /// The later passes over IPv6 packets.
    #[inline(never)]
    pub(super) fn finish6<B: PacketBuf>(&mut self, batch: &mut Batch<'_, B>) {
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
    pub(super) fn flow<K: Key>(&mut self, key: &K, hash: u64) -> Option<Hit<K>> {
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

/// The places of the bits that are set, the lowest first.
fn ones(mut bits: u128) -> impl Iterator<Item = usize> {
    iter::from_fn(move || {
        let lowest = bits.trailing_zeros();
        bits &= bits.wrapping_sub(1);
        (lowest < u128::BITS).then_some(lowest as usize)
    })
}
