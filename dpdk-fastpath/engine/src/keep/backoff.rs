//! When to start again.

use std::time::Duration;

/// A forwarder that lived for as long was well.
const WELL: Duration = Duration::from_secs(10);

/// Wait before the second start in a row; doubles with each further one, up to the longest.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// After as many forwarders in a row that did not live long, what was kept of flows and tables is under suspicion.
const SUSPICIOUS: u32 = 3;

/// Counts failures in a row.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A forwarder ended that had lived for so long. Returns how long to wait before the next: not at all after the first
    /// failure.
    pub(super) fn ended(&mut self, lived: Duration) -> Duration {
        self.failures = if lived >= WELL { 1 } else { self.failures + 1 };
        match self.failures {
            ..=1 => Duration::ZERO,
            // 2^7 times the first is more than the longest.
            failures => (FIRST * (1 << (failures - 2).min(7))).min(LONGEST),
        }
    }

    /// Whether the next forwarder is to start without flows and tables: every third of a row.
    pub(super) fn is_suspicious(self) -> bool {
        self.failures > 0 && self.failures.is_multiple_of(SUSPICIOUS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_restart_is_at_once_and_the_next_ones_wait_ever_longer() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.ended(SOON).as_millis()).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000, 10000, 10000]);
        assert_eq!(backoff.ended(WELL), Duration::ZERO);
        assert_eq!(backoff.ended(SOON), FIRST);
    }

    #[test]
    fn three_short_lives_in_a_row_are_suspicious() {
        let mut backoff = Backoff::default();
        assert!(!backoff.is_suspicious());
        let mut suspicious = |lived| {
            backoff.ended(lived);
            backoff.is_suspicious()
        };
        assert_eq!([SOON; 6].map(&mut suspicious), [false, false, true, false, false, true]);
        assert_eq!([WELL, SOON, WELL, SOON, SOON].map(&mut suspicious), [false, false, false, false, true]);
    }
}
