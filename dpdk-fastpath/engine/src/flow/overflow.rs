//! Flows for which there is no record.
//!
//! While the table is full, the packets of new flows are translated one by one: the consistent hash of a service chooses the
//! same endpoint each time. What comes back must become the service's again without a record of the flow. Two things serve
//! that:
//!
//! - The packets leave with a *marked* source port: the client's own, which must be one of the upper half, less 2^15. So
//!   what comes back to a marked port is no answer to a connection that the client made with the endpoint itself, and the
//!   client's own port is known.
//! - A *loan*, shared by all flows between a client and an endpoint, says through which service they go. Loans are as few as
//!   the pairs, whatever the number of flows, and a client cannot forge another's address.
//!
//! No two services can have loans for the same pair: the second one's flows are refused while the table is full. So are
//! those from ports of the lower half.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use zerocopy::FromZeros;

use super::memory::Zeroed;
use super::segment::{Head, Source};
use super::tick::Tick;

/// Cache lines of loans.
const SETS: usize = 8192;

/// Loans in one.
const WAYS: usize = 8;

/// Loans in all, a word each.
pub(super) const LOANS: usize = SETS * WAYS;

/// Slots of services that can have loans, each with the name of the last one that had, a word.
pub(super) const LENDERS: usize = 1 << 16;

/// Seconds after the last packet without a record for which flows may go on without one, and for which new ones get marked
/// ports even if there is room, so that nothing about a flow changes when it gets a record: two hours and four minutes, for
/// which RFC 5382 lets connections be silent.
const MEMORY: u64 = 7440;

const MARK: u16 = 1 << 15;

/// The source port that tells packets without a record; `None` for ports of the lower half.
#[inline]
pub const fn marked(port: u16) -> Option<u16> {
    if port > MARK { Some(port - MARK) } else { None }
}

/// The port that was marked; `None` for ports of the upper half.
#[inline]
pub const fn unmarked(port: u16) -> Option<u16> {
    if port > 0 && port < MARK { Some(port + MARK) } else { None }
}

/// A service that lends, or has lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lender {
    /// Its slot.
    pub slot: u32,
    /// Its [identity](crate::table::Service::identity).
    pub name: u64,
}

/// Where a worker goes on forgetting loans.
#[derive(Debug, Default)]
pub struct Forgetting {
    next: usize,
    /// Sets to look at after the last packet that went without a record.
    left: usize,
}

/// From its highest bit on: 24 bits of the pair's hash, 8 of the service's name, the time of the last packet, and the slot
/// of the service, which may have another occupant since. 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Loan(u64);

impl Loan {
    fn new(hash: u64, now: Tick, slot: u16, name: u64) -> Self {
        // Never 0.
        let pair = (hash >> 40 | 1) << 40;
        Self(pair | (name & 0xff) << 32 | u64::from(now.bits()) << 16 | u64::from(slot))
    }

    const fn slot(self) -> u16 {
        self.0 as u16
    }

    const fn is_over(self, now: Tick) -> bool {
        self.0 == 0 || now.seconds_since(Tick::from_bits((self.0 >> 16) as u16)) > MEMORY
    }

    const fn is_for(self, hash: u64) -> bool {
        self.0 >> 40 == hash >> 40 | 1
    }

    const fn is_of(self, name: u64) -> bool {
        (self.0 >> 32) as u8 == name as u8
    }
}

#[derive(Debug, FromZeros)]
#[repr(C, align(64))]
struct Set([AtomicU64; WAYS]);

const _: () = assert!(size_of::<Set>() == WAYS * size_of::<u64>());

/// What there is in place of records. Its size is fixed; anybody reads and changes it at any time, without locks. It lies with
/// the records, so that [another process](super::takeover) finds it: without it answers would go to clients as they are, and
/// connections from whose midst a packet comes would be refused.
pub struct Overflow {
    loans: Zeroed<Set>,
    /// Names of lenders by slot, for whoever takes this over: there, slots will be others.
    lenders: Zeroed<AtomicU64>,
    head: Arc<Zeroed<Head>>,
}

const EVER: u32 = 1 << 16;

