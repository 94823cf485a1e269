//! What the node knows, in plain lists.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::wire::Mac;

/// An address range: an address and the length of its prefix.
pub(crate) type Range = (IpAddr, u8);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Uplink,
    Pod,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) mac: Mac,
    /// Addresses of the pod, at most one of each IP version.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mtu: u16,
    pub(crate) tenant: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Underlay {
    pub(crate) address: IpAddr,
    pub(crate) prefix: u8,
    pub(crate) router: Option<IpAddr>,
}

/// This node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) gateway_mac: Mac,
    pub(crate) underlay: Vec<Underlay>,
    pub(crate) vtep_mac: Mac,
    pub(crate) vni: u32,
    pub(crate) tunnels: Tunnels,
    pub(crate) mtu: u16,
    pub(crate) ranges: Vec<Range>,
    pub(crate) policy: Policy,
    /// Tenants besides tenant 0, which has the fields above.
    pub(crate) domains: Vec<Domain>,
}

/// How connections are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) lost: Lost,
    /// ICMP errors of ours to one port.
    pub(crate) errors_per_second: u32,
    pub(crate) timeouts: Timeouts,
}

/// Seconds of silence after which a flow is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeouts {
    pub(crate) tcp_opening: u32,
    pub(crate) tcp_established: u32,
    pub(crate) tcp_half_closed: u32,
    pub(crate) tcp_closed: u32,
    pub(crate) udp_unreplied: u32,
    pub(crate) udp: u32,
    pub(crate) icmp: u32,
    pub(crate) sctp: u32,
}

impl Timeouts {
    /// RFC 5382, 4787, 5508 and 7857; SCTP as Linux.
    pub(crate) const USUAL: Self = Self {
        tcp_opening: 240,
        tcp_established: 86_400,
        tcp_half_closed: 3_600,
        tcp_closed: 240,
        udp_unreplied: 30,
        udp: 120,
        icmp: 60,
        sctp: 210,
    };
}

/// What a packet gets whose connection is not known or whose endpoint is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    Reset,
    Drop,
    /// Another endpoint.
    Reselect,
}

/// A tenant as this node has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Domain {
    pub(crate) tenant: u32,
    pub(crate) vni: u32,
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) ranges: Vec<Range>,
}

/// What holds for all tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tunnels {
    /// Geneve instead of VXLAN.
    pub(crate) geneve: bool,
    /// UDP destination port.
    pub(crate) port: u16,
    pub(crate) dscp: Dscp,
    /// Outer packets are not ECN-capable (RFC 6040, compatibility mode).
    pub(crate) compatibility: bool,
    /// Hops of outer packets; `None`: as those of the inner.
    pub(crate) hops: Option<u8>,
    /// Over IPv6: whether outer packets go without UDP checksum, and whether they may come without.
    pub(crate) send_zero_checksum6: bool,
    pub(crate) accept_zero_checksum6: bool,
}

/// How DSCP inside and outside depend on each other (RFC 2983).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dscp {
    /// This one outside, the own one inside.
    Pipe(u8),
    /// From the inside to the outside.
    Copy,
    /// The same, and back.
    Uniform,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) vtep: IpAddr,
    pub(crate) vtep_mac: Mac,
    pub(crate) ranges: Vec<Range>,
    /// Those of its pods of other tenants.
    pub(crate) tenants: BTreeMap<u32, Vec<Range>>,
}

/// What a service is told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ServiceKey {
    pub(crate) tenant: u32,
    pub(crate) vip: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) key: ServiceKey,
    pub(crate) name: String,
    /// Seconds for which a client keeps its endpoint; 0 if it does not.
    pub(crate) affinity: u32,
    /// It keeps the address on all ports of the service.
    pub(crate) affinity_shared: bool,
    pub(crate) balancing: Balancing,
    pub(crate) backends: Vec<Backend>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) end: (IpAddr, u16),
    pub(crate) terminating: bool,
    pub(crate) draining: bool,
    /// Not for new flows of this node.
    pub(crate) away: bool,
    pub(crate) weight: u32,
}

/// Who gets a new flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Balancing {
    /// Whom the flow's hash, or with affinity the client's, chooses.
    Hash,
    Turns,
    LeastFlow,
}

impl Service {
    /// Endpoints for new flows: those that are ready; if there is none, those that are shutting down. Never those that are
    /// not ready or not for this node.
    pub(crate) fn usable(&self) -> Vec<Backend> {
        let ready = |b: &&Backend| !b.terminating && !b.draining && !b.away;
        let ready: Vec<_> = self.backends.iter().filter(ready).copied().collect();
        if ready.is_empty() {
            self.backends.iter().filter(|b| !b.draining && !b.away).copied().collect()
        } else {
            ready
        }
    }
}

/// What the agent says: this node, the others, the services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    /// Everything there is: what is absent goes.
    pub(crate) synced: bool,
    pub(crate) node: Option<Node>,
    pub(crate) remotes: BTreeMap<String, Remote>,
    pub(crate) services: Vec<Service>,
}

/// All that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tables {
    pub(crate) ports: BTreeMap<u16, Port>,
    pub(crate) node: Option<Node>,
    pub(crate) remotes: BTreeMap<String, Remote>,
    pub(crate) services: Vec<Service>,
    pub(crate) neighbours: Vec<(IpAddr, Mac)>,
    /// What the ways to tunnel endpoints take, where that is known to be less than the node's own MTU.
    pub(crate) path_mtus: Vec<(IpAddr, u16)>,
    /// Whether the agent has said everything there is, the last time.
    pub(crate) complete: bool,
}

impl Tables {
    pub(crate) fn service(&self, key: ServiceKey) -> Option<&Service> {
        self.services.iter().find(|service| service.key == key)
    }

    pub(crate) fn uplink(&self) -> Option<(u16, &Port)> {
        self.ports.iter().find(|(_, port)| port.kind == Kind::Uplink).map(|(index, port)| (*index, port))
    }

    /// Whether the agent can say the same by what is different.
    pub(crate) fn may_change_to(&self, said: &Said) -> bool {
        let same_node = said.node.is_none() || said.node == self.node;
        self.complete && said.synced && same_node && self.node.is_some()
    }

    /// Takes over what the agent says.
    pub(crate) fn take(&mut self, said: &Said) {
        if let Some(node) = &said.node {
            self.node = Some(node.clone());
        }
        self.complete = said.synced;
        if said.synced {
            self.remotes.clear();
        }
        self.remotes.extend(said.remotes.clone());
        let before = std::mem::take(&mut self.services);
        for service in &said.services {
            let mut service = service.clone();
            let known = before.iter().find(|known| known.key == service.key);
            // Nothing is forgotten before the agent has read everything.
            for backend in known.iter().filter(|_| !said.synced).flat_map(|known| &known.backends) {
                if service.backends.iter().all(|own| own.end != backend.end) {
                    service.backends.push(*backend);
                }
            }
            self.services.push(service);
        }
        for known in before.into_iter().filter(|_| !said.synced) {
            if self.service(known.key).is_none() {
                self.services.push(known);
            }
        }
    }
}
