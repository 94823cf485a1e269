//! Services and their EndpointSlices: one entry per virtual IP address, protocol and port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use culvert_api::config::agent::Overlay;
use culvert_api::config::balancing::Balancing;
use culvert_api::config::flows::ServicePing;
use culvert_api::fastpath::{self, Protocol};

use self::endpoints::Wanted;
use self::weight::Weights;
use super::node::is_host;
use super::problems::Problems;
use super::{Frontend, Settings, octets, ping};
use crate::kube::{
    EndpointSlice, Kind, Name, ObjectId, ObjectMeta, Objects, Service, ServicePort, ServiceSpec,
};
use crate::shared_map::SharedMap;

pub(super) use self::endpoints::place;

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

/// The Services' entries.
type Entries = SharedMap<Frontend, fastpath::Service>;

/// What is known of the Services beside their entries.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Services {
    /// The EndpointSlices of each Service, in the order of their names, whether the Service is there or not.
    slices: BTreeMap<Name, Vec<(Name, Arc<EndpointSlice>)>>,
    weights: Weights,
    /// Which Services want a frontend; the first of them by name has it.
    claims: BTreeSet<(Frontend, Name)>,
}

impl Services {
    /// Makes `entries` those of all Services that have a virtual IP address, and says what is wrong with each object.
    pub(super) fn whole(
        settings: &Settings,
        objects: &Objects,
        entries: &mut Entries,
        problems: &mut Problems,
    ) -> Self {
        let mut known = Self::default();
        for (name, pod) in objects.pods.iter() {
            known.weights.put(name, pod, problems);
        }
        for (name, slice) in objects.slices.iter() {
            if let Some(service) = owner(name, slice) {
                known.put_slice(service, name, slice);
            }
            problems.set(slice_id(name), fault(name, slice, objects));
        }
        for (name, service) in objects.services.iter() {
            let frontends = frontends(name, service, settings).into_iter();
            known.claims.extend(frontends.map(|frontend| (frontend, name.clone())));
        }
        let mut all = BTreeMap::new();
        for (name, service) in objects.services.iter() {
            let mut lines = Vec::new();
            all.extend(known.entries(settings, objects, name, service, &mut lines));
            problems.set(service_id(name), lines);
        }
        let vips = all.keys().map(|frontend| (frontend.tenant, frontend.vip)).collect();
        let mut all: Entries = all.into_iter().collect();
        make_pings(settings, &vips, &mut all);
        entries.become_like(&all);
        known
    }

    /// The same where `entries` were those of `old` objects and are to be those of `new` ones.
    pub(super) fn update(
        &mut self,
        settings: &Settings,
        [old, new]: [&Objects; 2],
        entries: &mut Entries,
        problems: &mut Problems,
    ) {
        let mut services = self.change_pods(old, new, problems);
        let mut slices = self.change_slices(old, new, &mut services);
        let mut claimed = BTreeSet::new();
        for difference in old.services.differences(&new.services) {
            let name = difference.key;
            if difference.old.is_none() || difference.new.is_none() {
                slices.extend(self.slices.get(name).into_iter().flatten().map(|(slice, _)| slice.clone()));
            }
            let [old, new] = [difference.old, difference.new].map(|service| {
                service.map_or_else(BTreeSet::new, |service| frontends(name, service, settings))
            });
            for frontend in old.symmetric_difference(&new) {
                let claim = (*frontend, name.clone());
                if new.contains(frontend) {
                    self.claims.insert(claim);
                } else {
                    self.claims.remove(&claim);
                }
                claimed.insert(*frontend);
            }
            services.insert(name.clone());
        }
        for name in slices {
            let slice = new.slices.get(&name);
            problems.set(slice_id(&name), slice.map_or_else(Vec::new, |slice| fault(&name, slice, new)));
        }
        let mut vips = BTreeSet::new();
        for frontend in &claimed {
            vips.insert((frontend.tenant, frontend.vip));
            services.extend(self.claims_of(frontend).cloned());
            if self.claims_of(frontend).next().is_none() {
                entries.remove(frontend);
            }
        }
        for name in services {
            let mut lines = Vec::new();
            if let Some(service) = new.services.get(&name) {
                for (frontend, entry) in self.entries(settings, new, &name, service, &mut lines) {
                    vips.insert((frontend.tenant, frontend.vip));
                    entries.insert(frontend, entry);
                }
            }
            problems.set(service_id(&name), lines);
        }
        make_pings(settings, &vips, entries);
    }

