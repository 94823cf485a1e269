//! Who gets new flows: balancing, weights and affinity.

use super::super::weight::WEIGHT;
use super::*;

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
