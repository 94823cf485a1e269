//! Services: virtual addresses and what is behind them.

use std::fmt;
use std::hash::{BuildHasher as _, BuildHasherDefault};
use std::net::IpAddr;

use culvert_api::fastpath as proto;
use culvert_packet::flow::{FlowKey4, FlowKey6, Tenant};
use culvert_packet::ip::Protocol;
use rapidhash::fast::RapidHasher;

use super::balancing::Balancing;
use super::error::{Problem, TableError};
use super::maglev::{Choice, Maglev};
use super::rotation::Rotation;
use super::snapshot::BackendId;
use super::{port, wire};

/// Most services, a service being one virtual address, protocol and port.
pub const MAX_SERVICES: usize = 65_536;

/// Most backends of one service.
const MAX_BACKENDS: usize = 65_535;

/// Largest weight of a backend.
const MAX_WEIGHT: u32 = 1000;

/// What a packet to a service is told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Routing domain of the clients.
    pub tenant: Tenant,
    /// Virtual address.
    pub vip: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Destination port; 0 for pings.
    pub port: u16,
}

impl fmt::Display for ServiceKey {
    /// `10.96.0.1 port 80/tcp`, with the tenant where it is not the cluster's own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenant, vip, protocol, port } = self;
        if *tenant != Tenant::DEFAULT {
            write!(f, "tenant {} ", tenant.get())?;
        }
        write!(f, "{vip} port {port}/{protocol:?}")
    }
}

fn key(tenant: u32, protocol: i32, vip: &[u8], port: u32) -> Result<ServiceKey, Problem> {
    let vip = wire::address("vip", vip)?;
    let number = protocol;
    let protocol = match proto::Protocol::try_from(number) {
        Ok(proto::Protocol::Tcp) => Protocol::TCP,
        Ok(proto::Protocol::Udp) => Protocol::UDP,
        Ok(proto::Protocol::Sctp) => Protocol::SCTP,
        Ok(proto::Protocol::Icmp) if vip.is_ipv4() => Protocol::ICMP,
        Ok(proto::Protocol::Icmp) => Protocol::ICMPV6,
        Ok(proto::Protocol::Unspecified) | Err(_) => return Err(Problem::Protocol(number)),
    };
    let port = port_of(protocol, "port", port)?;
    Ok(ServiceKey { tenant: port::tenant(tenant)?, vip, protocol, port })
}

impl TryFrom<&proto::ServiceKey> for ServiceKey {
    type Error = TableError;

    fn try_from(wanted: &proto::ServiceKey) -> Result<Self, TableError> {
        let proto::ServiceKey { tenant, protocol, vip, port } = wanted;
        key(*tenant, *protocol, vip, *port).map_err(|problem| TableError::new("removed service", problem))
    }
}

/// A service as the agent describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServiceSpec {
    pub(super) key: ServiceKey,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) port_name: String,
    pub(super) affinity_seconds: u32,
    pub(super) affinity_shared: bool,
    pub(super) balancing: Balancing,
    /// In order of address and port.
    pub(super) backends: Vec<BackendSpec>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BackendSpec {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) terminating: bool,
    pub(super) draining: bool,
    pub(super) away: bool,
    pub(super) weight: u32,
}

impl BackendSpec {
    pub(super) const fn endpoint(&self) -> (IpAddr, u16) {
        (self.address, self.port)
    }
}

impl ServiceSpec {
    /// `namespace/name:port`, or `namespace/name` for a port without name.
    pub(super) fn full_name(&self) -> String {
        full_name(&self.namespace, &self.name, &self.port_name)
    }

    /// Adds the backends of `other` that this one does not have.
    pub(super) fn keep_backends_of(&mut self, other: &Self) {
        let own = self.backends.len();
        for backend in &other.backends {
            if self.backends[..own].binary_search_by_key(&backend.endpoint(), BackendSpec::endpoint).is_err()
            {
                self.backends.push(*backend);
            }
        }
        self.backends.sort_unstable();
    }
}

