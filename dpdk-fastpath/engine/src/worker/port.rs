//! A worker's ends of the ports.

use std::time::Duration;

use culvert_api::config::fastpath::FastPathConfig;
use culvert_dpdk::{Burst, Mbuf, Notice};
use culvert_packet::PacketBuf;

use super::BURST;
use super::rest::Rest;
use crate::counter::{CounterWriter, DropReason};
use crate::pipeline::Verdict;
use crate::port::tap::{Ending, Spare};
use crate::port::{Asked, Rx, Tx};
use crate::table::{MAX_PORTS, PortIndex};

/// So many packets of a burst that leave together are sent at once and not at the end of the round, so that the next burst
/// gets their buffers, which are in the cache.
const MANY: usize = 32;

/// A worker's end of one port.
#[derive(Debug)]
pub struct WorkerPort {
    pub(super) index: PortIndex,
    /// Those it polls.
    pub(super) rx: Vec<Rx>,
    /// How each of them wakes the worker.
    waking: Vec<Notice>,
    /// Its own.
    pub(super) tx: Tx,
    /// Packets that leave at the end of the round.
    pending: Burst<BURST>,
}

impl WorkerPort {
    /// The end of port `index` of a worker that polls the queues `rx`: all of the port, or none; and sends through `tx`.
    pub fn new(index: PortIndex, rx: Vec<Rx>, tx: Tx) -> Self {
        let waking = Vec::with_capacity(rx.len());
        Self { index, rx, waking, tx, pending: Burst::new() }
    }

    /// Has the `at`th receive queue wake the worker, if it can, and says how it will.
    fn watch(&mut self, at: usize, queue: Queue, rest: &Rest) -> Notice {
        let rx = &self.rx[at];
        let watched = match (rx.notice(), rx.descriptor()) {
            (Notice::Readable, Some(descriptor)) => rest.watch(descriptor, queue.number()).is_ok(),
            (Notice::Interrupt, Some(descriptor)) => rest.watch_interrupt(descriptor).is_ok(),
            (Notice::Never, _) | (_, None) => false,
        };
        let notice = if watched { rx.notice() } else { Notice::Never };
        self.waking.push(notice);
        notice
    }

    /// Adds a packet to what is pending.
    #[inline(always)]
    fn put(&mut self, packet: Mbuf, counters: &mut CounterWriter) {
        if let Err(packet) = self.pending.push(packet) {
            self.put_anew(packet, counters);
        }
    }

    #[cold]
    fn put_anew(&mut self, packet: Mbuf, counters: &mut CounterWriter) {
        self.flush(counters);
        // It has room now.
        let _ = self.pending.push(packet);
    }

    /// Adds a packet that the device cannot take as it is: the device makes it fit, or it is done here.
    #[inline(never)]
    fn finish(&mut self, mut packet: Mbuf, counters: &mut CounterWriter) {
        let asked = self.tx.leave(&mut packet);
        counters.finished(self.index, asked);
        match self.tx.cutting() {
            Some(cutting) if asked != Asked::Left => {
                if !cutting.cut(packet, |segment| self.put(segment, counters)) {
                    counters.sent(self.index, 0, 0, 1);
                }
            }
            _ => self.put(packet, counters),
        }
    }

    /// Hands what is pending to the device; what that does not take is freed and counted.
    fn flush(&mut self, counters: &mut CounterWriter) {
        if !self.pending.is_empty() {
            transmit(&mut self.tx, self.index, &mut self.pending, counters);
        }
    }
}

