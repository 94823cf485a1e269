//! The control thread's side of the tables.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use culvert_api::fastpath as proto;
use culvert_packet::eth::EthAddr;
use culvert_packet::flow::Tenant;
use culvert_packet::ip::Protocol;

use super::check::{check_count, check_gateways, check_remotes, check_services, slots};
use super::error::{Problem, TableError};
use super::local::LocalNode;
use super::map::Map;
use super::port::{MAX_PORTS, Port, PortIndex, PortKind};
use super::remote::{MAX_REMOTES, Remote, RemoteNode, Way};
use super::route::{Routing, Target};
use super::service::{BackendSpec, MAX_SERVICES, Service, ServiceKey, ServiceSpec};
use super::slots::Slots;
use super::snapshot::{BackendId, Ports, Remotes, Snapshot};

/// Number of the next snapshot, whoever makes it.
static SERIAL: AtomicU64 = AtomicU64::new(1);

/// Epochs fit into 24 bits of a flow entry.
const MAX_EPOCH: u32 = 0xff_ffff;

/// What [`Builder::apply`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// Services in force.
    pub services: usize,
    /// Backends of all of these.
    pub backends: usize,
    /// Remote nodes in force.
    pub remotes: usize,
    /// Slots whose service is new: their counters begin at zero.
    pub new_services: Vec<u32>,
    /// All service slots are below this number.
    pub service_slots: usize,
}

/// Everything the tables are made of, and the snapshot that it makes.
#[derive(Debug, Default)]
pub struct Builder {
    ports: Vec<Option<Port>>,
    neighbours: Map<IpAddr, EthAddr>,
    /// By the other tunnel endpoint.
    path_mtus: Map<IpAddr, u16>,
    /// With their slots for packets of the default tenant.
    pub(super) remotes: BTreeMap<String, (u32, RemoteNode)>,
    /// Their slots for packets of other tenants.
    tenant_slots: BTreeMap<String, BTreeMap<Tenant, u32>>,
    remote_slots: Slots,
    service_slots: Slots,
    backend_slots: Slots,
    pub(super) snapshot: Snapshot,
    /// Services in force, and the backends of them all.
    pub(super) service_count: usize,
    backend_count: usize,
    /// Whether the tables in force are all that the agent knows, and so may be taken from.
    pub(super) complete: bool,
    stale: Stale,
}

/// Which parts of the snapshot do not hold what the builder knows, and whether earlier decisions may no longer hold.
#[derive(Debug, Default)]
struct Stale {
    ports: bool,
    remotes: bool,
    decisions: bool,
}

/// The agent's tables once they have been checked.
struct Checked {
    local: Option<LocalNode>,
    remotes: BTreeMap<String, RemoteNode>,
    services: Map<ServiceKey, ServiceSpec>,
}

impl Builder {
    /// No ports, no tables.
    pub fn new() -> Self {
        Self { stale: Stale { ports: true, remotes: true, decisions: true }, ..Self::default() }
    }

    /// Puts a port under an index, in place of what is there. Refused if another port has its name or one of its
    /// addresses, or if it is a second uplink or a second port of the host.
    pub fn attach(&mut self, index: PortIndex, port: Port) -> Result<(), TableError> {
        self.check_port(index, &port)
            .map_err(|problem| TableError::new(format!("port {}", port.name), problem))?;
        let index = usize::from(index.0);
        if self.ports.len() <= index {
            self.ports.resize(index + 1, None);
        }
        if self.ports[index].as_ref() != Some(&port) {
            self.stale = Stale { ports: true, remotes: port.kind == PortKind::Uplink, decisions: true };
            self.ports[index] = Some(port);
            self.changed();
        }
        Ok(())
    }

    fn check_port(&self, index: PortIndex, port: &Port) -> Result<(), Problem> {
        if usize::from(index.0) >= MAX_PORTS {
            return Err(Problem::TooMany { what: "ports", count: usize::from(index.0) + 1, max: MAX_PORTS });
        }
        for (other_index, other) in self.ports.iter().enumerate() {
            let Some(other) = other.as_ref().filter(|_| other_index != usize::from(index.0)) else {
                continue;
            };
            if other.name == port.name || other.kind == PortKind::Uplink && port.kind == PortKind::Uplink {
                return Err(Problem::Twice);
            }
            if other.kind == PortKind::Host && port.kind == PortKind::Host {
                return Err(Problem::SecondHostPort(other.name.clone()));
            }
            let taken =
                |&address: &IpAddr| other.tenant == port.tenant && other.addresses().any(|a| a == address);
            if let Some(address) = port.addresses().find(taken) {
                let owner = format!("port {}", other.name);
                return Err(Problem::AddressTaken { field: "address", address, owner });
            }
        }
        self.snapshot.local().map_or(Ok(()), |local| check_gateways(local, port))
    }

