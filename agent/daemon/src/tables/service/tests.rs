// `json!` in place of an argument reads best.
#![allow(clippy::needless_pass_by_value)]

use std::collections::BTreeSet;
use std::sync::Arc;

use culvert_api::fastpath::Backend;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, from_value, json};

use super::weight::WEIGHT;
use super::*;
use crate::kube::Pod;

/// Objects from JSON, and what is built of them for node "a", which is in zone "z".
fn built(services: &[Value], slices: &[Value]) -> (Vec<fastpath::Service>, Vec<String>) {
    built_with(services, slices, &[])
}

fn built_with(services: &[Value], slices: &[Value], pods: &[Value]) -> (Vec<fastpath::Service>, Vec<String>) {
    let mut objects = Objects::default();
    let node = json!({ "metadata": { "name": "a", "labels": { "topology.kubernetes.io/zone": "z" } } });
    objects.nodes.insert("a".to_owned(), Arc::new(from_value(node).unwrap()));
    for pod in pods {
        let pod: Pod = from_value(pod.clone()).unwrap();
        objects.pods.insert(Name::of(&pod.metadata), Arc::new(pod));
    }
    for service in services {
        let service: Service = from_value(service.clone()).unwrap();
        objects.services.insert(Name::of(&service.metadata), Arc::new(service));
    }
    for slice in slices {
        let slice: EndpointSlice = from_value(slice.clone()).unwrap();
        objects.slices.insert(Name::of(&slice.metadata), Arc::new(slice));
    }
    let mut problems = Vec::new();
    let text = "overlay: { tenants: [{ name: red, vni: 7, namespaces: [r] }] }";
    let overlay = culvert_api::config::agent::AgentConfig::from_yaml(text).unwrap().overlay;
    let entries = build(&objects, "a", &overlay, &mut problems);
    (entries, problems)
}

fn service(spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "d" }, "spec": spec })
}