/// Hands packets to the device; what that does not take is freed and counted.
fn transmit(tx: &mut Tx, index: PortIndex, packets: &mut Burst<BURST>, counters: &mut CounterWriter) {
    let (count, mut bytes) = (packets.len() as u64, bytes_of(packets));
    let dropped = tx.tx_or_drop_with(packets, |packet| bytes -= packet.len() as u64) as u64;
    counters.sent(index, count - dropped, bytes, dropped);
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
    /// Of those, how many no interrupt tells of either.
    silent: usize,
    /// Whether the others have been told to raise one at the next packet.
    armed: bool,
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
            silent: 0,
            armed: false,
            watched: 0,
            pending: Vec::with_capacity(MAX_PORTS),
            spare: Spare::default(),
        }
    }

    /// Takes a port in, whose queues are polled when they have packets, if they can say so at any time, and always else.
    pub(super) fn take_watched(&mut self, mut port: Box<WorkerPort>, rest: &Rest) {
        self.disarm();
        self.polled.truncate(self.unwatched);
        for at in 0..port.rx.len() {
            let queue = Queue(port.index, at as u16);
            match port.watch(at, queue, rest) {
                Notice::Readable => self.watched += 1,
                Notice::Interrupt => self.polled.push(queue),
                Notice::Never => {
                    self.polled.push(queue);
                    self.silent += 1;
                }
            }
        }
        self.unwatched = self.polled.len();
        self.put_port(port);
    }

    /// Takes a port in that is always polled.
    pub(super) fn take(&mut self, mut port: Box<WorkerPort>) {
        self.polled.truncate(self.unwatched);
        self.polled.extend((0..port.rx.len()).map(|at| Queue(port.index, at as u16)));
        self.unwatched = self.polled.len();
        self.silent += port.rx.len();
        port.waking.resize(port.rx.len(), Notice::Never);
        self.put_port(port);
    }

    fn put_port(&mut self, port: Box<WorkerPort>) {
        let place = usize::from(port.index.0);
        self.by_index[place] = Some(port);
    }

    /// Takes a port out. Nothing is pending there between two rounds.
    pub(super) fn give_back(&mut self, index: PortIndex, rest: &Rest) -> Option<Box<WorkerPort>> {
        self.disarm();
        let mut port = self.by_index.get_mut(usize::from(index.0))?.take()?;
        self.polled.truncate(self.unwatched);
        self.polled.retain(|queue| queue.0 != index);
        self.unwatched = self.polled.len();
        for notice in port.waking.drain(..) {
            match notice {
                Notice::Readable => self.watched -= 1,
                Notice::Interrupt => {}
                Notice::Never => self.silent -= 1,
            }
        }
        port.rx.iter().filter_map(Rx::descriptor).for_each(|descriptor| rest.forget(descriptor));
        Some(port)
    }

    /// Has every queue that is always polled raise an interrupt at the next packet. Whether all will: then the worker may
    /// sleep, once it has looked again whether there is one already.
    pub(super) fn arm(&mut self) -> bool {
        if self.silent == 0 && !self.armed {
            self.armed = true;
            if !self.each_polled(Rx::arm) {
                self.disarm();
            }
        }
        self.armed
    }

    /// Whether that has been done.
    #[inline]
    pub(super) fn are_armed(&self) -> bool {
        self.armed
    }

    /// No interrupts from now on.
    #[inline]
    pub(super) fn disarm(&mut self) {
        if self.armed {
            self.armed = false;
            self.each_polled(|rx| {
                rx.disarm();
                true
            });
        }
    }

    /// Does something with each queue that is always polled, up to the first that fails.
    fn each_polled(&mut self, mut step: impl FnMut(&mut Rx) -> bool) -> bool {
        self.polled[..self.unwatched].iter().all(|&Queue(index, queue)| {
            let port = self.by_index.get_mut(usize::from(index.0)).and_then(Option::as_deref_mut);
            port.and_then(|port| port.rx.get_mut(usize::from(queue))).is_none_or(&mut step)
        })
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

    /// As [`send`](Self::send) for all packets of a burst, which fit for the port as they are; many are sent at once, unless
    /// others are waiting. `false`, and nothing has happened, if there is no such port.
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
            if packets.len() >= MANY {
                transmit(&mut port.tx, index, packets, counters);
                return true;
            }
            self.pending.push(index);
        }
        if !port.pending.append(packets) {
            port.flush(counters);
            // It has room now.
            port.pending.append(packets);
        }
        true
    }

    /// As [`send`](Self::send) for all packets of a burst, which fit for the ports as they are.
    #[inline]
    pub(super) fn deal(
        &mut self,
        packets: &mut Burst<BURST>,
        verdicts: &[Verdict],
        from: PortIndex,
        counters: &mut CounterWriter,
    ) {
        for (packet, verdict) in packets.drain().zip(verdicts) {
            let Verdict::Send(index) = *verdict else { continue };
            let Some(port) = self.by_index.get_mut(usize::from(index.0)).and_then(Option::as_deref_mut)
            else {
                counters.dropped(from, DropReason::NO_SUCH_PORT);
                continue;
            };
            if port.pending.is_empty() {
                self.pending.push(index);
            }
            port.put(packet, counters);
        }
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
        if port.tx.takes(&packet) {
            port.put(packet, counters);
        } else {
            port.finish(packet, counters);
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
