//! Random changes of objects: what was kept and changed is what all objects give.

use std::collections::BTreeMap;

use culvert_api::config::agent::AgentConfig;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, from_value, json};

use super::*;
use crate::kube::{Kind, Name, Object, ObjectId};

fn settings(ping: &str) -> Settings {
    let text = format!(
        "overlay: {{ tenants: [{{ name: red, vni: 7, namespaces: [r] }}], flows: {{ servicePing: {ping} }} }}"
    );
    Settings { node: "a".to_owned(), overlay: AgentConfig::from_yaml(&text).unwrap().overlay }
}

/// An object that comes, in place of the one of its name if there is one, or one that goes.
type Change = (Kind, Name, Option<Value>);

fn apply(objects: &mut Objects, (kind, name, value): &Change) {
    let Some(value) = value.clone() else {
        objects.remove(&ObjectId::new(*kind, name.clone()));
        return;
    };
    objects.insert(match kind {
        Kind::Node => Object::Node(from_value(value).map(std::sync::Arc::new).unwrap()),
        Kind::Pod => Object::Pod(from_value(value).map(std::sync::Arc::new).unwrap()),
        Kind::Service => Object::Service(from_value(value).map(std::sync::Arc::new).unwrap()),
        Kind::EndpointSlice => Object::EndpointSlice(from_value(value).map(std::sync::Arc::new).unwrap()),
    });
}

/// A change that puts such an object, or removes one of that name.
fn change(kind: Kind, name: Name, object: impl Strategy<Value = Value>) -> impl Strategy<Value = Change> {
    let named = name.clone();
    prop::option::weighted(0.75, object).prop_map(move |object| {
        let object = object.map(|mut object| {
            object["metadata"]["name"] = json!(&*named.name);
            object["metadata"]["namespace"] = json!(&*named.namespace);
            object
        });
        (kind, name.clone(), object)
    })
}

