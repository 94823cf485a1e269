//! Random objects, and a twin that is obviously right.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::select;

use super::super::weight::WEIGHT;
use super::*;

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
