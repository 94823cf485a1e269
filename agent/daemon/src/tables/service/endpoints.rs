//! The endpoints of a Service's port, and which of them are for this node's new flows.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use culvert_api::fastpath::Backend;

use super::weight::{self, Weights};
use super::{Port, port_number, protocol};
use crate::kube::{Endpoint, EndpointHints, EndpointSlice, Name, Objects};
use crate::tables::node::is_host;
use crate::tables::{Settings, octets};

/// Label of a Node: its zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Where the clients are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tables) struct Place<'a> {
    node: &'a str,
    zone: Option<&'a str>,
}

/// Where the clients of this node are.
pub(in crate::tables) fn place<'a>(objects: &'a Objects, settings: &'a Settings) -> Place<'a> {
    let node = settings.node.as_str();
    let labels = objects.nodes.get(node).and_then(|node| node.metadata.labels.as_ref());
    let zone = labels.and_then(|labels| labels.get(ZONE)).map(String::as_str);
    Place { node, zone: zone.filter(|zone| !zone.is_empty()) }
}

/// Which endpoints one entry is to have.
pub(super) struct Wanted<'a> {
    pub(super) vip: IpAddr,
    pub(super) port: &'a Port<'a>,
    pub(super) place: Place<'a>,
    /// New flows only to those on this node.
    pub(super) local_only: bool,
    pub(super) weights: &'a Weights,
}

/// What is known of an endpoint before all are.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    serves: Serves,
    local: bool,
    hints: Option<&'a EndpointHints>,
    weight: u32,
}

impl Wanted<'_> {
    /// The backends, ordered by address and port, none twice.
    pub(super) fn backends(
        &self,
        slices: &[(Name, Arc<EndpointSlice>)],
        problems: &mut Vec<String>,
    ) -> Vec<Backend> {
        // An endpoint may be in two slices while the controller moves it from one to the other.
        let mut candidates: BTreeMap<(IpAddr, u16), Candidate<'_>> = BTreeMap::new();
        let family = if self.vip.is_ipv4() { "IPv4" } else { "IPv6" };
        for (name, slice) in slices.iter().filter(|(_, slice)| slice.address_type == family) {
            let weight = weight::of_slice(name, slice, problems);
            for number in self.ports(name, slice, problems) {
                for endpoint in &slice.endpoints {
                    let Some(address) = self.address(name, endpoint, problems) else { continue };
                    let candidate = Candidate {
                        serves: Serves::of(endpoint),
                        local: endpoint.node_name.as_deref() == Some(self.place.node),
                        hints: endpoint.hints.as_deref(),
                        weight: self.weights.get(name, weight, address),
                    };
                    let known = candidates.entry((address, number)).or_insert(candidate);
                    if candidate.serves < known.serves {
                        *known = candidate;
                    }
                }
            }
        }
        let reach = self.reach(candidates.values());
        let backend = |((address, port), candidate): ((IpAddr, u16), Candidate<'_>)| Backend {
            address: octets(address),
            port: port.into(),
            terminating: candidate.serves == Serves::UntilItEnds,
            weight: candidate.weight.max(1),
            draining: candidate.serves == Serves::OnlyItsConnections,
            away: candidate.weight == 0 || !reach.includes(&candidate, self.place),
        };
        candidates.into_iter().map(backend).collect()
    }

    /// How far new flows go, as kube-proxy decides: hints count only if every ready endpoint has some and one of these is
    /// for this node or its zone, and a traffic policy goes before them.
    fn reach<'c>(&self, candidates: impl Iterator<Item = &'c Candidate<'c>> + Clone) -> Reach {
        if self.local_only {
            return Reach::Local;
        }
        let ready = candidates.filter(|candidate| candidate.serves == Serves::Yes);
        for reach in [Reach::Node, Reach::Zone] {
            let has_some = |candidate: &&Candidate<'_>| reach.has_hints(candidate);
            let is_ours = |candidate: &Candidate<'_>| reach.includes(candidate, self.place);
            if ready.clone().all(|candidate| has_some(&candidate)) && ready.clone().any(is_ours) {
                return reach;
            }
        }
        Reach::Cluster
    }

    /// Numbers of the ports of `slice` that bear this port's name and protocol.
    fn ports(&self, name: &Name, slice: &EndpointSlice, problems: &mut Vec<String>) -> Vec<u16> {
        let mut numbers = Vec::new();
        for port in slice.ports.iter().flatten() {
            let port_name = port.name.as_deref().unwrap_or_default();
            match protocol(port.protocol.as_deref()) {
                Ok(protocol) if port_name == self.port.name && protocol == self.port.protocol => {}
                Ok(_) => continue,
                Err(e) => {
                    problems.push(format!("endpointslice {name}: port {port_name:?}: {e}"));
                    continue;
                }
            }
            match port.port.map(|number| (number, port_number(number))) {
                Some((_, Some(number))) => numbers.push(number),
                Some((number, None)) => {
                    problems.push(format!("endpointslice {name}: port {number}: must be 1-65535"));
                }
                None => problems.push(format!("endpointslice {name}: port {port_name:?}: has no number")),
            }
        }
        numbers
    }

    fn address(&self, name: &Name, endpoint: &Endpoint, problems: &mut Vec<String>) -> Option<IpAddr> {
        // Further addresses would be of the same pod; the API says that only the first is to be used.
        let Some(text) = endpoint.addresses.first() else {
            problems.push(format!("endpointslice {name}: an endpoint without an address"));
            return None;
        };
        let address = text.parse().ok().filter(|a| is_host(a) && a.is_ipv4() == self.vip.is_ipv4());
        if address.is_none() {
            problems.push(format!(
                "endpointslice {name}: endpoint {text:?}: must be a unicast address of the slice's addressType"
            ));
        }
        address
    }
}

