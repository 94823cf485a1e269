//! A worker's ends of the ports.

use std::time::Duration;

use culvert_api::config::fastpath::FastPathConfig;
use culvert_dpdk::{Burst, Mbuf};
use culvert_packet::PacketBuf;

use super::BURST;
use super::rest::Rest;
use crate::counter::{CounterWriter, DropReason};
use crate::port::tap::{Ending, Spare};
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
    /// Queues to poll in this round: those of which nobody says whether they have packets, and behind them those that have.
    polled: Vec<Queue>,
    /// How many are the former.
    unwatched: usize,
    /// How many queues are watched.
    watched: usize,
    /// Those with packets to send.
    pending: Vec<PortIndex>,
    /// What taps receive into.
    spare: Spare,
}

/// A receive queue: the port, and the place among its queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Queue(PortIndex, u16);

impl Queue {
    const fn number(self) -> u32 {
        (self.0.0 as u32) << 16 | self.1 as u32
    }

    const fn numbered(number: u32) -> Self {
        Self(PortIndex((number >> 16) as u16), number as u16)
    }
}

impl WorkerPorts {
    pub(super) fn new() -> Self {
        Self {
            by_index: (0..MAX_PORTS).map(|_| None).collect(),
            // Each queue can be in there once.
            polled: Vec::with_capacity(MAX_PORTS * FastPathConfig::MAX_WORKERS),
            unwatched: 0,
            watched: 0,
            pending: Vec::with_capacity(MAX_PORTS),
            spare: Spare::default(),
        }
    }

    /// Takes a port in, whose queues are polled when they have packets, if they can say so, and always else.
    pub(super) fn take_watched(&mut self, port: Box<WorkerPort>, rest: &Rest) {
        self.polled.truncate(self.unwatched);
        for (at, rx) in port.rx.iter().enumerate() {
            let queue = Queue(port.index, at as u16);
            match rx.descriptor().map(|descriptor| rest.watch(descriptor, queue.number())) {
                Some(Ok(())) => self.watched += 1,
                Some(Err(_)) | None => self.polled.push(queue),
            }
        }
        self.unwatched = self.polled.len();
        self.put_port(port);
    }

    /// Takes a port in that is always polled.
    pub(super) fn take(&mut self, port: Box<WorkerPort>) {
        self.polled.truncate(self.unwatched);
        self.polled.extend((0..port.rx.len()).map(|at| Queue(port.index, at as u16)));
        self.unwatched = self.polled.len();
        self.put_port(port);
    }

    fn put_port(&mut self, port: Box<WorkerPort>) {
        let place = usize::from(port.index.0);
        self.by_index[place] = Some(port);
    }

    /// Takes a port out. Nothing is pending there between two rounds.
    pub(super) fn give_back(&mut self, index: PortIndex, rest: &Rest) -> Option<Box<WorkerPort>> {
        let port = self.by_index.get_mut(usize::from(index.0))?.take()?;
        self.polled.truncate(self.unwatched);
        self.polled.retain(|queue| queue.0 != index);
        let polled = self.unwatched - self.polled.len();
        self.unwatched = self.polled.len();
        self.watched -= port.rx.len() - polled;
        port.rx.iter().filter_map(Rx::descriptor).for_each(|descriptor| rest.forget(descriptor));
        Some(port)
    }

    /// Whether there are queues that say when they have packets.
    #[inline]
    pub(super) fn any_watched(&self) -> bool {
        self.watched > 0
    }

    /// Whether every packet that comes ends a rest.
    #[inline]
    pub(super) fn are_watched(&self) -> bool {
        self.unwatched == 0
    }

    /// Rests for this long at most, or not at all; then it is known which of the watched queues are to be polled. Whether
    /// anything has happened.
    #[inline]
    pub(super) fn rest(&mut self, rest: &Rest, most: Duration) -> bool {
        let Self { polled, unwatched, .. } = self;
        polled.truncate(*unwatched);
        rest.rest(most, |number| polled.push(Queue::numbered(number)))
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
        let Queue(index, queue) = self.polled[n];
        // It may have left since it was ready.
        let port = self.by_index.get_mut(usize::from(index.0)).and_then(Option::as_deref_mut);
        if let Some(rx) = port.and_then(|port| port.rx.get_mut(usize::from(queue))) {
            let received = rx.rx(&mut self.spare, burst);
            let Ending { refused, spent, dry } = rx.ending();
            for _ in 0..refused {
                counters.dropped(index, DropReason::VNET_HEADER);
            }
            if spent || dry || received == BURST {
                counters.deferred(index);
            }
            if dry {
                // What waits to be sent at the end of the round has the mbufs.
                self.flush(counters);
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
