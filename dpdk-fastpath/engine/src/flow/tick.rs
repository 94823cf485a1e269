//! Coarse time.

use std::time::Duration;

/// A moment in steps of two seconds, modulo 2^16 steps: 36 hours. A flow is looked at far more often than that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tick(u16);

impl Tick {
    /// Seconds per step.
    pub const SECONDS: u64 = 2;

    /// The step at some time after a fixed moment, such as the start of the process.
    pub const fn at(elapsed: Duration) -> Self {
        Self((elapsed.as_secs() / Self::SECONDS) as u16)
    }

    pub(super) const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    pub(crate) const fn bits(self) -> u16 {
        self.0
    }

    /// Seconds from `earlier` to this moment, less than one step too many or too few.
    pub const fn seconds_since(self, earlier: Self) -> u64 {
        self.0.wrapping_sub(earlier.0) as u64 * Self::SECONDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_survive_the_turn_of_the_counter() {
        let before = Tick::at(Duration::from_secs(2 * 0xffff));
        let after = Tick::at(Duration::from_secs(2 * 0x1_0009));
        assert_eq!(after.seconds_since(before), 20);
        assert_eq!(after.seconds_since(after), 0);
    }
}