fn web() -> Value {
    service(json!({ "clusterIPs": ["10.96.0.1"], "ports": [{ "port": 80 }] }))
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
fn endpoints_take_part_by_their_conditions() {
    // KEP-1669: (ready, serving, terminating) -> how the endpoint takes part.
    let (yes, ends, no) = ((false, false), (true, false), (false, true));
    for (conditions, expected) in [
        (json!(null), yes),
        (json!({}), yes),
        (json!({ "ready": true }), yes),
        (json!({ "ready": false }), no),
        (json!({ "ready": false, "serving": true }), no),
        (json!({ "ready": false, "serving": true, "terminating": true }), ends),
        (json!({ "ready": false, "serving": false, "terminating": true }), no),
        (json!({ "ready": false, "terminating": true }), no),
        // publishNotReadyAddresses: the controller says ready whatever happens.
        (json!({ "ready": true, "serving": false, "terminating": true }), yes),
    ] {
        let (entries, _) =
            built(&[web()], &[slice(json!([{ "addresses": ["10.1.0.2"], "conditions": conditions }]))]);
        let taken: Vec<_> = entries[0].backends.iter().map(|b| (b.terminating, b.draining)).collect();
        assert_eq!(taken, [expected], "{conditions}");
    }
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

#[test]
fn a_service_says_by_annotation_who_gets_new_flows() {
    use fastpath::Balancing as B;
    for (annotations, balancing, problem) in [
        (json!(null), B::Maglev, ""),
        (json!({ BALANCING: "maglev" }), B::Maglev, ""),
        (json!({ BALANCING: "round-robin" }), B::RoundRobin, ""),
        (json!({ BALANCING: "least-flow" }), B::LeastFlow, ""),
        (
            json!({ BALANCING: "rr" }),
            B::Maglev,
            "service d/web: annotation culvert.io/balancing \"rr\": must be maglev, round-robin or least-flow",
        ),
    ] {
        let mut service = web();
        service["metadata"]["annotations"] = annotations;
        let (entries, problems) = built(&[service], &[]);
        assert_eq!((entries[0].balancing(), problems.join("").as_str()), (balancing, problem));
    }
}

#[test]
fn weights_are_those_of_pods_then_of_slices_and_0_takes_nothing_new() {
    let pod = |name: &str, ip: &str, weight: &str| {
        json!({
            "metadata": { "name": name, "namespace": "d", "annotations": { WEIGHT: weight } },
            "status": { "podIP": ip, "podIPs": [{ "ip": ip }] },
        })
    };
    let mut slice = slice(json!([
        { "addresses": ["10.1.0.2"] }, { "addresses": ["10.1.0.3"] }, { "addresses": ["10.1.0.4"] },
        { "addresses": ["10.1.0.5"] },
    ]));
    let pods = [pod("a", "10.1.0.2", "7"), pod("b", "10.1.0.3", "0"), pod("c", "10.1.0.4", "1001")];
    let (entries, problems) = built_with(&[web()], std::slice::from_ref(&slice), &pods);
    let expected = ["10.1.0.2:8080*7", "10.1.0.3:8080~", "10.1.0.4:8080", "10.1.0.5:8080"];
    assert_eq!(backends(&entries[0]), expected);
    assert_eq!(problems, ["pod d/c: annotation culvert.io/weight \"1001\": must be 0-1000"]);

    slice["metadata"]["annotations"] = json!({ WEIGHT: "20" });
    let mut elsewhere = pod("a", "10.1.0.5", "3");
    elsewhere["metadata"]["namespace"] = json!("e");
    let pods = [pod("a", "10.1.0.2", "7"), pod("b", "10.1.0.3", "0"), elsewhere];
    let (entries, problems) = built_with(&[web()], std::slice::from_ref(&slice), &pods);
    let expected = ["10.1.0.2:8080*7", "10.1.0.3:8080~", "10.1.0.4:8080*20", "10.1.0.5:8080*20"];
    assert_eq!((backends(&entries[0]).as_slice(), problems), (&expected.map(str::to_owned)[..], vec![]));
    slice["metadata"]["annotations"] = json!({ WEIGHT: "-1" });
    let (entries, problems) = built(&[web()], &[slice]);
    assert_eq!(backends(&entries[0])[3], "10.1.0.5:8080");
    assert_eq!(problems, ["endpointslice d/web-1: annotation culvert.io/weight \"-1\": must be 0-1000"]);
}

#[test]
fn hints_keep_new_flows_near_if_all_ready_endpoints_have_some_and_one_is_for_here() {
    let zones = |zones: &[&str]| json!(zones.iter().map(|z| json!({ "name": z })).collect::<Vec<_>>());
    let ready = |last: u8, hints: Value| json!({ "addresses": [format!("10.1.0.{last}")], "hints": hints });
    let by_zone = |last, names: &[&str]| ready(last, json!({ "forZones": zones(names) }));
    let by_node =
        |last, names: &[&str]| ready(last, json!({ "forNodes": zones(names), "forZones": zones(&["z"]) }));
    let unready = json!({ "addresses": ["10.1.0.9"], "conditions": { "ready": false } });
    let ending = json!({
        "addresses": ["10.1.0.8"], "conditions": { "ready": false, "serving": true, "terminating": true },
        "hints": { "forZones": zones(&["y"]) },
    });
    for (endpoints, expected) in [
        (vec![by_zone(1, &["z"]), by_zone(2, &["y"]), by_zone(3, &["y", "z"])], vec!["1", "2~", "3"]),
        // One without hints, or none for this zone: all are used.
        (vec![by_zone(1, &["z"]), by_zone(2, &["y"]), ready(3, json!(null))], vec!["1", "2", "3"]),
        (vec![by_zone(1, &["z"]), by_zone(2, &["y"]), by_zone(3, &[])], vec!["1", "2", "3"]),
        (vec![by_zone(1, &["x"]), by_zone(2, &["y"])], vec!["1", "2"]),
        // Those that are not ready neither need hints nor heed them.
        (vec![by_zone(1, &["z"]), by_zone(2, &["y"]), unready.clone()], vec!["1", "2~", "9!"]),
        (vec![by_zone(1, &["z"]), ending.clone()], vec!["1", "8-"]),
        (vec![ending, unready], vec!["8-", "9!"]),
        // The own node goes before the zone; where nothing is meant for it, the zone counts.
        (vec![by_node(1, &["a"]), by_node(2, &["b"])], vec!["1", "2~"]),
        (vec![by_node(1, &["b"]), by_node(2, &["c"])], vec!["1", "2"]),
    ] {
        let (entries, problems) = built(&[web()], &[slice(json!(endpoints))]);
        let short = |text: &String| text.replace("10.1.0.", "").replace(":8080", "");
        let found: Vec<_> = backends(&entries[0]).iter().map(short).collect();
        assert_eq!(
            (found, problems),
            (expected.iter().map(|&e| e.to_owned()).collect(), vec![]),
            "{endpoints:?}"
        );
    }
}

#[test]
fn affinity_is_client_ip_with_its_timeout() {
    for (spec, seconds, problem) in [
        (json!({ "sessionAffinity": "None" }), 0, ""),
        (json!({ "sessionAffinity": "ClientIP" }), 10_800, ""),
        (
            json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 7 } } }),
            7,
            "",
        ),
        (
            json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 0 } } }),
            10_800,
            "service d/web: affinity timeoutSeconds 0: must be 1-86400; 10800 is used",
        ),
        (
            json!({ "sessionAffinity": "X" }),
            0,
            "service d/web: sessionAffinity \"X\": must be None or ClientIP; None is used",
        ),
    ] {
        let mut service = web();
        service["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let (entries, problems) = built(&[service], &[]);
        assert_eq!(entries[0].affinity_seconds, seconds, "{spec}");
        assert_eq!(problems.join(""), problem, "{spec}");
    }
}

