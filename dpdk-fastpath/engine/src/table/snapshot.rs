//! What workers read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use culvert_packet::flow::Tenant;

use super::common::Common;
use super::local::LocalNode;
use super::map::Map;
use super::port::{Door, Port, PortIndex, PortKind};
use super::remote::{Remote, Way};
use super::route::{Routing, Target};
use super::service::{Service, ServiceKey};
use super::shared::{Pages, SharedMap};

/// An endpoint of a service, or what it was: a slot is used again, a slot with its generation is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackendId {
    /// Number of the endpoint, for as long as it exists.
    pub slot: u32,
    /// Which occupant of the slot.
    pub generation: u32,
}

impl BackendId {
    /// Of a flow to a pod itself, which is no endpoint of a service, and goes on as long as packets come.
    pub const NONE: Self = Self { slot: u32::MAX, generation: 0 };
}

/// All that workers know, at one moment. Cheap to make when little has changed: the parts are shared.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub(super) revision: u64,
    pub(super) synced: bool,
    pub(super) epoch: u32,
    pub(super) serial: u64,
    pub(super) local: Option<Arc<LocalNode>>,
    pub(super) ports: Arc<Ports>,
    pub(super) routes: Arc<Routing>,
    pub(super) remotes: Arc<Remotes>,
    pub(super) services: Services,
}

#[derive(Debug, Default)]
pub(super) struct Ports {
    by_index: Vec<Option<Port>>,
    doors: Vec<Door>,
    uplink: Option<PortIndex>,
    pods4: Map<(Tenant, Ipv4Addr), PortIndex>,
    pods6: Map<(Tenant, Ipv6Addr), PortIndex>,
}

/// Other nodes.
#[derive(Debug, Default)]
pub(crate) struct Remotes {
    pub(super) by_slot: Vec<Option<Remote>>,
    pub(super) ways: Vec<Way>,
    /// Slots of the default tenant by tunnel endpoint.
    pub(super) vteps: Map<IpAddr, u32>,
    /// The same of the other tenants.
    pub(super) tenant_vteps: Map<(Tenant, IpAddr), u32>,
}

/// Shared, but for what a change touches, with the snapshot before.
#[derive(Debug, Clone, Default)]
pub(super) struct Services {
    pub(super) by_slot: Pages<Option<Arc<Service>>, 128>,
    pub(super) slots: SharedMap<ServiceKey, u32>,
    /// Virtual addresses, with the number of services that have each.
    pub(super) vips: SharedMap<(Tenant, IpAddr), u32>,
    /// Present generation of every backend slot.
    pub(super) generations: Pages<u32, 1024>,
    /// How many services have each endpoint.
    pub(super) common: Common,
}

impl Services {
    /// Lets a backend slot's occupant be another from now on; returns which.
    pub(super) fn next_generation(&mut self, slot: u32) -> u32 {
        let generation = self.generations.get_mut(slot as usize);
        *generation = generation.wrapping_add(1);
        *generation
    }
}

impl Ports {
    pub(super) fn new(by_index: &[Option<Port>]) -> Self {
        let door = |port: &Option<Port>| {
            port.as_ref().map_or_else(Door::default, |port| Door { mac: port.mac, mtu: port.mtu })
        };
        let doors = by_index.iter().map(door).collect();
        let mut ports = Self { by_index: by_index.to_vec(), doors, ..Self::default() };
        for (index, port) in by_index.iter().enumerate() {
            let (Some(port), index) = (port, PortIndex(index as u16)) else {
                continue;
            };
            if port.kind == PortKind::Uplink {
                ports.uplink = Some(index);
            }
            ports.pods4.extend(port.v4.map(|v4| ((port.tenant, v4), index)));
            ports.pods6.extend(port.v6.map(|v6| ((port.tenant, v6), index)));
        }
        ports
    }
}

impl Snapshot {
    /// Revision of the agent's tables; 0 before the first.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether tables have been accepted that hold everything there is.
    pub fn synced(&self) -> bool {
        self.synced
    }

    /// Differs from that of another snapshot if a decision made under the one may not hold under the other. From 1
    /// to 2^24 - 1.
    #[inline]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Number that no snapshot of this process has that says anything else, for whoever remembers what a snapshot said; 0
    /// for the empty one.
    #[inline]
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// This node; `None` before the first tables.
    #[inline]
    pub fn local(&self) -> Option<&LocalNode> {
        self.local.as_deref()
    }

