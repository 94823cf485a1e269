//! Where the time of an attachment goes.

use std::fmt;
use std::time::{Duration, Instant};

/// Adds up the time of each kind of work.
#[derive(Debug)]
pub(super) struct Stopwatch {
    last: Instant,
    laps: Vec<(&'static str, Duration)>,
}

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self { last: Instant::now(), laps: Vec::new() }
    }

    /// The time since the start or the last lap was for `work`.
    pub(super) fn lap(&mut self, work: &'static str) {
        let now = Instant::now();
        self.laps.push((work, now - self.last));
        self.last = now;
    }
}

impl fmt::Display for Stopwatch {
    /// `look 1.2 ms, record 0.4 ms, pod 5.1 ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (work, time)) in self.laps.iter().enumerate() {
            let separator = if number == 0 { "" } else { ", " };
            write!(f, "{separator}{work} {:.1} ms", time.as_secs_f64() * 1e3)?;
        }
        Ok(())
    }
}