#[test]
fn ports_of_one_service_share_its_clients() {
    for (ports, affinity, shared) in [
        (json!([{ "name": "a", "port": 80 }, { "name": "b", "port": 81 }]), "ClientIP", true),
        (json!([{ "name": "a", "port": 80 }, { "name": "b", "port": 81 }]), "None", false),
        (json!([{ "port": 80 }]), "ClientIP", false),
    ] {
        let spec = json!({ "clusterIPs": ["10.96.0.1"], "ports": ports, "sessionAffinity": affinity });
        let (entries, _) = built(&[service(spec)], &[]);
        assert!(entries.iter().all(|entry| entry.affinity_shared == shared), "{entries:?}");
    }
}

#[test]
fn internal_traffic_policy_local_sends_new_flows_only_to_endpoints_of_this_node() {
    let mut local = web();
    local["spec"]["internalTrafficPolicy"] = json!("Local");
    let endpoints = json!([
        { "addresses": ["10.1.0.2"], "nodeName": "a" },
        { "addresses": ["10.2.0.2"], "nodeName": "b" },
        { "addresses": ["10.3.0.2"] },
    ]);
    let (entries, _) = built(std::slice::from_ref(&local), &[slice(endpoints)]);
    assert_eq!(backends(&entries[0]), ["10.1.0.2:8080", "10.2.0.2:8080~", "10.3.0.2:8080~"]);
    local["spec"]["internalTrafficPolicy"] = json!("Zone");
    let (_, problems) = built(&[local], &[slice(json!([]))]);
    let problem = "service d/web: internalTrafficPolicy \"Zone\": must be Cluster or Local; Cluster is used";
    assert_eq!(problems, [problem]);
}

#[test]
fn an_endpoint_in_two_slices_is_one_backend_and_ready_if_it_is_in_either() {
    let ready = slice(json!([{ "addresses": ["10.1.0.2"] }]));
    let mut ending = slice(json!([
        { "addresses": ["10.1.0.2"], "conditions": { "ready": false, "serving": true, "terminating": true } }
    ]));
    ending["metadata"]["name"] = json!("web-0");
    let (entries, problems) = built(&[web()], &[ending, ready]);
    assert_eq!(backends(&entries[0]), ["10.1.0.2:8080"]);
    assert!(problems.is_empty());
}

