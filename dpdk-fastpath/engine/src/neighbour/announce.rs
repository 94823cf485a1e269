//! Telling the link where our addresses are.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Announcements of one address: `ANNOUNCE_NUM` of RFC 5227, section 1.1.
const TIMES: u32 = 2;
/// Between them: `ANNOUNCE_INTERVAL`.
const INTERVAL: Duration = Duration::from_secs(2);

/// Which of our addresses are still to be announced.
#[derive(Debug, Default)]
pub struct Announcements {
    addresses: Vec<(IpAddr, Schedule)>,
}

#[derive(Debug, Clone, Copy)]
struct Schedule {
    left: u32,
    due: Instant,
}

impl Announcements {
    /// These are our addresses from now on. Those that are new are announced, twice.
    pub fn follow(&mut self, now: Instant, addresses: impl IntoIterator<Item = IpAddr>) {
        let old = std::mem::take(&mut self.addresses);
        let schedule = |address| {
            let known = old.iter().find(|(known, _)| *known == address);
            known.map_or(Schedule { left: TIMES, due: now }, |(_, schedule)| *schedule)
        };
        self.addresses = addresses.into_iter().map(|address| (address, schedule(address))).collect();
    }

    /// The addresses to announce now.
    pub fn poll(&mut self, now: Instant) -> impl Iterator<Item = IpAddr> + '_ {
        let due =
            self.addresses.iter_mut().filter(move |(_, schedule)| schedule.left > 0 && schedule.due <= now);
        due.map(move |(address, schedule)| {
            *schedule = Schedule { left: schedule.left - 1, due: now + INTERVAL };
            *address
        })
    }

    /// When there is something to announce next.
    pub fn next_due(&self) -> Option<Instant> {
        self.addresses
            .iter()
            .filter(|(_, schedule)| schedule.left > 0)
            .map(|(_, schedule)| schedule.due)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_address_is_announced_twice_two_seconds_apart_and_never_again() {
        let [a, b]: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let start = Instant::now();
        let mut announcements = Announcements::default();
        let announced = |announcements: &mut Announcements, seconds| -> Vec<IpAddr> {
            announcements.poll(start + Duration::from_secs(seconds)).collect()
        };
        announcements.follow(start, [a]);
        assert_eq!(announced(&mut announcements, 0), [a]);
        assert!(announced(&mut announcements, 1).is_empty());
        announcements.follow(start + Duration::from_secs(1), [a, b]);
        assert_eq!(announced(&mut announcements, 1), [b]);
        assert_eq!(announced(&mut announcements, 2), [a]);
        assert_eq!(announcements.next_due(), Some(start + Duration::from_secs(3)));
        assert_eq!(announced(&mut announcements, 60), [b]);
        assert_eq!(announcements.next_due(), None);
        announcements.follow(start + Duration::from_secs(61), [b, a]);
        assert_eq!(announcements.next_due(), None);
    }
}
