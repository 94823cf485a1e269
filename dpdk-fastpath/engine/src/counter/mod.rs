//! Counters: written by one worker each, read by anybody at any time.
//!
//! Every worker has a block of its own, on cache lines of its own, and adds to it without any locked instruction
//! through its [`CounterWriter`]. The control thread holds the [`CounterSet`] and adds the blocks up when it is asked;
//! no worker notices. A sum may miss what is being counted at this moment, and never goes back.
//!
//! Ports and services are counted by slot. When a slot gets a new occupant, the control thread calls
//! [`restart_port`](CounterSet::restart_port) or [`restart_service`](CounterSet::restart_service), and what was counted
//! before is no longer shown.

mod cell;
mod reason;
#[cfg(test)]
mod tests;
mod writer;

use std::array;
use std::collections::HashMap;
use std::ops::Sub;
use std::sync::{Arc, OnceLock};

use self::cell::Cell;
pub use self::reason::{Answered, DropReason};
pub use self::writer::ServiceTally;
use crate::table::{MAX_PORTS, MAX_SERVICES, PortIndex};

const CHUNK: usize = 1024;

/// Counters of one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortCounts {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received, from the Ethernet header on, without frame check sequence.
    pub rx_bytes: u64,
    /// Packets handed to the transmit queue.
    pub tx_packets: u64,
    /// Bytes of these, as for `rx_bytes`.
    pub tx_bytes: u64,
    /// Packets received and dropped, for any reason.
    pub rx_dropped: u64,
    /// Packets that the transmit queue did not take.
    pub tx_dropped: u64,
    /// Rounds in which the port, for all that is known, had more than it was allowed to hand over.
    pub rx_deferred: u64,
}

/// Counters of packets for one port that something was still to be done about before they fitted its wire: super-packets,
/// and packets without their checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FinishCounts {
    /// Left to the device.
    pub by_device: u64,
    /// Done by the fast path.
    pub by_us: u64,
    /// Of those, packets that the device's driver was asked about and refused.
    pub refused: u64,
}

/// Counters of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServiceCounts {
    /// Packets translated, in both directions.
    pub packets: u64,
    /// Bytes of these, from the IP header on.
    pub bytes: u64,
    /// Flows opened.
    pub new_flows: u64,
    /// Packets refused since there was no endpoint.
    pub rejected: u64,
}

/// Counters of flow tracking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowCounts {
    /// Flows entered into the table.
    pub created: u64,
    /// Flows that went by time, by their end, or by that of their endpoint.
    pub expired: u64,
    /// Packets forwarded without state, since the table was full.
    pub stateless: u64,
    /// Clients whose affinity was forgotten before its time, for others.
    pub forgotten: u64,
}

/// Counters of ICMP errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ErrorCounts {
    /// Errors about packets of tracked flows that were translated and passed on.
    pub translated: u64,
    /// Errors of ours that were not sent, since too many were.
    pub limited: u64,
}

/// Counters of what went by the short cut; they are those of ports and services, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShortcutCounts {
    /// Packets; super-packets count as one.
    pub packets: u64,
    /// Bytes of these, from the IP header on.
    pub bytes: u64,
}

/// Counters of one worker's polling loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoopCounts {
    /// Rounds over all ports.
    pub polls: u64,
    /// Rounds that found no packet.
    pub empty_polls: u64,
    /// Packets received.
    pub packets: u64,
    /// TSC cycles of the rounds that found packets.
    pub busy_cycles: u64,
    /// TSC cycles of all rounds.
    pub total_cycles: u64,
}

impl FlowCounts {
    /// Flows that there are at the moment.
    pub fn live(&self) -> u64 {
        self.created.saturating_sub(self.expired)
    }
}

