//! What all stages share.

use std::ops::ControlFlow;

use culvert_packet::answer::{self, IcmpError, NoAnswer, icmp_error, sctp_abort, tcp_reset};
use culvert_packet::flow::{FlowKey4, FlowKey6, Tenant};
use culvert_packet::offload::Offload;
use culvert_packet::parse::{L3, L4};
use culvert_packet::{PacketBuf, Parsed, parse};
use culvert_shortcut::Slots;

use super::allowance::Allowances;
use super::opening::{Asked, Opening};
use super::output::Inner;
use super::recent::Recent;
use super::route::DestinationBits;
use super::verdict::{Exits, Learned, Verdict};
use crate::counter::{Answered, CounterWriter, DropReason, ServiceTally};
use crate::flow::{FlowTables, FlowWorker, Tick};
use crate::table::{Door, LocalNode, PortIndex, Snapshot, Way};

/// What a stage decides: the packet's end, or what the next stage needs.
pub(super) type Step<T> = ControlFlow<Verdict, T>;

/// What stages work with while one burst of one port is processed.
pub(super) struct Stage<'a> {
    pub(super) view: &'a Snapshot,
    pub(super) local: &'a LocalNode,
    pub(super) now: Tick,
    pub(super) in_port: PortIndex,
    pub(super) tables: &'a FlowTables,
    /// Doors and ways of the view, for usual packets; none if all are to be looked at more closely from here on.
    pub(super) doors: &'a [Door],
    pub(super) ways: &'a [Way],
    /// For opening flows.
    pub(super) flows: &'a mut FlowWorker,
    pub(super) counters: &'a mut CounterWriter,
    /// Where packets to IPv4 addresses go.
    pub(super) destinations: &'a mut Recent<DestinationBits>,
    /// Slots of the remote nodes behind IPv4 addresses of the underlay, which are numbers as they lie in memory.
    pub(super) vteps: &'a mut Recent<u32>,
    /// Slots of the services behind virtual IPv4 addresses.
    pub(super) services: &'a mut Recent<u32, Asked>,
    /// Flows that packets of the batch most likely open.
    pub(super) openings: &'a mut Vec<Opening>,
    /// Errors that may still be sent.
    pub(super) allowances: &'a mut Allowances,
    /// Packets of services' flows that are still to be counted.
    pub(super) tally: ServiceTally,
    /// Ports that packets leave through which are not forwarded as most are.
    pub(super) exits: Exits,
    /// What packets that ended as [`Verdict::Learned`] told.
    pub(super) learned: &'a mut Vec<Learned>,
    /// Whether lanes are marked as those of strangers.
    pub(super) has_strangers: bool,
    /// Of the short cut.
    pub(super) slots: Option<&'a Slots>,
}

/// Where a packet comes from, which is where an answer to it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A local pod, or the host.
    Pod,
    /// The remote node in this slot, through its tunnel for the slot's tenant.
    Tunnel(u32),
}

/// An IP packet that has been admitted: without padding, without outer headers, and from whom it says; with its key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Admitted {
    V4(Parsed, Origin, FlowKey4),
    V6(Parsed, Origin, FlowKey6),
}

/// An admitted packet in its buffer.
pub(super) struct Packet<'b, B> {
    pub(super) buf: &'b mut B,
    pub(super) parsed: &'b Parsed,
    pub(super) origin: Origin,
    /// Hash of its key, which also spreads tunnel packets over the underlay's paths.
    pub(super) hash: u64,
    /// Slot of the service that it is most likely for.
    pub(super) service: u32,
}

