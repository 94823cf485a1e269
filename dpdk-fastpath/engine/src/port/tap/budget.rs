//! How much a port may hand over in a round.

/// A port's share of a round, in bytes: deficit round robin (Shreedhar and Varghese, SIGCOMM 1995), except that a port may
/// overdraw by its last packet, which the next round takes off. Packets are counted by the burst they go into; this is for
/// those of 64 KB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    quantum: i32,
    credit: i32,
}

impl Budget {
    /// So much in each round that there is no end to it.
    pub const UNLIMITED: Self = Self::of(i32::MAX as u32 / 2);

    /// So many bytes in each round.
    pub const fn of(bytes: u32) -> Self {
        let quantum = if bytes > i32::MAX as u32 / 2 { i32::MAX / 2 } else { bytes as i32 };
        Self { quantum, credit: 0 }
    }

    /// A round begins. What was not used in the last one is not saved up.
    #[inline]
    pub fn refill(&mut self) {
        self.credit = self.credit.min(0) + self.quantum;
    }

    /// Takes off a packet's bytes.
    #[inline]
    pub fn spend(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_sub_unsigned(bytes as u32);
    }

    /// Whether nothing is left for this round.
    #[inline]
    pub const fn is_spent(self) -> bool {
        self.credit <= 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that a port with packets of one length hands over in so many rounds.
    fn handed_over(quantum: u32, packet: usize, rounds: usize) -> usize {
        let (mut budget, mut bytes) = (Budget::of(quantum), 0);
        for _ in 0..rounds {
            budget.refill();
            while !budget.is_spent() {
                budget.spend(packet);
                bytes += packet;
            }
        }
        bytes
    }

    #[test]
    fn ports_get_the_same_however_long_their_packets_are() {
        for packet in [60, 1514, 9014, 65_549] {
            let bytes = handed_over(100_000, packet, 1000);
            assert!(bytes.abs_diff(100_000_000) <= packet, "packets of {packet} bytes: {bytes}");
        }
    }

    #[test]
    fn a_packet_longer_than_the_budget_passes_and_is_paid_for_later() {
        assert_eq!(handed_over(1000, 5000, 5), 5000);
        assert_eq!(handed_over(1000, 5000, 6), 10_000);
    }

    #[test]
    fn an_idle_port_saves_nothing_up() {
        let mut budget = Budget::of(1000);
        (0..100).for_each(|_| budget.refill());
        budget.spend(1000);
        assert!(budget.is_spent());
        assert!(!Budget { credit: 1, ..Budget::UNLIMITED }.is_spent());
    }
}