fn full_name(namespace: &str, name: &str, port_name: &str) -> String {
    if port_name.is_empty() {
        format!("{namespace}/{name}")
    } else {
        format!("{namespace}/{name}:{port_name}")
    }
}

impl TryFrom<&proto::Service> for ServiceSpec {
    type Error = TableError;

    fn try_from(service: &proto::Service) -> Result<Self, TableError> {
        let build = || -> Result<Self, Problem> {
            wire::text("namespace", &service.namespace)?;
            wire::text("name", &service.name)?;
            let key = key(service.tenant, service.protocol, &service.vip, service.port)?;
            let vip = key.vip;
            let count = service.backends.len();
            if count > MAX_BACKENDS {
                return Err(Problem::TooMany { what: "backends", count, max: MAX_BACKENDS });
            }
            let mut backends = service
                .backends
                .iter()
                .map(|b| backend(b, vip, key.protocol))
                .collect::<Result<Vec<_>, Problem>>()?;
            backends.sort_unstable();
            if let Some(pair) = backends.windows(2).find(|pair| pair[0].endpoint() == pair[1].endpoint()) {
                return Err(Problem::BackendTwice { address: pair[0].address, port: pair[0].port });
            }
            Ok(Self {
                key,
                namespace: service.namespace.clone(),
                name: service.name.clone(),
                port_name: service.port_name.clone(),
                affinity_seconds: service.affinity_seconds,
                affinity_shared: service.affinity_shared,
                balancing: Balancing::try_from(service.balancing)?,
                backends,
            })
        };
        build().map_err(|problem| {
            let name = full_name(&service.namespace, &service.name, &service.port_name);
            TableError::new(format!("service {name}"), problem)
        })
    }
}

/// Pings have no port.
fn port_of(protocol: Protocol, field: &'static str, value: u32) -> Result<u16, Problem> {
    match (protocol, value) {
        (Protocol::ICMP | Protocol::ICMPV6, 0) => Ok(0),
        (Protocol::ICMP | Protocol::ICMPV6, _) => {
            Err(Problem::Range { field, value: value.into(), min: 0, max: 0 })
        }
        _ => wire::port(field, value),
    }
}

fn backend(backend: &proto::Backend, vip: IpAddr, protocol: Protocol) -> Result<BackendSpec, Problem> {
    let address = wire::address("backend", &backend.address)?;
    if address.is_ipv4() != vip.is_ipv4() {
        return Err(Problem::AddressFamily { field: "backend", address, other: vip });
    }
    let (field, value) = ("backend weight", backend.weight.max(1));
    if value > MAX_WEIGHT {
        return Err(Problem::Range { field, value: value.into(), min: 1, max: MAX_WEIGHT.into() });
    }
    Ok(BackendSpec {
        address,
        port: port_of(protocol, "backend port", backend.port)?,
        terminating: backend.terminating,
        draining: backend.draining,
        away: backend.away,
        weight: value,
    })
}

/// One endpoint of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// The pod's address.
    pub address: IpAddr,
    /// The port that it serves.
    pub port: u16,
    /// Shutting down: keeps its flows, gets new ones only if no other is left.
    pub terminating: bool,
    /// Not ready: keeps its TCP and SCTP connections, gets nothing new.
    pub draining: bool,
    /// Not for new flows of this node: keeps its flows, gets nothing new.
    pub away: bool,
    /// Share of new flows relative to the others.
    pub weight: u32,
    /// Whether it gets new flows as things are.
    pub takes_new: bool,
    /// What flows remember it by.
    pub id: BackendId,
}

/// A service, ready to be used.
#[derive(Debug)]
pub struct Service {
    pub(super) spec: ServiceSpec,
    slot: u32,
    backends: Box<[Backend]>,
    /// Of those that take new flows.
    choice: Maglev,
    /// Indexes of these, unless the hash alone decides.
    takers: Box<[u16]>,
    /// Over `takers`, for round robin.
    rotation: Rotation,
    affinity: Option<Stickiness>,
}