impl Overflow {
    pub(super) fn new(source: &Source, head: &Arc<Zeroed<Head>>) -> Option<Self> {
        let loans = source.array(|places| places.loans, SETS)?;
        let lenders = source.array(|places| places.lenders, LENDERS)?;
        Some(Self { loans, lenders, head: Arc::clone(head) })
    }

    /// Time of the last packet that went without a record, and a bit above that says that there was one.
    #[inline]
    fn last(&self) -> &AtomicU32 {
        &self.head[0].overflowed
    }

    /// Takes over what another process left: the time of the last packet, loans, and names of lenders, which have these
    /// slots now. Loans of services that are gone are over.
    pub(super) fn take_over(
        &self,
        last: u32,
        loans: &[u64],
        lenders: &[u64],
        slots: &HashMap<u64, u32>,
        now: Tick,
    ) {
        if last & EVER != 0 && now.seconds_since(Tick::from_bits(last as u16)) <= MEMORY {
            self.last().store(EVER | last & 0xffff, Ordering::Relaxed);
        }
        for (place, &loan) in self.loans.iter().flat_map(|set| &set.0).zip(loans) {
            let loan = Loan(loan);
            let name = lenders.get(usize::from(loan.slot())).filter(|name| loan.is_of(**name));
            let found = name.and_then(|name| Some((*name, u16::try_from(*slots.get(name)?).ok()?)));
            if let Some((name, slot)) = found.filter(|_| !loan.is_over(now)) {
                place.store(loan.0 & !0xffff | u64::from(slot), Ordering::Relaxed);
                self.lenders[usize::from(slot)].store(name, Ordering::Relaxed);
            }
        }
    }

    /// A packet went without a record.
    pub fn note(&self, now: Tick) {
        let last = EVER | u32::from(now.bits());
        if self.last().load(Ordering::Relaxed) != last {
            self.last().store(last, Ordering::Relaxed);
        }
    }

    /// Whether there may be flows without a record.
    #[inline]
    pub fn is_active(&self, now: Tick) -> bool {
        let last = self.last().load(Ordering::Relaxed);
        last != 0 && self.is_recent(last, now)
    }

