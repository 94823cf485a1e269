//! Pings to Services' addresses.

use std::collections::BTreeMap;

use culvert_api::fastpath::{Backend, Protocol, Service};

/// For each address of `services`, an entry that sends its pings to the endpoints of all its ports.
pub(super) fn build(services: &[Service]) -> Vec<Service> {
    let mut pings = BTreeMap::<_, (&Service, BTreeMap<_, Backend>)>::new();
    for service in services {
        let (_, backends) =
            pings.entry((service.tenant, &service.vip)).or_insert_with(|| (service, BTreeMap::new()));
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
    let ping = |(service, backends): (&Service, BTreeMap<_, _>)| Service {
        port_name: "ping".to_owned(),
        protocol: Protocol::Icmp.into(),
        port: 0,
        backends: backends.into_values().collect(),
        affinity_seconds: 0,
        ..service.clone()
    };
    pings.into_values().map(ping).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(vip: u8, port: u32, backends: &[(u8, u32, bool)]) -> Service {
        let backend = |&(last, port, draining)| Backend {
            address: vec![10, 1, 0, last],
            port,
            draining,
            weight: 1,
            ..Backend::default()
        };
        Service {
            namespace: "default".to_owned(),
            name: "web".to_owned(),
            protocol: Protocol::Tcp.into(),
            vip: vec![10, 96, 0, vip],
            port,
            backends: backends.iter().map(backend).collect(),
            affinity_seconds: 10_800,
            ..Service::default()
        }
    }

    #[test]
    fn each_address_gets_one_entry_with_the_endpoints_of_all_its_ports() {
        let services = [
            service(1, 80, &[(5, 8080, false), (6, 8080, true)]),
            service(1, 443, &[(6, 8443, false), (7, 8443, true)]),
            service(2, 53, &[]),
        ];
        let pings = build(&services);
        let [first, second] = &pings[..] else { panic!("{pings:?}") };
        assert_eq!((&first.vip, first.port, first.protocol()), (&services[0].vip, 0, Protocol::Icmp));
        assert_eq!((&first.name[..], &first.port_name[..], first.affinity_seconds), ("web", "ping", 0));
        let backends: Vec<_> = first.backends.iter().map(|b| (b.address[3], b.port, b.draining)).collect();
        assert_eq!(backends, [(5, 0, false), (6, 0, false), (7, 0, true)]);
        assert_eq!((&second.vip, second.backends.len()), (&services[2].vip, 0));
    }
}
