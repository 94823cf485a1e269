//! From two counts to a rate.

use culvert_api::fastpath::Counters;

/// Time between two samples, by the clock of the process that counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    cycles: f64,
    cycles_per_second: f64,
}

impl Span {
    /// `None` if different processes took them, or no time has passed.
    pub(super) fn between(before: &Counters, after: &Counters) -> Option<Self> {
        let cycles = after.cycles.checked_sub(before.cycles).filter(|cycles| *cycles > 0)?;
        let same = before.instance == after.instance && after.cycles_per_second > 0;
        same.then_some(Self { cycles: cycles as f64, cycles_per_second: after.cycles_per_second as f64 })
    }

    pub(super) const fn cycles(self) -> f64 {
        self.cycles
    }

    pub(super) const fn cycles_per_second(self) -> f64 {
        self.cycles_per_second
    }

    pub(super) fn seconds(self) -> f64 {
        self.cycles / self.cycles_per_second
    }

    /// A second, of what has been counted up to then and now.
    pub(super) fn rate(self, then: u64, now: u64) -> f64 {
        rounded(grown(then, now) as f64 / self.seconds())
    }

    /// Bits a second, of bytes that have been counted.
    pub(super) fn bit_rate(self, then: u64, now: u64) -> f64 {
        rounded(8.0 * grown(then, now) as f64 / self.seconds())
    }
}

/// By how much a count has grown. One that is less than it was has begun anew: a port went, another came under its name.
pub(super) fn grown(then: u64, now: u64) -> u64 {
    now.checked_sub(then).unwrap_or(now)
}

/// To a thousandth: more digits would be noise.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