    /// Removes the port under an index and returns it.
    pub fn detach(&mut self, index: PortIndex) -> Option<Port> {
        let port = self.ports.get_mut(usize::from(index.0))?.take()?;
        self.stale.ports = true;
        self.stale.decisions = true;
        self.stale.remotes |= port.kind == PortKind::Uplink;
        self.changed();
        Some(port)
    }

    /// The next snapshot is another.
    fn changed(&mut self) {
        self.snapshot.serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets the Ethernet addresses of next hops in the underlay; `true` if that changes anything.
    pub fn set_neighbours(&mut self, neighbours: impl IntoIterator<Item = (IpAddr, EthAddr)>) -> bool {
        let neighbours: Map<_, _> = neighbours.into_iter().collect();
        let changed = neighbours != self.neighbours;
        self.neighbours = neighbours;
        self.stale.remotes |= changed;
        if changed {
            self.changed();
        }
        changed
    }

    /// Sets what the ways to other tunnel endpoints take, where that is less than this node's underlay MTU, in bytes of an IP
    /// packet; `true` if that changes anything.
    pub fn set_path_mtus(&mut self, path_mtus: impl IntoIterator<Item = (IpAddr, u16)>) -> bool {
        let path_mtus: Map<_, _> = path_mtus.into_iter().collect();
        let changed = path_mtus != self.path_mtus;
        self.path_mtus = path_mtus;
        self.stale.remotes |= changed;
        if changed {
            self.changed();
        }
        changed
    }

    /// The underlay's next hops to all remote nodes, in order, each once: what
    /// [`set_neighbours`](Self::set_neighbours) should know.
    pub fn next_hops(&self) -> Vec<IpAddr> {
        let Some(local) = self.snapshot.local() else {
            return Vec::new();
        };
        let hop = |(_, node): &(u32, RemoteNode)| local.way_to(node.vtep)?.1;
        let mut hops: Vec<_> = self.remotes.values().filter_map(hop).collect();
        hops.sort_unstable();
        hops.dedup();
        hops
    }

    /// Takes over the agent's tables, all of them or, with an error, nothing.
    ///
    /// Tables that are not `synced` add and change, services included backend by backend, and remove nothing.
    pub fn apply(&mut self, tables: &proto::Tables) -> Result<Applied, TableError> {
        let checked = self.check(tables)?;
        self.begin(tables.revision);
        self.snapshot.synced |= tables.synced;
        self.complete = tables.synced;
        if let Some(local) = checked.local.filter(|local| self.snapshot.local() != Some(local)) {
            self.snapshot.local = Some(Arc::new(local));
            self.stale.remotes = true;
            self.stale.decisions = true;
        }
        if tables.synced {
            self.remove_remotes(|name| !checked.remotes.contains_key(name));
            let known = self.snapshot.services.by_slot.clone();
            for service in known.iter().flatten().filter(|known| !checked.services.contains_key(known.key()))
            {
                self.remove_service(service);
            }
        }
        self.put_remotes(checked.remotes);
        let new_services = self.put_services(checked.services);
        Ok(self.applied(new_services))
    }

    /// The tables become those of `revision`.
    pub(super) fn begin(&mut self, revision: u64) {
        self.changed();
        self.snapshot.revision = revision;
    }

    /// What is in force now.
    pub(super) fn applied(&self, new_services: Vec<u32>) -> Applied {
        Applied {
            services: self.service_count,
            backends: self.backend_count,
            remotes: self.remotes.len(),
            new_services,
            service_slots: self.service_slots.end() as usize,
        }
    }

    fn check(&self, tables: &proto::Tables) -> Result<Checked, TableError> {
        let current = self.snapshot.revision;
        if tables.revision < current {
            return Err(TableError::new("tables", Problem::OldRevision { new: tables.revision, current }));
        }
        let local = tables.node.as_ref().map(LocalNode::try_from).transpose()?;
        match &local {
            Some(local) => {
                for port in self.ports.iter().flatten() {
                    check_gateways(local, port)
                        .map_err(|problem| TableError::new(format!("local node {}", local.name), problem))?;
                }
            }
            None if self.snapshot.local.is_none() => {
                return Err(TableError::new("tables", Problem::NoLocalNode));
            }
            None => {}
        }
        let remotes = check_remotes(&tables.remotes)?;
        let services = check_services(&tables.services)?;
        let kept = |present: usize| if tables.synced { 0 } else { present };
        for (what, count, max) in [
            ("remotes", slots(remotes.values()) + kept(self.placed().count()), MAX_REMOTES),
            ("services", services.len() + kept(self.service_count), MAX_SERVICES),
        ] {
            check_count(what, count, max)?;
        }
        Ok(Checked { local, remotes, services })
    }

    pub(super) fn remove_remotes(&mut self, gone: impl Fn(&str) -> bool) {
        for (name, (slot, _)) in self.remotes.extract_if(.., |name, _| gone(name)) {
            self.remote_slots.give_back(slot);
            let others = self.tenant_slots.remove(&name).unwrap_or_default();
            others.into_values().for_each(|slot| self.remote_slots.give_back(slot));
            self.stale.remotes = true;
            self.stale.decisions = true;
        }
    }

    pub(super) fn put_remotes(&mut self, mut nodes: BTreeMap<String, RemoteNode>) {
        // What is known already keeps its slot; what has not changed changes nothing.
        nodes.retain(|name, node| self.remotes.get(name).is_none_or(|(_, known)| known != node));
        for (name, node) in nodes {
            let slot = self.remotes.get(&name).map_or_else(|| self.remote_slots.take(), |(slot, _)| *slot);
            self.place_tenants(&name, &node);
            self.remotes.insert(name, (slot, node));
            self.stale.remotes = true;
            self.stale.decisions = true;
        }
    }

    /// Gives each tenant of a node its slot, and takes back those of tenants that the node no longer has.
    fn place_tenants(&mut self, name: &str, node: &RemoteNode) {
        let slots = self.tenant_slots.entry(name.to_owned()).or_default();
        for (_, slot) in slots.extract_if(.., |tenant, _| !node.tenants.contains_key(tenant)) {
            self.remote_slots.give_back(slot);
        }
        for tenant in node.tenants.keys() {
            slots.entry(*tenant).or_insert_with(|| self.remote_slots.take());
        }
    }

    /// Returns the slots whose service is new, in order. Without complete tables backends are only added and changed.
    pub(super) fn put_services(&mut self, mut specs: Map<ServiceKey, ServiceSpec>) -> Vec<u32> {
        specs.retain(|key, spec| {
            let Some(service) = self.snapshot.service(key) else { return true };
            if !self.complete {
                spec.keep_backends_of(&service.spec);
            }
            *spec != service.spec
        });
        let mut specs: Vec<_> = specs.into_iter().collect();
        // The same tables give the same slots.
        specs.sort_unstable_by_key(|(key, _)| *key);
        let mut new = Vec::new();
        for (key, spec) in specs {
            let slot = self.snapshot.services.slots.get(&key);
            let before = slot.and_then(|slot| self.snapshot.services.by_slot.get(slot as usize)?.clone());
            let slot = before.as_ref().map_or_else(|| self.service_slots.take(), |before| before.slot());
            if before.as_ref().is_none_or(|before| before.full_name() != spec.full_name()) {
                new.push(slot);
            }
            self.put_service(spec, slot, before.as_deref());
        }
        new.sort_unstable();
        new
    }

    fn put_service(&mut self, spec: ServiceSpec, slot: u32, before: Option<&Service>) {
        let had: Map<_, _> = before
            .into_iter()
            .flat_map(Service::backends)
            .map(|backend| ((backend.address, backend.port), backend))
            .collect();
        let services = &mut self.snapshot.services;
        let mut ids = Vec::with_capacity(spec.backends.len());
        for backend in &spec.backends {
            let known = had.get(&backend.endpoint());
            if known.is_none() {
                services.common.add(&spec.key, backend.endpoint());
            }
            let mut id = known.map_or_else(
                || {
                    let slot = self.backend_slots.take();
                    BackendId { slot, generation: *services.generations.get_mut(slot as usize) }
                },
                |known| known.id,
            );
            // Only a connection is worth keeping at an endpoint that is not ready: all else is decided anew.
            let drains = backend.draining && known.is_some_and(|known| !known.draining);
            if drains && !matches!(spec.key.protocol, Protocol::TCP | Protocol::SCTP) {
                id.generation = services.next_generation(id.slot);
                self.stale.decisions = true;
            }
            ids.push(id);
        }
        for (endpoint, gone) in had {
            if spec.backends.binary_search_by_key(&endpoint, BackendSpec::endpoint).is_err() {
                services.next_generation(gone.id.slot);
                services.common.remove(&spec.key, endpoint);
                self.backend_slots.give_back(gone.id.slot);
                self.stale.decisions = true;
            }
        }
        self.backend_count += spec.backends.len();
        self.backend_count -= before.map_or(0, |before| before.backends().len());
        if before.is_none() {
            self.service_count += 1;
            services.slots.insert(spec.key, slot);
            let vip = (spec.key.tenant, spec.key.vip);
            services.vips.insert(vip, services.vips.get(&vip).unwrap_or(0) + 1);
        }
        *services.by_slot.get_mut(slot as usize) = Some(Arc::new(Service::new(spec, slot, &ids, before)));
    }

    pub(super) fn remove_service(&mut self, service: &Service) {
        let services = &mut self.snapshot.services;
        for backend in service.backends() {
            services.next_generation(backend.id.slot);
            services.common.remove(service.key(), backend.endpoint());
            self.backend_slots.give_back(backend.id.slot);
        }
        self.service_count -= 1;
        self.backend_count -= service.backends().len();
        *services.by_slot.get_mut(service.slot() as usize) = None;
        services.slots.remove(service.key());
        let vip = (service.key().tenant, service.key().vip);
        match services.vips.get(&vip) {
            Some(others @ 2..) => services.vips.insert(vip, others - 1),
            _ => services.vips.remove(&vip),
        }
        self.service_slots.give_back(service.slot());
        self.stale.decisions = true;
    }

    /// What is known now, to be published.
    pub fn snapshot(&mut self) -> Snapshot {
        let stale = std::mem::take(&mut self.stale);
        if stale.ports {
            self.snapshot.ports = Arc::new(Ports::new(&self.ports));
        }
        if stale.remotes {
            self.snapshot.remotes = Arc::new(self.remotes());
            self.snapshot.routes = Arc::new(self.routes());
        }
        if stale.decisions {
            self.snapshot.epoch = self.snapshot.epoch % MAX_EPOCH + 1;
        }
        self.snapshot.clone()
    }

    fn remotes(&self) -> Remotes {
        let uplink = self.snapshot.uplink();
        let mac = uplink.and_then(|uplink| self.snapshot.port(uplink)).map(|port| port.mac);
        let mut remotes = Remotes::default();
        for (tenant, slot, node) in self.placed() {
            let at = slot as usize;
            if remotes.by_slot.len() <= at {
                remotes.by_slot.resize(at + 1, None);
                remotes.ways.resize(at + 1, Way::NONE);
            }
            let path_mtu = self.path_mtus.get(&node.vtep).copied();
            let remote = Remote::new(node, tenant, self.snapshot.local(), mac, &self.neighbours, path_mtu);
            remotes.ways[at] = remote.way(uplink);
            remotes.by_slot[at] = Some(remote);
            if tenant == Tenant::DEFAULT {
                remotes.vteps.insert(node.vtep, slot);
            } else {
                remotes.tenant_vteps.insert((tenant, node.vtep), slot);
            }
        }
        remotes
    }

    /// All slots of remote nodes with tenant and node.
    fn placed(&self) -> impl Iterator<Item = (Tenant, u32, &RemoteNode)> {
        self.remotes.iter().flat_map(|(name, (slot, node))| {
            let others = self.tenant_slots.get(name).into_iter().flatten();
            let others = others.map(move |(tenant, slot)| (*tenant, *slot, node));
            std::iter::once((Tenant::DEFAULT, *slot, node)).chain(others)
        })
    }

    /// Local ranges win over remote ones of the same length. A tenant that this node does not know has none.
    fn routes(&self) -> Routing {
        let node = self.snapshot.local();
        let known = |tenant| node.is_none_or(|node| node.vni_of(tenant).is_some());
        let local = node.into_iter().flat_map(|node| {
            let others = node.domains.iter().map(|domain| (domain.tenant, &domain.pod_cidrs));
            std::iter::once((Tenant::DEFAULT, &node.pod_cidrs)).chain(others)
        });
        let local =
            local.flat_map(|(tenant, nets)| nets.iter().map(move |net| (tenant, *net, Target::Local)));
        let remote = self.placed().filter(|(tenant, ..)| known(*tenant)).flat_map(|(tenant, slot, node)| {
            let ranges = node.ranges().filter(move |(of, _)| *of == tenant);
            ranges.map(move |(tenant, net)| (tenant, net, Target::Remote(slot)))
        });
        Routing::new(remote.chain(local))
    }
}
