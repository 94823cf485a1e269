//! Services and their EndpointSlices: one entry per virtual IP address, protocol and port.

use std::collections::BTreeMap;
use std::net::IpAddr;

use culvert_api::fastpath::{self, Backend, Protocol};

use super::node::is_host;
use super::octets;
use crate::kube::{Endpoint, EndpointSlice, Name, Objects, Service, ServicePort, ServiceSpec};

/// Label of an EndpointSlice: the Service it belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label of a Service that another proxy is to serve.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Timeout of ClientIP affinity when the Service does not say, in seconds.
const AFFINITY_SECONDS: u32 = 10_800;
/// Longest such timeout that the API admits: one day.
const AFFINITY_SECONDS_MAX: u32 = 86_400;

type Slices<'a> = BTreeMap<Name, Vec<(&'a Name, &'a EndpointSlice)>>;

/// The entries of all Services that have a virtual IP address.
pub(super) fn build(objects: &Objects, node: &str, problems: &mut Vec<String>) -> Vec<fastpath::Service> {
    let slices = slices_by_service(objects, problems);
    let mut entries = Vec::new();
    let mut taken: BTreeMap<(IpAddr, i32, u16), &Name> = BTreeMap::new();
    for (name, service) in &objects.services {
        let Some(spec) = served(service) else { continue };
        let vips = cluster_ips(name, spec, problems);
        let ports = ports(name, spec, problems);
        let affinity_seconds = affinity(name, spec, problems);
        let local_only = spec.internal_traffic_policy.as_deref() == Some("Local");
        let endpoints = slices.get(name).map_or(&[][..], Vec::as_slice);
        for vip in &vips {
            for port in &ports {
                if let Some(other) = taken.get(&(*vip, port.protocol as i32, port.number)) {
                    let (number, protocol) = (port.number, protocol_name(port.protocol));
                    problems.push(format!(
                        "service {name}: {vip} port {number}/{protocol} is that of service {other}; the first counts"
                    ));
                    continue;
                }
                taken.insert((*vip, port.protocol as i32, port.number), name);
                let wanted = Wanted { vip: *vip, port, node: local_only.then_some(node) };
                entries.push(fastpath::Service {
                    namespace: name.namespace.clone(),
                    name: name.name.clone(),
                    port_name: port.name.to_owned(),
                    protocol: port.protocol.into(),
                    vip: octets(*vip),
                    port: port.number.into(),
                    tenant: 0,
                    backends: wanted.backends(endpoints, problems),
                    affinity_seconds,
                });
            }
        }
    }
    problems.sort_unstable();
    problems.dedup();
    entries
}

/// Sorts the slices by the Service they belong to, and reports those that belong to none.
fn slices_by_service<'a>(objects: &'a Objects, problems: &mut Vec<String>) -> Slices<'a> {
    let mut slices = Slices::new();
    for (name, slice) in &objects.slices {
        let Some(service) = slice.metadata.labels.as_ref().and_then(|l| l.get(SERVICE_NAME)) else {
            problems
                .push(format!("endpointslice {name}: no label {SERVICE_NAME}, so it belongs to no Service"));
            continue;
        };
        let service = Name::new(&name.namespace, service);
        if !objects.services.contains_key(&service) {
            problems.push(format!("endpointslice {name}: there is no service {service}"));
            continue;
        }
        match slice.address_type.as_str() {
            "IPv4" | "IPv6" => slices.entry(service).or_default().push((name, &**slice)),
            other => {
                problems.push(format!("endpointslice {name}: addressType {other:?}: must be IPv4 or IPv6"));
            }
        }
    }
    slices
}

/// The spec of a Service that has virtual IP addresses for us to serve.
fn served(service: &Service) -> Option<&ServiceSpec> {
    let spec = service.spec.as_ref()?;
    let external_name = spec.type_.as_deref() == Some("ExternalName");
    let headless = spec.cluster_ip.as_deref() == Some("None")
        || spec.cluster_ips.iter().flatten().any(|address| address == "None");
    let other_proxy = service.metadata.labels.as_ref().is_some_and(|l| l.contains_key(PROXY_NAME));
    (!external_name && !headless && !other_proxy).then_some(spec)
}