    /// Takes over other weights of pods; the Services that these are for.
    fn change_pods(&mut self, old: &Objects, new: &Objects, problems: &mut Problems) -> BTreeSet<Name> {
        let mut addresses = BTreeMap::<Arc<str>, BTreeSet<IpAddr>>::new();
        for difference in old.pods.differences(&new.pods) {
            let name = difference.key;
            let taken = difference.old.map_or_else(Vec::new, |pod| self.weights.take(name, pod, problems));
            let given = difference.new.map_or_else(Vec::new, |pod| self.weights.put(name, pod, problems));
            if taken != given {
                let changed = taken.into_iter().chain(given).map(|(address, _)| address);
                addresses.entry(Arc::clone(&name.namespace)).or_default().extend(changed);
            }
        }
        addresses
            .iter()
            .flat_map(|(namespace, addresses)| self.with_endpoints(namespace, addresses))
            .collect()
    }

    /// Services of a namespace that have an endpoint at one of `addresses`. Looks at all endpoints there: pods that say
    /// their weight are few, and change it seldom.
    fn with_endpoints(&self, namespace: &Arc<str>, addresses: &BTreeSet<IpAddr>) -> Vec<Name> {
        let is_there = |slice: &EndpointSlice| {
            let texts = slice.endpoints.iter().filter_map(|endpoint| endpoint.addresses.first());
            texts.filter_map(|text| text.parse().ok()).any(|address| addresses.contains(&address))
        };
        let services = self.slices.range(Name::new(Arc::clone(namespace), "")..);
        let services = services.take_while(|(name, _)| name.namespace == *namespace);
        let services = services.filter(|(_, slices)| slices.iter().any(|(_, slice)| is_there(slice)));
        services.map(|(name, _)| name.clone()).collect()
    }

    /// Takes over other EndpointSlices and adds the Services that they belong to, or did; which slices these are.
    fn change_slices(
        &mut self,
        old: &Objects,
        new: &Objects,
        services: &mut BTreeSet<Name>,
    ) -> BTreeSet<Name> {
        let differences = old.slices.differences(&new.slices);
        for difference in &differences {
            let name = difference.key;
            if let Some(service) = difference.old.and_then(|slice| owner(name, slice)) {
                self.take_slice(&service, name);
                services.insert(service);
            }
            if let Some((service, slice)) =
                difference.new.and_then(|slice| Some((owner(name, slice)?, slice)))
            {
                services.insert(service.clone());
                self.put_slice(service, name, slice);
            }
        }
        differences.into_iter().map(|difference| difference.key.clone()).collect()
    }

    fn put_slice(&mut self, service: Name, name: &Name, slice: &Arc<EndpointSlice>) {
        let slices = self.slices.entry(service).or_default();
        let at = slices.partition_point(|(other, _)| other < name);
        slices.insert(at, (name.clone(), Arc::clone(slice)));
    }

    fn take_slice(&mut self, service: &Name, name: &Name) {
        let Some(slices) = self.slices.get_mut(service) else { return };
        slices.retain(|(other, _)| other != name);
        if slices.is_empty() {
            self.slices.remove(service);
        }
    }

    /// The Services that want a frontend, in order.
    fn claims_of(&self, frontend: &Frontend) -> impl Iterator<Item = &Name> {
        let claims = self.claims.range((*frontend, Name::default())..);
        claims.take_while(move |(other, _)| other == frontend).map(|(_, name)| name)
    }

