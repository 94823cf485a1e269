// `json!` in place of an argument reads best.
#![allow(clippy::needless_pass_by_value)]

use culvert_api::fastpath::Backend;
use serde_json::{Value, from_value, json};

use super::*;
use crate::kube::{Node, Pod};

mod balancing;
mod endpoints;
mod problems;
mod reference;

/// Objects from JSON, and what is built of them for node "a", which is in zone "z".
fn built(services: &[Value], slices: &[Value]) -> (Vec<fastpath::Service>, Vec<String>) {
    built_with(services, slices, &[])
}

fn built_with(services: &[Value], slices: &[Value], pods: &[Value]) -> (Vec<fastpath::Service>, Vec<String>) {
    let mut objects = Objects::default();
    let node = json!({ "metadata": { "name": "a", "labels": { "topology.kubernetes.io/zone": "z" } } });
    objects.nodes.insert("a".into(), from_value::<Node>(node).unwrap());
    for pod in pods {
        let pod: Pod = from_value(pod.clone()).unwrap();
        objects.pods.insert(Name::of(&pod.metadata), pod);
    }
    for service in services {
        let service: Service = from_value(service.clone()).unwrap();
        objects.services.insert(Name::of(&service.metadata), service);
    }
    for slice in slices {
        let slice: EndpointSlice = from_value(slice.clone()).unwrap();
        objects.slices.insert(Name::of(&slice.metadata), slice);
    }
    let text = "overlay: { tenants: [{ name: red, vni: 7, namespaces: [r] }] }";
    let overlay = culvert_api::config::agent::AgentConfig::from_yaml(text).unwrap().overlay;
    let settings = Settings { node: "a".to_owned(), overlay };
    let (mut entries, mut problems) = (Entries::default(), Problems::default());
    Services::whole(&settings, &objects, &mut entries, &mut problems);
    let mut lines: Vec<String> = problems.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    (entries.values().map(|entry| fastpath::Service::clone(entry)).collect(), lines)
}

fn service(spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "d" }, "spec": spec })
}

fn web() -> Value {
    service(json!({ "clusterIPs": ["10.96.0.1"], "ports": [{ "port": 80 }] }))
}

fn slice(endpoints: Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": "web-1", "namespace": "d", "labels": { SERVICE_NAME: "web" } },
        "ports": [{ "port": 8080 }],
        "endpoints": endpoints,
    })
}

/// Backends as text, such as `10.1.0.2:8080`, with a `-` behind those that shut down, `!` behind those not ready, `~` behind
/// those not for new flows of this node, and their weight if that is not 1.
fn backends(entry: &fastpath::Service) -> Vec<String> {
    let ip = |b: &[u8]| match <[u8; 4]>::try_from(b) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(b).unwrap()),
    };
    let mark = |b: &Backend| match (b.terminating, b.draining) {
        (true, _) => "-",
        (_, true) => "!",
        _ => "",
    };
    let away = |b: &Backend| if b.away { "~" } else { "" };
    let weight = |b: &Backend| if b.weight == 1 { String::new() } else { format!("*{}", b.weight) };
    let text = |b: &Backend| format!("{}:{}{}{}{}", ip(&b.address), b.port, mark(b), away(b), weight(b));
    entry.backends.iter().map(text).collect()
}

#[test]
fn a_service_is_its_namespaces_tenants_and_may_have_anothers_address() {
    let mut of_red = web();
    of_red["metadata"]["namespace"] = json!("r");
    let mut second = of_red.clone();
    second["metadata"]["name"] = json!("web2");
    let (entries, problems) = built(&[web(), of_red, second], &[]);
    let tenants: Vec<_> = entries.iter().map(|e| (e.namespace.as_str(), e.tenant, e.vip.clone())).collect();
    assert_eq!(tenants, [("d", 0, vec![10, 96, 0, 1]), ("r", 7, vec![10, 96, 0, 1])]);
    assert_eq!(
        problems,
        ["service r/web2: 10.96.0.1 port 80/TCP is that of service r/web; the first counts"]
    );
}

#[test]
fn a_virtual_address_belongs_to_the_first_service_by_name() {
    let mut other = web();
    other["metadata"]["name"] = json!("a");
    let (entries, problems) = built(&[web(), other], &[]);
    assert_eq!(entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(problems, ["service d/web: 10.96.0.1 port 80/TCP is that of service d/a; the first counts"]);
}

#[test]
fn both_families_and_all_ports_are_entries_with_the_endpoints_of_their_name_and_protocol() {
    let service = service(json!({
        "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00:96::1"],
        "ports": [
            { "name": "http", "port": 80, "targetPort": "web" },
            { "name": "dns", "port": 53, "protocol": "UDP" },
            { "name": "sig", "port": 53, "protocol": "SCTP" },
        ],
    }));
    let slice = |name: &str, family: &str, ip: &str| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": { "name": name, "namespace": "d", "labels": { SERVICE_NAME: "web" } },
            "ports": [
                { "name": "http", "port": 8080, "protocol": "TCP" },
                { "name": "dns", "port": 5353, "protocol": "UDP" },
                { "name": "sig", "port": 1, "protocol": "TCP" },
            ],
            "endpoints": [{ "addresses": [ip] }],
        })
    };
    let (entries, problems) =
        built(&[service], &[slice("v4", "IPv4", "10.1.0.2"), slice("v6", "IPv6", "fd00::2")]);
    let found: Vec<_> = entries.iter().map(|e| (e.vip.len(), e.port, e.protocol, backends(e))).collect();
    let one = |text: &str| vec![text.to_owned()];
    assert_eq!(
        found,
        [
            (4, 80, 1, one("10.1.0.2:8080")),
            (4, 53, 2, one("10.1.0.2:5353")),
            (4, 53, 3, vec![]),
            (16, 80, 1, one("fd00::2:8080")),
            (16, 53, 2, one("fd00::2:5353")),
            (16, 53, 3, vec![]),
        ]
    );
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn headless_external_and_foreign_services_are_none_of_ours_and_no_problem() {
    for spec in [
        json!({ "clusterIP": "None", "ports": [{ "port": 80 }] }),
        json!({ "clusterIPs": ["None"] }),
        json!({ "type": "ExternalName", "externalName": "example.com" }),
    ] {
        assert_eq!(built(&[service(spec.clone())], &[slice(json!([]))]), (vec![], vec![]), "{spec}");
    }
    for label in [PROXY_NAME, HEADLESS] {
        let mut foreign = web();
        foreign["metadata"]["labels"] = json!({ label: "" });
        let mut slice = slice(json!([{ "addresses": ["10.1.0.2"] }]));
        assert_eq!(built(&[foreign], std::slice::from_ref(&slice)), (vec![], vec![]));
        slice["metadata"]["labels"][label] = json!("");
        let (entries, problems) = built(&[web()], &[slice]);
        assert_eq!((backends(&entries[0]), problems), (vec![], vec![]));
    }
}
