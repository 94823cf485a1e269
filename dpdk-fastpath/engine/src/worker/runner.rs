//! A worker's loop.

use std::thread;
use std::time::Duration;

use culvert_dpdk::tsc;

use super::forwarder::Forwarder;
use super::mailbox::{Done, Mailbox, Order};
use super::patience::Patience;
use super::port::WorkerPorts;
use super::rest::Rest;
use super::{EMPTY_ROUNDS, HOUSEKEEPING, LONGEST_REST, Resting};
use crate::clock::Clock;
use crate::flow::Tick;
use crate::keep::Beat;
use crate::pipeline::Pipeline;
use crate::quiescent::Reader;
use crate::table::Snapshot;

/// Between two looks at what a worker is to do that is held.
const HELD: Duration = Duration::from_micros(50);

/// Frames of the control thread sent in one round.
const INJECTED: usize = 8;

/// A worker.
pub(super) struct Runner {
    mailbox: Mailbox,
    rest: Rest,
    tables: Reader<Snapshot>,
    forwarder: Forwarder,
    beat: Beat,
    idle_sleep: Duration,
    patience: Patience,
    clock: Clock,
    now: Tick,
}

impl Runner {
    pub(super) fn new(
        mailbox: Mailbox,
        rest: Rest,
        tables: Reader<Snapshot>,
        pipeline: Pipeline,
        beat: Beat,
        clock: Clock,
        resting: Resting,
    ) -> Self {
        let forwarder = Forwarder::new(pipeline);
        let Resting { idle_sleep, busy_poll } = resting;
        let patience = Patience::new(clock.cycles(busy_poll), clock.cycles(Duration::from_secs(1)));
        Self { mailbox, rest, tables, forwarder, beat, idle_sleep, patience, clock, now: clock.tick() }
    }

    /// Polls until told to stop.
    pub(super) fn run(mut self) {
        // A sleep of 50 microseconds would otherwise take twice as long; if the kernel refuses, it does.
        let _ = nix::sys::prctl::set_timerslack(1);
        self.beat.begin();
        let (mut rounds, mut empty, mut slept) = (0_u32, 0_u32, false);
        loop {
            let begin = tsc::now();
            self.beat.beat();
            if !self.obey() {
                return;
            }
            if self.mailbox.is_held() {
                self.tables.park();
                thread::sleep(HELD);
                continue;
            }
            let Self { mailbox, tables, forwarder, now, patience, .. } = &mut self;
            let bytes = forwarder.pipeline.bytes();
            let packets = forwarder.round(tables.pin(), *now, |learned| mailbox.learn(learned));
            if packets > 0 {
                patience.took(forwarder.pipeline.bytes().wrapping_sub(bytes));
            }
            rounds = rounds.wrapping_add(1);
            let takes_over = forwarder.pipeline.take_over(tables.pin(), *now, packets == 0);
            empty = if packets == 0 && !takes_over { empty.saturating_add(1) } else { 0 };
            if rounds % HOUSEKEEPING == 0 || slept {
                self.keep_house(slept);
            }
            let Self { forwarder, tables, now, .. } = &mut self;
            forwarder.pipeline.review_shortcut(tables.pin(), *now, slept);
            self.forwarder.pipeline.counters().polled(packets, tsc::now().wrapping_sub(begin));
            slept = self.rest(empty);
        }
    }

    /// Rests if there is nothing to do, as it seems after so many rounds without a packet, and finds out which of the
    /// watched queues have packets. Whether it slept, and nothing has come.
    #[inline]
    fn rest(&mut self, empty: u32) -> bool {
        let ports = &mut self.forwarder.ports;
        let watched = ports.are_watched();
        let awake = self.idle_sleep.is_zero() || empty <= EMPTY_ROUNDS && !watched;
        if awake {
            ports.disarm();
        }
        // What came before interrupts were on raises none: so another round looks.
        if awake || !watched && !ports.are_armed() && ports.arm() {
            if ports.any_watched() {
                ports.rest(&self.rest, Duration::ZERO);
            }
            return false;
        }
        self.tables.park();
        let slept = if watched || ports.are_armed() {
            let most = self.forwarder.pipeline.longest_rest().unwrap_or(LONGEST_REST);
            !wait(ports, &self.rest, &mut self.patience, most)
        } else {
            thread::sleep(self.idle_sleep);
            ports.rest(&self.rest, Duration::ZERO);
            true
        };
        ports.disarm();
        self.now = self.clock.tick();
        slept
    }

    /// Does what the control thread has asked for since the last round; false if that is to stop. Looked at in every
    /// round: with a flood of packets and a busy machine, sixty rounds can take most of a second.
    #[inline]
    fn obey(&mut self) -> bool {
        while let Some(order) = self.mailbox.next_order() {
            let done = match order {
                Order::Take(port) => {
                    let index = port.index;
                    self.forwarder.ports.take_watched(port, &self.rest);
                    Done::Taken(index)
                }
                Order::Return(index) => {
                    Done::Returned(index, self.forwarder.ports.give_back(index, &self.rest))
                }
            };
            self.mailbox.report(done);
        }
        for _ in 0..INJECTED {
            let Some((port, frame)) = self.mailbox.next_injected() else { break };
            // Sent at the end of the round; one whose port has left is freed here.
            let _ = self.forwarder.send(port, frame);
        }
        !self.mailbox.is_stopped()
    }

    /// What is done from time to time.
    fn keep_house(&mut self, idle: bool) {
        self.now = self.clock.tick();
        self.forwarder.pipeline.age(self.tables.pin(), self.now, idle);
    }
}

/// Waits until a watched queue has packets, awake or asleep; `false` if none has for about as long as `most`.
#[inline]
fn wait(ports: &mut WorkerPorts, rest: &Rest, patience: &mut Patience, most: Duration) -> bool {
    let begin = tsc::now();
    let awake = patience.awake(begin);
    while tsc::now().wrapping_sub(begin) < awake {
        // Whoever has something to do on this CPU goes first.
        thread::yield_now();
        if ports.rest(rest, Duration::ZERO) {
            let now = tsc::now();
            patience.came_awake(now, now.wrapping_sub(begin));
            return true;
        }
    }
    let came = ports.rest(rest, most);
    patience.slept(tsc::now().wrapping_sub(begin));
    came
}
