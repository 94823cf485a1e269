//! The first packet of a flow to a service. Any of the usable endpoints may be chosen; by hash the same for the same flow (with
//! affinity: for the same client) while the service is as it is. With affinity a client keeps the endpoint that it used last. The endpoint sees the client's own address and port; if that
//! pair could not be told from another flow's, another port from 1024 on. A pod that is its own endpoint sees the router.

use std::collections::HashMap;
use std::net::IpAddr;

use super::choice::Trial;
use super::flow::{Fits, Flow, ITSELF, Key, Side, rewritten};
use super::fragment::Served;
use super::overflow::moved;
use super::route::has_ports;
use super::state::{Signal, State};
use super::tables::{Backend, Balancing, Lost, Service, ServiceKey};
use super::{End, Inside, Model};
use crate::wire::dissect::Upper;
use crate::wire::{ICMP, ICMPV6, SCTP, TCP};

/// For whom an endpoint was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    Flow(Key),
    Address(IpAddr),
}

impl Client {
    fn of(inside: &Inside, service: &Service) -> Self {
        match service.affinity {
            0 => Self::Flow(inside.key),
            _ => Self::Address(inside.key.src.0),
        }
    }
}

/// The endpoint that a client keeps.
pub(crate) enum Kept {
    Known(Backend),
    /// It has one, but no packet has shown which.
    Unseen,
    Nobody,
}

/// What was known before a choice: what this client or flow gets by hash, what it keeps, and so many turns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pick: bool,
    kept: bool,
    /// What it gets without a place.
    pub(crate) placeless: bool,
    turns: usize,
}

/// A client that keeps its endpoint: of a port of a service, or of a service. Services are told by name, whatever their
/// virtual addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Sticky {
    Port { tenant: u32, name: String, protocol: u8, client: IpAddr },
    Service { tenant: u32, name: String, client: IpAddr },
}

impl Sticky {
    fn of(inside: &Inside, service: &Service) -> Vec<Self> {
        let (tenant, client) = (service.key.tenant, inside.packet.src);
        let port = Self::Port { tenant, name: service.name.clone(), protocol: service.key.protocol, client };
        let name = service.name.split(':').next().unwrap_or_default().to_owned();
        let all = service.affinity_shared.then_some(Self::Service { tenant, name, client });
        [Some(port), all].into_iter().flatten().collect()
    }
}

/// When each endpoint of each service came, as a number that no other has. One that is not ready any more comes anew for
/// flows of other than TCP and SCTP: these are not worth keeping there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lives {
    births: HashMap<(ServiceKey, Side), u64>,
    next: u64,
}

impl Lives {
    pub(crate) fn get(&self, service: ServiceKey, end: Side) -> Option<u64> {
        self.births.get(&(service, end)).copied()
    }

    fn bear(&mut self, service: ServiceKey, end: Side) {
        self.next += 1;
        self.births.insert((service, end), self.next);
    }
}

impl Model {
    /// Notes what has become of services that were as `before`.
    pub(crate) fn services_changed(&mut self, before: &[Service]) {
        let now = self.tables.services.clone();
        for old in before {
            let new = now.iter().find(|new| new.key == old.key);
            for backend in &old.backends {
                if new.is_none_or(|new| new.backends.iter().all(|other| other.end != backend.end)) {
                    self.lives.births.remove(&(old.key, backend.end));
                }
            }
            if new != Some(old) {
                self.picks.retain(|(service, _), _| *service != old.key);
                self.turns.remove(&old.key);
            }
            if new.is_none_or(|new| new.name != old.name) {
                self.counters.services.remove(&old.key);
            }
        }
        for new in &now {
            let old = before.iter().find(|old| old.key == new.key);
            for backend in &new.backends {
                let known = old.and_then(|old| old.backends.iter().find(|other| other.end == backend.end));
                let stops = known.is_some_and(|known| backend.draining && !known.draining);
                if known.is_none() || stops && ![TCP, SCTP].contains(&new.key.protocol) {
                    self.lives.bear(new.key, backend.end);
                }
            }
            self.counters.services.entry(new.key).or_default();
        }
    }

