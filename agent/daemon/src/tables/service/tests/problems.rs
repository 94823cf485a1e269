//! What makes no sense.

use super::*;

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
