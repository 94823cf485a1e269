use super::*;
use crate::config::agent::AgentConfig;

fn overlay(text: &str) -> Overlay {
    AgentConfig::from_yaml(&format!("overlay: {{ {text} }}")).unwrap().overlay
}

#[test]
fn the_port_is_that_of_the_encapsulation_unless_it_is_given() {
    assert_eq!((overlay("").encapsulation, overlay("").port), (Encapsulation::Vxlan, 4789));
    assert_eq!(overlay("encapsulation: geneve").port, 6081);
    assert_eq!(overlay("encapsulation: geneve, port: 4789").port, 4789);
    assert_eq!(overlay("encapsulation: vxlan, port: 8472").port, 8472);
}

#[test]
fn pods_have_what_the_tunnel_leaves_of_the_underlays_packets() {
    let overlay = overlay("underlayMtu: 9000");
    assert_eq!((overlay.pod_mtu(true), overlay.pod_mtu(false)), (8950, 8930));
}

#[test]
fn marks_of_tunnel_packets_are_numbers_or_words() {
    let default = overlay("");
    assert_eq!(
        (default.dscp, default.ecn, default.ttl),
        (DscpModel::Pipe(0), EcnMode::Normal, Ttl::Fixed(64))
    );
    assert_eq!(default.zero_checksum, ZeroChecksum { send: false, accept: false });
    let set = overlay("dscp: 46, ecn: compatibility, ttl: 255, zeroChecksum: { accept: true }");
    assert_eq!((set.dscp, set.ecn, set.ttl), (DscpModel::Pipe(46), EcnMode::Compatibility, Ttl::Fixed(255)));
    assert_eq!(set.zero_checksum, ZeroChecksum { send: false, accept: true });
    assert_eq!((overlay("dscp: copy").dscp, overlay("ttl: copy").ttl), (DscpModel::Copy, Ttl::Copy));
    assert_eq!(overlay("dscp: uniform").dscp, DscpModel::Uniform);
}

#[test]
fn a_namespace_belongs_to_one_tenant_or_to_the_cluster() {
    let overlay = overlay(
        "tenants: [{ name: red, vni: 5001, namespaces: [red, red-test] }, { name: blue, vni: 5002, namespaces: [blue] }]",
    );
    let tenant =
        |namespace| overlay.tenant_of(namespace).map(|tenant| (tenant.name.as_str(), tenant.vni.get()));
    assert_eq!(tenant("red-test"), Some(("red", 5001)));
    assert_eq!(tenant("blue"), Some(("blue", 5002)));
    assert_eq!(tenant("default"), None);
}

#[test]
fn what_makes_no_sense_is_refused_by_key_value_and_reason() {
    for (text, parts) in [
        ("encapsulation: gre", ["gre", "vxlan", "geneve"]),
        ("port: 0", ["overlay.port", "0", "1-65535"]),
        ("vxlanPort: 4789", ["vxlanPort", "unknown field", "line 1"]),
        ("underlayMtu: 1329", ["overlay.underlayMtu", "1329", "1330"]),
        ("dscp: 64", ["64", "0-63 or copy or uniform", "line 1"]),
        ("dscp: pipe", ["pipe", "0-63 or copy or uniform", "line 1"]),
        ("dscp: -1", ["-1", "0-63 or copy or uniform", "line 1"]),
        ("ttl: 0", ["0", "1-255 or copy", "line 1"]),
        ("ttl: 256", ["256", "1-255 or copy", "line 1"]),
        ("ecn: full", ["full", "normal", "compatibility"]),
        (
            "tenants: [{ name: Red, vni: 1, namespaces: [] }]",
            ["overlay.tenants[0].name", "\"Red\"", "lower-case"],
        ),
        ("tenants: [{ name: red, vni: 0, namespaces: [] }]", ["overlay.tenants[0].vni", "0", "1-16777215"]),
        (
            "tenants: [{ name: red, vni: 4096, namespaces: [] }]",
            ["overlay.tenants[0].vni", "4096", "overlay.vni"],
        ),
        (
            "tenants: [{ name: red, vni: 1, namespaces: [R] }]",
            ["overlay.tenants[0].namespaces[0]", "\"R\"", "namespace"],
        ),
        ("tenants: [{ name: red, vni: 1, namespaces: [a, a] }]", ["tenants[0].namespaces[1]", "a", "twice"]),
        (
            "tenants: [{ name: red, vni: 1, namespaces: [] }, { name: red, vni: 2, namespaces: [] }]",
            ["overlay.tenants[1].name", "red", "another tenant"],
        ),
        (
            "tenants: [{ name: red, vni: 1, namespaces: [] }, { name: blue, vni: 1, namespaces: [] }]",
            ["overlay.tenants[1].vni", "1", "that of tenant red"],
        ),
        (
            "tenants: [{ name: red, vni: 1, namespaces: [a] }, { name: blue, vni: 2, namespaces: [a] }]",
            ["overlay.tenants[1].namespaces[0]", "a", "belongs to tenant red"],
        ),
    ] {
        let error = AgentConfig::from_yaml(&format!("overlay: {{ {text} }}")).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
    }
}