    pub(crate) fn open(&mut self, inside: &Inside, key: ServiceKey, trial: &mut Trial<'_>) -> End {
        let ping = inside.packet.is_ping();
        let may_open = ping || has_ports(inside.packet.upper);
        let Some(service) = self.tables.service(key).filter(|_| may_open).cloned() else {
            return match inside.packet.upper {
                _ if has_ports(inside.packet.upper) => self.refuse(inside, "service-port", trial),
                Upper::Echo { .. } => self.pinged(inside, "icmp-unrelated", trial),
                Upper::Icmp { .. } => self.drop(inside.port, "icmp-unrelated"),
                _ => self.drop(inside.port, "service-port"),
            };
        };
        if inside.key.protocol == SCTP && inside.packet.is_fragment() {
            return self.drop(inside.port, "service-fragment");
        }
        let signal = Signal::of(inside.packet.upper);
        let opens = !matches!(inside.packet.upper, Upper::Tcp { .. } | Upper::Sctp { .. }) || signal.opens();
        let reselects = self.node().policy.lost == Lost::Reselect && signal.goes_on();
        let before = self.known(inside, &service);
        if !opens && !reselects && !self.goes_on(inside, &service, trial) {
            match self.node().policy.lost {
                Lost::Drop => return self.drop(inside.port, "flow-unknown"),
                Lost::Reselect | Lost::Reset => return self.refuse(inside, "flow-unknown", trial),
            }
        }
        let Some(backend) = self.pick(inside, &service, trial) else {
            self.counters.services.entry(key).or_default().rejected += 1;
            return self.refuse(inside, "service-no-endpoint", trial);
        };
        let way = self.way(key.tenant, backend.end.0);
        if let Err(end) = self.clear(inside, &way, backend.end.0, trial) {
            self.unseen(inside, &service, before);
            return end;
        }
        let client = inside.key.src;
        let source = if client.0 == backend.end.0 {
            self.gateway(inside.key.tenant, client.0)
        } else {
            Some(client.0)
        };
        let Some(source) = source else {
            self.unseen(inside, &service, before);
            return self.drop(inside.port, "flow-no-port");
        };
        let port = moved(client.1).filter(|_| self.overflows() && !ping).unwrap_or(client.1);
        let translated = Key { src: (source, port), dst: backend.end, ..inside.key };
        let translated = if ping { Self::with_identifier(translated, client.1) } else { translated };
        if !self.has_place(&inside.key, trial) {
            // Without a place the hash chooses, unless it did already, or the client keeps what was chosen.
            if service.affinity == 0 && service.balancing != Balancing::Hash && !self.overflows() {
                self.unseen(inside, &service, before);
            }
            return self.stateless(inside, &service, before, trial);
        }
        let life = self.lives.get(key, backend.end).expect("the endpoint is one of the service's");
        let state =
            if opens { State::first(inside.key.protocol) } else { State::resumed(inside.key.protocol) };
        let (original, backend, seen) = (inside.key, backend.end, self.tick());
        let flow = Flow { original, translated, backend, state, seen, refused: None, service: key, life };
        let entered = self.enter(flow, false, trial.source_port(&original));
        let served = Served { service: key, backend, life };
        if let Err(why) = self.note_first(inside, entered, served) {
            return self.drop(inside.port, why);
        }
        self.counters.translated(key, inside.packet.len());
        self.transmit(inside, &way, rewritten(inside, entered.src, entered.dst), trial)
    }

