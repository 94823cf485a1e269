//! A worker's ends of the ports.

use culvert_api::config::fastpath::FastPathConfig;
use culvert_dpdk::{Burst, Mbuf};
use culvert_packet::PacketBuf;

use super::BURST;
use super::rest::Rest;
use crate::counter::{CounterWriter, DropReason};
use crate::port::tap::Spare;
use crate::port::{Rx, Tx};
use crate::table::{MAX_PORTS, PortIndex};

/// A worker's end of one port.
#[derive(Debug)]
pub struct WorkerPort {
    pub(super) index: PortIndex,
    /// Those it polls.
    pub(super) rx: Vec<Rx>,
    /// Its own.
    pub(super) tx: Tx,
    /// Packets that leave at the end of the round.
    pending: Burst<BURST>,
}

impl WorkerPort {
    /// The end of port `index` of a worker that polls the queues `rx`: all of the port, or none; and sends through `tx`.
    pub fn new(index: PortIndex, rx: Vec<Rx>, tx: Tx) -> Self {
        Self { index, rx, tx, pending: Burst::new() }
    }

    /// Adds a packet to what is pending.
    #[inline]
    fn put(&mut self, packet: Mbuf, counters: &mut CounterWriter) {
        if let Err(packet) = self.pending.push(packet) {
            self.flush(counters);
            // It has room now.
            let _ = self.pending.push(packet);
        }
    }

    /// Hands what is pending to the device; what that does not take is freed and counted.
    fn flush(&mut self, counters: &mut CounterWriter) {
        let packets = self.pending.len() as u64;
        if packets == 0 {
            return;
        }
        let mut bytes = bytes_of(&self.pending);
        let dropped =
            self.tx.tx_or_drop_with(&mut self.pending, |packet| bytes -= packet.len() as u64) as u64;
        counters.sent(self.index, packets - dropped, bytes, dropped);
    }
}

/// Bytes of all packets, from the Ethernet header on.
fn bytes_of(mbufs: &[Mbuf]) -> u64 {
    mbufs.iter().map(|mbuf| mbuf.len() as u64).sum()
}

/// All ports of a worker. Room for every port there can be is made at the start, so that the loop never allocates.
#[derive(Debug)]
pub(super) struct WorkerPorts {
    by_index: Box<[Option<Box<WorkerPort>>]>,
    /// Queues to poll: the port, and the place among its queues.
    polled: Vec<(PortIndex, usize)>,
    /// Those with packets to send.
    pending: Vec<PortIndex>,
    /// What taps receive into.
    spare: Spare,
    /// How many of the polled queues end no rest.
    unwatched: usize,
}

impl WorkerPorts {
    pub(super) fn new() -> Self {
        Self {
            by_index: (0..MAX_PORTS).map(|_| None).collect(),
            polled: Vec::with_capacity(MAX_PORTS * FastPathConfig::MAX_WORKERS),
            pending: Vec::with_capacity(MAX_PORTS),
            spare: Spare::default(),
            unwatched: 0,
        }
    }

    /// Takes a port in, whose packets end a rest if they can.
    pub(super) fn take_watched(&mut self, port: Box<WorkerPort>, rest: &Rest) {
        for rx in &port.rx {
            match rx.descriptor() {
                // One that the kernel does not watch is found when the longest rest ends.
                Some(descriptor) => drop(rest.watch(descriptor)),
                None => self.unwatched += 1,
            }
        }
        self.take(port);
    }

    /// Takes a port in.
    pub(super) fn take(&mut self, port: Box<WorkerPort>) {
        self.polled.extend((0..port.rx.len()).map(|queue| (port.index, queue)));
        let place = usize::from(port.index.0);
        self.by_index[place] = Some(port);
    }

    /// Takes a port out. Nothing is pending there between two rounds.
    pub(super) fn give_back(&mut self, index: PortIndex, rest: &Rest) -> Option<Box<WorkerPort>> {
        self.polled.retain(|(polled, _)| *polled != index);
        let port = self.by_index.get_mut(usize::from(index.0))?.take()?;
        for rx in &port.rx {
            match rx.descriptor() {
                Some(descriptor) => rest.forget(descriptor),
                None => self.unwatched -= 1,
            }
        }
        Some(port)
    }

    /// Whether every packet that comes ends a rest.
    #[inline]
    pub(super) fn are_watched(&self) -> bool {
        self.unwatched == 0
    }

    /// How many queues are polled.
    #[inline]
    pub(super) fn polled(&self) -> usize {
        self.polled.len()
    }

    /// Receives from the `n`th polled queue, as much as `burst` has room for. Returns the queue's port.
    #[inline]
    pub(super) fn rx(
        &mut self,
        n: usize,
        burst: &mut Burst<BURST>,
        counters: &mut CounterWriter,
    ) -> PortIndex {
        let (index, queue) = self.polled[n];
        if let Some(port) = &mut self.by_index[usize::from(index.0)] {
            let rx = &mut port.rx[queue];
            rx.rx(&mut self.spare, burst);
            for _ in 0..rx.take_refused() {
                counters.dropped(index, DropReason::VNET_HEADER);
            }
        }
        index
    }

    /// The queue that packets leave a port through.
    #[inline]
    pub(super) fn tx(&mut self, index: PortIndex) -> Option<&mut Tx> {
        self.by_index.get_mut(usize::from(index.0))?.as_mut().map(|port| &mut port.tx)
    }

    /// As [`send`](Self::send) for all packets of a burst, which fit for the port as they are. `false`, and nothing has
    /// happened, if there is no such port.
    #[inline]
    pub(super) fn send_all(
        &mut self,
        index: PortIndex,
        packets: &mut Burst<BURST>,
        counters: &mut CounterWriter,
    ) -> bool {
        let Some(port) = self.by_index.get_mut(usize::from(index.0)).and_then(Option::as_deref_mut) else {
            return false;
        };
        if port.pending.is_empty() {
            self.pending.push(index);
        }
        if !port.pending.append(packets) {
            port.flush(counters);
            // It has room now.
            port.pending.append(packets);
        }
        true
    }

    /// Puts a packet that came from a port aside, to be sent through another at the end of the round. Gives it back, and
    /// counts it, if this worker has no such port: one that is leaving.
    #[inline]
    pub(super) fn send(
        &mut self,
        index: PortIndex,
        packet: Mbuf,
        from: PortIndex,
        counters: &mut CounterWriter,
    ) -> Option<Mbuf> {
        let Some(port) = self.by_index.get_mut(usize::from(index.0)).and_then(Option::as_deref_mut) else {
            counters.dropped(from, DropReason::NO_SUCH_PORT);
            return Some(packet);
        };
        if port.pending.is_empty() {
            self.pending.push(index);
        }
        match port.tx.cutting(&packet) {
            None => port.put(packet, counters),
            Some(cutting) => {
                if !cutting.cut(packet, |segment| port.put(segment, counters)) {
                    counters.sent(index, 0, 0, 1);
                }
            }
        }
        None
    }

    /// Sends what was put aside.
    #[inline]
    pub(super) fn flush(&mut self, counters: &mut CounterWriter) {
        for index in self.pending.drain(..) {
            if let Some(port) = &mut self.by_index[usize::from(index.0)] {
                port.flush(counters);
            }
        }
    }
}
