use std::net::IpAddr;
use std::time::{Duration, Instant};

use culvert_api::value::Mac;
use proptest::prelude::*;

use super::{Heard, Neighbours, Solicitation, State, Timing};

const SECOND: Duration = Duration::from_secs(1);

/// A table under test with its own clock.
struct Bench {
    neighbours: Neighbours,
    now: Instant,
}

impl Bench {
    fn following(hops: &[&str]) -> Self {
        let mut bench = Self { neighbours: Neighbours::new(Timing::default()), now: Instant::now() };
        bench.follow(hops);
        bench
    }

    fn follow(&mut self, hops: &[&str]) {
        self.neighbours.follow(self.now, hops.iter().map(|hop| ip(hop)));
    }

    fn ask(&mut self) -> Vec<Solicitation> {
        let mut out = Vec::new();
        self.neighbours.poll(self.now, usize::MAX, &mut out);
        out
    }

    fn hear(&mut self, address: &str, last: u8, solicited: bool) -> bool {
        self.neighbours.hear(self.now, Heard { address: ip(address), mac: mac(last), solicited })
    }

    /// Jumps from due time to due time until `until`, collecting the questions.
    fn run_for(&mut self, time: Duration) -> Vec<Solicitation> {
        let end = self.now + time;
        let mut asked = Vec::new();
        while let Some(due) = self.neighbours.next_due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            asked.extend(self.ask());
        }
        self.now = end;
        asked
    }

    fn state(&self, hop: &str) -> (State, Option<Mac>) {
        let (_, state, mac) = self.neighbours.iter().find(|entry| entry.0 == ip(hop)).unwrap();
        (state, mac)
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn mac(last: u8) -> Mac {
    Mac::try_from([2, 0, 0, 0, 0, last]).unwrap()
}

fn to_all(target: &str) -> Solicitation {
    Solicitation { target: ip(target), to: None }
}

#[test]
fn a_new_next_hop_is_asked_for_at_once_and_then_every_second() {
    let mut bench = Bench::following(&["10.0.0.2", "fd00::2"]);
    assert_eq!(bench.ask(), [to_all("10.0.0.2"), to_all("fd00::2")]);
    assert_eq!(bench.ask(), []);
    bench.now += SECOND;
    assert_eq!(bench.ask().len(), 2);
    assert_eq!(bench.state("fd00::2"), (State::Incomplete, None));
}

#[test]
fn one_that_never_answers_fails_after_three_questions_and_is_asked_for_every_two_seconds() {
    let mut bench = Bench::following(&["10.0.0.2"]);
    assert_eq!(bench.run_for(2 * SECOND).len(), 3);
    assert_eq!(bench.run_for(SECOND), [to_all("10.0.0.2")]);
    assert_eq!(bench.state("10.0.0.2"), (State::Failed, None));
    assert_eq!(bench.run_for(50 * SECOND).len(), 25);
    bench.now += 2 * SECOND;
    assert!(bench.neighbours.poll(bench.now, 1, &mut Vec::new()).is_empty(), "a failure is reported once");
    assert!(bench.hear("10.0.0.2", 7, true));
    assert_eq!(bench.state("10.0.0.2"), (State::Reachable, Some(mac(7))));
}

#[test]
fn an_answer_is_good_for_15_to_45_seconds_and_then_confirmed_directly() {
    let mut bench = Bench::following(&["10.0.0.2"]);
    bench.ask();
    assert!(bench.hear("10.0.0.2", 7, true));
    assert_eq!(bench.run_for(14 * SECOND), []);
    let due = bench.neighbours.next_due().unwrap();
    assert!(due - bench.now <= 31 * SECOND);
    bench.now = due;
    assert_eq!(bench.ask(), [Solicitation { target: ip("10.0.0.2"), to: Some(mac(7)) }]);
    assert_eq!(bench.state("10.0.0.2").0, State::Probe);
    assert!(!bench.hear("10.0.0.2", 7, true), "the same address is no change");
    assert_eq!(bench.state("10.0.0.2").0, State::Reachable);
}

#[test]
fn a_silent_neighbour_stays_in_use_until_broadcasts_too_went_unanswered() {
    let mut bench = Bench::following(&["10.0.0.2"]);
    bench.hear("10.0.0.2", 7, true);
    bench.now = bench.neighbours.next_due().unwrap();
    let asked = bench.run_for(5 * SECOND);
    assert_eq!(asked.iter().filter(|question| question.to == Some(mac(7))).count(), 3);
    assert_eq!(asked.iter().filter(|question| question.to.is_none()).count(), 3);
    assert_eq!(bench.state("10.0.0.2"), (State::Incomplete, Some(mac(7))));
    bench.now += SECOND;
    let mut out = Vec::new();
    assert_eq!(bench.neighbours.poll(bench.now, 1, &mut out), [ip("10.0.0.2")], "the failure is reported");
    assert_eq!(bench.state("10.0.0.2"), (State::Failed, None));
}

#[test]
fn an_unasked_announcement_is_used_and_confirmed_at_once() {
    let mut bench = Bench::following(&["10.0.0.2"]);
    bench.hear("10.0.0.2", 7, true);
    assert!(bench.hear("10.0.0.2", 8, false), "a neighbour that moved");
    assert_eq!(bench.state("10.0.0.2"), (State::Stale, Some(mac(8))));
    assert_eq!(bench.ask(), [Solicitation { target: ip("10.0.0.2"), to: Some(mac(8)) }]);
}

#[test]
fn an_unasked_announcement_does_not_renew_what_is_known() {
    let mut bench = Bench::following(&["10.0.0.2"]);
    bench.hear("10.0.0.2", 7, true);
    let due = bench.neighbours.next_due();
    bench.now += SECOND;
    assert!(!bench.hear("10.0.0.2", 7, false));
    assert_eq!(bench.neighbours.next_due(), due);
}

#[test]
fn addresses_nobody_follows_are_not_learned_and_dropped_ones_are_forgotten() {
    let mut bench = Bench::following(&["10.0.0.2", "10.0.0.3"]);
    assert!(!bench.hear("10.0.0.9", 9, true));
    assert_eq!(bench.neighbours.mac(ip("10.0.0.9")), None);
    bench.hear("10.0.0.2", 7, true);
    bench.hear("10.0.0.3", 8, true);
    bench.follow(&["10.0.0.3", "10.0.0.4"]);
    assert_eq!(bench.neighbours.mac(ip("10.0.0.2")), None);
    assert_eq!(bench.state("10.0.0.3"), (State::Reachable, Some(mac(8))));
    assert_eq!(bench.ask(), [to_all("10.0.0.4")]);
    bench.follow(&[]);
    assert_eq!(bench.neighbours.next_due(), None);
}

#[test]
fn what_exceeds_the_limit_of_one_turn_is_asked_in_the_next() {
    let hops: Vec<String> = (0..10).map(|n| format!("10.0.0.{n}")).collect();
    let mut bench = Bench::following(&hops.iter().map(String::as_str).collect::<Vec<_>>());
    let mut asked = Vec::new();
    for expected in [4, 8, 10, 10] {
        bench.neighbours.poll(bench.now, 4, &mut asked);
        assert_eq!(asked.len(), expected);
    }
    asked.sort_by_key(|question| question.target);
    asked.dedup();
    assert_eq!(asked.len(), 10);
}

proptest! {
    /// Whatever is heard and however long nothing is: no neighbour is asked more than once a second, a directed
    /// question goes to the address in use, and somebody is always due.
    #[test]
    fn questions_are_rate_limited(events in prop::collection::vec((0u64..20_000, 0u8..3, any::<bool>(), 1u8..4), 0..60)) {
        let mut bench = Bench::following(&["10.0.0.0", "10.0.0.1"]);
        let mut last: [Option<Instant>; 2] = [None; 2];
        for (pause, target, solicited, mac_byte) in events {
            let end = bench.now + Duration::from_millis(pause);
            while let Some(due) = bench.neighbours.next_due().filter(|due| *due <= end) {
                bench.now = bench.now.max(due);
                for question in bench.ask() {
                    let slot = usize::from(question.target == ip("10.0.0.1"));
                    if let Some(to) = question.to {
                        prop_assert_eq!(bench.neighbours.mac(question.target), Some(to));
                    }
                    if let Some(before) = last[slot].replace(bench.now) {
                        prop_assert!(bench.now - before >= SECOND, "asked twice within {:?}", bench.now - before);
                    }
                }
            }
            bench.now = end;
            bench.hear(&format!("10.0.0.{target}"), mac_byte, solicited);
            prop_assert!(bench.neighbours.next_due().is_some());
        }
    }
}
