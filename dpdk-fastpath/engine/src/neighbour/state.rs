//! Who is asked when.

use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher as _};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use culvert_api::value::Mac;

/// How sure one is of a neighbour's Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Asked everybody; nobody has answered yet.
    Incomplete,
    /// It answered a short while ago.
    Reachable,
    /// It said so itself without being asked: used, and to be confirmed at once.
    Stale,
    /// Being asked again, directly.
    Probe,
    /// Nobody answers. Everybody is asked again from time to time.
    Failed,
}

/// Intervals and counts; the defaults are those of RFC 4861, section 10, where it has them.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Between two questions to the same neighbour: `RETRANS_TIMER`.
    pub retransmit: Duration,
    /// How long an answer is good for, within 0.5 to 1.5 of it: `REACHABLE_TIME`.
    pub reachable: Duration,
    /// Between two questions about a failed neighbour.
    pub retry: Duration,
    /// Questions to everybody before a neighbour counts as failed: `MAX_MULTICAST_SOLICIT`.
    pub multicast: u32,
    /// Questions to the neighbour itself before everybody is asked: `MAX_UNICAST_SOLICIT`.
    pub unicast: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            retransmit: Duration::from_secs(1),
            reachable: Duration::from_secs(30),
            retry: Duration::from_secs(2),
            multicast: 3,
            unicast: 3,
        }
    }
}

/// A question to be sent: who has `target`?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Solicitation {
    /// The address asked for.
    pub target: IpAddr,
    /// Where the question goes; `None`: to everybody (ARP broadcast, solicited-node multicast).
    pub to: Option<Mac>,
}

/// What a neighbour said about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Its address.
    pub address: IpAddr,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Whether it answered a question of ours: an ARP reply to our address, an advertisement with the S flag.
    pub solicited: bool,
}

/// All next hops and what is known of them.
#[derive(Debug, Default)]
pub struct Neighbours {
    timing: Timing,
    entries: BTreeMap<IpAddr, Entry>,
}

#[derive(Debug)]
struct Entry {
    state: State,
    mac: Option<Mac>,
    /// Questions sent in this state.
    asked: u32,
    /// When something is to be done next.
    due: Instant,
    /// Not to be asked before, whatever is heard until then.
    earliest: Instant,
}

impl Entry {
    fn enter(&mut self, state: State, due: Instant) {
        (self.state, self.asked, self.due) = (state, 0, due);
    }
}

impl Neighbours {
    /// No neighbours yet.
    pub fn new(timing: Timing) -> Self {
        Self { timing, entries: BTreeMap::new() }
    }

    /// Follows exactly these next hops from now on. The ones already followed stay as they are, others are forgotten.
    pub fn follow(&mut self, now: Instant, hops: impl IntoIterator<Item = IpAddr>) {
        let mut old = std::mem::take(&mut self.entries);
        let fresh = || Entry { state: State::Incomplete, mac: None, asked: 0, due: now, earliest: now };
        self.entries = hops.into_iter().map(|hop| (hop, old.remove(&hop).unwrap_or_else(fresh))).collect();
    }

    /// Takes in what a neighbour said. True if the Ethernet address to use has changed; addresses that nobody follows
    /// change nothing.
    pub fn hear(&mut self, now: Instant, heard: Heard) -> bool {
        let fresh_until = now + self.reachable_time(heard.address);
        let Some(entry) = self.entries.get_mut(&heard.address) else { return false };
        let changed = entry.mac != Some(heard.mac);
        entry.mac = Some(heard.mac);
        if heard.solicited {
            entry.enter(State::Reachable, fresh_until);
        } else if changed || matches!(entry.state, State::Incomplete | State::Failed) {
            entry.enter(State::Stale, now.max(entry.earliest));
        }
        changed
    }

    /// Does what is due: puts at most `limit` questions into `out`, the rest stays due. Returns those that have failed
    /// just now; their Ethernet addresses are forgotten.
    pub fn poll(&mut self, now: Instant, limit: usize, out: &mut Vec<Solicitation>) -> Vec<IpAddr> {
        let Timing { retransmit, retry, multicast, unicast, .. } = self.timing;
        let mut failed = Vec::new();
        let due = self.entries.iter_mut().filter(|(_, entry)| entry.due <= now);
        for (&target, entry) in due.take(limit) {
            match entry.state {
                State::Reachable | State::Stale => entry.enter(State::Probe, now),
                State::Probe if entry.asked >= unicast => entry.enter(State::Incomplete, now),
                State::Incomplete if entry.asked >= multicast => {
                    failed.push(target);
                    entry.mac = None;
                    entry.enter(State::Failed, now);
                }
                State::Probe | State::Incomplete | State::Failed => {}
            }
            entry.asked += 1;
            entry.earliest = now + retransmit;
            entry.due = if entry.state == State::Failed { now + retry } else { entry.earliest };
            let to = if entry.state == State::Probe { entry.mac } else { None };
            out.push(Solicitation { target, to });
        }
        failed
    }

    /// When [`Self::poll`] has something to do next; `None` if nothing is followed.
    pub fn next_due(&self) -> Option<Instant> {
        self.entries.values().map(|entry| entry.due).min()
    }

    /// The Ethernet address to use for a next hop, if there is one.
    pub fn mac(&self, hop: IpAddr) -> Option<Mac> {
        self.entries.get(&hop)?.mac
    }

    /// Every next hop, its state and the Ethernet address in use.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, State, Option<Mac>)> + '_ {
        self.entries.iter().map(|(&hop, entry)| (hop, entry.state, entry.mac))
    }

    /// Between 0.5 and 1.5 of the base, by address: those resolved together are not asked again together.
    fn reachable_time(&self, address: IpAddr) -> Duration {
        let mut hasher = rapidhash::fast::RapidHasher::default();
        address.hash(&mut hasher);
        let share = (hasher.finish() >> 32) as f64 / f64::from(u32::MAX);
        self.timing.reachable.mul_f64(0.5 + share)
    }
}