/// How a client keeps its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stickiness {
    /// For how long after its last use, in seconds.
    pub seconds: u32,
    /// A hash of the service, which is one port of a Kubernetes Service.
    pub port: u64,
    /// A hash of the Kubernetes Service, if the client keeps the endpoint's address on its other ports.
    pub service: Option<u64>,
}

impl Stickiness {
    fn of(spec: &ServiceSpec) -> Option<Self> {
        let ServiceSpec { key, namespace, name, port_name, affinity_seconds, affinity_shared, .. } = spec;
        let service = (key.tenant, namespace, name);
        let hash = BuildHasherDefault::<RapidHasher<'_>>::default();
        (*affinity_seconds > 0).then(|| Self {
            seconds: *affinity_seconds,
            // By name, not by virtual address: those of one port share their clients.
            port: hash.hash_one((service, port_name, key.protocol)),
            service: affinity_shared.then(|| hash.hash_one(service)),
        })
    }
}

impl Service {
    /// `ids` are those of `spec.backends`, in their order; `before` is the service that this one replaces.
    pub(super) fn new(spec: ServiceSpec, slot: u32, ids: &[BackendId], before: Option<&Self>) -> Self {
        let mut backends: Box<[_]> =
            spec.backends.iter().zip(ids).map(|(b, &id)| Backend::new(b, id)).collect();
        let ready = |b: &Backend| !b.terminating && !b.draining && !b.away;
        let any_ready = backends.iter().any(ready);
        for backend in &mut backends {
            backend.takes_new = if any_ready { ready(backend) } else { !backend.draining && !backend.away };
        }
        let usable = || backends.iter().enumerate().filter(|(_, backend)| backend.takes_new);
        let choices: Vec<_> = usable().map(|(index, backend)| backend.choice(index as u16)).collect();
        let choice = before.map_or_else(|| Maglev::new(&choices), |before| before.choice.successor(&choices));
        let takers = match spec.balancing {
            Balancing::Maglev => Box::default(),
            Balancing::RoundRobin | Balancing::LeastFlow => choices.iter().map(|c| c.index).collect(),
        };
        let rotation = match spec.balancing {
            Balancing::RoundRobin => Rotation::new(choices.iter().map(|c| c.weight)),
            Balancing::Maglev | Balancing::LeastFlow => Rotation::default(),
        };
        let affinity = Stickiness::of(&spec);
        Self { spec, slot, backends, choice, takers, rotation, affinity }
    }

    /// What its packets are told by.
    pub fn key(&self) -> &ServiceKey {
        &self.spec.key
    }

    /// `namespace/name:port`, or `namespace/name` for a port without name.
    pub fn full_name(&self) -> String {
        self.spec.full_name()
    }

    /// Number of the service, for as long as it exists; below [`MAX_SERVICES`].
    #[inline]
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// All endpoints, those that are terminating among them.
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// A hash of what the service is known by, the same in every process.
    pub fn identity(&self) -> u64 {
        let &ServiceKey { tenant, vip, protocol, port } = self.key();
        match vip {
            IpAddr::V4(vip) => FlowKey4::new(tenant, protocol, (vip, port), (vip, 0)).hash64(),
            IpAddr::V6(vip) => FlowKey6::new(tenant, protocol, (vip, port), (vip, 0)).hash64(),
        }
    }

    /// How a client keeps its endpoint, if it does.
    #[inline]
    pub fn affinity(&self) -> Option<&Stickiness> {
        self.affinity.as_ref()
    }

    /// The endpoint of this address and port, if it takes new flows.
    pub fn taker(&self, (address, port): (IpAddr, u16)) -> Option<&Backend> {
        self.backend((address, port)).filter(|backend| backend.takes_new)
    }

