//! What a worker counts.

use std::sync::OnceLock;

use super::{Answered, CounterWriter, DropReason};
use crate::port::Asked;
use crate::table::PortIndex;

/// Translated packets that are counted together as long as they are of the same service.
#[derive(Debug, Default)]
pub struct ServiceTally {
    slot: u32,
    /// Packets in the upper half, bytes in the lower.
    both: u64,
}

impl ServiceTally {
    /// Packets that can be counted together without their bytes reaching the upper half.
    pub const MOST: usize = 1 << 16;

    /// As [`CounterWriter::service_packet`], at the latest when this is [flushed](Self::flush).
    #[inline(always)]
    pub fn add(&mut self, counters: &mut CounterWriter, slot: u32, bytes: u16) {
        if slot != self.slot {
            self.flush(counters);
            self.slot = slot;
        }
        self.both += 1 << 32 | u64::from(bytes);
    }

    /// Counts what has not been counted yet.
    pub fn flush(&mut self, counters: &mut CounterWriter) {
        let Self { slot, both } = std::mem::take(self);
        if both > 0 {
            counters.service_packets(slot, both >> 32, both & u64::from(u32::MAX));
        }
    }
}

impl CounterWriter {
    /// A packet of `port` was dropped.
    #[inline]
    pub fn dropped(&mut self, port: PortIndex, reason: DropReason) {
        self.dropped_packets(port, reason, 1);
    }

    #[inline]
    pub(super) fn dropped_packets(&mut self, port: PortIndex, reason: DropReason, packets: u64) {
        self.0.drops[reason.index()].add(packets);
        if let Some(cells) = self.0.ports.get(usize::from(port.0)) {
            cells.rx_dropped.add(packets);
        }
        if let Some(cells) = self.0.port_drops.get(usize::from(port.0)).and_then(OnceLock::get) {
            cells[reason.index()].add(packets);
        }
    }

    /// A port's turn ended before, for all that is known, it had handed over all it has.
    #[inline]
    pub fn deferred(&mut self, port: PortIndex) {
        if let Some(cells) = self.0.ports.get(usize::from(port.0)) {
            cells.rx_deferred.add(1);
        }
    }

    /// A packet was turned into an answer.
    #[inline]
    pub fn answered(&mut self, kind: Answered) {
        self.0.answered[kind as usize].add(1);
    }

    /// A burst was received from `port`.
    #[inline]
    pub fn received(&mut self, port: PortIndex, packets: u64, bytes: u64) {
        if let Some(cells) = self.0.ports.get(usize::from(port.0)) {
            cells.rx_packets.add(packets);
            cells.rx_bytes.add(bytes);
        }
    }

    /// A burst was handed to the transmit queue of `port`, which did not take `dropped` further packets.
    #[inline]
    pub fn sent(&mut self, port: PortIndex, packets: u64, bytes: u64, dropped: u64) {
        if let Some(cells) = self.0.ports.get(usize::from(port.0)) {
            cells.tx_packets.add(packets);
            cells.tx_bytes.add(bytes);
            cells.tx_dropped.add(dropped);
        }
    }

    /// Something was done about a packet for `port`, or is left to its device.
    pub fn finished(&mut self, port: PortIndex, asked: Asked) {
        let Some(cells) = self.0.finished.get(usize::from(port.0)) else { return };
        match asked {
            Asked::Left => cells.by_device.add(1),
            Asked::No | Asked::Refused => cells.by_us.add(1),
        }
        if asked == Asked::Refused {
            cells.refused.add(1);
        }
    }

    /// A packet of a service's flow was translated; `bytes` from the IP header on.
    #[inline]
    pub fn service_packet(&mut self, slot: u32, bytes: u64) {
        self.service_packets(slot, 1, bytes);
    }

    /// Packets of a service's flows were translated; `bytes` from the IP header on.
    #[inline]
    pub fn service_packets(&mut self, slot: u32, packets: u64, bytes: u64) {
        if let Some(cells) = self.0.service(slot) {
            cells.packets.add(packets);
            cells.bytes.add(bytes);
        }
    }

    /// A flow to a service was opened.
    #[inline]
    pub fn service_flow(&mut self, slot: u32) {
        self.0.flows.created.add(1);
        if let Some(cells) = self.0.service(slot) {
            cells.new_flows.add(1);
        }
    }

    /// Flows of another process were taken over.
    pub fn flows_taken_over(&mut self, flows: u64) {
        self.0.flows.created.add(flows);
    }

    /// A packet to a service without endpoints was refused.
    #[inline]
    pub fn service_rejected(&mut self, slot: u32) {
        if let Some(cells) = self.0.service(slot) {
            cells.rejected.add(1);
        }
    }

    /// A packet of a flow to a service was forwarded without state.
    #[inline]
    pub fn flow_stateless(&mut self) {
        self.0.flows.stateless.add(1);
    }

    /// A client's affinity was forgotten before its time.
    #[inline]
    pub fn client_forgotten(&mut self) {
        self.0.flows.forgotten.add(1);
    }

    /// An ICMP error about a packet of a flow was translated.
    #[inline]
    pub fn error_translated(&mut self) {
        self.0.errors.translated.add(1);
    }

    /// An ICMP error of ours was not sent.
    #[inline]
    pub fn error_limited(&mut self) {
        self.0.errors.limited.add(1);
    }

    /// Packets went by the short cut; `bytes` from the IP header on.
    pub fn shortcut(&mut self, packets: u64, bytes: u64) {
        self.0.shortcut.packets.add(packets);
        self.0.shortcut.bytes.add(bytes);
    }

    /// Flows left the table.
    #[inline]
    pub fn flows_expired(&mut self, flows: u64) {
        self.0.flows.expired.add(flows);
    }

    /// One round over all ports found `packets` packets and took `cycles` TSC cycles.
    #[inline]
    pub fn polled(&mut self, packets: u64, cycles: u64) {
        let turns = &self.0.turns;
        turns.polls.add(1);
        turns.packets.add(packets);
        turns.total_cycles.add(cycles);
        if packets == 0 {
            turns.empty_polls.add(1);
        } else {
            turns.busy_cycles.add(cycles);
        }
    }
}