#[test]
fn what_makes_no_sense_is_reported_by_name_and_the_rest_is_used() {
    let two_ports = |bad: Value| {
        service(json!({ "clusterIPs": ["10.96.0.1"], "ports": [bad, { "name": "ok", "port": 81 }] }))
    };
    for (service, problem, entries) in [
        (service(json!({ "clusterIP": "10.96.0.1" })), "service d/web: no ports", 0),
        (service(json!({ "ports": [{ "port": 80 }] })), "service d/web: no clusterIP", 0),
        (
            service(json!({ "clusterIP": "10.96.0.999", "ports": [{ "port": 80 }] })),
            "clusterIP \"10.96.0.999\"",
            0,
        ),
        (
            service(json!({ "clusterIPs": ["10.96.0.1", "ff02::1"], "ports": [{ "port": 80 }] })),
            "\"ff02::1\"",
            1,
        ),
        (two_ports(json!({ "port": 0 })), "service d/web: port 0: must be 1-65535", 1),
        (two_ports(json!({ "port": 70000 })), "port 70000", 1),
        (two_ports(json!({ "port": 80, "protocol": "ICMP" })), "port 80: protocol \"ICMP\"", 1),
        (two_ports(json!({ "port": 81 })), "10.96.0.1 port 81/TCP is that of service d/web", 1),
    ] {
        let (built, problems) = built(std::slice::from_ref(&service), &[]);
        assert_eq!(built.len(), entries, "{service}");
        let [only] = &problems[..] else { panic!("{problems:?}") };
        assert!(only.contains(problem), "{only}");
    }
}

#[test]
fn slices_and_endpoints_that_make_no_sense_are_reported_by_name_and_the_rest_is_used() {
    let good = json!({ "addresses": ["10.1.0.2"] });
    let with = |key: &str, value: Value| {
        let mut slice = slice(json!([good]));
        slice[key] = value;
        slice
    };
    for (slice, problem, count) in [
        (with("metadata", json!({ "name": "x", "namespace": "d" })), "endpointslice d/x: no label", 0),
        (
            with("metadata", json!({ "name": "x", "namespace": "e", "labels": { SERVICE_NAME: "web" } })),
            "endpointslice e/x: there is no service e/web",
            0,
        ),
        (with("addressType", json!("FQDN")), "addressType \"FQDN\"", 0),
        (with("ports", json!([{ "name": "" }])), "has no number", 0),
        (with("ports", json!([{ "port": 0 }, { "port": 1 }])), "port 0: must be 1-65535", 1),
        (with("ports", json!([{ "port": 1, "protocol": "X" }, { "port": 1 }])), "protocol \"X\"", 1),
        (slice(json!([{ "addresses": [] }, good])), "an endpoint without an address", 1),
        (slice(json!([{ "addresses": ["127.0.0.1"] }, good])), "endpoint \"127.0.0.1\"", 1),
        (slice(json!([{ "addresses": ["fd00::1"] }, good])), "endpoint \"fd00::1\"", 1),
    ] {
        let (entries, problems) = built(&[web()], std::slice::from_ref(&slice));
        assert_eq!(entries[0].backends.len(), count, "{slice}");
        let [only] = &problems[..] else { panic!("{problems:?}") };
        assert!(only.contains(problem), "{only}");
    }
}

#[test]
fn a_virtual_address_belongs_to_the_first_service_by_name() {
    let mut other = web();
    other["metadata"]["name"] = json!("a");
    let (entries, problems) = built(&[web(), other], &[]);
    assert_eq!(entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(problems, ["service d/web: 10.96.0.1 port 80/TCP is that of service d/a; the first counts"]);
}

/// An endpoint as the twin sees it: how well it serves (0 is best), what it says, and the weight of its slice.
type Seen<'a> = (u8, &'a Value, u64);

