//! Pings to Services' addresses.

use std::collections::BTreeMap;

use culvert_api::fastpath::{Backend, Protocol, Service};

/// An entry that sends an address's pings to the endpoints of all its ports, whose entries `services` are; `None` if there
/// is none.
pub(super) fn of<'a>(services: impl Iterator<Item = &'a Service>) -> Option<Service> {
    let mut first: Option<&Service> = None;
    let mut backends = BTreeMap::<_, Backend>::new();
    for service in services {
        // Of several Services at one address it bears the name of the first.
        let name = |service: &'a Service| (&service.namespace, &service.name);
        if first.is_none_or(|first| name(service) < name(first)) {
            first = Some(service);
        }
        for backend in &service.backends {
            let merged =
                backends.entry(backend.address.clone()).or_insert(Backend { port: 0, ..backend.clone() });
            // An endpoint is as well as the best of its ports.
            merged.terminating &= backend.terminating;
            merged.draining &= backend.draining;
            merged.away &= backend.away;
            merged.weight = merged.weight.max(backend.weight);
        }
    }
    Some(Service {
        port_name: "ping".to_owned(),
        protocol: Protocol::Icmp.into(),
        port: 0,
        backends: backends.into_values().collect(),
        affinity_seconds: 0,
        ..first?.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, port: u32, backends: &[(u8, u32, bool)]) -> Service {
        let backend = |&(last, port, draining)| Backend {
            address: vec![10, 1, 0, last],
            port,
            draining,
            weight: 1,
            ..Backend::default()
        };
        Service {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            protocol: Protocol::Tcp.into(),
            vip: vec![10, 96, 0, 1],
            port,
            backends: backends.iter().map(backend).collect(),
            affinity_seconds: 10_800,
            ..Service::default()
        }
    }

    #[test]
    fn an_address_has_one_entry_with_the_endpoints_of_all_its_ports() {
        let services = [
            service("web", 80, &[(5, 8080, false), (6, 8080, true)]),
            service("web", 443, &[(6, 8443, false), (7, 8443, true)]),
            service("api", 53, &[]),
        ];
        let ping = of(services.iter()).unwrap();
        assert_eq!((&ping.vip, ping.port, ping.protocol()), (&services[0].vip, 0, Protocol::Icmp));
        assert_eq!((&ping.name[..], &ping.port_name[..], ping.affinity_seconds), ("api", "ping", 0));
        let backends: Vec<_> = ping.backends.iter().map(|b| (b.address[3], b.port, b.draining)).collect();
        assert_eq!(backends, [(5, 0, false), (6, 0, false), (7, 0, true)]);
        assert_eq!(of([].into_iter()), None);
    }
}