/// Ranges that overlap, addresses that two nodes may have, a zone that moves, and what makes no sense.
fn any_node() -> impl Strategy<Value = Change> {
    let cidrs = prop::sample::subsequence(
        vec!["10.1.0.0/24", "10.1.0.128/25", "10.2.0.0/23", "10.3.0.0/24", "fd00:1::/64", "fd00:2::/64", "x"],
        1..=2,
    );
    let addresses = prop::sample::subsequence(
        vec!["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "2001:db8::1", "2001:db8::2", "127.0.0.1"],
        1..=2,
    );
    let of_red = prop::option::weighted(0.3, select(vec!["172.16.1.0/24", "172.16.0.0/16", "", "y"]));
    let zone = select(vec!["y", "z"]);
    let node = (cidrs, addresses, of_red, zone).prop_map(|(cidrs, addresses, of_red, zone)| {
        let addresses = addresses.iter().map(|ip| json!({ "type": "InternalIP", "address": ip }));
        json!({
            "metadata": {
                "annotations": of_red.map(|range| json!({ "culvert.io/pod-cidrs.red": range })),
                "labels": { "topology.kubernetes.io/zone": zone },
            },
            "spec": { "podCIDRs": cidrs },
            "status": { "addresses": addresses.collect::<Vec<_>>() },
        })
    });
    // This node least of all: what it says changes everything.
    (select(vec!["a", "b", "b", "c", "c", "d", "d"]), node)
        .prop_flat_map(|(name, node)| change(Kind::Node, Name::new("", name), Just(node)))
}

/// Weights of some of the endpoints' addresses, and what is none.
fn any_pod() -> impl Strategy<Value = Change> {
    let weight = prop::option::weighted(0.8, select(vec!["0", "3", "9", "heavy"]));
    let pod = (weight, 1..4u8).prop_map(|(weight, host)| {
        json!({
            "metadata": { "annotations": weight.map(|weight| json!({ "culvert.io/weight": weight })) },
            "status": { "podIP": format!("10.9.0.{host}") },
        })
    });
    (select(vec!["d", "r"]), select(vec!["p", "q"]), pod)
        .prop_flat_map(|(namespace, name, pod)| change(Kind::Pod, Name::new(namespace, name), Just(pod)))
}

/// Services that want each other's addresses and ports, or twice the same one.
fn any_service() -> impl Strategy<Value = Change> {
    let port = (select(vec!["", "x"]), select(vec!["TCP", "UDP", "ICMP"]), select(vec![80, 81, 0]));
    let port =
        port.prop_map(|(name, protocol, port)| json!({ "name": name, "protocol": protocol, "port": port }));
    let vips = prop::sample::subsequence(vec!["10.96.0.1", "10.96.0.2", "fd00:96::1", "None"], 1..=2);
    let service = (vips, prop::collection::vec(port, 0..4), select(vec!["Cluster", "Local", "Else"])).prop_map(
        |(vips, ports, policy)| json!({ "spec": { "clusterIPs": vips, "ports": ports, "internalTrafficPolicy": policy } }),
    );
    (select(vec!["d", "r"]), select(vec!["s", "t", "u"]), service).prop_flat_map(
        |(namespace, name, service)| change(Kind::Service, Name::new(namespace, name), Just(service)),
    )
}

/// Slices that change their Service, or have none.
fn any_slice() -> impl Strategy<Value = Change> {
    let endpoint = (0..5u8, any::<bool>(), select(vec!["a", "b"]), prop::option::of(select(vec!["y", "z"])))
        .prop_map(|(host, ready, node, zone)| {
            json!({
                "addresses": [format!("10.9.0.{host}")], "conditions": { "ready": ready }, "nodeName": node,
                "hints": zone.map(|zone| json!({ "forZones": [{ "name": zone }] })),
            })
        });
    let labels = select(vec![
        json!({ "kubernetes.io/service-name": "s" }),
        json!({ "kubernetes.io/service-name": "t" }),
        json!({ "kubernetes.io/service-name": "u" }),
        json!({ "kubernetes.io/service-name": "s", "service.kubernetes.io/headless": "" }),
        json!({}),
    ]);
    let weight = prop::option::weighted(0.2, select(vec!["5", "-1"]));
    let family = select(vec!["IPv4", "IPv4", "IPv4", "IPv6", "FQDN"]);
    let slice = (labels, family, weight, prop::collection::vec(endpoint, 0..4)).prop_map(
        |(labels, family, weight, endpoints)| {
            json!({
                "metadata": { "labels": labels, "annotations": weight.map(|weight| json!({ "culvert.io/weight": weight })) },
                "addressType": family, "endpoints": endpoints,
                "ports": [{ "name": "", "port": 8080 }, { "name": "x", "port": 8081, "protocol": "UDP" }],
            })
        },
    );
    (select(vec!["d", "r"]), select(vec!["k", "l", "m", "n"]), slice).prop_flat_map(
        |(namespace, name, slice)| change(Kind::EndpointSlice, Name::new(namespace, name), Just(slice)),
    )
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![2 => any_node(), 1 => any_pod(), 3 => any_service(), 3 => any_slice()]
}

proptest! {
    #[test]
    fn after_any_changes_everything_is_as_if_made_as_a_whole(
        start in prop::collection::vec(any_change(), 0..30),
        steps in prop::collection::vec(prop::collection::vec(any_change(), 0..4), 1..8),
        ping in select(vec!["endpoint", "node"]),
    ) {
        let settings = settings(ping);
        let mut objects = Objects::default();
        start.iter().for_each(|change| apply(&mut objects, change));
        let mut compiler = Compiler::whole(settings.clone(), objects.clone());
        for step in steps {
            step.iter().for_each(|change| apply(&mut objects, change));
            compiler.update(objects.clone());
            prop_assert_eq!(&compiler, &Compiler::whole(settings.clone(), objects.clone()));
        }
    }
}

/// One node, and Services with one endpoint each.
fn many(services: u8) -> Objects {
    let mut objects = Objects::default();
    let node = json!({
        "metadata": { "name": "a" }, "spec": { "podCIDRs": ["10.1.0.0/24"] },
        "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }] },
    });
    apply(&mut objects, &(Kind::Node, Name::new("", "a"), Some(node)));
    for n in 0..services {
        let (service, slice) = one(n, 1);
        [service, slice].iter().for_each(|change| apply(&mut objects, change));
    }
    objects
}

/// A Service and its slice.
fn one(n: u8, endpoint: u8) -> (Change, Change) {
    let name = Name::new("d", format!("s{n}"));
    let service = json!({
        "metadata": { "name": &*name.name, "namespace": "d" },
        "spec": { "clusterIP": format!("10.96.0.{n}"), "ports": [{ "port": 80 }] },
    });
    let slice = json!({
        "metadata": { "name": &*name.name, "namespace": "d", "labels": { "kubernetes.io/service-name": &*name.name } },
        "addressType": "IPv4", "ports": [{ "port": 8080 }],
        "endpoints": [{ "addresses": [format!("10.9.{endpoint}.1")] }],
    });
    ((Kind::Service, name.clone(), Some(service)), (Kind::EndpointSlice, name, Some(slice)))
}

#[test]
fn a_change_makes_the_entries_that_depend_on_it_and_shares_all_others() {
    let mut objects = many(200);
    let mut compiler = Compiler::whole(settings("node"), objects.clone());
    let before = compiler.tables().clone();
    apply(&mut objects, &one(7, 9).1);
    compiler.update(objects);
    let differences = before.services.differences(&compiler.tables().services);
    let [only] = &differences[..] else { panic!("{differences:?}") };
    assert_eq!((only.key.vip.to_string().as_str(), &only.new.unwrap().name[..]), ("10.96.0.7", "s7"));
    let kept: BTreeMap<_, _> = before.services.iter().collect();
    let shared =
        compiler.tables().services.iter().filter(|(key, entry)| std::sync::Arc::ptr_eq(kept[key], entry));
    assert_eq!(shared.count(), 199);
}
