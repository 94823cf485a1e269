//! The decision about one packet, told as plainly as it can be: linear searches, checksums from scratch, no state but what
//! the rules speak of.

pub(crate) mod answer;
pub(crate) mod beside;
pub(crate) mod choice;
pub(crate) mod counters;
pub(crate) mod error;
pub(crate) mod flow;
pub(crate) mod fragment;
pub(crate) mod neighbour;
pub(crate) mod output;
pub(crate) mod overflow;
pub(crate) mod pod;
pub(crate) mod route;
pub(crate) mod service;
pub(crate) mod state;
pub(crate) mod tables;
pub(crate) mod tunnel;
pub(crate) mod uplink;

use std::collections::HashMap;
use std::net::IpAddr;

use self::choice::Trial;
use self::counters::Counters;
use self::flow::{Flow, Key, Room};
use self::fragment::Fragmented;
use self::overflow::Overflow;
use self::service::{Client, Lives, Sticky};
use self::tables::{Domain, Kind, Node, Said, ServiceKey, Tables};
use crate::wire::dissect::Packet;
use crate::wire::{Frame, Left, Mac};

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// This leaves through this port.
    Send(u16, Frame),
    /// Dropped, by the name of the reason.
    Drop(&'static str),
    /// The underlay has told us of a neighbour.
    Learned { ip: IpAddr, mac: Mac, solicited: bool },
    /// A router of the underlay has told us what the way to a tunnel endpoint takes, in bytes of an IP packet.
    Narrow { vtep: IpAddr, mtu: u16 },
}

/// Where a packet comes from, which is where an answer to it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Pod,
    /// The node of this name, through its tunnel for the packet's tenant.
    Tunnel(String),
}

/// An IP packet that has been let in: without tunnel headers and padding.
#[derive(Debug, Clone)]
pub(crate) struct Inside {
    pub(crate) port: u16,
    pub(crate) origin: Origin,
    pub(crate) frame: Vec<u8>,
    pub(crate) left: Left,
    pub(crate) packet: Packet,
    pub(crate) key: Key,
}

/// A stage's outcome: what the next one needs, or the end.
pub(crate) type Step<T> = Result<T, End>;

/// The node.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) tables: Tables,
    pub(crate) seconds: u64,
    pub(crate) flows: Vec<Flow>,
    /// Packets that come in fragments.
    pub(crate) fragments: Vec<Fragmented>,
    pub(crate) room: Room,
    pub(crate) overflow: Overflow,
    pub(crate) counters: Counters,
    /// When each service's endpoint came.
    pub(crate) lives: Lives,
    /// What was chosen for whom while a service is as it is.
    pub(crate) picks: HashMap<(ServiceKey, Client), (IpAddr, u16)>,
    /// Whose turns it was while a service is as it is, as far as that was seen.
    pub(crate) turns: HashMap<ServiceKey, Vec<Option<(IpAddr, u16)>>>,
    /// Which endpoint each client used last, as far as that was seen, and when.
    pub(crate) sticky: HashMap<Sticky, (Option<(IpAddr, u16)>, u64)>,
    /// Errors of ours that went to each port in the tick of the last one.
    pub(crate) told: HashMap<u16, (u64, u64)>,
    /// Under which source port a flow's packets are in a tunnel.
    pub(crate) entropy: HashMap<Key, u16>,
}

impl Model {
    /// With room for that many flows.
    pub(crate) fn new(flows: u32) -> Self {
        Self {
            tables: Tables::default(),
            seconds: 0,
            flows: Vec::new(),
            fragments: Vec::new(),
            room: Room::new(flows),
            overflow: Overflow::default(),
            counters: Counters::default(),
            lives: Lives::default(),
            picks: HashMap::new(),
            turns: HashMap::new(),
            sticky: HashMap::new(),
            told: HashMap::new(),
            entropy: HashMap::new(),
        }
    }

    /// What becomes of a frame that came in at a port. Where the engine is free to choose, `trial` says what it chose.
    pub(crate) fn receive(&mut self, port: u16, frame: &Frame, trial: &mut Trial<'_>) -> End {
        self.counters.received(port, frame.bytes.len());
        let Some(known) = self.tables.ports.get(&port).cloned() else {
            return self.drop(port, "no-such-port");
        };
        if self.tables.node.is_none() {
            return self.drop(port, "not-programmed");
        }
        let admitted = match known.kind {
            Kind::Pod => self.admit_pod(port, &known, frame),
            Kind::Uplink => self.admit_uplink(port, &known, &frame.bytes),
        };
        match admitted {
            Ok(inside) => self.forward(&inside, trial),
            Err(end) => end,
        }
    }

    /// Ends a packet.
    pub(crate) fn drop(&mut self, port: u16, reason: &'static str) -> End {
        self.counters.dropped(port, reason);
        End::Drop(reason)
    }

    /// Ends a packet that was made into an answer, which goes back through its port.
    pub(crate) fn answer(&mut self, port: u16, kind: &'static str, frame: Vec<u8>) -> End {
        self.counters.answered(kind);
        End::Send(port, frame.into())
    }

    pub(crate) fn node(&self) -> &Node {
        self.tables.node.as_ref().expect("asked only once there is one")
    }

    /// A tenant's network identifier, routers and ranges here; `None` for a tenant that this node does not know.
    pub(crate) fn domain(&self, tenant: u32) -> Option<Domain> {
        let node = self.node();
        if tenant == 0 {
            let (gateways, ranges) = (node.gateways.clone(), node.ranges.clone());
            return Some(Domain { tenant, vni: node.vni, gateways, ranges });
        }
        node.domains.iter().find(|domain| domain.tenant == tenant).cloned()
    }

    /// Our address as a tenant's router, of the same IP version.
    pub(crate) fn gateway(&self, tenant: u32, like: IpAddr) -> Option<IpAddr> {
        self.domain(tenant)?.gateways.into_iter().find(|gateway| gateway.is_ipv4() == like.is_ipv4())
    }

    /// Whether the address is ours as a tenant's router.
    pub(crate) fn is_gateway(&self, tenant: u32, address: IpAddr) -> bool {
        self.gateway(tenant, address) == Some(address)
    }

    /// Whether the address is ours on the underlay.
    pub(crate) fn is_vtep(&self, address: IpAddr) -> bool {
        self.node().underlay.iter().any(|own| own.address == address)
    }

    /// The agent's tables change.
    pub(crate) fn take(&mut self, said: &Said) {
        let before = self.tables.services.clone();
        self.tables.take(said);
        self.services_changed(&before);
        self.lenders_changed();
    }
}
