// `json!` in place of an argument reads best.
#![allow(clippy::needless_pass_by_value)]

use serde_json::{Value, from_value, json};

use super::*;

fn overlay(rest: &str) -> Overlay {
    let text = format!("overlay: {{ underlayRouter: 192.0.2.254, {rest} }}");
    culvert_api::config::agent::AgentConfig::from_yaml(&text).unwrap().overlay
}

const TENANTS: &str =
    "tenants: [{ name: red, vni: 7, namespaces: [red] }, { name: blue, vni: 9, namespaces: [] }]";

fn node(name: &str, cidrs: &[&str], ips: &[&str], annotations: Value) -> (String, Arc<Node>) {
    let addresses: Vec<Value> = ips.iter().map(|ip| json!({ "type": "InternalIP", "address": ip })).collect();
    let object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": name, "annotations": annotations },
        "spec": { "podCIDRs": cidrs },
        "status": { "addresses": addresses },
    });
    (name.to_owned(), Arc::new(from_value(object).unwrap()))
}

fn built(nodes: &[(String, Arc<Node>)]) -> (Option<LocalNode>, Vec<RemoteNode>, Vec<String>) {
    built_with("", nodes)
}

fn built_with(
    settings: &str,
    nodes: &[(String, Arc<Node>)],
) -> (Option<LocalNode>, Vec<RemoteNode>, Vec<String>) {
    let nodes = nodes.iter().map(|(name, node)| (name.as_str().into(), Arc::clone(node))).collect();
    let settings = Settings { node: "a".to_owned(), overlay: overlay(settings) };
    let (mut tables, mut problems) = (TableSet::default(), Problems::default());
    Nodes::whole(&settings, &nodes, &mut tables, &mut problems);
    let remotes = tables.remotes.values().map(|remote| RemoteNode::clone(remote)).collect();
    (tables.node.as_deref().cloned(), remotes, problems.lines().map(str::to_owned).collect())
}

fn a() -> (String, Arc<Node>) {
    node("a", &["10.1.0.0/24", "fd00:1::/64"], &["192.0.2.1", "2001:db8::1"], json!({}))
}

#[test]
fn this_node_has_gateways_underlay_addresses_and_a_derived_tunnel_mac() {
    let (local, remotes, problems) = built(&[a()]);
    let local = local.unwrap();
    assert_eq!(local.gateways, [octets("10.1.0.1".parse().unwrap()), octets("fd00:1::1".parse().unwrap())]);
    assert_eq!(local.vtep_mac, [0x02, 0x63, 192, 0, 2, 1]);
    assert_eq!((local.vni, local.tunnel_port, local.underlay_mtu), (4096, 4789, 1500));
    let underlay: Vec<_> =
        local.underlay.iter().map(|u| (u.address.len(), u.prefix_len, u.router.len())).collect();
    assert_eq!(underlay, [(4, 24, 4), (16, 64, 0)], "the router is of the family of IPv4");
    assert_eq!(local.pod_cidrs[1], Prefix { address: octets("fd00:1::".parse().unwrap()), prefix_len: 64 });
    assert!(remotes.is_empty() && problems.is_empty(), "{problems:?}");
}

