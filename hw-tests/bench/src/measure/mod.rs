//! What one work costs, beside plain io.
//!
//! The engine and plain io take turns on the same queues, the same packets and the same CPUs, in the same threads, so that
//! whatever disturbs the machine disturbs both.

mod misses;
mod team;
mod worker;

use std::sync::Arc;

use culvert_dpdk::Eal;
use culvert_dpdk::lcore::{self, LcoreError};

pub(crate) use self::misses::Misses;
use self::team::{Stopped, Team};
use self::worker::{Runs, Worker};
use crate::reference::Wrong;
use crate::rig::Rig;
use crate::scene::Scene;
use crate::work::Work;

/// How long, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) runs: usize,
    pub(crate) seconds: f64,
    pub(crate) warmup: f64,
    /// Cycles to wait for each packet in place of the work.
    pub(crate) pause: Option<u16>,
    /// Packets that are compared with the reference, before and after.
    pub(crate) sample: usize,
}

/// One run, of one worker or of all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) packets: u64,
    /// TSC cycles, of all workers.
    pub(crate) cycles: u64,
}

impl Run {
    pub(crate) fn cycles_per_packet(self) -> f64 {
        self.cycles as f64 / self.packets as f64
    }

    const fn plus(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, cycles: self.cycles + other.cycles }
    }
}

/// All runs of one work.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    /// Receive and transmit only.
    pub(crate) io: Vec<Run>,
    /// The work, each run in turns with the one of `io`.
    pub(crate) work: Vec<Run>,
    /// Per packet of the work, over all runs; only where all workers have counters.
    pub(crate) misses: Option<Misses>,
    /// Packets that were compared with the reference, all of them right.
    pub(crate) checked: usize,
}

/// Why a measurement does not count.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeasureError {
    #[error(transparent)]
    Worker(#[from] LcoreError),
    #[error("a worker panicked")]
    Panic,
    #[error("nothing was received: is there memory for the packets?")]
    Silence,
    #[error("the engine did its work wrong: packet {nth} of the sample")]
    Wrong { nth: usize, source: Wrong },
    #[error("packet {nth} of the sample was not sent on: {verdict}")]
    NotSent { nth: usize, verdict: String },
    #[error("{lost} of {packets} packets were not sent on: {why}")]
    Lost { lost: u64, packets: u64, why: String },
    #[error("{packets} packets opened {opened} flows")]
    NotOpened { packets: u64, opened: u64 },
}

/// Measures a work with one worker on each of `cpus`. The queues are gone afterwards, so that the rig can be removed.
pub(crate) fn measure(
    eal: &Eal,
    work: Work,
    scene: Scene,
    rig: &mut Rig,
    cpus: &[u32],
    plan: Plan,
) -> Result<Measured, MeasureError> {
    let team = Arc::new(Team::new(work, cpus.len()));
    let (workers, publisher) = Worker::all(eal, work, scene, rig, &team);
    let mut threads = Vec::new();
    for (worker, &cpu) in workers.into_iter().zip(cpus) {
        match lcore::spawn(eal, "bench", cpu, move |_| worker.run(plan)) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                // Those that have started wait for it.
                team.give_up(error.into());
                break;
            }
        }
    }
    let mut measured = Measured { misses: Some(Misses::default()), ..Measured::default() };
    for thread in threads {
        match thread.join() {
            Ok(Ok(Runs { pairs, misses })) => {
                measured.misses = measured.misses.zip(misses).map(|(sum, misses)| sum.plus(misses));
                measured.io.resize(pairs.len(), Run::default());
                measured.work.resize(pairs.len(), Run::default());
                for (n, (io, work)) in pairs.into_iter().enumerate() {
                    measured.io[n] = measured.io[n].plus(io);
                    measured.work[n] = measured.work[n].plus(work);
                }
            }
            Ok(Err(Stopped)) => {}
            Err(_) => team.give_up(MeasureError::Panic),
        }
    }
    drop(publisher);
    let packets: u64 = measured.work.iter().map(|run| run.packets).sum();
    measured.misses = measured.misses.map(|misses| misses.times(1.0 / packets as f64));
    measured.checked = team.finish()?;
    Ok(measured)
}
