use serde_json::{Value, from_value, json};

use super::*;

#[test]
fn fields_that_the_agent_does_not_read_are_passed_over() {
    let pod: Pod = from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "p", "uid": "1", "generation": 3, "labels": { "app": "web" },
            "ownerReferences": [{ "kind": "ReplicaSet", "controller": true }],
            "managedFields": [{ "fieldsV1": { "f:metadata": { ".": {} } } }],
        },
        "spec": { "containers": [{ "name": "c", "ports": [{ "containerPort": 80 }] }] },
        "status": { "phase": "Running", "podIP": "10.1.0.2", "podIPs": [{ "ip": "10.1.0.2" }, { "ip": "fd00::2" }] },
    }))
    .unwrap();
    let metadata = ObjectMeta {
        name: Some("p".into()),
        labels: Some(BTreeMap::from([("app".into(), "web".into())])),
        ..Default::default()
    };
    let ip = |ip: &str| PodIP { ip: ip.into() };
    let pod_ips = Some(vec![ip("10.1.0.2"), ip("fd00::2")]);
    assert_eq!(pod, Pod { metadata, status: Some(PodStatus { pod_ip: Some("10.1.0.2".into()), pod_ips }) });
}

#[test]
fn null_is_what_absent_is() {
    let nothing = |value: Value| from_value::<EndpointSlice>(value).unwrap();
    let slice = nothing(json!({ "addressType": null, "endpoints": null, "metadata": null, "ports": null }));
    assert_eq!(slice, EndpointSlice::default());
    assert_eq!(nothing(json!({})), EndpointSlice::default());
    let endpoint: Endpoint =
        from_value(json!({ "addresses": null, "conditions": { "ready": null } })).unwrap();
    assert_eq!(endpoint.addresses, [""; 0]);
    assert_eq!(endpoint.conditions, Some(EndpointConditions::default()));
    let port: ServicePort = from_value(json!({ "port": null, "targetPort": "http" })).unwrap();
    assert_eq!(port, ServicePort::default());
}

#[test]
fn a_field_that_is_read_must_be_of_the_apis_type() {
    let refused = |manifest: &str| crate::kube::Manifest::parse(manifest).unwrap_err().to_string();
    for (head, wrong) in [
        ("apiVersion: v1\nkind: Node", "spec: { podCIDRs: 10.1.0.0/24 }"),
        ("apiVersion: v1\nkind: Node", "spec: { podCIDR: [] }"),
        ("apiVersion: v1\nkind: Node", "status: { addresses: { type: InternalIP } }"),
        ("apiVersion: v1\nkind: Pod", "status: { podIPs: [10.1.0.2] }"),
        ("apiVersion: v1\nkind: Service", "spec: { ports: [{ port: http }] }"),
        ("apiVersion: v1\nkind: Service", "spec: { ports: [{ port: 99999999999 }] }"),
        ("apiVersion: v1\nkind: Service", "spec: { clusterIPs: { a: b } }"),
        (
            "apiVersion: v1\nkind: Service",
            "spec: { sessionAffinityConfig: { clientIP: { timeoutSeconds: 1h } } }",
        ),
        (
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice",
            "endpoints: [{ conditions: { ready: maybe } }]",
        ),
        ("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice", "endpoints: [{ addresses: 10.1.0.2 }]"),
    ] {
        let error = refused(&format!("{head}\nmetadata: {{ name: x }}\n{wrong}\n"));
        assert!(error.contains("line 4") && error.contains("column"), "{wrong}: {error}");
    }
}