#[test]
fn other_nodes_are_reached_at_their_internal_ip_or_where_their_annotations_say() {
    let annotated = json!({ VTEP_ADDRESS: "198.51.100.7", VTEP_MAC: "02:00:00:00:00:07" });
    let (_, remotes, problems) = built(&[
        a(),
        node("b", &["10.2.0.0/24"], &["2001:db8::2", "192.0.2.2"], json!({})),
        node("c", &["10.3.0.0/24"], &["192.0.2.3"], annotated),
        node("d", &["10.4.0.0/24"], &["2001:db8::4"], json!({})),
    ]);
    let vteps: Vec<_> =
        remotes.iter().map(|r| (r.name.as_str(), r.vtep.clone(), r.vtep_mac.clone())).collect();
    let d = octets("2001:db8::4".parse().unwrap());
    assert_eq!(
        vteps,
        [
            ("b", vec![192, 0, 2, 2], vec![0x02, 0x63, 192, 0, 2, 2]),
            ("c", vec![198, 51, 100, 7], vec![2, 0, 0, 0, 0, 7]),
            ("d", d, vec![0x02, 0x63, 0, 0, 0, 4]),
        ]
    );
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn a_node_that_makes_no_sense_is_left_out_by_name_and_the_others_are_used() {
    for (bad, part) in [
        (node("b", &[], &["192.0.2.2"], json!({})), "node b: no usable spec.podCIDRs"),
        (node("b", &["10.2.0.0/24"], &[], json!({})), "node b: no InternalIP"),
        (node("b", &["10.2.0.0/24"], &["192.0.2.999"], json!({})), "node b: InternalIP \"192.0.2.999\""),
        (node("b", &["10.2.0.0/33"], &["192.0.2.2"], json!({})), "node b: pod range \"10.2.0.0/33\""),
        (node("b", &["10.2.0.0/31"], &["192.0.2.2"], json!({})), "node b: pod range 10.2.0.0/31"),
        (node("b", &["224.0.0.0/8"], &["192.0.2.2"], json!({})), "node b: pod range 224.0.0.0/8"),
        (node("b", &["0.0.0.0/0"], &["192.0.2.2"], json!({})), "node b: pod range 0.0.0.0/0"),
        (node("b", &["240.0.0.0/8"], &["192.0.2.2"], json!({})), "node b: pod range 240.0.0.0/8"),
        (node("b", &["192.0.2.0/24"], &["192.0.2.2"], json!({})), "holds the node's own address 192.0.2.2"),
        (node("b", &["10.2.0.0/24"], &["::ffff:192.0.2.2"], json!({})), "InternalIP \"::ffff:192.0.2.2\""),
        (node("b", &["10.2.0.0/24"], &["192.0.2.2"], json!({ VTEP_ADDRESS: "x" })), "vtep-address \"x\""),
        (node("b", &["10.2.0.0/24"], &["192.0.2.2"], json!({ VTEP_MAC: "x" })), "vtep-mac: mac \"x\""),
        (node("b", &["10.2.0.0/24"], &["192.0.2.1"], json!({})), "not reported"),
    ] {
        let (local, remotes, problems) =
            built(&[a(), bad, node("c", &["10.3.0.0/24"], &["192.0.2.3"], json!({}))]);
        assert!(local.is_some());
        if part == "not reported" {
            // This node's own underlay address.
            assert!(problems.iter().any(|p| p.contains("192.0.2.1 is that of node a")), "{problems:?}");
        } else {
            assert!(problems.iter().any(|p| p.contains(part)), "{part}: {problems:?}");
        }
        assert_eq!(remotes.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["c"], "{part}");
    }
}

#[test]
fn overlapping_ranges_belong_to_this_node_else_to_the_first_by_name() {
    let (local, remotes, problems) = built(&[
        a(),
        node("0", &["10.0.0.0/8", "fd00:9::/64"], &["192.0.2.9"], json!({})),
        node("b", &["10.2.0.0/24"], &["192.0.2.2"], json!({})),
        node("c", &["10.2.0.128/25"], &["192.0.2.3"], json!({})),
        node("d", &["10.2.1.0/24"], &["192.0.2.4"], json!({})),
    ]);
    assert_eq!(local.unwrap().pod_cidrs.len(), 2);
    let names: Vec<_> = remotes.iter().map(|r| (r.name.as_str(), r.pod_cidrs.len())).collect();
    assert_eq!(names, [("0", 1), ("b", 1), ("d", 1)]);
    assert!(problems.contains(
        &"node 0: pod range 10.0.0.0/8 overlaps with 10.1.0.0/24 of node a; the first counts".into()
    ));
    assert!(problems.contains(
        &"node c: pod range 10.2.0.128/25 overlaps with 10.2.0.0/24 of node b; the first counts".into()
    ));
}

#[test]
fn without_its_own_object_this_node_still_knows_the_others() {
    let (local, remotes, problems) = built(&[node("b", &["10.2.0.0/24"], &["192.0.2.2"], json!({}))]);
    assert!(local.is_none());
    assert_eq!(remotes.len(), 1);
    assert_eq!(problems, ["node a: there is no Node object of this name, the name of this node"]);
}

#[test]
fn tunnels_are_as_the_configuration_says() {
    let marking = |settings| built_with(settings, &[a()]).0.unwrap().marking.unwrap();
    let local = built_with("encapsulation: geneve, zeroChecksum: { send: true }", &[a()]).0.unwrap();
    assert_eq!((local.encapsulation(), local.tunnel_port), (fastpath::Encapsulation::Geneve, 6081));
    assert_eq!((local.send_zero_checksum6, local.accept_zero_checksum6), (true, false));
    let default = marking("");
    assert_eq!((default.dscp_model(), default.dscp), (fastpath::DscpModel::Pipe, 0));
    assert_eq!((default.ecn(), default.ttl, default.copy_ttl), (fastpath::EcnMode::Normal, 64, false));
    let set = marking("dscp: 46, ecn: compatibility, ttl: copy");
    assert_eq!((set.dscp_model(), set.dscp), (fastpath::DscpModel::Pipe, 46));
    assert_eq!((set.ecn(), set.copy_ttl), (fastpath::EcnMode::Compatibility, true));
    assert_eq!(marking("dscp: copy").dscp_model(), fastpath::DscpModel::Copy);
    assert_eq!(marking("dscp: uniform, ttl: 9").dscp_model(), fastpath::DscpModel::Uniform);
}

#[test]
fn tenants_have_the_nodes_ranges_or_those_of_an_annotation() {
    let annotated = json!({ "culvert.io/pod-cidrs.red": "172.16.2.0/24, fd00:16:2::/64" });
    let nodes = [
        a(),
        node("b", &["10.2.0.0/24"], &["192.0.2.2"], annotated),
        node("c", &["10.3.0.0/24"], &["192.0.2.3"], json!({ "culvert.io/pod-cidrs.blue": "" })),
    ];
    let (local, remotes, problems) = built_with(TENANTS, &nodes);
    assert!(problems.is_empty(), "{problems:?}");
    let local = local.unwrap();
    let own: Vec<_> =
        local.tenants.iter().map(|t| (t.id, t.vni, t.name.as_str(), t.pod_cidrs.clone())).collect();
    assert_eq!(own, [(7, 7, "red", local.pod_cidrs.clone()), (9, 9, "blue", local.pod_cidrs.clone())]);
    assert_eq!(local.tenants[0].gateways, local.gateways);
    let tenants =
        |at: usize| remotes[at].tenants.iter().map(|t| (t.tenant, t.pod_cidrs.len())).collect::<Vec<_>>();
    assert_eq!(tenants(0), [(7, 2), (9, 1)]);
    assert_eq!(remotes[0].tenants[0].pod_cidrs[0].address, [172, 16, 2, 0]);
    assert_eq!(remotes[0].tenants[1].pod_cidrs, remotes[0].pod_cidrs);
    assert_eq!(tenants(1), [(7, 1)], "an empty annotation: no pods of that tenant there");
}

#[test]
fn ranges_may_overlap_between_tenants_but_not_within_one() {
    let with = |range: &str| json!({ "culvert.io/pod-cidrs.red": range });
    let nodes = [
        a(),
        node("b", &["10.2.0.0/24"], &["192.0.2.2"], with("10.1.0.128/25")),
        node("c", &["10.3.0.0/24"], &["192.0.2.3"], with("10.2.0.0/24")),
        node("d", &["10.4.0.0/24"], &["192.0.2.4"], with("10.4.0.0/99")),
    ];
    let (_, remotes, problems) = built_with(TENANTS, &nodes);
    assert_eq!(
        problems,
        [
            "node b: pod range 10.1.0.128/25 of VNI 7 overlaps with 10.1.0.0/24 of node a; the first counts",
            "node d: tenant red: pod range \"10.4.0.0/99\": must look like 10.1.0.0/24 or fd00::/64",
        ]
    );
    let of_red: Vec<_> = remotes.iter().map(|r| r.tenants.iter().any(|t| t.tenant == 7)).collect();
    assert_eq!(of_red, [false, true, false]);
}

#[test]
fn an_underlay_that_leaves_too_little_over_ipv6_is_told() {
    let only6 = node("a", &["10.1.0.0/24"], &["2001:db8::1"], json!({}));
    let (_, _, problems) = built_with("underlayMtu: 1349", &[only6]);
    assert_eq!(
        problems,
        [
            "node a: overlay.underlayMtu 1349 leaves pods 1279 bytes over IPv6, less than the 1280 that IPv6 needs"
        ]
    );
    assert!(built_with("underlayMtu: 1349", &[a()]).2.is_empty(), "IPv4 adds less");
}