    /// What is known of the engine's choices before it makes one.
    fn known(&self, inside: &Inside, service: &Service) -> Known {
        let pick = self.picks.contains_key(&(service.key, Client::of(inside, service)));
        let kept = if service.affinity > 0 { self.kept(inside, service) } else { Kept::Nobody };
        let by_hash = service.affinity == 0 || service.balancing == Balancing::Hash || self.overflows();
        let placeless = match kept {
            Kept::Known(_) => true,
            Kept::Unseen => false,
            Kept::Nobody => pick && by_hash,
        };
        Known {
            pick,
            kept: matches!(kept, Kept::Known(_)),
            placeless,
            turns: self.turns.get(&service.key).map_or(0, Vec::len),
        }
    }

    /// The choice cannot be told from what became of the packet.
    pub(crate) fn unseen(&mut self, inside: &Inside, service: &Service, before: Known) {
        if !before.pick {
            self.picks.remove(&(service.key, Client::of(inside, service)));
        }
        if let Some(turns) = self.turns.get_mut(&service.key) {
            turns[before.turns..].fill(None);
        }
        if service.affinity > 0 && !before.kept && !service.usable().is_empty() {
            self.stick(inside, service, None);
        }
    }

    fn pick(&mut self, inside: &Inside, service: &Service, trial: &mut Trial<'_>) -> Option<Backend> {
        if service.affinity == 0 {
            return self.pick_anew(inside, service, trial);
        }
        let backend = match self.kept(inside, service) {
            Kept::Known(backend) => backend,
            Kept::Unseen if service.usable().is_empty() => return None,
            Kept::Unseen => {
                // Should it not be usable any more, it is another's turn.
                self.turns.entry(service.key).or_default().push(None);
                one_of(&service.usable(), inside, trial)
            }
            Kept::Nobody => self.pick_anew(inside, service, trial)?,
        };
        self.stick(inside, service, Some(backend.end));
        Some(backend)
    }

    pub(crate) fn stick(&mut self, inside: &Inside, service: &Service, end: Option<Side>) {
        let used = (end, self.tick());
        for sticky in Sticky::of(inside, service) {
            self.sticky.insert(sticky, used);
        }
    }

    /// The endpoint that the client used last on this port, or else the one of the address that it used on another.
    pub(crate) fn kept(&self, inside: &Inside, service: &Service) -> Kept {
        let usable = service.usable();
        let fresh = |sticky: &Sticky| {
            let (end, used) = self.sticky.get(sticky)?;
            // Never less than the timeout; up to two ticks more.
            ((self.tick() - used) * 2 < u64::from(service.affinity) + 2).then_some(*end)
        };
        let sticky = Sticky::of(inside, service);
        let here = match fresh(&sticky[0]) {
            Some(None) => return Kept::Unseen,
            Some(Some(end)) => usable.iter().find(|backend| backend.end == end),
            None => None,
        };
        if let Some(backend) = here {
            return Kept::Known(*backend);
        }
        match sticky.get(1).and_then(fresh) {
            Some(None) => Kept::Unseen,
            Some(Some((address, _))) => {
                let there = usable.iter().filter(|backend| backend.end.0 == address);
                there
                    .min_by_key(|backend| backend.end.1)
                    .map_or(Kept::Nobody, |backend| Kept::Known(*backend))
            }
            None => Kept::Nobody,
        }
    }

    fn pick_anew(&mut self, inside: &Inside, service: &Service, trial: &mut Trial<'_>) -> Option<Backend> {
        let usable = service.usable();
        match service.balancing {
            _ if usable.is_empty() => None,
            _ if self.overflows() => self.by_hash(inside, service, trial),
            Balancing::Hash => self.by_hash(inside, service, trial),
            Balancing::Turns => {
                let turn = one_of(&self.in_turn(service), inside, trial);
                self.turns.entry(service.key).or_default().push(Some(turn.end));
                Some(turn)
            }
            Balancing::LeastFlow => Some(one_of(&self.least_loaded(service), inside, trial)),
        }
    }

