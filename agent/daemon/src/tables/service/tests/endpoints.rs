//! Which endpoints take part, and which of them get new flows of this node.

use super::*;

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