    /// A port.
    #[inline]
    pub fn port(&self, index: PortIndex) -> Option<&Port> {
        self.ports.by_index.get(usize::from(index.0))?.as_ref()
    }

    /// All ports, in order of their index.
    pub fn ports(&self) -> impl Iterator<Item = (PortIndex, &Port)> {
        let port =
            |(index, port): (usize, &'_ Option<Port>)| port.is_some().then_some(PortIndex(index as u16));
        let indexes = self.ports.by_index.iter().enumerate().filter_map(port);
        indexes.filter_map(|index| Some((index, self.port(index)?)))
    }

    /// The port to the underlay.
    #[inline]
    pub fn uplink(&self) -> Option<PortIndex> {
        self.ports.uplink
    }

    /// The port of the local pod that has an address.
    #[inline]
    pub fn pod(&self, tenant: Tenant, address: IpAddr) -> Option<PortIndex> {
        match address {
            IpAddr::V4(v4) => self.ports.pods4.get(&(tenant, v4)),
            IpAddr::V6(v6) => self.ports.pods6.get(&(tenant, v6)),
        }
        .copied()
    }

    /// Where the tenant's pod address range is that holds an address.
    #[inline]
    pub fn route(&self, tenant: Tenant, address: IpAddr) -> Option<Target> {
        self.routes.lookup(tenant, address)
    }

    /// The remote node and tenant in a slot.
    #[inline]
    pub fn remote(&self, slot: u32) -> Option<&Remote> {
        self.remotes.by_slot.get(slot as usize)?.as_ref()
    }

    /// What it takes to send to each port, by index.
    #[inline]
    pub fn doors(&self) -> &[Door] {
        &self.ports.doors
    }

    /// What it takes to send to the remote node in each slot, if that is the usual: see [`Way`].
    #[inline]
    pub fn ways(&self) -> &[Way] {
        &self.remotes.ways
    }

    /// All of them, as they are shared by snapshots.
    pub(crate) fn shared_remotes(&self) -> &Arc<Remotes> {
        &self.remotes
    }

    /// All remote nodes, once for each of their tenants.
    pub fn remotes(&self) -> impl Iterator<Item = &Remote> {
        self.remotes.by_slot.iter().flatten()
    }

    /// The slot, for packets of the default tenant, of the remote node that has this tunnel endpoint.
    #[inline]
    pub fn remote_of_vtep(&self, vtep: IpAddr) -> Option<u32> {
        self.remotes.vteps.get(&vtep).copied()
    }

    /// The slot, for packets of a tenant, of the remote node that has this tunnel endpoint; `None` also if the node has no
    /// pods of the tenant.
    #[inline]
    pub fn remote_of_tenant(&self, tenant: Tenant, vtep: IpAddr) -> Option<u32> {
        if tenant == Tenant::DEFAULT {
            return self.remote_of_vtep(vtep);
        }
        self.remotes.tenant_vteps.get(&(tenant, vtep)).copied()
    }

    /// Whether some service has this virtual address.
    #[inline]
    pub fn is_vip(&self, tenant: Tenant, address: IpAddr) -> bool {
        self.services.vips.get(&(tenant, address)).is_some()
    }

    /// The service with this key.
    #[inline]
    pub fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.service_in(self.services.slots.get(key)?)
    }

    /// The same, sooner if it is in the slot `likely`.
    #[inline]
    pub fn service_near(&self, likely: u32, key: &ServiceKey) -> Option<&Service> {
        self.service_in(likely).filter(|service| service.key() == key).or_else(|| self.service(key))
    }

    /// The service in a slot.
    #[inline]
    pub fn service_in(&self, slot: u32) -> Option<&Service> {
        self.services.by_slot.get(slot as usize)?.as_deref()
    }

    /// All services, in order of their slot.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.by_slot.iter().flatten().map(|service| &**service)
    }

    /// Whether an endpoint of a service, of the default tenant and over TCP, is none of another one's.
    pub fn is_sole(&self, service: &Service, endpoint: (IpAddr, u16)) -> bool {
        self.services.common.is_sole(service.key(), endpoint)
    }

    /// Whether this endpoint still exists, as [none](BackendId::NONE) always does.
    #[inline]
    pub fn has_backend(&self, id: BackendId) -> bool {
        id == BackendId::NONE || self.services.generations.get(id.slot as usize) == Some(&id.generation)
    }
}
