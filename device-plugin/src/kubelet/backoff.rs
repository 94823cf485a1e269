//! Growing pauses between attempts.

use std::time::Duration;

/// Pauses that double from [`Backoff::FIRST`] to [`Backoff::LONGEST`].
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Backoff {
    /// Short: kubelet creates its socket a moment before it listens on it.
    pub(super) const FIRST: Duration = Duration::from_millis(10);
    pub(super) const LONGEST: Duration = Duration::from_secs(5);

    pub(super) fn new() -> Self {
        Self(Self::FIRST)
    }

    /// The next pause.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(Self::LONGEST);
        pause
    }

    pub(super) fn reset(&mut self) {
        self.0 = Self::FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_over_after_a_reset() {
        let mut backoff = Backoff::new();
        let pauses: Vec<u128> = (0..11).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000]);
        backoff.reset();
        assert_eq!(backoff.next(), Backoff::FIRST);
    }
}
