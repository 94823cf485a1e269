//! Workers: threads that poll their ports and do nothing else.
//!
//! # Who polls what
//! Each port can be sent to by every worker, through a transmit queue of its own. The uplink is polled by all of them, a
//! receive queue each: the device spreads packets by addresses and ports, of tunnels by those outside, where the source
//! port differs from flow to flow; fragments by addresses alone. For taps the kernel spreads flows by a hash of its own. A
//! pod's port is polled by one worker, all of its queues: the least busy when it came; or, if so configured, by all workers
//! too.
//!
//! Either way a flow's packets of one direction come to one worker, in order. That both directions come to the same one is
//! not needed, as flow tables are shared; so nothing depends on how symmetric a device's hash is, and no ring between
//! workers is needed either.
//!
//! # A round
//! Look for orders and frames of the control thread. Take the current [`Snapshot`]; for each polled port receive a burst,
//! run it through the [`Pipeline`], and put the packets aside by the port they leave through, unless many leave together; at the
//! end of the round one transmit burst per port. Every 64 rounds: read the clock, age some flows.
//!
//! [`Snapshot`]: crate::table::Snapshot
//! [`Pipeline`]: crate::pipeline::Pipeline
//!
//! Nothing here allocates, locks, logs or makes a system call, with two exceptions: what a driver does, and rest.
//!
//! # Rest
//! A worker that finds nothing sleeps, so that an idle fast path takes no CPU from others. Of taps the kernel says which
//! have packets, and only those are polled: a node may have hundreds. Of packet sockets it says so, too. If a worker polls nothing
//! else, it waits whenever none has: awake for a moment (`busyPollMicroseconds`), if packets have come that soon of late, then
//! asleep, and the next packet wakes it.
//!
//! Devices of DPDK are polled in every round. After 1024 rounds without a packet they are told to raise an interrupt at the
//! next one; another round looks whether one came before that; and if not, the worker waits as above. While it is awake there
//! are no interrupts. With a device that has none it cannot be woken, and sleeps for a moment (`idleSleepMicroseconds`) instead,
//! which is how long the next packet waits at most; the next thousand rounds are polled without rest.

mod forwarder;
mod mailbox;
mod patience;
mod port;
mod rest;
mod runner;
mod scheduling;
mod team;

use std::time::Duration;

pub use forwarder::Forwarder;
pub use port::WorkerPort;
pub use scheduling::Scheduling;
pub use team::{Polling, Recruit, Team, WorkerError};

/// Most packets received from a port at once.
pub const BURST: usize = 128;

/// Rounds from one housekeeping to the next; a power of two.
const HOUSEKEEPING: u32 = 64;

/// Rounds without a packet after which a worker rests.
const EMPTY_ROUNDS: u32 = 1024;

/// How workers rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resting {
    /// How long one rests that no packet can wake; with zero none ever rests.
    pub idle_sleep: Duration,
    /// How long one goes on to wait awake that a packet would wake.
    pub busy_poll: Duration,
}

/// How long it rests at most if packets wake it up: there are flows to be aged.
const LONGEST_REST: Duration = Duration::from_millis(100);

const _: () = assert!(HOUSEKEEPING.is_power_of_two() && EMPTY_ROUNDS >= HOUSEKEEPING);
