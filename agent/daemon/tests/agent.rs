//! The agent as a whole, between a folder of manifests, a fast path that only keeps what it is told, and pods.
//!
//! Cases with pods need root and are skipped with a word otherwise.

// Clippy only lets the test functions themselves unwrap.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::time::Duration;

use culvert_agent::pods::{Key, Lease, Phase, Record, Store};
use culvert_api::fastpath::{AttachPortRequest, PortDevice};
use serde_json::json;
use support::{Node, Pod, eventually, ip};

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: { name: web, namespace: default }
spec: { clusterIP: 10.96.0.10, clusterIPs: [10.96.0.10], ports: [{ port: 80, protocol: TCP }] }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_the_folder_is_in_the_fast_path_within_100_ms() {
    let node = Node::new();
    let _process = node.start_fastpath("one");
    let _agent = node.agent().await;
    eventually("synced", async || node.fastpath.told().tables.synced).await;
    assert_eq!(node.fastpath.told().tables.node.as_ref().unwrap().name, "node-a");

    let mut all = Vec::new();
    for _ in 0..10 {
        node.manifest("web.yaml", SERVICE);
        let there = eventually("service", async || node.fastpath.told().tables.services.len() == 1).await;
        std::fs::remove_file(node.path("manifests/web.yaml")).unwrap();
        let gone = eventually("no service", async || node.fastpath.told().tables.services.is_empty()).await;
        all.extend([there, gone]);
    }
    // On a machine that is busy building, some wait for a CPU. What the agent does not hear of it finds a second later.
    all.sort();
    assert!(all[all.len() / 2] < Duration::from_millis(100), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_sent_as_a_difference_and_as_the_whole_where_that_is_refused() {
    let node = Node::new();
    node.manifest("web.yaml", SERVICE);
    let _process = node.start_fastpath("one");
    let _agent = node.agent().await;
    eventually("synced", async || node.fastpath.told().tables.synced).await;
    assert!(node.fastpath.told().changes.is_empty());

    node.manifest("db.yaml", &SERVICE.replace("web", "db").replace("10.96.0.10", "10.96.0.11"));
    eventually("two services", async || node.fastpath.told().tables.services.len() == 2).await;
    {
        let told = node.fastpath.told();
        let [change] = &told.changes[..] else { panic!("{:?}", told.changes) };
        let named: Vec<_> = change.services.iter().map(|service| service.name.as_str()).collect();
        assert_eq!((change.base, change.revision, named), (1, 2, vec!["db"]));
        assert!(change.removed_services.is_empty() && change.remotes.is_empty());
    }

    // Somebody else has been there.
    node.fastpath.told().tables.revision = 40;
    std::fs::remove_file(node.path("manifests/db.yaml")).unwrap();
    eventually("one service", async || node.fastpath.told().tables.services.len() == 1).await;
    let told = node.fastpath.told();
    assert_eq!((told.changes.len(), told.tables.revision), (1, 41));
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_go_on_from_those_of_the_agent_before_and_begin_anew_with_the_fast_path() {
    let node = Node::new();
    let process = node.start_fastpath("one");
    node.fastpath.told().tables.revision = 41;
    let agent = node.agent().await;
    eventually("revision 42", async || node.fastpath.told().tables.revision == 42).await;
    agent.stop().await;

    let _agent = node.agent().await;
    eventually("revision 43", async || node.fastpath.told().tables.revision == 43).await;

    drop(process);
    eventually("noticed", async || node.part("fastpath").await.1.contains("is culvert-fastpath running?"))
        .await;
    assert_eq!(node.part("fastpath").await.0, "degraded");
    let _process = node.start_fastpath("two");
    eventually("programmed again", async || node.fastpath.told().tables.synced).await;
    assert_eq!(node.fastpath.told().tables.revision, 1);
    eventually("ok", async || node.part("fastpath").await.0 == "ok").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_is_reported_and_the_rest_is_in_force() {
    let node = Node::new();
    node.manifest("bad.yaml", "kind: [");
    node.manifest("web.yaml", SERVICE);
    let _process = node.start_fastpath("one");
    let _agent = node.agent().await;
    eventually("synced", async || node.fastpath.told().tables.synced).await;
    assert_eq!(node.fastpath.told().tables.services.len(), 1);
    let (state, detail) = node.part("manifests").await;
    assert_eq!(state, "degraded");
    assert!(detail.contains("bad.yaml") && detail.contains("line 1"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_forgotten_while_this_nodes_own_object_is_missing() {
    let node = Node::new();
    node.manifest("web.yaml", SERVICE);
    std::fs::remove_file(node.path("manifests/node.yaml")).unwrap();
    let _process = node.start_fastpath("one");
    let agent = node.agent().await;
    eventually("waits", async || node.part("fastpath").await.1.contains("Node object")).await;
    assert_eq!(node.fastpath.told().tables.revision, 0, "it would refuse tables without a node");

    node.manifest("node.yaml", support::NODE);
    eventually("synced", async || node.fastpath.told().tables.synced).await;
    std::fs::remove_file(node.path("manifests/node.yaml")).unwrap();
    eventually("not synced", async || !node.fastpath.told().tables.synced).await;
    eventually("says so", async || node.part("manifests").await.1.contains("node node-a: there is no Node"))
        .await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_attached_checked_and_detached() {
    let Some(pod) = Pod::new() else { return };
    let node = Node::new();
    let _process = node.start_fastpath("one");
    let _agent = node.agent().await;
    eventually("ready", async || node.part("fastpath").await.0 == "ok").await;

    let args = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web";
    let (code, result) = node.cni("ADD", &pod, args).await;
    assert_eq!(code, 0, "{result}");
    assert_eq!(
        result["ips"],
        json!([
            { "address": "10.1.0.2/32", "gateway": "10.1.0.1", "interface": 0 },
            { "address": "fd00:1::2/128", "gateway": "fd00:1::1", "interface": 0 }
        ])
    );
    let port = node.fastpath.told().ports.values().next().unwrap().clone();
    assert_eq!((port.owner.as_str(), port.mtu), ("default/web", 1450));
    assert_eq!(
        port.addresses,
        [vec![10, 1, 0, 2], "fd00:1::2".parse::<std::net::Ipv6Addr>().unwrap().octets().into()]
    );

    let link = pod.ip("-o link show eth0");
    let mac = result["interfaces"][0]["mac"].as_str().unwrap();
    assert!(link.contains("mtu 1450") && link.contains(mac) && link.contains(",UP"), "{link}");
    assert!(pod.ip("-4 route").contains("default via 10.1.0.1 dev eth0"), "{}", pod.ip("-4 route"));
    assert!(pod.ip("-6 route").contains("default via fd00:1::1 dev eth0"), "{}", pod.ip("-6 route"));
    assert!(!pod.ip("-6 addr show eth0").contains("fd00:1::2/128 scope global tentative"));

    assert_eq!(node.cni("ADD", &pod, args).await, (0, result), "a second ADD gives the same");
    assert_eq!(node.cni("CHECK", &pod, args).await.0, 0);
    pod.ip("addr del 10.1.0.2/32 dev eth0");
    let (code, error) = node.cni("CHECK", &pod, args).await;
    assert_eq!((code, &error["code"]), (1, &json!(100)));
    assert!(error["details"].as_str().unwrap().contains("address 10.1.0.2 of eth0 is missing"), "{error}");

    for _ in 0..2 {
        assert_eq!(node.cni("DEL", &pod, args).await.0, 0);
        assert!(node.fastpath.told().ports.is_empty());
    }
    assert_eq!(std::fs::read_dir(node.path("state/attachments")).unwrap().count(), 0);
    assert_eq!(node.cni("CHECK", &pod, args).await.1["code"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_add_that_fails_half_way_leaves_nothing() {
    let Some(pod) = Pod::new() else { return };
    let node = Node::new();
    let _process = node.start_fastpath("one");
    let _agent = node.agent().await;
    eventually("ready", async || node.part("fastpath").await.0 == "ok").await;
    let nothing_is_left = || {
        assert!(node.fastpath.told().ports.is_empty());
        assert_eq!(std::fs::read_dir(node.path("state/attachments")).unwrap().count(), 0);
    };

    node.fastpath.told().refuse = true;
    let (code, error) = node.cni("ADD", &pod, "").await;
    assert_eq!(code, 1);
    assert!(error["details"].as_str().unwrap().contains("no port is left"), "{error}");
    nothing_is_left();

    node.fastpath.told().refuse = false;
    pod.ip("link add eth0 type veth peer name other");
    let (_, error) = node.cni("ADD", &pod, "").await;
    assert!(error["details"].as_str().unwrap().contains("interface eth0 exists"), "{error}");
    nothing_is_left();

    pod.ip("link del eth0");
    assert_eq!(node.cni("ADD", &pod, "").await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_come_back_into_living_pods_after_a_restart_of_the_fast_path_and_not_twice_after_one_of_the_agent()
 {
    let (Some(pod), Some(dead)) = (Pod::new(), Pod::new()) else { return };
    let node = Node::new();
    let process = node.start_fastpath("one");
    let agent = node.agent().await;
    eventually("ready", async || node.part("fastpath").await.0 == "ok").await;
    assert_eq!(node.cni("ADD", &pod, "").await.0, 0);
    assert_eq!(node.cni("ADD", &dead, "").await.0, 0);
    let before = pod.ip("-o addr show eth0");

    agent.stop().await;
    let index = pod.ip("-o link show eth0");
    let _agent = node.agent().await;
    eventually("ready", async || node.part("fastpath").await.0 == "ok").await;
    assert_eq!(pod.ip("-o link show eth0"), index, "the interface is the one from before");

    // With the process go its taps; with one of the pods its namespace.
    drop(process);
    pod.ip("link del eth0");
    drop(dead);
    let _process = node.start_fastpath("two");
    eventually("port", async || node.fastpath.told().ports.len() == 1).await;
    eventually("ready", async || node.part("fastpath").await.0 == "ok").await;
    let strip =
        |text: &str| text.split_whitespace().filter(|w| w.contains('/')).collect::<Vec<_>>().join(" ");
    eventually("addresses", async || {
        let now =
            std::process::Command::new("ip").args(["-n", &pod.name, "-o", "addr", "show", "eth0"]).output();
        strip(&String::from_utf8(now.unwrap().stdout).unwrap()).contains("10.1.0.2/32")
    })
    .await;
    assert!(strip(&before).contains("10.1.0.2/32"));
    assert_eq!(node.cni("CHECK", &pod, "").await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_fast_path_is_away_add_says_try_again_and_del_succeeds_and_is_made_up_for() {
    let (Some(pod), Some(late)) = (Pod::new(), Pod::new()) else { return };
    let node = Node::new();
    let process = node.start_fastpath("one");
    let _agent = node.agent().await;
    eventually("ready", async || node.part("fastpath").await.0 == "ok").await;
    assert_eq!(node.cni("ADD", &pod, "").await.0, 0);
    drop(process);

    let (_, error) = node.cni("ADD", &late, "").await;
    assert_eq!(error["code"], 11, "{error}");
    assert_eq!(node.cni("STATUS", &late, "").await.1["code"], 51);
    assert_eq!(node.cni("DEL", &pod, "").await.0, 0);
    let _process = node.start_fastpath("two");
    eventually("ready", async || node.part("fastpath").await.0 == "ok").await;
    eventually("no records", async || {
        std::fs::read_dir(node.path("state/attachments")).unwrap().count() == 0
    })
    .await;
    assert!(node.fastpath.told().ports.is_empty());
    assert_eq!(node.cni("STATUS", &late, "").await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_taken_from_the_annotation_else_from_the_runtime_and_no_address_twice() {
    let (Some(one), Some(two), Some(three)) = (Pod::new(), Pod::new(), Pod::new()) else { return };
    let node = Node::new();
    let pod =
        |name: &str, rest: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{ name: {name}{rest}\n---\n");
    let annotated = pod("one", ", annotations: { culvert.io/addresses: '10.1.0.77' } }");
    let known = pod("two", " }\nstatus: { podIPs: [{ ip: 10.1.0.78 }] }");
    node.manifest("pods.yaml", &(annotated + &known));
    let _process = node.start_fastpath("one");
    let _agent = node.agent().await;
    eventually("ready", async || node.part("fastpath").await.0 == "ok").await;

    let args = |name: &str| format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}");
    let first =
        |result: &serde_json::Value| result["ips"][0]["address"].as_str().unwrap_or_default().to_owned();
    let (_, result) = node.cni("ADD", &one, &(args("one") + ";IP=10.1.0.9")).await;
    assert_eq!(first(&result), "10.1.0.77/32", "{result}");
    let (_, result) = node.cni("ADD", &two, &args("two")).await;
    assert_eq!(first(&result), "10.1.0.78/32", "{result}");

    let (_, error) = node.cni("ADD", &three, "IP=10.1.0.77").await;
    assert_eq!(error["code"], 11);
    let details = error["details"].as_str().unwrap();
    assert!(details.contains("10.1.0.77") && details.contains("default/one"), "{details}");
    let (_, error) = node.cni("ADD", &three, "IP=10.2.0.1").await;
    assert!(
        error["details"].as_str().unwrap().contains("not in this node's pod ranges 10.1.0.0/24"),
        "{error}"
    );
    let (_, result) = node.cni("ADD", &three, "IP=10.1.0.9").await;
    assert_eq!(first(&result), "10.1.0.9/32", "{result}");
    let here = ip("-o link");
    assert!(node.fastpath.told().ports.keys().all(|port| !here.contains(port)), "all ports are in pods");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_a_volume_gets_a_port_for_a_program_and_the_same_after_a_restart_of_the_fast_path() {
    let Some(pod) = Pod::new() else { return };
    let node = Node::new();
    node.manifest(
        "pods.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: { name: one, annotations: { culvert.io/port: memif } }\n",
    );
    let process = node.start_fastpath("one");
    let _agent = node.agent().await;
    eventually("ready", async || node.part("fastpath").await.0 == "ok").await;
    let args = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=one;K8S_POD_UID=uid-1";
    let (code, error) = node.cni("ADD", &pod, args).await;
    assert_eq!((code, &error["code"]), (1, &json!(7)), "{error}");
    assert!(error["details"].as_str().unwrap().contains("{ name: culvert, emptyDir: {} }"), "{error}");
    assert!(node.fastpath.told().ports.is_empty());

    let volume = node.path("k/pods/uid-1/volumes/kubernetes.io~empty-dir/culvert");
    std::fs::create_dir_all(&volume).unwrap();
    let (code, result) = node.cni("ADD", &pod, args).await;
    assert_eq!(code, 0, "{result}");
    let socket = volume.join("eth0").display().to_string();
    assert_eq!(result["interfaces"][0]["socketPath"], socket.as_str(), "{result}");
    assert!(!pod.ip("-o link").contains("eth0"), "it is no interface of the kernel's");
    let said: serde_json::Value =
        serde_json::from_slice(&std::fs::read(volume.join("eth0.json")).unwrap()).unwrap();
    assert_eq!((&said["memif"]["path"], &said["mac"]), (&json!("eth0"), &result["interfaces"][0]["mac"]));
    assert_eq!(node.cni("CHECK", &pod, args).await.0, 0);

    let asked = || {
        let told = node.fastpath.told();
        told.ports.values().map(|port| (port.device(), port.socket.clone())).collect::<Vec<_>>()
    };
    let expected = [(PortDevice::Memif, socket)];
    assert_eq!(asked(), expected);
    drop(process);
    let _process = node.start_fastpath("two");
    eventually("the port is made again", async || asked() == expected).await;
    assert_eq!(node.cni("DEL", &pod, args).await.0, 0);
    assert!(asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_cannot_be_made_again_is_reported_and_tried_again() {
    let Some(pod) = Pod::new() else { return };
    let node = Node::new();
    let process = node.start_fastpath("one");
    let _agent = node.agent().await;
    eventually("ready", async || node.part("fastpath").await.0 == "ok").await;
    assert_eq!(node.cni("ADD", &pod, "").await.0, 0);
    drop(process);
    pod.ip("link del eth0");
    let _process = node.start_fastpath("two");
    node.fastpath.told().refuse = true;
    eventually("told", async || node.part("fastpath").await.1.contains("ports not made again: 1")).await;
    let (state, detail) = node.part("fastpath").await;
    assert!(state == "degraded" && detail.contains("no port is left"), "{detail}");
    assert!(node.fastpath.told().tables.synced, "the tables do not wait for ports");
    node.fastpath.told().refuse = false;
    eventually("ok", async || node.part("fastpath").await.0 == "ok").await;
    assert_eq!(node.cni("CHECK", &pod, "").await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_agent_was_at_when_it_was_killed_is_undone_when_it_starts_again() {
    let node = Node::new();
    let _process = node.start_fastpath("one");
    let key = Key { container_id: "c1".to_owned(), ifname: "eth0".parse().unwrap() };
    let port = key.port_name();
    let lease = Lease {
        port: port.clone(),
        addresses: vec!["10.1.0.2".parse().unwrap()],
        gateways: vec!["10.1.0.1".parse().unwrap()],
        mac: "02:00:00:00:00:01".parse().unwrap(),
        mtu: 1450,
    };
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned();
    let record = Record {
        key,
        network: "culvert".to_owned(),
        pod: None,
        netns: "/run/netns/none".into(),
        boot,
        created: 1,
        phase: Phase::Attaching,
        tenant: None,
        socket: None,
        lease,
    };
    Store::open(&node.path("state")).unwrap().put(&record).unwrap();
    let half = AttachPortRequest { name: port.to_string(), ..AttachPortRequest::default() };
    node.fastpath.told().ports.insert(port.to_string(), half);

    let _agent = node.agent().await;
    eventually("no port", async || node.fastpath.told().ports.is_empty()).await;
    eventually("no record", async || std::fs::read_dir(node.path("state/attachments")).unwrap().count() == 0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_collection_removes_what_the_runtime_no_longer_knows_of_that_network_alone() {
    let (Some(kept), Some(lost)) = (Pod::new(), Pod::new()) else { return };
    let node = Node::new();
    let _process = node.start_fastpath("one");
    let _agent = node.agent().await;
    eventually("ready", async || node.part("fastpath").await.0 == "ok").await;
    assert_eq!(node.cni("ADD", &kept, "").await.0, 0);
    assert_eq!(node.cni("ADD", &lost, "").await.0, 0);
    let gc = |network: &str| {
        format!(
            r#"{{ "cniVersion": "1.1.0", "name": "{network}",
                 "cni.dev/valid-attachments": [{{ "containerID": "{}", "ifname": "eth0" }}] }}"#,
            kept.name
        )
    };
    assert_eq!(node.cni_with("GC", &kept, "", &gc("other")).await.0, 0);
    assert_eq!(node.fastpath.told().ports.len(), 2);
    assert_eq!(node.cni_with("GC", &kept, "", &gc("culvert")).await.0, 0);
    assert_eq!(node.fastpath.told().ports.len(), 1);
    assert_eq!(node.cni("CHECK", &kept, "").await.0, 0);
    assert_eq!(node.cni("CHECK", &lost, "").await.1["code"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_on_the_socket_is_refused_and_the_first_goes_on() {
    let node = Node::new();
    let _agent = node.agent().await;
    let error = culvert_agent::app::App::start(node.config(), culvert_host::HostRoot::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("agent.sock") && error.contains("another culvert-agent"), "{error}");
    assert_eq!(node.part("attachments").await.0, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pods_with_one_mac_are_refused_by_the_others_name_and_a_mac_is_free_after_del() {
    let (Some(one), Some(two)) = (Pod::new(), Pod::new()) else { return };
    let node = Node::new();
    let _process = node.start_fastpath("one");
    let _agent = node.agent().await;
    eventually("ready", async || node.part("fastpath").await.0 == "ok").await;

    let args = |pod: &str| format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod};MAC=02:00:00:00:55:01");
    let (code, result) = node.cni("ADD", &one, &args("one")).await;
    assert_eq!((code, &result["interfaces"][0]["mac"]), (0, &json!("02:00:00:00:55:01")), "{result}");
    let (code, error) = node.cni("ADD", &two, &args("two")).await;
    assert_eq!((code, &error["code"]), (1, &json!(7)));
    let details = error["details"].as_str().unwrap();
    assert!(details.contains("mac 02:00:00:00:55:01") && details.contains("pod default/one"), "{error}");
    assert_eq!(node.fastpath.told().ports.len(), 1);
    assert_eq!(node.cni("ADD", &one, &args("one")).await, (0, result), "its own MAC is no obstacle");

    assert_eq!(node.cni("DEL", &one, "").await.0, 0);
    assert_eq!(node.cni("ADD", &two, &args("two")).await.0, 0);
}