fn cluster_ips(name: &Name, spec: &ServiceSpec, problems: &mut Vec<String>) -> Vec<IpAddr> {
    let many = spec.cluster_ips.as_ref().filter(|ips| !ips.is_empty());
    let texts: Vec<&String> = match many {
        Some(many) => many.iter().collect(),
        None => spec.cluster_ip.iter().filter(|ip| !ip.is_empty()).collect(),
    };
    if texts.is_empty() {
        problems.push(format!("service {name}: no clusterIP: it has not been given one yet"));
    }
    let mut vips = Vec::new();
    for text in texts {
        match text.parse().ok().filter(is_host) {
            Some(vip) if vips.contains(&vip) => {}
            Some(vip) => vips.push(vip),
            None => {
                problems.push(format!("service {name}: clusterIP {text:?}: must be a unicast IP address"));
            }
        }
    }
    vips
}

/// A port of a Service, checked.
struct Port<'a> {
    name: &'a str,
    protocol: Protocol,
    number: u16,
}

fn ports<'a>(name: &Name, spec: &'a ServiceSpec, problems: &mut Vec<String>) -> Vec<Port<'a>> {
    let listed = spec.ports.as_deref().unwrap_or_default();
    if listed.is_empty() {
        problems.push(format!("service {name}: no ports, so nothing of it is served"));
    }
    listed
        .iter()
        .filter_map(|port| checked(port).map_err(|e| problems.push(format!("service {name}: {e}"))).ok())
        .collect()
}

fn checked(port: &ServicePort) -> Result<Port<'_>, String> {
    let number = port_number(port.port).ok_or_else(|| format!("port {}: must be 1-65535", port.port))?;
    let protocol = protocol(port.protocol.as_deref()).map_err(|e| format!("port {number}: {e}"))?;
    Ok(Port { name: port.name.as_deref().unwrap_or_default(), protocol, number })
}

fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|n| *n != 0)
}

fn protocol(text: Option<&str>) -> Result<Protocol, String> {
    match text {
        None | Some("TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => Err(format!("protocol {other:?}: must be TCP, UDP or SCTP")),
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
        Protocol::Unspecified => "?",
    }
}

fn affinity(name: &Name, spec: &ServiceSpec, problems: &mut Vec<String>) -> u32 {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => 0,
        Some("ClientIP") => {
            let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
            let Some(seconds) = config.and_then(|c| c.timeout_seconds) else { return AFFINITY_SECONDS };
            match u32::try_from(seconds) {
                Ok(seconds @ 1..=AFFINITY_SECONDS_MAX) => seconds,
                _ => {
                    problems.push(format!(
                        "service {name}: affinity timeoutSeconds {seconds}: must be 1-{AFFINITY_SECONDS_MAX}; \
                         {AFFINITY_SECONDS} is used"
                    ));
                    AFFINITY_SECONDS
                }
            }
        }
        Some(other) => {
            problems.push(format!(
                "service {name}: sessionAffinity {other:?}: must be None or ClientIP; None is used"
            ));
            0
        }
    }
}

/// Which endpoints one entry is to have.
struct Wanted<'a> {
    vip: IpAddr,
    port: &'a Port<'a>,
    /// Only those on this node.
    node: Option<&'a str>,
}

impl Wanted<'_> {
    /// The backends, ordered by address and port, none twice.
    fn backends(&self, slices: &[(&Name, &EndpointSlice)], problems: &mut Vec<String>) -> Vec<Backend> {
        // An endpoint may be in two slices while the controller moves it from one to the other.
        let mut backends: BTreeMap<(IpAddr, u16), Serves> = BTreeMap::new();
        let family = if self.vip.is_ipv4() { "IPv4" } else { "IPv6" };
        for (name, slice) in slices.iter().filter(|(_, slice)| slice.address_type == family) {
            for number in self.ports(name, slice, problems) {
                for endpoint in &slice.endpoints {
                    if self.node.is_some_and(|node| endpoint.node_name.as_deref() != Some(node)) {
                        continue;
                    }
                    let Some(address) = self.address(name, endpoint, problems) else { continue };
                    let serves = Serves::of(endpoint);
                    backends.entry((address, number)).and_modify(|s| *s = serves.min(*s)).or_insert(serves);
                }
            }
        }
        let backend = |((address, port), serves): ((IpAddr, u16), Serves)| Backend {
            address: octets(address),
            port: port.into(),
            terminating: serves == Serves::UntilItEnds,
            weight: 0,
            draining: serves == Serves::OnlyItsConnections,
        };
        backends.into_iter().map(backend).collect()
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

#[cfg(test)]
mod tests;