/// The names in a list of hints.
fn hinted(endpoint: &Value, list: &str) -> Vec<String> {
    let names = endpoint["hints"][list].as_array().cloned().unwrap_or_default();
    names.iter().map(|hint| hint["name"].as_str().unwrap().to_owned()).collect()
}

/// Whether an endpoint is for new flows of node "a" in zone "z", by the text of KEP-2433 and KEP-3015.
fn is_for_us(local: bool, all: &BTreeMap<String, Seen<'_>>, (rank, endpoint, weight): Seen<'_>) -> bool {
    let ready: Vec<_> =
        all.values().filter(|(rank, ..)| *rank == 0).map(|(_, endpoint, _)| *endpoint).collect();
    let counts = |list: &str, name: &str| {
        let complete = ready.iter().all(|endpoint| !hinted(endpoint, list).is_empty());
        complete && ready.iter().any(|endpoint| hinted(endpoint, list).contains(&name.to_owned()))
    };
    let near = if local {
        endpoint["nodeName"] == "a"
    } else if rank > 0 {
        true
    } else if counts("forNodes", "a") {
        hinted(endpoint, "forNodes").contains(&"a".to_owned())
    } else if counts("forZones", "z") {
        hinted(endpoint, "forZones").contains(&"z".to_owned())
    } else {
        true
    };
    near && weight > 0
}

/// The obviously correct twin: for one virtual address, look at every endpoint of every slice there is.
fn reference(services: &[Value], slices: &[Value]) -> BTreeSet<(String, u64, String, BTreeSet<String>)> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let mut entries = BTreeSet::new();
    for service in services {
        let (meta, spec) = (&service["metadata"], &service["spec"]);
        for vip in spec["clusterIPs"].as_array().unwrap() {
            for port in spec["ports"].as_array().unwrap() {
                let mut all: BTreeMap<String, Seen<'_>> = BTreeMap::new();
                for slice in slices {
                    let family = if vip.as_str().unwrap().contains(':') { "IPv6" } else { "IPv4" };
                    let ours = slice["metadata"]["namespace"] == meta["namespace"]
                        && slice["metadata"]["labels"][SERVICE_NAME] == meta["name"]
                        && slice["addressType"] == family;
                    let weight = slice["metadata"]["annotations"][WEIGHT].as_str();
                    let weight = weight.map_or(1, |weight| weight.parse().unwrap());
                    for (endpoint, target) in slice["endpoints"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .flat_map(|e| slice["ports"].as_array().unwrap().iter().map(move |p| (e, p)))
                    {
                        let is = |key: &str| endpoint["conditions"][key] == json!(true);
                        if !ours || target["name"] != port["name"] || target["protocol"] != port["protocol"] {
                            continue;
                        }
                        let address = format!("{}:{}", text(&endpoint["addresses"][0]), target["port"]);
                        let rank = match (is("ready"), is("serving") && is("terminating")) {
                            (true, _) => 0,
                            (_, true) => 1,
                            _ => 2,
                        };
                        if all.get(&address).is_none_or(|(best, ..)| rank < *best) {
                            all.insert(address, (rank, endpoint, weight));
                        }
                    }
                }
                let local = spec["internalTrafficPolicy"] == "Local";
                let shown = |(address, &seen): (&String, &Seen<'_>)| {
                    let away = if is_for_us(local, &all, seen) { "" } else { "~" };
                    let weight = if seen.2 > 1 { format!("*{}", seen.2) } else { String::new() };
                    format!("{address}{}{away}{weight}", ["", "-", "!"][usize::from(seen.0)])
                };
                let all = all.iter().map(shown).collect();
                entries.insert((text(vip), port["port"].as_u64().unwrap(), text(&port["protocol"]), all));
            }
        }
    }
    entries
}

fn any_port() -> impl Strategy<Value = Value> {
    (select(vec!["", "x", "y"]), select(vec!["TCP", "UDP", "SCTP"]), 1..4u16)
        .prop_map(|(name, protocol, port)| json!({ "name": name, "protocol": protocol, "port": port }))
}

