//! Services and their EndpointSlices: one entry per virtual IP address, protocol and port.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use culvert_api::config::agent::Overlay;
use culvert_api::config::balancing::Balancing;
use culvert_api::fastpath::{self, Protocol};

use self::endpoints::{Place, Wanted};
use self::weight::Weights;
use super::node::is_host;
use super::octets;
use crate::kube::{EndpointSlice, Name, ObjectMeta, Objects, Service, ServicePort, ServiceSpec};

mod endpoints;
mod weight;

/// Label of an EndpointSlice: the Service it belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Labels of a Service and its EndpointSlices that another proxy is to serve, or nobody.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Annotation of a Service: who gets new flows.
const BALANCING: &str = "culvert.io/balancing";
/// Timeout of ClientIP affinity when the Service does not say, in seconds.
const AFFINITY_SECONDS: u32 = 10_800;
/// Longest such timeout that the API admits: one day.
const AFFINITY_SECONDS_MAX: u32 = 86_400;

type Slices<'a> = BTreeMap<Name, Vec<(&'a Name, &'a EndpointSlice)>>;

/// The entries of all Services that have a virtual IP address, for node `node`.
pub(super) fn build(
    objects: &Objects,
    node: &str,
    overlay: &Overlay,
    problems: &mut Vec<String>,
) -> Vec<fastpath::Service> {
    let slices = slices_by_service(objects, problems);
    let place = Place::of(objects, node);
    let weights = Weights::of(objects, problems);
    let mut entries = Vec::new();
    let mut taken: BTreeMap<(u32, IpAddr, i32, u16), &Name> = BTreeMap::new();
    for (name, service) in objects.services.iter() {
        let Some(spec) = served(service) else { continue };
        let tenant = overlay.tenant_of(&name.namespace).map_or(0, |tenant| tenant.vni.get());
        let vips = cluster_ips(name, spec, problems);
        let ports = ports(name, spec, problems);
        let affinity_seconds = affinity(name, spec, problems);
        let balancing = balancing_of(name, service, overlay.balancing, problems);
        let local_only = local_only(name, spec, problems);
        let endpoints = slices.get(name).map_or(&[][..], Vec::as_slice);
        for vip in &vips {
            for port in &ports {
                if let Some(other) = taken.get(&(tenant, *vip, port.protocol as i32, port.number)) {
                    let (number, protocol) = (port.number, protocol_name(port.protocol));
                    problems.push(format!(
                        "service {name}: {vip} port {number}/{protocol} is that of service {other}; the first counts"
                    ));
                    continue;
                }
                taken.insert((tenant, *vip, port.protocol as i32, port.number), name);
                let wanted = Wanted { vip: *vip, port, place, local_only, weights: &weights };
                entries.push(fastpath::Service {
                    namespace: name.namespace.to_string(),
                    name: name.name.to_string(),
                    port_name: port.name.to_owned(),
                    protocol: port.protocol.into(),
                    vip: octets(*vip),
                    port: port.number.into(),
                    tenant,
                    backends: wanted.backends(endpoints, problems),
                    affinity_seconds,
                    affinity_shared: affinity_seconds > 0 && ports.len() > 1,
                    balancing: balancing.into(),
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
    for (name, slice) in objects.slices.iter() {
        if is_others(&slice.metadata) {
            continue;
        }
        let Some(service) = slice.metadata.labels.as_ref().and_then(|l| l.get(SERVICE_NAME)) else {
            problems
                .push(format!("endpointslice {name}: no label {SERVICE_NAME}, so it belongs to no Service"));
            continue;
        };
        let service = Name::new(Arc::clone(&name.namespace), service.as_str());
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
    (!external_name && !headless && !is_others(&service.metadata)).then_some(spec)
}

/// Whether labels say that an object is for another proxy, or for none.
fn is_others(metadata: &ObjectMeta) -> bool {
    let labels = metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key(PROXY_NAME) || labels.contains_key(HEADLESS))
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
        Protocol::Icmp => "ICMP",
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

fn local_only(name: &Name, spec: &ServiceSpec, problems: &mut Vec<String>) -> bool {
    match spec.internal_traffic_policy.as_deref() {
        None | Some("" | "Cluster") => false,
        Some("Local") => true,
        Some(other) => {
            problems.push(format!(
                "service {name}: internalTrafficPolicy {other:?}: must be Cluster or Local; Cluster is used"
            ));
            false
        }
    }
}

fn balancing_of(
    name: &Name,
    service: &Service,
    default: Balancing,
    problems: &mut Vec<String>,
) -> fastpath::Balancing {
    let annotation = service.metadata.annotations.as_ref().and_then(|a| a.get(BALANCING));
    let said = annotation.and_then(|text| {
        let wrong = |error| problems.push(format!("service {name}: annotation {BALANCING} {error}"));
        text.parse().map_err(wrong).ok()
    });
    match said.unwrap_or(default) {
        Balancing::Maglev => fastpath::Balancing::Maglev,
        Balancing::RoundRobin => fastpath::Balancing::RoundRobin,
        Balancing::LeastFlow => fastpath::Balancing::LeastFlow,
    }
}

#[cfg(test)]
mod tests;
