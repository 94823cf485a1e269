//! Coarse time for flows, the same for all threads.

use std::time::Duration;

use culvert_dpdk::{Eal, tsc};

use crate::flow::Tick;

/// Counts [`Tick`]s since the first of the processes that took over from each other started, by the CPU's time stamp counter:
/// no system call.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: u64,
    hz: u64,
}

impl Clock {
    /// A clock that starts now.
    pub fn start(eal: &Eal) -> Self {
        Self { start: tsc::now(), hz: tsc::hz(eal).max(1) }
    }

    /// A clock that started when the time stamp counter, which is the same for all processes, was `start`; `None` if that is
    /// yet to come.
    pub fn started_at(eal: &Eal, start: u64) -> Option<Self> {
        (start <= tsc::now()).then(|| Self { start, hz: tsc::hz(eal).max(1) })
    }

    /// The time stamp counter at the start.
    pub const fn start_count(&self) -> u64 {
        self.start
    }

    /// Ticks of the time stamp counter per second.
    pub const fn hz(&self) -> u64 {
        self.hz
    }

    /// So many counts of the time stamp counter.
    pub const fn cycles(&self, time: Duration) -> u64 {
        (time.as_nanos() * self.hz as u128 / 1_000_000_000) as u64
    }

    /// The present tick.
    pub fn tick(&self) -> Tick {
        Tick::at(self.elapsed())
    }

    /// Whole seconds since the start.
    pub fn elapsed(&self) -> Duration {
        Duration::from_secs(tsc::now().wrapping_sub(self.start) / self.hz)
    }
}