/// How far new flows of this node go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// To every endpoint.
    Cluster,
    /// To those on this node.
    Local,
    /// To the ready ones that are meant for this node.
    Node,
    /// To the ready ones that are meant for this node's zone.
    Zone,
}

impl Reach {
    fn has_hints(self, candidate: &Candidate<'_>) -> bool {
        let Some(hints) = candidate.hints else { return false };
        match self {
            Self::Node => hints.for_nodes.as_ref().is_some_and(|nodes| !nodes.is_empty()),
            Self::Zone => hints.for_zones.as_ref().is_some_and(|zones| !zones.is_empty()),
            Self::Cluster | Self::Local => false,
        }
    }

    /// Whether an endpoint is for new flows from this place. Where hints count there is a ready one, so that for others
    /// they do not matter.
    fn includes(self, candidate: &Candidate<'_>, place: Place<'_>) -> bool {
        let hints = candidate.hints.filter(|_| candidate.serves == Serves::Yes);
        match (self, hints) {
            (Self::Cluster, _) => true,
            (Self::Local, _) => candidate.local,
            (Self::Node, Some(hints)) => hints.for_nodes.iter().flatten().any(|n| n.name == place.node),
            (Self::Zone, Some(hints)) => {
                hints.for_zones.iter().flatten().any(|z| Some(z.name.as_str()) == place.zone)
            }
            (Self::Node | Self::Zone, None) => candidate.serves != Serves::Yes,
        }
    }
}

/// How an endpoint takes part, by its conditions (KEP-1669); what serves better comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Serves {
    /// It is ready.
    Yes,
    /// It shuts down but still answers: it is there for its flows, and for new ones if no other endpoint is ready.
    UntilItEnds,
    /// It is not ready, which may pass: its connections are not cut, but nothing new goes there.
    OnlyItsConnections,
}

impl Serves {
    fn of(endpoint: &Endpoint) -> Self {
        let conditions = endpoint.conditions.as_ref();
        // The API's defaults: unknown readiness counts as ready, and `serving` as what `ready` says.
        let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
        let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
        let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
        match (ready, serving, terminating) {
            (true, _, _) => Self::Yes,
            (false, true, true) => Self::UntilItEnds,
            _ => Self::OnlyItsConnections,
        }
    }
}
