//! Flows for which there is no room: their packets are translated one by one, to the endpoint that the hash chooses,
//! with a source port that tells the answers from others: the client's own, if it is above 32768, less that. Between one
//! client and one endpoint that is possible for one service at a time, for which the pair is *lent*. Two hours and four
//! minutes after the last such packet all this is forgotten; until then new flows get such ports even where there is room,
//! and go by hash, so that nothing about a flow changes when it gets its place.

use super::choice::Trial;
use super::flow::{Key, Side, rewritten};
use super::fragment::Served;
use super::route::has_ports;
use super::service::{Kept, Known, one_of};
use super::tables::{Backend, Service, ServiceKey};
use super::{End, Inside, Model};
use crate::wire::{SCTP, TCP, UDP};

const SECONDS: u64 = 7440;

/// Why a packet is dropped for which nothing is lent.
const FULL: &str = "flow-table-full";

/// Flows that are remembered for whoever makes packets.
const REMEMBERED: usize = 64;

#[derive(Debug, Clone, Default)]
pub(crate) struct Overflow {
    /// When the last packet went.
    last: Option<u64>,
    loans: Vec<Loan>,
    /// What went lately: flows, and what they became.
    pub(crate) lately: Vec<(Key, Key)>,
}

/// A client may reach an endpoint through a service.
#[derive(Debug, Clone, Copy)]
struct Loan {
    /// Both, with port 0 for the client.
    pair: Key,
    service: ServiceKey,
    seen: u64,
    /// Whether it was made, or anew, could not be seen, or the service was gone since: the engine may know of it or not.
    doubtful: bool,
}

/// The port that a client's is moved to.
pub(crate) fn moved(port: u16) -> Option<u16> {
    port.checked_sub(32_768).filter(|moved| *moved > 0)
}

/// The client's port.
fn moved_back(port: u16) -> Option<u16> {
    port.checked_add(32_768).filter(|_| port > 0)
}

fn pair_of(key: Key, endpoint: Side) -> Key {
    Key { src: (key.src.0, 0), dst: endpoint, ..key }
}

impl Model {
    /// Whether there may be flows without a place.
    pub(crate) fn overflows(&self) -> bool {
        self.overflow.last.is_some_and(|last| (self.tick() - last) * 2 <= SECONDS)
    }

    /// The service for which a pair is lent: one of those that may have it, or none, unless it is certain.
    fn lent(&self, pair: Key, trial: &mut Trial<'_>) -> Option<&Service> {
        if let Some(service) = self.surely_lent(pair) {
            return self.tables.service(service);
        }
        let holders: Vec<_> = self.overflow.loans.iter().filter_map(|loan| self.holder(loan, pair)).collect();
        if holders.is_empty() { None } else { holders.get(trial.pick(holders.len() + 1)).copied() }
    }

    /// The service that has the pair for certain.
    fn surely_lent(&self, pair: Key) -> Option<ServiceKey> {
        let mut sure = self.overflow.loans.iter().filter(|loan| !loan.doubtful);
        sure.find_map(|loan| self.holder(loan, pair)).map(|service| service.key)
    }

    /// The service that has the pair by this loan, if it is there, still has the endpoint, and the loan is not over.
    fn holder(&self, loan: &Loan, pair: Key) -> Option<&Service> {
        let recent = loan.pair == pair && (self.tick() - loan.seen) * 2 <= SECONDS;
        let service = self.tables.service(loan.service).filter(|_| recent)?;
        service.backends.iter().any(|backend| backend.end == pair.dst).then_some(service)
    }

    /// Some services may be gone.
    pub(crate) fn lenders_changed(&mut self) {
        for loan in &mut self.overflow.loans {
            loan.doubtful |= self.tables.service(loan.service).is_none();
        }
    }

    /// Whether a packet from the midst of a connection that is not tracked may be one of a connection without a place.
    pub(crate) fn goes_on(&mut self, inside: &Inside, service: &Service, trial: &mut Trial<'_>) -> bool {
        if !self.overflows() || moved(inside.key.src.1).is_none() {
            return false;
        }
        let picks = self.picks.clone();
        let pair = self.hashed(inside, service, trial).map(|backend| pair_of(inside.key, backend.end));
        let lent = pair.and_then(|pair| self.lent(pair, trial)).map(|lent| lent.key);
        if lent != Some(service.key) {
            self.picks = picks;
        }
        lent == Some(service.key)
    }

    /// The endpoint that the client keeps, or else the one that the hash chooses.
    fn hashed(&mut self, inside: &Inside, service: &Service, trial: &mut Trial<'_>) -> Option<Backend> {
        if service.affinity == 0 {
            return self.by_hash(inside, service, trial);
        }
        match self.kept(inside, service) {
            Kept::Known(backend) => Some(backend),
            Kept::Unseen if service.usable().is_empty() => None,
            Kept::Unseen => Some(one_of(&service.usable(), inside, trial)),
            Kept::Nobody => self.by_hash(inside, service, trial),
        }
    }