macro_rules! counted {
    ($(#[$attr:meta])* $cells:ident => $counts:ident { $($field:ident),* }) => {
        $(#[$attr])*
        #[derive(Debug, Default)]
        struct $cells { $($field: Cell,)* }

        impl $counts {
            fn plus(self, cells: &$cells) -> Self {
                Self { $($field: self.$field.wrapping_add(cells.$field.get()),)* }
            }
        }

        impl Sub for $counts {
            type Output = Self;

            fn sub(self, before: Self) -> Self {
                Self { $($field: self.$field.wrapping_sub(before.$field),)* }
            }
        }
    };
}

counted! { #[repr(align(64))] PortCells => PortCounts { rx_packets, rx_bytes, tx_packets, tx_bytes, rx_dropped, tx_dropped, rx_deferred } }
counted! { FinishCells => FinishCounts { by_device, by_us, refused } }
counted! { ServiceCells => ServiceCounts { packets, bytes, new_flows, rejected } }
counted! { FlowCells => FlowCounts { created, expired, stateless, forgotten } }
counted! { ErrorCells => ErrorCounts { translated, limited } }
counted! { ShortcutCells => ShortcutCounts { packets, bytes } }
counted! { LoopCells => LoopCounts { polls, empty_polls, packets, busy_cycles, total_cycles } }

/// A port's drops by reason.
type DropCells = Box<[Cell; DropReason::COUNT]>;
type ServiceChunk = Box<[ServiceCells]>;

/// The counters of one worker.
#[derive(Debug)]
#[repr(align(128))]
struct Block {
    turns: LoopCells,
    flows: FlowCells,
    errors: ErrorCells,
    shortcut: ShortcutCells,
    drops: [Cell; DropReason::COUNT],
    answered: [Cell; Answered::ALL.len()],
    ports: Box<[PortCells]>,
    finished: Box<[FinishCells]>,
    /// Of ports that there have been.
    port_drops: Box<[OnceLock<DropCells>]>,
    services: [OnceLock<ServiceChunk>; MAX_SERVICES / CHUNK],
}

impl Block {
    fn new() -> Self {
        Self {
            turns: LoopCells::default(),
            flows: FlowCells::default(),
            errors: ErrorCells::default(),
            shortcut: ShortcutCells::default(),
            drops: array::from_fn(|_| Cell::default()),
            answered: array::from_fn(|_| Cell::default()),
            ports: (0..MAX_PORTS).map(|_| PortCells::default()).collect(),
            finished: (0..MAX_PORTS).map(|_| FinishCells::default()).collect(),
            port_drops: (0..MAX_PORTS).map(|_| OnceLock::new()).collect(),
            services: array::from_fn(|_| OnceLock::new()),
        }
    }

    /// The cells of a service; `None` for a slot that [`CounterSet::reserve_services`] did not reach.
    #[inline]
    fn service(&self, slot: u32) -> Option<&ServiceCells> {
        let slot = slot as usize;
        self.services.get(slot / CHUNK)?.get()?.get(slot % CHUNK)
    }
}

/// All workers' counters, for the control thread.
#[derive(Debug)]
pub struct CounterSet {
    /// Each worker's, and the control thread's.
    blocks: Vec<Arc<Block>>,
    own: CounterWriter,
    ports_before: HashMap<PortIndex, PortCounts>,
    finished_before: HashMap<PortIndex, FinishCounts>,
    port_drops_before: HashMap<PortIndex, Vec<u64>>,
    services_before: HashMap<u32, ServiceCounts>,
}

/// One worker's counters, to be added to.
#[derive(Debug)]
pub struct CounterWriter(Arc<Block>);

/// Counters for `workers` workers.
pub fn counters(workers: usize) -> (CounterSet, Vec<CounterWriter>) {
    let blocks: Vec<_> = (0..=workers).map(|_| Arc::new(Block::new())).collect();
    let own = CounterWriter(Arc::clone(&blocks[workers]));
    let writers = blocks[..workers].iter().map(|block| CounterWriter(Arc::clone(block))).collect();
    (
        CounterSet {
            blocks,
            own,
            ports_before: HashMap::new(),
            finished_before: HashMap::new(),
            port_drops_before: HashMap::new(),
            services_before: HashMap::new(),
        },
        writers,
    )
}

impl CounterSet {
    /// Packets dropped by reason, all reasons in a fixed order.
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        DropReason::all().map(|reason| (reason.name(), self.dropped(reason))).collect()
    }

    /// Packets dropped for one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.blocks.iter().map(|block| block.drops[reason.index()].get()).sum()
    }

    /// Packets answered by kind, all kinds in a fixed order.
    pub fn answered(&self) -> Vec<(&'static str, u64)> {
        let sum = |kind: Answered| self.blocks.iter().map(|block| block.answered[kind as usize].get()).sum();
        Answered::ALL.into_iter().map(|kind| (kind.name(), sum(kind))).collect()
    }

    /// Counters of a port since it was attached.
    pub fn port(&self, port: PortIndex) -> PortCounts {
        self.port_ever(port) - self.ports_before.get(&port).copied().unwrap_or_default()
    }

    /// Counters of what was done about packets for a port, since it was attached.
    pub fn finished(&self, port: PortIndex) -> FinishCounts {
        self.finished_ever(port) - self.finished_before.get(&port).copied().unwrap_or_default()
    }

    /// Counters of the service in a slot since it came there.
    pub fn service(&self, slot: u32) -> ServiceCounts {
        self.service_ever(slot) - self.services_before.get(&slot).copied().unwrap_or_default()
    }

    /// Counters of flow tracking.
    pub fn flows(&self) -> FlowCounts {
        self.blocks.iter().fold(FlowCounts::default(), |sum, block| sum.plus(&block.flows))
    }

    /// Counters of ICMP errors.
    pub fn errors(&self) -> ErrorCounts {
        self.blocks.iter().fold(ErrorCounts::default(), |sum, block| sum.plus(&block.errors))
    }

    /// Counters of what went by the short cut.
    pub fn shortcut(&self) -> ShortcutCounts {
        self.blocks.iter().fold(ShortcutCounts::default(), |sum, block| sum.plus(&block.shortcut))
    }

    /// Counters of one worker's loop; zeros for a worker that does not exist.
    pub fn worker(&self, worker: usize) -> LoopCounts {
        self.blocks
            .get(worker)
            .map_or_else(LoopCounts::default, |block| LoopCounts::default().plus(&block.turns))
    }

    /// Lets a port's counters begin at zero, for a new port under its index.
    pub fn restart_port(&mut self, port: PortIndex) {
        self.ports_before.insert(port, self.port_ever(port));
        self.finished_before.insert(port, self.finished_ever(port));
        for drops in self.blocks.iter().filter_map(|block| block.port_drops.get(usize::from(port.0))) {
            drops.get_or_init(|| Box::new(array::from_fn(|_| Cell::default())));
        }
        self.port_drops_before.insert(port, self.port_drops_ever(port));
    }

    /// So many packets came to a port while it had no room for them.
    pub fn lost(&mut self, port: PortIndex, packets: u64) {
        if packets > 0 {
            self.own.dropped_packets(port, DropReason::RX_RING_FULL, packets);
        }
    }

    /// Lets a service's counters begin at zero, for a new service in its slot.
    pub fn restart_service(&mut self, slot: u32) {
        self.services_before.insert(slot, self.service_ever(slot));
    }

    /// Makes room for the slots below `slots`; to be called before a snapshot with such services is published.
    pub fn reserve_services(&self, slots: usize) {
        // The control thread counts nothing of services.
        let workers = &self.blocks[..self.blocks.len() - 1];
        for chunk in workers.iter().flat_map(|block| block.services.iter().take(slots.div_ceil(CHUNK))) {
            chunk.get_or_init(|| (0..CHUNK).map(|_| ServiceCells::default()).collect());
        }
    }

    /// Why packets received on a port were dropped: the reasons that there were.
    pub fn port_drops(&self, port: PortIndex) -> Vec<(&'static str, u64)> {
        let before = self.port_drops_before.get(&port);
        let since = DropReason::all().zip(self.port_drops_ever(port)).map(|(reason, ever)| {
            let before = before.and_then(|before| before.get(reason.index())).copied().unwrap_or(0);
            (reason.name(), ever.wrapping_sub(before))
        });
        since.filter(|(_, count)| *count > 0).collect()
    }

    /// Drops of a port by reason, since the start.
    fn port_drops_ever(&self, port: PortIndex) -> Vec<u64> {
        let mut sums = vec![0_u64; DropReason::COUNT];
        let cells = self.blocks.iter().filter_map(|block| block.port_drops.get(usize::from(port.0))?.get());
        for cells in cells {
            sums.iter_mut().zip(cells.iter()).for_each(|(sum, cell)| *sum = sum.wrapping_add(cell.get()));
        }
        sums
    }

    fn port_ever(&self, port: PortIndex) -> PortCounts {
        let cells = self.blocks.iter().filter_map(|block| block.ports.get(usize::from(port.0)));
        cells.fold(PortCounts::default(), PortCounts::plus)
    }

    fn finished_ever(&self, port: PortIndex) -> FinishCounts {
        let cells = self.blocks.iter().filter_map(|block| block.finished.get(usize::from(port.0)));
        cells.fold(FinishCounts::default(), FinishCounts::plus)
    }

    fn service_ever(&self, slot: u32) -> ServiceCounts {
        let cells = self.blocks.iter().filter_map(|block| block.service(slot));
        cells.fold(ServiceCounts::default(), ServiceCounts::plus)
    }
}