    /// The entries of one Service.
    fn entries(
        &self,
        settings: &Settings,
        objects: &Objects,
        name: &Name,
        service: &Service,
        problems: &mut Vec<String>,
    ) -> Vec<(Frontend, fastpath::Service)> {
        let Some(spec) = served(service) else { return vec![] };
        let overlay = &settings.overlay;
        let tenant = tenant(name, overlay);
        let vips = cluster_ips(name, spec, problems);
        let ports = ports(name, spec, problems);
        let affinity_seconds = affinity(name, spec, problems);
        let balancing = balancing_of(name, service, overlay.balancing, problems);
        let local_only = local_only(name, spec, problems);
        let endpoints = self.slices.get(name).map_or(&[][..], Vec::as_slice);
        let mut entries: Vec<(Frontend, fastpath::Service)> = Vec::new();
        for (vip, port) in vips.iter().flat_map(|vip| ports.iter().map(move |port| (*vip, port))) {
            let frontend = Frontend { tenant, vip, protocol: port.protocol.into(), port: port.number };
            let first = self.claims_of(&frontend).next().unwrap_or(name);
            if first != name || entries.iter().any(|(other, _)| *other == frontend) {
                let (number, protocol) = (port.number, protocol_name(port.protocol));
                problems.push(format!(
                    "service {name}: {vip} port {number}/{protocol} is that of service {first}; the first counts"
                ));
                continue;
            }
            let place = place(objects, settings);
            let wanted = Wanted { vip, port, place, local_only, weights: &self.weights };
            let entry = fastpath::Service {
                namespace: name.namespace.to_string(),
                name: name.name.to_string(),
                port_name: port.name.to_owned(),
                protocol: port.protocol.into(),
                vip: octets(vip),
                port: port.number.into(),
                tenant,
                backends: wanted.backends(endpoints, problems),
                affinity_seconds,
                affinity_shared: affinity_seconds > 0 && ports.len() > 1,
                balancing: balancing.into(),
            };
            entries.push((frontend, entry));
        }
        entries
    }
}

/// Makes the entries for pings to these addresses of tenants follow the others.
fn make_pings(settings: &Settings, vips: &BTreeSet<(u32, IpAddr)>, entries: &mut Entries) {
    if settings.overlay.flows.service_ping != ServicePing::Endpoint {
        return;
    }
    for &(tenant, vip) in vips {
        let first = Frontend { tenant, vip, protocol: 0, port: 0 };
        let pings = Frontend { protocol: Protocol::Icmp.into(), ..first };
        let at_vip = entries.range_from(&first).take_while(|(frontend, _)| **frontend < pings);
        match ping::of(at_vip.map(|(_, entry)| &**entry)) {
            Some(ping) => entries.insert(pings, ping),
            None => drop(entries.remove(&pings)),
        }
    }
}

/// What the Service is reached at, if nobody else is.
fn frontends(name: &Name, service: &Service, settings: &Settings) -> BTreeSet<Frontend> {
    let Some(spec) = served(service) else { return BTreeSet::new() };
    // What is wrong with it is told with its entries.
    let told = &mut Vec::new();
    let (vips, ports) = (cluster_ips(name, spec, told), ports(name, spec, told));
    let tenant = tenant(name, &settings.overlay);
    let at = |vip| {
        let port = move |port: &Port<'_>| (port.protocol.into(), port.number);
        ports.iter().map(port).map(move |(protocol, port)| Frontend { tenant, vip, protocol, port })
    };
    vips.into_iter().flat_map(at).collect()
}

fn tenant(service: &Name, overlay: &Overlay) -> u32 {
    overlay.tenant_of(&service.namespace).map_or(0, |tenant| tenant.vni.get())
}

fn service_id(name: &Name) -> ObjectId {
    ObjectId::new(Kind::Service, name.clone())
}

fn slice_id(name: &Name) -> ObjectId {
    ObjectId::new(Kind::EndpointSlice, name.clone())
}

/// The Service that a slice names, unless the slice is for another proxy.
fn owner(name: &Name, slice: &EndpointSlice) -> Option<Name> {
    let labels = slice.metadata.labels.as_ref().filter(|_| !is_others(&slice.metadata))?;
    let service = labels.get(SERVICE_NAME)?;
    Some(Name::new(Arc::clone(&name.namespace), service.as_str()))
}

/// Why a slice that is for us belongs to no Service.
fn fault(name: &Name, slice: &EndpointSlice, objects: &Objects) -> Vec<String> {
    let Some(service) = owner(name, slice) else {
        let told = !is_others(&slice.metadata);
        let line = || format!("endpointslice {name}: no label {SERVICE_NAME}, so it belongs to no Service");
        return told.then(line).into_iter().collect();
    };
    let line = match slice.address_type.as_str() {
        _ if !objects.services.contains_key(&service) => {
            format!("endpointslice {name}: there is no service {service}")
        }
        "IPv4" | "IPv6" => return vec![],
        other => format!("endpointslice {name}: addressType {other:?}: must be IPv4 or IPv6"),
    };
    vec![line]
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