    /// A packet of a flow that there is no room for.
    /// `known` is what was known before the packet came.
    pub(crate) fn stateless(
        &mut self,
        inside: &Inside,
        service: &Service,
        known: Known,
        trial: &mut Trial<'_>,
    ) -> End {
        let passed = self.counters.stateless;
        let loans = self.overflow.loans.clone();
        let end = self.pass_to(inside, service, trial);
        // Only a packet that is sent shows where it goes.
        if self.counters.stateless == passed || matches!(end, End::Drop(_)) {
            self.unseen(inside, service, known);
            if !known.placeless {
                self.overflow.loans = loans;
                if end != End::Drop(FULL) {
                    self.may_be_lent(inside, service);
                }
            }
        }
        end
    }

    fn pass_to(&mut self, inside: &Inside, service: &Service, trial: &mut Trial<'_>) -> End {
        let backend = self.hashed(inside, service, trial).filter(|_| has_ports(inside.packet.upper));
        let to = backend.and_then(|backend| self.lend(inside.key, service, backend.end, trial));
        let Some(to) = to else { return self.drop(inside.port, FULL) };
        if service.affinity > 0 {
            self.stick(inside, service, Some(to.dst));
        }
        self.overflow.last = Some(self.tick());
        self.overflow.lately.retain(|(original, _)| *original != inside.key);
        self.overflow.lately.push((inside.key, to));
        let surplus = self.overflow.lately.len().saturating_sub(REMEMBERED);
        self.overflow.lately.drain(..surplus);
        self.pass(inside, to, (service.key, to.dst), trial)
    }

    /// One of the endpoints has been lent to the client, or lent anew, unless another service has it.
    fn may_be_lent(&mut self, inside: &Inside, service: &Service) {
        let (key, seen) = (service.key, self.tick());
        for backend in service.usable() {
            let pair = pair_of(inside.key, backend.end);
            let holder = self.surely_lent(pair);
            if holder.is_some_and(|holder| holder != key) {
                continue;
            }
            let loans = &mut self.overflow.loans;
            // What is not in force may have had to make way.
            for loan in loans.iter_mut().filter(|loan| loan.pair == pair) {
                loan.doubtful |= holder.is_none();
            }
            loans.retain(|loan| (loan.pair, loan.service, loan.doubtful) != (pair, key, true));
            loans.push(Loan { pair, service: key, seen, doubtful: true });
        }
    }

    /// What the packets of a flow become; `None` if their answers could not be told.
    fn lend(&mut self, key: Key, service: &Service, endpoint: Side, trial: &mut Trial<'_>) -> Option<Key> {
        let to = Key { src: (key.src.0, moved(key.src.1)?), dst: endpoint, ..key };
        if key.src.0 == endpoint.0 || self.flow_of(&to.reversed()).is_some() {
            return None;
        }
        let pair = pair_of(key, endpoint);
        if self.lent(pair, trial).is_some_and(|lent| lent.key != service.key) {
            return None;
        }
        self.overflow.loans.retain(|loan| loan.pair != pair);
        self.overflow.loans.push(Loan { pair, service: service.key, seen: self.tick(), doubtful: false });
        Some(to)
    }

    /// What an answer to such a flow becomes, and whose it is; `None` for what is none.
    pub(crate) fn answered(&self, key: Key, trial: &mut Trial<'_>) -> Option<(Key, (ServiceKey, Side))> {
        if ![TCP, UDP, SCTP].contains(&key.protocol) || !self.overflows() {
            return None;
        }
        let client = (key.dst.0, moved_back(key.dst.1)?);
        let service = self.lent(Key { src: (client.0, 0), dst: key.src, ..key }, trial)?.key;
        Some((Key { src: (service.vip, service.port), dst: client, ..key }, (service, key.src)))
    }

    /// Translates a packet by itself.
    pub(crate) fn pass(
        &mut self,
        inside: &Inside,
        to: Key,
        (service, backend): (ServiceKey, Side),
        trial: &mut Trial<'_>,
    ) -> End {
        let way = self.way(to.tenant, to.dst.0);
        if let Err(end) = self.clear(inside, &way, to.dst.0, trial) {
            return end;
        }
        let life = self.lives.get(service, backend).expect("the endpoint is one of the service's");
        if let Err(why) = self.note_first(inside, to, Served { service, backend, life }) {
            return self.drop(inside.port, why);
        }
        self.counters.stateless += 1;
        self.counters.translated(service, inside.packet.len());
        self.transmit(inside, &way, rewritten(inside, to.src, to.dst), trial)
    }
}