    /// The endpoint of this address and port.
    pub fn backend(&self, (address, port): (IpAddr, u16)) -> Option<&Backend> {
        let place = self.backends.binary_search_by_key(&(address, port), Backend::endpoint).ok()?;
        self.backends.get(place)
    }

    /// The first endpoint of this address, whatever its port, that takes new flows.
    pub fn taker_at(&self, address: IpAddr) -> Option<&Backend> {
        let first = self.backends.partition_point(|backend| backend.address < address);
        let all = self.backends[first..].iter().take_while(|backend| backend.address == address);
        all.into_iter().find(|backend| backend.takes_new)
    }

    /// How new flows are spread.
    #[inline]
    pub fn balancing(&self) -> Balancing {
        self.spec.balancing
    }

    /// The endpoint whose turn it is at the `turn`-th new flow; `None` if there is none, or if the balancing is not round
    /// robin.
    #[inline]
    pub fn in_turn(&self, turn: u32) -> Option<&Backend> {
        self.backends.get(usize::from(*self.takers.get(self.rotation.at(turn)?)?))
    }

    /// Indexes of the backends that take new flows, unless the balancing is Maglev.
    #[inline]
    pub fn takers(&self) -> &[u16] {
        &self.takers
    }

    /// Indexes of the backends that [`pick`](Self::pick) chooses: one for each part of all hashes, from the lowest on.
    pub fn choices(&self) -> &[u16] {
        self.choice.choices()
    }

    /// The endpoint for a new flow with this hash, by consistent hashing whatever the balancing; `None` if there is no
    /// endpoint.
    #[inline]
    pub fn pick(&self, hash: u64) -> Option<&Backend> {
        self.backends.get(usize::from(self.choice.pick(hash)?))
    }
}

impl Backend {
    /// Address and port.
    #[inline]
    pub fn endpoint(&self) -> (IpAddr, u16) {
        (self.address, self.port)
    }

    fn new(spec: &BackendSpec, id: BackendId) -> Self {
        let BackendSpec { address, port, terminating, draining, away, weight } = *spec;
        Self { address, port, terminating, draining, away, weight, takes_new: false, id }
    }

    fn choice(&self, index: u16) -> Choice {
        // The flow hash serves: it is the same everywhere and spreads every bit.
        let (tenant, protocol) = (Tenant::DEFAULT, Protocol(0));
        let identity = match self.address {
            IpAddr::V4(v4) => FlowKey4::new(tenant, protocol, (v4, self.port), (v4, 0)).hash64(),
            IpAddr::V6(v6) => FlowKey6::new(tenant, protocol, (v6, self.port), (v6, 0)).hash64(),
        };
        Choice { index, identity, weight: self.weight }
    }
}

impl From<&Service> for proto::Service {
    fn from(service: &Service) -> Self {
        let ServiceSpec {
            key,
            namespace,
            name,
            port_name,
            affinity_seconds,
            affinity_shared,
            balancing,
            backends,
        } = &service.spec;
        let protocol = match key.protocol {
            Protocol::TCP => proto::Protocol::Tcp,
            Protocol::UDP => proto::Protocol::Udp,
            Protocol::SCTP => proto::Protocol::Sctp,
            _ => proto::Protocol::Icmp,
        };
        Self {
            namespace: namespace.clone(),
            name: name.clone(),
            port_name: port_name.clone(),
            protocol: protocol.into(),
            vip: octets(key.vip),
            port: key.port.into(),
            tenant: key.tenant.get(),
            backends: backends
                .iter()
                .map(|backend| proto::Backend {
                    address: octets(backend.address),
                    port: backend.port.into(),
                    terminating: backend.terminating,
                    weight: backend.weight,
                    draining: backend.draining,
                    away: backend.away,
                })
                .collect(),
            affinity_seconds: *affinity_seconds,
            affinity_shared: *affinity_shared,
            balancing: proto::Balancing::from(*balancing).into(),
        }
    }
}

/// An address as it is in protobuf messages.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests;