    /// Whose turn it may be: of as many turns on end as all shares together, each endpoint has exactly its share.
    fn in_turn(&self, service: &Service) -> Vec<Backend> {
        let usable = service.usable();
        let common = usable.iter().fold(0, |common, backend| gcd(common, backend.weight));
        let total: u32 = usable.iter().map(|backend| backend.weight / common).sum();
        let turns = self.turns.get(&service.key).map_or(&[][..], Vec::as_slice);
        let last = &turns[turns.len().saturating_sub(total as usize - 1)..];
        let had = |backend: &Backend| last.iter().filter(|turn| **turn == Some(backend.end)).count();
        usable.into_iter().filter(|backend| had(backend) < (backend.weight / common) as usize).collect()
    }

    /// Who may have the fewest open flows for its weight. Those of endpoints that are gone may count for any, until they are
    /// forgotten.
    fn least_loaded(&self, service: &Service) -> Vec<Backend> {
        let open = || self.flows.iter().filter(|flow| flow.state.is_open());
        let gone = open().filter(|flow| !self.is_alive(flow)).count();
        let own = |backend: &Backend| {
            let theirs = |flow: &&Flow| (flow.service, flow.backend) == (service.key, backend.end);
            open().filter(|flow| self.is_alive(flow)).filter(theirs).count()
        };
        let usable = service.usable();
        let fits = |one: &Backend, other: &Backend| {
            (own(one) + 1) * other.weight as usize <= (own(other) + gone + 1) * one.weight as usize
        };
        let least = |one: &&Backend| usable.iter().all(|other| other.end == one.end || fits(one, other));
        usable.iter().filter(least).copied().collect()
    }

    pub(crate) fn by_hash(
        &mut self,
        inside: &Inside,
        service: &Service,
        trial: &mut Trial<'_>,
    ) -> Option<Backend> {
        let usable = service.usable();
        let client = Client::of(inside, service);
        let known = self.picks.get(&(service.key, client)).copied();
        let backend = match usable.iter().find(|backend| Some(backend.end) == known) {
            Some(backend) => *backend,
            None if usable.is_empty() => return None,
            None => one_of(&usable, inside, trial),
        };
        self.picks.insert((service.key, client), backend.end);
        Some(backend)
    }

    /// Whether there is a place for a flow, which the engine may have to make.
    pub(super) fn has_place(&mut self, original: &Key, trial: &Trial<'_>) -> bool {
        match self.make_room(original) {
            Fits::Yes => true,
            // What is sent looks the same.
            Fits::Perhaps => trial.is_tracked(original),
            Fits::No => false,
        }
    }

    /// Enters a flow; returns what it becomes. Should its source port be another's, or have to be `another`, it is the engine's choice,
    /// as long as that is no other flow's.
    pub(super) fn enter(&mut self, mut flow: Flow, another: bool, chosen: Option<u16>) -> Key {
        let taken = |model: &Self, key: &Key| model.flow_of(&key.reversed()).is_some();
        let (address, own) = flow.translated.src;
        if another || taken(self, &flow.translated) {
            let is_ping = [ICMP, ICMPV6].contains(&flow.original.protocol);
            let other = chosen.filter(|port| *port >= 1024 && *port != own).map(|port| match is_ping {
                true => Self::with_identifier(flow.translated, port),
                false => Key { src: (address, port), ..flow.translated },
            });
            flow.translated = other.filter(|key| !taken(self, key)).unwrap_or(flow.translated);
        }
        self.flows.push(flow);
        self.counters.created += 1;
        if flow.life != ITSELF {
            self.counters.services.entry(flow.service).or_default().flows += 1;
        }
        flow.translated
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The engine's choice.
pub(crate) fn one_of(usable: &[Backend], inside: &Inside, trial: &mut Trial<'_>) -> Backend {
    let shown = trial.endpoint(&inside.key);
    // Of a ping's flow the second part is the identifier.
    let is_shown = |backend: &&Backend| {
        shown.is_some_and(|(address, port)| {
            address == backend.end.0 && (port == backend.end.1 || inside.packet.is_ping())
        })
    };
    match usable.iter().find(is_shown) {
        Some(backend) => *backend,
        None => usable[trial.pick(usable.len())],
    }
}