impl Stage<'_> {
    /// Ends a packet that nobody hears of again.
    pub(super) fn drop(&mut self, reason: impl Into<DropReason>) -> Verdict {
        let reason = reason.into();
        self.counters.dropped(self.in_port, reason);
        Verdict::Drop(reason)
    }

    /// Ends a packet that nobody hears of again.
    pub(super) fn stop<T>(&mut self, reason: impl Into<DropReason>) -> Step<T> {
        Step::Break(self.drop(reason))
    }

    /// Ends a packet that told something.
    pub(super) fn learn(&mut self, learned: Learned) -> Verdict {
        self.learned.push(learned);
        Verdict::Learned
    }

    /// Whose packets come from there.
    fn tenant_of(&self, origin: Origin) -> Tenant {
        let tenant = match origin {
            Origin::Pod => self.view.port(self.in_port).map(|port| port.tenant),
            Origin::Tunnel(slot) => self.view.remote(slot).map(|remote| remote.tenant),
        };
        tenant.unwrap_or_default()
    }

    /// Ends a packet and tells its sender with an ICMP error.
    pub(super) fn report<B: PacketBuf>(
        &mut self,
        mut packet: Packet<'_, B>,
        reason: DropReason,
        error: IcmpError,
    ) -> Verdict {
        let verdict = self.drop(reason);
        let (gateway4, gateway6) = self.local.gateways(self.tenant_of(packet.origin));
        let gateway = match packet.parsed.l3 {
            L3::Ipv4 => gateway4.map(Into::into),
            _ => gateway6.map(Into::into),
        };
        let Some(gateway) = gateway else { return verdict };
        let per_second = self.local.flows.icmp_errors_per_second;
        if !self.allowances.has_left(self.in_port, self.now, per_second) {
            self.counters.error_limited();
            return verdict;
        }
        let kind = match error {
            IcmpError::TimeExceeded => Answered::TimeExceeded,
            IcmpError::PacketTooBig { .. } => Answered::TooBig,
            _ => Answered::Unreachable,
        };
        match icmp_error(packet.buf, packet.parsed, gateway, error) {
            Ok(()) => {
                self.allowances.spend(self.in_port, self.now);
                self.answer(&mut packet, kind).unwrap_or(verdict)
            }
            Err(_) => verdict,
        }
    }

    /// Ends a packet and tells its sender that nobody serves this port: with a reset for TCP, an ABORT for SCTP, else with
    /// an ICMP error.
    pub(super) fn refuse<B: PacketBuf>(&mut self, mut packet: Packet<'_, B>, reason: DropReason) -> Verdict {
        let (made, kind) = match packet.parsed.l4 {
            L4::Tcp => (tcp_reset(packet.buf, packet.parsed), Answered::TcpReset),
            L4::Sctp => (sctp_abort(packet.buf, packet.parsed), Answered::SctpAbort),
            _ => return self.report(packet, reason, IcmpError::PortUnreachable),
        };
        let verdict = self.drop(reason);
        match made {
            Ok(()) => self.answer(&mut packet, kind).unwrap_or(verdict),
            Err(_) => verdict,
        }
    }

    /// Sends a buffer that now holds an answer back to where the packet came from. An error is not counted.
    pub(super) fn answer<B: PacketBuf>(
        &mut self,
        packet: &mut Packet<'_, B>,
        kind: Answered,
    ) -> Result<Verdict, DropReason> {
        packet.buf.set_offload(Offload::NONE);
        if let Origin::Tunnel(slot) = packet.origin {
            // The tunnel copies from the answer, not from the packet that this was made of.
            let traffic_class = parse(packet.buf.data()).map_or(0, |answer| answer.traffic_class);
            let header = Inner { traffic_class, ttl: answer::TTL };
            self.encap(packet.buf, slot, packet.hash, header)?;
        }
        self.counters.answered(kind);
        Ok(Verdict::Send(self.in_port))
    }

    /// The end of a packet that was made into an answer to its own port, or could not be.
    pub(super) fn answered(
        &mut self,
        result: Result<(), NoAnswer>,
        kind: Answered,
        otherwise: DropReason,
    ) -> Verdict {
        match result {
            Ok(()) => {
                self.counters.answered(kind);
                Verdict::Send(self.in_port)
            }
            Err(NoAnswer::Malformed(malformed)) => self.drop(malformed),
            Err(NoAnswer::Room) => self.drop(DropReason::NO_HEADROOM),
            Err(_) => self.drop(otherwise),
        }
    }
}
