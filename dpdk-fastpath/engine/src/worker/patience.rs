//! Whether a worker waits for the next packet awake.

/// In a row so many rounds that had something to do so soon, and so much of it, show that a bulk transfer is under way.
const QUICK_ONES: u32 = 8;

/// Parts of a second: rounds that follow each other faster than that are better slept over, which makes one of them.
const QUICK: u64 = 125_000;

/// Bytes of a round that are much.
const BULK: u64 = 8192;

/// Parts of a second for which a worker does not wait awake after that was no good.
const DISCOURAGED: u64 = 500;

/// Decides how a worker waits that could sleep, since the next packet would wake it.
///
/// To fall asleep and to be woken takes longer than a packet's whole way, and who wakes it pays the most. So a worker waits
/// awake for a while if packets have come that soon of late, and lets others have its CPU between two looks. It sleeps at once
/// where that is better:
/// - if the last packet took longer than that while to come, as on an idle node;
/// - if others kept the CPU for longer than that: who sleeps is woken in between them, who waits awake is not;
/// - if so much comes so fast that the CPU is better left to whoever sends it. Of small packets each is waited for by someone,
///   and those are never that much.
#[derive(Debug)]
pub(super) struct Patience {
    /// How long it waits awake, in cycles of the time stamp counter, as are all times here.
    most: u64,
    quick: u64,
    discouraged: u64,
    /// Whether packets have come within that time of late.
    hopeful: bool,
    /// Rounds in a row with much to do that came quickly.
    quick_ones: u32,
    /// Whether the last round with packets had much to do.
    bulk: bool,
    /// Until then it sleeps at once.
    sleeps_until: u64,
}

impl Patience {
    /// `most` cycles awake, none of them if 0, of `hz` per second.
    pub(super) const fn new(most: u64, hz: u64) -> Self {
        Self {
            most,
            quick: hz / QUICK,
            discouraged: hz / DISCOURAGED,
            hopeful: false,
            quick_ones: 0,
            bulk: false,
            sleeps_until: 0,
        }
    }

    /// How long to wait awake from `now` on.
    pub(super) const fn awake(&self, now: u64) -> u64 {
        if self.hopeful && now >= self.sleeps_until { self.most } else { 0 }
    }

    /// A round with packets had so many bytes of them.
    pub(super) const fn took(&mut self, bytes: u64) {
        self.bulk = bytes >= BULK;
    }

    /// A packet came `waited` cycles after the wait began, and the worker was awake.
    pub(super) const fn came_awake(&mut self, now: u64, waited: u64) {
        self.quick_ones = if self.bulk && waited < self.quick { self.quick_ones + 1 } else { 0 };
        if waited > self.most || self.quick_ones == QUICK_ONES {
            self.quick_ones = 0;
            self.sleeps_until = now.saturating_add(self.discouraged);
        }
    }

    /// The worker has slept, and the whole wait took `waited` cycles.
    pub(super) const fn slept(&mut self, waited: u64) {
        self.hopeful = waited < self.most;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u64 = 2_000_000_000;
    const MICROSECOND: u64 = HZ / 1_000_000;
    const MOST: u64 = 50 * MICROSECOND;

    /// After a packet that came soon.
    fn hopeful() -> Patience {
        let mut patience = Patience::new(MOST, HZ);
        patience.slept(30 * MICROSECOND);
        patience
    }

    #[test]
    fn a_worker_waits_awake_only_if_the_last_packet_came_soon() {
        let mut patience = Patience::new(MOST, HZ);
        assert_eq!(patience.awake(1), 0);
        patience.slept(49 * MICROSECOND);
        assert_eq!(patience.awake(2), MOST);
        patience.came_awake(3, 20 * MICROSECOND);
        assert_eq!(patience.awake(4), MOST);
        patience.slept(1000 * MICROSECOND);
        assert_eq!(patience.awake(5), 0);
    }

    #[test]
    fn a_worker_whose_cpu_others_want_sleeps() {
        let mut patience = hopeful();
        patience.came_awake(1000, 51 * MICROSECOND);
        assert_eq!(patience.awake(1001), 0);
        assert_eq!(patience.awake(1000 + HZ / DISCOURAGED), MOST, "tries again later");
    }

    #[test]
    fn bulk_is_slept_over_and_small_packets_are_not() {
        let mut patience = hopeful();
        patience.took(BULK - 1);
        for n in 0..1000 {
            patience.came_awake(n, 7 * MICROSECOND);
            assert_eq!(patience.awake(n), MOST);
        }
        patience.took(BULK);
        for n in 0..QUICK_ONES {
            assert_eq!(patience.awake(n.into()), MOST);
            patience.came_awake(n.into(), 7 * MICROSECOND);
        }
        assert_eq!(patience.awake(100), 0);
        let mut patience = hopeful();
        patience.took(BULK);
        for n in 0..1000 {
            patience.came_awake(n, if n % 5 == 0 { 9 } else { 7 } * MICROSECOND);
            assert_eq!(patience.awake(n), MOST, "one in five is not quick");
        }
    }

    #[test]
    fn with_no_time_to_wait_awake_a_worker_always_sleeps() {
        let mut patience = Patience::new(0, HZ);
        patience.slept(0);
        assert_eq!(patience.awake(1), 0);
    }
}