    #[cold]
    fn is_recent(&self, last: u32, now: Tick) -> bool {
        let recent = now.seconds_since(Tick::from_bits(last as u16)) <= MEMORY;
        if !recent {
            // Before the clock comes round. Whoever notes a packet meanwhile wins.
            let _ = self.last().compare_exchange(last, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        recent
    }

    /// Forgets loans that are over, a few more each time, before the clock comes round and they seem to be new.
    pub fn forget(&self, forgetting: &mut Forgetting, now: Tick) {
        if self.is_active(now) {
            forgetting.left = SETS;
        }
        let Some(left) = forgetting.left.checked_sub(1) else { return };
        forgetting.left = left;
        let place = forgetting.next % SETS;
        forgetting.next = place + 1;
        for place in &self.loans[place].0 {
            let loan = Loan(place.load(Ordering::Relaxed));
            if loan.0 != 0 && loan.is_over(now) {
                // Whoever renews it meanwhile wins.
                let _ = place.compare_exchange(loan.0, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    fn set(&self, hash: u64) -> &[AtomicU64; WAYS] {
        &self.loans[hash as usize % SETS].0
    }

    /// The slot of the service through which a client reaches an endpoint, `hash` being that of the pair. `serves` says which
    /// service is in a slot, if the endpoint is one of its.
    pub fn service(&self, hash: u64, now: Tick, serves: impl Fn(u32) -> Option<Lender>) -> Option<u32> {
        let loans = self.set(hash).iter().map(|loan| Loan(loan.load(Ordering::Relaxed)));
        let mut own = loans.filter(|loan| loan.is_for(hash) && !loan.is_over(now));
        own.find_map(|loan| lender(loan, &serves)).map(|lender| lender.slot)
    }

    /// Lends the pair with this hash to a service; `false` if another has it, or if there is no room.
    pub fn lend(
        &self,
        hash: u64,
        service: Lender,
        now: Tick,
        serves: impl Fn(u32) -> Option<Lender>,
    ) -> bool {
        let Ok(slot) = u16::try_from(service.slot) else { return false };
        let own = Loan::new(hash, now, slot, service.name);
        let mut free = None;
        for place in self.set(hash) {
            let loan = Loan(place.load(Ordering::Relaxed));
            if loan.is_for(hash) {
                match lender(loan, &serves).filter(|_| !loan.is_over(now)) {
                    Some(lender) if lender == service => {
                        if loan != own {
                            // Should another worker have been faster, its time is as good.
                            let _ =
                                place.compare_exchange(loan.0, own.0, Ordering::Relaxed, Ordering::Relaxed);
                        }
                        return true;
                    }
                    Some(_) => return false,
                    // The pair's own place before others, so that it has one only.
                    None => free = Some((place, loan)),
                }
            } else if free.is_none() && loan.is_over(now) {
                free = Some((place, loan));
            }
        }
        let Some((place, loan)) = free else { return false };
        self.lenders[usize::from(slot)].store(service.name, Ordering::Relaxed);
        if place.compare_exchange(loan.0, own.0, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return false;
        }
        // Of two services that came at the same time the first place counts.
        let first = self.service(hash, now, serves) == Some(service.slot);
        if !first {
            let _ = place.compare_exchange(own.0, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        first
    }
}

/// Who has lent, if that is still in its slot and has the endpoint.
fn lender(loan: Loan, serves: impl Fn(u32) -> Option<Lender>) -> Option<Lender> {
    serves(loan.slot().into()).filter(|lender| loan.is_of(lender.name))
}

impl fmt::Debug for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overflow").field("last", self.last()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick::at(Duration::from_secs(seconds))
    }

    fn overflow() -> Overflow {
        Overflow::new(&Source::Own, &Source::Own.head(0, 0, 0).unwrap()).unwrap()
    }

    /// Hashes of pairs that share a set.
    fn pair(n: u64) -> u64 {
        n << 41 | 5
    }

    fn service(slot: u32) -> Lender {
        Lender { slot, name: u64::from(slot) + 100 }
    }

    fn all(slot: u32) -> Option<Lender> {
        Some(service(slot))
    }

    fn only(slot: u32) -> impl Fn(u32) -> Option<Lender> {
        move |asked| all(asked).filter(|_| asked == slot)
    }

    #[test]
    fn a_marked_port_is_told_and_its_own_known_again() {
        let markable = (0..=u16::MAX).filter_map(|port| Some((port, marked(port)?)));
        assert_eq!(markable.clone().count(), 32_767);
        assert!(markable.clone().all(|(port, mark)| unmarked(mark) == Some(port) && marked(mark).is_none()));
        assert_eq!((marked(32_768), unmarked(0), unmarked(40_000)), (None, None, None));
    }

    #[test]
    fn a_pair_is_lent_to_one_service_until_it_is_over() {
        let overflow = overflow();
        assert_eq!(overflow.service(pair(1), at(0), all), None);
        assert!(overflow.lend(pair(1), service(7), at(0), all));
        assert!(overflow.lend(pair(1), service(7), at(4), all));
        assert!(!overflow.lend(pair(1), service(8), at(4), all));
        assert!(overflow.lend(pair(2), service(8), at(4), all));
        assert_eq!(overflow.service(pair(1), at(4 + MEMORY), all), Some(7));
        assert_eq!(overflow.service(pair(1), at(6 + MEMORY), all), None);
        // The endpoint is no longer one of service 7, and then it is again.
        assert!(overflow.lend(pair(2), service(9), at(4), only(9)));
        assert_eq!(overflow.service(pair(2), at(4), all), Some(9));
        assert!(overflow.lend(pair(1), service(8), at(6 + MEMORY), all));
        assert_eq!(overflow.service(pair(1), at(6 + MEMORY), all), Some(8));
    }

    #[test]
    fn the_next_occupant_of_a_slot_has_lent_nothing() {
        let overflow = overflow();
        let next = Lender { slot: 7, name: 1 };
        assert!(overflow.lend(pair(1), service(7), at(0), all));
        assert_eq!(overflow.service(pair(1), at(0), |_| Some(next)), None);
        assert!(overflow.lend(pair(1), next, at(0), |_| Some(next)));
        assert_eq!(overflow.service(pair(1), at(0), all), None);
    }

    #[test]
    fn loans_that_are_in_use_are_never_taken_away() {
        let overflow = overflow();
        for n in 0..WAYS as u64 {
            assert!(overflow.lend(pair(n), service(n as u32), at(0), all));
        }
        assert!(!overflow.lend(pair(99), service(99), at(100), all));
        for n in 0..WAYS as u64 {
            assert_eq!(overflow.service(pair(n), at(100), all), Some(n as u32));
        }
        assert!(overflow.lend(pair(99), service(99), at(MEMORY + 2), all));
    }

    #[test]
    fn workers_that_lend_the_same_pair_agree() {
        for _ in 0..200 {
            let overflow = overflow();
            let lent: Vec<u32> = std::thread::scope(|scope| {
                let lend = |slot| {
                    let overflow = &overflow;
                    move || overflow.lend(pair(1), service(slot), at(0), all).then_some(slot)
                };
                let threads: Vec<_> = (1..4).map(|service| scope.spawn(lend(service))).collect();
                threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
            });
            // It may be that none got it: then the next packet tries again.
            assert!(lent.len() <= 1, "{lent:?}");
            assert_eq!(overflow.service(pair(1), at(0), all), lent.first().copied());
        }
    }

    #[test]
    fn it_is_active_for_a_while_after_the_last_packet() {
        let overflow = overflow();
        assert!(!overflow.is_active(at(10)));
        overflow.note(at(10));
        assert!(overflow.is_active(at(10 + MEMORY)));
        assert!(!overflow.is_active(at(12 + MEMORY)));
        // Nor when the clock has come round.
        assert!(!overflow.is_active(at(10 + 2 * 65_536)));
    }

    #[test]
    fn loans_that_are_over_are_forgotten_before_they_seem_new() {
        let overflow = overflow();
        let mut forgetting = Forgetting::default();
        let mut pass = |seconds| (0..2 * SETS).for_each(|_| overflow.forget(&mut forgetting, at(seconds)));
        overflow.note(at(10));
        assert!(overflow.lend(pair(1), service(7), at(10), all));
        pass(10 + MEMORY);
        assert_eq!(overflow.service(pair(1), at(10 + MEMORY), all), Some(7));
        pass(12 + MEMORY);
        assert_eq!(overflow.service(pair(1), at(10 + 2 * 65_536), all), None);
    }

    #[test]
    fn loans_go_on_in_another_process_where_slots_are_others() {
        let words = |words: &[AtomicU64]| -> Vec<u64> {
            words.iter().map(|word| word.load(Ordering::Relaxed)).collect()
        };
        let before = overflow();
        before.note(at(10));
        for n in [1, 2, 3] {
            assert!(before.lend(pair(n), service(n as u32), at(10), all));
        }
        let loans: Vec<u64> = before.loans.iter().flat_map(|set| words(&set.0)).collect();
        let lenders = words(&before.lenders);
        let last = before.last().load(Ordering::Relaxed);
        // Service 3 is gone.
        let slots = HashMap::from([(service(1).name, 2), (service(2).name, 70)]);
        let serves = |slot| match slot {
            2 => Some(Lender { slot, name: service(1).name }),
            70 => Some(Lender { slot, name: service(2).name }),
            _ => None,
        };
        let after = overflow();
        after.take_over(last, &loans, &lenders, &slots, at(10 + MEMORY));
        assert!(after.is_active(at(10 + MEMORY)) && !after.is_active(at(12 + MEMORY)));
        let found = [1, 2, 3].map(|n| after.service(pair(n), at(10 + MEMORY), serves));
        assert_eq!(found, [Some(2), Some(70), None]);
        assert_eq!(words(&after.lenders)[2], service(1).name);

        let late = overflow();
        late.take_over(last, &loans, &lenders, &slots, at(12 + MEMORY));
        assert!(!late.is_active(at(12 + MEMORY)));
        assert!(late.loans.iter().all(|set| words(&set.0) == [0; WAYS]));
    }
}