fn any_service(index: usize) -> impl Strategy<Value = Value> {
    // Each has addresses of its own: conflicts have a test of their own.
    let vips = prop::sample::subsequence(
        vec![format!("10.96.0.{}", index + 1), format!("fd00:96::{}", index + 1)],
        1..=2,
    );
    let policy = select(vec!["Cluster", "Cluster", "Local"]);
    (vips, prop::collection::vec(any_port(), 1..4), select(vec!["d", "e"]), policy).prop_map(
        move |(vips, mut ports, namespace, policy)| {
            ports.sort_by_key(|p| (p["port"].as_u64(), p["protocol"].to_string()));
            ports.dedup_by_key(|p| (p["port"].as_u64(), p["protocol"].to_string()));
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": { "name": format!("s{index}"), "namespace": namespace },
                "spec": { "clusterIPs": vips, "ports": ports, "internalTrafficPolicy": policy },
            })
        },
    )
}

fn any_slice(index: usize) -> impl Strategy<Value = Value> {
    let endpoint = |v6: bool| {
        let conditions = any::<[bool; 3]>();
        let names = |of: Vec<&'static str>| {
            prop::option::weighted(0.8, prop::sample::subsequence(of, 0..=2)).prop_map(|names| {
                names.map(|names| names.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>())
            })
        };
        let place = (select(vec!["a", "b"]), names(vec!["y", "z"]), names(vec!["a", "b"]));
        (0..6u8, conditions, place).prop_map(move |(host, [ready, serving, terminating], place)| {
            let (node, zones, nodes) = place;
            let address = if v6 { format!("fd00::{}", host + 1) } else { format!("10.1.0.{}", host + 1) };
            json!({
                "addresses": [address],
                "conditions": { "ready": ready, "serving": serving, "terminating": terminating },
                "nodeName": node, "hints": { "forZones": zones, "forNodes": nodes },
            })
        })
    };
    let weight = prop::option::of(select(vec!["0", "1", "30"]));
    let ports = prop::collection::vec(any_port(), 0..4);
    (any::<bool>(), 0..4usize, select(vec!["d", "e"]), ports, weight).prop_flat_map(
        move |(v6, service, namespace, ports, weight)| {
            let annotations = weight.map(|weight| json!({ WEIGHT: weight }));
            prop::collection::vec(endpoint(v6), 0..6).prop_map(move |endpoints| {
                json!({
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                    "addressType": if v6 { "IPv6" } else { "IPv4" },
                    "metadata": {
                        "name": format!("x{index}"), "namespace": namespace, "annotations": annotations,
                        "labels": { SERVICE_NAME: format!("s{service}") },
                    },
                    "ports": ports, "endpoints": endpoints,
                })
            })
        },
    )
}

proptest! {
    #[test]
    fn the_tables_are_those_of_the_reference(
        services in (any_service(0), any_service(1), any_service(2)),
        slices in (any_slice(0), any_slice(1), any_slice(2), any_slice(3), any_slice(4)),
    ) {
        let services = [services.0, services.1, services.2];
        let slices = [slices.0, slices.1, slices.2, slices.3, slices.4];
        let (entries, _) = built(&services, &slices);
        let vip = |e: &fastpath::Service| match <[u8; 4]>::try_from(e.vip.as_slice()) {
            Ok(v4) => IpAddr::from(v4).to_string(),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(e.vip.as_slice()).unwrap()).to_string(),
        };
        let found: BTreeSet<_> = entries
            .iter()
            .map(|e| {
                let protocol = protocol_name(e.protocol()).to_owned();
                (vip(e), u64::from(e.port), protocol, backends(e).into_iter().collect::<BTreeSet<_>>())
            })
            .collect();
        prop_assert_eq!(entries.len(), found.len());
        prop_assert_eq!(found, reference(&services, &slices));
    }
}
