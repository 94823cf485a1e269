//! A worker's loop.

use std::thread;
use std::time::Duration;

use culvert_dpdk::{Burst, tsc};

use super::mailbox::{Done, Mailbox, Order};
use super::port::WorkerPorts;
use super::rest::Rest;
use super::{BURST, EMPTY_ROUNDS, EMPTY_ROUNDS_IF_WOKEN, HOUSEKEEPING, LONGEST_REST};
use crate::clock::Clock;
use crate::flow::Tick;
use crate::pipeline::{Pipeline, Verdict};
use crate::quiescent::Reader;
use crate::table::Snapshot;

/// Frames of the control thread sent in one round.
const INJECTED: usize = 8;

/// A worker.
pub(super) struct Runner {
    mailbox: Mailbox,
    rest: Rest,
    tables: Reader<Snapshot>,
    pipeline: Pipeline,
    ports: WorkerPorts,
    verdicts: Vec<Verdict>,
    idle_sleep: Duration,
    clock: Clock,
    now: Tick,
}

impl Runner {
    pub(super) fn new(
        mailbox: Mailbox,
        rest: Rest,
        tables: Reader<Snapshot>,
        pipeline: Pipeline,
        clock: Clock,
        idle_sleep: Duration,
    ) -> Self {
        let (ports, verdicts) = (WorkerPorts::new(), Vec::with_capacity(BURST));
        Self { mailbox, rest, tables, pipeline, ports, verdicts, idle_sleep, clock, now: clock.tick() }
    }

    /// Polls until told to stop.
    pub(super) fn run(mut self) {
        // A sleep of 50 microseconds would otherwise take twice as long; if the kernel refuses, it does.
        let _ = nix::sys::prctl::set_timerslack(1);
        let mut burst = Burst::new();
        let mut dropped = Burst::new();
        let (mut rounds, mut empty) = (0_u32, 0_u32);
        loop {
            let begin = tsc::now();
            if !self.obey() {
                return;
            }
            let packets = self.round(&mut burst, &mut dropped);
            rounds = rounds.wrapping_add(1);
            empty = if packets == 0 { empty.saturating_add(1) } else { 0 };
            let is_woken = self.ports.are_watched();
            let resting = empty > if is_woken { EMPTY_ROUNDS_IF_WOKEN } else { EMPTY_ROUNDS };
            if resting || rounds % HOUSEKEEPING == 0 {
                self.keep_house();
            }
            self.pipeline.counters().polled(packets, tsc::now().wrapping_sub(begin));
            if resting && !self.idle_sleep.is_zero() {
                self.tables.park();
                if is_woken {
                    self.rest.rest(LONGEST_REST);
                } else {
                    thread::sleep(self.idle_sleep);
                }
            }
        }
    }

    /// One round over all queues; returns how many packets there were.
    fn round(&mut self, burst: &mut Burst<BURST>, dropped: &mut Burst<BURST>) -> u64 {
        let Self { mailbox, tables, pipeline, ports, verdicts, now, .. } = self;
        let tables = tables.pin();
        let mut packets = 0;
        for queue in 0..ports.polled() {
            let port = ports.rx(queue, burst, pipeline.counters());
            if burst.is_empty() {
                continue;
            }
            packets += burst.len() as u64;
            pipeline.process(tables, *now, port, burst, verdicts);
            for (packet, verdict) in burst.drain().zip(verdicts.iter()) {
                let unwanted = match *verdict {
                    Verdict::Send(out) => ports.send(out, packet, port, pipeline.counters()),
                    Verdict::Drop(_) => Some(packet),
                    Verdict::Learned(neighbour) => {
                        mailbox.learn(neighbour);
                        Some(packet)
                    }
                };
                // Never more than were received, so there is room.
                let _ = unwanted.map(|packet| dropped.push(packet));
            }
            dropped.clear();
        }
        ports.flush(pipeline.counters());
        packets
    }

    /// Does what the control thread has asked for since the last round; false if that is to stop. Looked at in every
    /// round: with a flood of packets and a busy machine, sixty rounds can take most of a second.
    #[inline]
    fn obey(&mut self) -> bool {
        while let Some(order) = self.mailbox.next_order() {
            let done = match order {
                Order::Take(port) => {
                    let index = port.index;
                    self.ports.take(port, &self.rest);
                    Done::Taken(index)
                }
                Order::Return(index) => Done::Returned(index, self.ports.give_back(index, &self.rest)),
            };
            self.mailbox.report(done);
        }
        for _ in 0..INJECTED {
            let Some((port, frame)) = self.mailbox.next_injected() else { break };
            // Sent at the end of the round; one whose port has left is freed here.
            let _ = self.ports.send(port, frame, port, self.pipeline.counters());
        }
        !self.mailbox.is_stopped()
    }

    /// What is done from time to time.
    fn keep_house(&mut self) {
        self.now = self.clock.tick();
        self.pipeline.age(self.tables.pin(), self.now);
    }
}
