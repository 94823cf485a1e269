//! How many ICMP errors may leave (RFC 1812, section 4.3.2.8; RFC 4443, section 2.4 f).

use crate::flow::Tick;
use crate::table::{MAX_PORTS, PortIndex};

/// The errors that a worker has sent to each port in the present tick, so that one sender who provokes them does not take
/// them from the others, whose path MTU discovery needs them.
#[derive(Debug)]
pub(super) struct Allowances(Box<[(Tick, u32)]>);

impl Allowances {
    pub(super) fn new() -> Self {
        Self(vec![(Tick::default(), 0); MAX_PORTS].into())
    }

    /// Whether another error may go to a port that gets `per_second` of them. Those of one tick may go all at once.
    pub(super) fn has_left(&self, port: PortIndex, now: Tick, per_second: u32) -> bool {
        self.0.get(usize::from(port.0)).is_some_and(|&(tick, sent)| {
            tick != now && per_second > 0 || u64::from(sent) < u64::from(per_second) * Tick::SECONDS
        })
    }

    /// Notes that an error goes to a port.
    pub(super) fn spend(&mut self, port: PortIndex, now: Tick) {
        if let Some((tick, sent)) = self.0.get_mut(usize::from(port.0)) {
            *sent = if *tick == now { sent.saturating_add(1) } else { 1 };
            *tick = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_port_has_its_errors_per_second_whatever_the_others_do() {
        let mut allowances = Allowances::new();
        let mut sent = |port, seconds, tries| {
            let now = Tick::at(Duration::from_secs(seconds));
            let take = |_: &usize| {
                let left = allowances.has_left(PortIndex(port), now, 10);
                if left {
                    allowances.spend(PortIndex(port), now);
                }
                left
            };
            (0..tries).filter(take).count()
        };
        assert_eq!(sent(1, 100, 1000), 20);
        assert_eq!(sent(1, 101, 1000), 0, "the same tick");
        assert_eq!(sent(2, 101, 7), 7);
        assert_eq!(sent(1, 102, 1000), 20);
        assert_eq!(sent(2, 102, 1000), 20);
        assert_eq!(sent(MAX_PORTS as u16, 102, 1), 0, "no such port");
        let now = Tick::at(Duration::from_secs(200));
        assert!(!Allowances::new().has_left(PortIndex(1), now, 0), "none at all");
    }
}
