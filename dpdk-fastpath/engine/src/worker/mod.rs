//! Workers: threads that poll their ports and do nothing else.
//!
//! # Who polls what
//! Each port is polled by one worker and can be sent to by every worker, through a transmit queue of its own. net_tap
//! insists on as many receive as transmit queues, and the kernel spreads what it sends over them; so a port has as many
//! of both as there are workers, and its one worker polls all of its receive queues. That keeps a flow's packets in
//! order whatever queue they come through, and needs no ring between workers.
//!
//! # A round
//! Look for orders and frames of the control thread. Take the current [`Snapshot`]; for each polled port receive a burst,
//! run it through the [`Pipeline`], and put the packets aside by the port they leave through; at the end of the round one
//! transmit burst per port. Every 64 rounds: read the clock, age some flows.
//!
//! [`Snapshot`]: crate::table::Snapshot
//! [`Pipeline`]: crate::pipeline::Pipeline
//!
//! Nothing here allocates, locks, logs or makes a system call, with two exceptions: what a driver does, and rest.
//!
//! # Rest
//! A worker that has found nothing for a while sleeps, so that an idle fast path takes no CPU from others. If all that it
//! polls are taps, the kernel wakes it with the next packet. Otherwise it sleeps for a moment (`idleSleepMicroseconds`)
//! after 1024 rounds without a packet, which is how long the next one waits at most; the next thousand rounds are polled
//! without rest.

mod forwarder;
mod mailbox;
mod port;
mod rest;
mod runner;
mod team;

use std::time::Duration;

pub use forwarder::Forwarder;
pub use port::WorkerPort;
pub use team::{Recruit, Team, WorkerError};

/// Most packets received from a port at once.
pub const BURST: usize = 64;

/// Rounds from one housekeeping to the next; a power of two.
const HOUSEKEEPING: u32 = 64;

/// Rounds without a packet after which a worker rests.
const EMPTY_ROUNDS: u32 = 1024;

/// The same, if a packet wakes it up.
const EMPTY_ROUNDS_IF_WOKEN: u32 = 16;

/// How long it rests then, at most: there are flows to be aged.
const LONGEST_REST: Duration = Duration::from_millis(100);

const _: () = assert!(HOUSEKEEPING.is_power_of_two() && EMPTY_ROUNDS >= HOUSEKEEPING);
