use serde_json::{Value, json};

use culvert_api::value::Mac;

use super::*;
use crate::nic;
use crate::pods::Record;
use crate::testing::bare_machine;

/// The answer of an agent without any part to one invocation.
async fn answer(command: &str, change: impl FnOnce(&mut CniRequest), config: &str) -> (u32, Value) {
    let reply = reply(command, change, config).await;
    (reply.exit_code, serde_json::from_slice(&reply.output).unwrap_or(Value::Null))
}

async fn reply(command: &str, change: impl FnOnce(&mut CniRequest), config: &str) -> CniReply {
    let mut request = CniRequest {
        command: command.to_owned(),
        container_id: "c1".to_owned(),
        netns: "/run/netns/none".to_owned(),
        ifname: "eth0".to_owned(),
        config: config.as_bytes().to_vec(),
        ..CniRequest::default()
    };
    change(&mut request);
    let dir = tempfile::tempdir().unwrap();
    let nics = bare_machine(dir.path()).await;
    let objects = watch::channel(Arc::default()).1;
    Cni::new(None, nics, objects, config::Cni::default()).handle(&request).await
}

const CONFIG: &str = r#"{ "cniVersion": "1.1.0", "name": "n", "type": "culvert-cni", "unknown": 1 }"#;

#[tokio::test]
async fn a_bad_environment_is_refused_with_code_4_by_the_variables_name() {
    type Change = fn(&mut CniRequest);
    let cases: [(&str, Change, &str); 7] = [
        ("ADD", |r| r.netns.clear(), "CNI_NETNS"),
        ("ADD", |r| r.container_id.clear(), "CNI_CONTAINERID"),
        ("DEL", |r| r.container_id = "../x".to_owned(), "CNI_CONTAINERID \"../x\""),
        ("ADD", |r| r.ifname = "a/b".to_owned(), "CNI_IFNAME: interface name \"a/b\""),
        ("DEL", |r| r.ifname = "sixteen-letters-".to_owned(), "CNI_IFNAME"),
        ("ADD", |r| r.args = "X".to_owned(), "CNI_ARGS"),
        ("add", |_| {}, "CNI_COMMAND \"add\""),
    ];
    for (command, change, part) in cases {
        let (code, error) = answer(command, change, CONFIG).await;
        assert_eq!((code, &error["code"]), (1, &json!(4)), "{part}");
        assert!(error["details"].as_str().unwrap().contains(part), "{error}");
        assert_eq!(error["cniVersion"], "1.1.0");
    }
}

#[tokio::test]
async fn a_bad_configuration_is_refused_with_the_code_for_its_fault() {
    for (config, code, part) in [
        ("", 6, "EOF"),
        ("{", 6, "line 1 column 1"),
        (r#"{ "name": "n" }"#, 1, "cniVersion \"\""),
        (r#"{ "cniVersion": "9.9.9", "name": "n" }"#, 1, "cniVersion \"9.9.9\": must be one of 0.3.1"),
        (r#"{ "cniVersion": "1.1.0" }"#, 7, "name \"\""),
        (r#"{ "cniVersion": "1.1.0", "name": "a b" }"#, 7, "name \"a b\""),
        (r#"{ "cniVersion": "1.1.0", "name": "n", "vlan": 5000 }"#, 7, "vlan 5000: must be 0-4094"),
        (r#"{ "cniVersion": "1.1.0", "name": "n", "mac": "x" }"#, 7, "mac \"x\""),
        (r#"{ "cniVersion": "1.1.0", "name": "n", "deviceID": "x" }"#, 7, "pci address \"x\""),
    ] {
        let (exit, error) = answer("ADD", |_| {}, config).await;
        assert_eq!((exit, &error["code"]), (1, &json!(code)), "{config}: {error}");
        assert!(error["details"].as_str().unwrap().contains(part), "{error}");
    }
}

#[tokio::test]
async fn commands_need_the_version_that_brought_them() {
    let config = |version: &str| format!(r#"{{ "cniVersion": "{version}", "name": "n" }}"#);
    for (command, version, first) in
        [("CHECK", "0.3.1", "0.4.0"), ("STATUS", "1.0.0", "1.1.0"), ("GC", "1.0.0", "1.1.0")]
    {
        let (_, error) = answer(command, |_| {}, &config(version)).await;
        assert_eq!(error["code"], 1);
        assert_eq!(error["cniVersion"], version, "the error is in the version of the request");
        assert!(error["details"].as_str().unwrap().contains(&format!("needs cniVersion {first}")), "{error}");
    }
}

#[tokio::test]
async fn status_of_a_node_without_overlay_and_vfs_says_that_nothing_can_be_attached() {
    let (exit, error) = answer("STATUS", |_| {}, CONFIG).await;
    assert_eq!((exit, &error["code"]), (1, &json!(50)), "{error}");
    assert!(error["details"].as_str().unwrap().contains("no PF of this node has VFs"), "{error}");
}

#[tokio::test]
async fn del_succeeds_whatever_is_wrong_with_the_configuration_of_something_that_never_was() {
    for config in [
        r#"{ "cniVersion": "1.1.0", "name": "n", "vlan": 5000, "deviceID": "x" }"#,
        r#"{ "cniVersion": "9.9.9", "name": "n" }"#,
        r#"{ "ipam": { "type": "../sh" }, "runtimeConfig": 3, "mac": [] }"#,
        r#"{ "cniVersion": "1.1.0", "name": "n", "runtimeConfig": { "CNIDeviceInfoFile": "/etc/passwd" } }"#,
    ] {
        let reply = reply("DEL", |r| r.netns.clear(), config).await;
        let CniReply { output, ipam, device_info, .. } = &reply;
        assert!(output.is_empty() && ipam.is_none() && device_info.is_none(), "{config}: {reply:?}");
    }
}

#[test]
fn del_says_which_vf_the_pod_had_and_where_unless_that_was_never_clear() {
    let device = "0000:03:10.0".parse::<PciAddress>().unwrap();
    let del = |netns: &str, config: Value| {
        let request = CniRequest {
            command: "DEL".to_owned(),
            container_id: "c1".to_owned(),
            netns: netns.to_owned(),
            ifname: "eth0".to_owned(),
            config: config.to_string().into_bytes(),
            ..CniRequest::default()
        };
        let mut version = Version::LATEST;
        match Command::parse(&request, &mut version).unwrap() {
            Command::Del(_, basics, netns) => (basics.device, netns),
            other => panic!("{other:?}"),
        }
    };
    let netns = Some(PathBuf::from("/run/netns/x"));
    for key in ["deviceID", "pciBusID"] {
        assert_eq!(del("/run/netns/x", json!({ key: device, "vlan": 5000 })), (Some(device), netns.clone()));
    }
    assert_eq!(del("", json!({ "runtimeConfig": { "deviceID": device } })), (Some(device), None));
    let two = json!({ "deviceID": device, "pciBusID": "0000:03:10.1" });
    for config in [two, json!({ "deviceID": "x" }), json!({ "deviceID": device, "runtimeConfig": 3 })] {
        assert_eq!(del("/run/netns/x", config), (None, netns.clone()));
    }
}

#[tokio::test]
async fn del_of_something_that_is_not_on_record_succeeds_although_its_vf_cannot_be_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let devices = dir.path().join("root/sys/bus/pci/devices");
    std::fs::create_dir_all(devices.parent().unwrap()).unwrap();
    std::fs::write(&devices, "not a folder").unwrap();
    let nics = bare_machine(dir.path()).await;
    let key = Key { container_id: "c1".to_owned(), ifname: "eth0".parse().unwrap() };
    let lost = Lost { device: "0000:03:10.0".parse().unwrap(), netns: None };
    nics.detach_vf(&key, Some(lost)).await.unwrap_err();
    let cni = Cni::new(None, nics, watch::channel(Arc::default()).1, config::Cni::default());
    let request = CniRequest {
        command: "DEL".to_owned(),
        container_id: "c1".to_owned(),
        ifname: "eth0".to_owned(),
        config: br#"{ "cniVersion": "1.1.0", "name": "n", "deviceID": "0000:03:10.0" }"#.to_vec(),
        ..CniRequest::default()
    };
    let reply = cni.handle(&request).await;
    assert_eq!(reply.exit_code, 0, "{}", String::from_utf8_lossy(&reply.output));
}

#[tokio::test]
async fn an_ipam_plugin_runs_after_the_agent_at_del_gc_and_before_it_where_it_needs_the_interface() {
    let config = |plugin: &str| {
        let ipam = json!({ "type": plugin });
        json!({
            "cniVersion": "1.1.0", "name": "n", "deviceID": "0000:03:10.0", "ipam": ipam,
            "cni.dev/valid-attachments": [],
        })
        .to_string()
    };
    let run = |plugin: &str, again| Some(IpamRun { plugin: plugin.to_owned(), again, release_first: false });
    for command in ["DEL", "GC"] {
        let reply = reply(command, |_| {}, &config("host-local")).await;
        assert_eq!((reply.exit_code, reply.ipam), (0, run("host-local", false)), "{command}");
    }
    assert_eq!(reply("DEL", |_| {}, &config("dhcp")).await.ipam, run("dhcp", true));
    let done = reply("DEL", |r| r.ipam_result = Some(Vec::new()), &config("dhcp")).await;
    assert_eq!((done.exit_code, done.ipam), (0, None));
    for inside in ["", "static"] {
        assert_eq!(reply("DEL", |_| {}, &config(inside)).await.ipam, None);
    }
    let (exit, _) = answer("ADD", |_| {}, &config("host-local")).await;
    assert_eq!(exit, 1, "no plugin runs for a device that does not exist");
}

#[tokio::test]
async fn a_device_information_file_is_removed_with_the_attachment() {
    let path = "/var/run/k8s.cni.cncf.io/devinfo/cni/n-1";
    let runtime = json!({ "CNIDeviceInfoFile": path });
    let config = json!({ "cniVersion": "1.0.0", "name": "n", "runtimeConfig": runtime }).to_string();
    let file = reply("DEL", |_| {}, &config).await.device_info;
    assert_eq!(file, Some(DeviceInfoFile { path: path.to_owned(), content: Vec::new() }));
}

#[tokio::test]
async fn garbage_collection_without_a_list_of_what_is_valid_is_refused() {
    let (_, error) = answer("GC", |_| {}, CONFIG).await;
    assert_eq!(error["code"], 7);
    assert!(error["details"].as_str().unwrap().contains("cni.dev/valid-attachments"), "{error}");
}

#[tokio::test]
async fn without_an_overlay_del_succeeds_and_add_names_what_is_missing() {
    assert_eq!(answer("DEL", |r| r.netns.clear(), CONFIG).await, (0, Value::Null));
    let (_, error) = answer("ADD", |_| {}, CONFIG).await;
    assert!(error["details"].as_str().unwrap().contains("section fastpath"), "{error}");
    let vf = r#"{ "cniVersion": "1.1.0", "name": "n", "deviceID": "0000:ff:00.0" }"#;
    let (_, error) = answer("ADD", |_| {}, vf).await;
    assert!(error["details"].as_str().unwrap().contains("0000:ff:00.0"), "{error}");
}

/// What an ADD of interface `ifname` with these CNI_ARGS and this configuration is about.
pub(super) fn attachment(ifname: &str, args: &str, config: &Value) -> Attachment {
    let request = CniRequest {
        command: "ADD".to_owned(),
        container_id: "c1".to_owned(),
        netns: "/run/netns/x".to_owned(),
        ifname: ifname.to_owned(),
        args: args.to_owned(),
        config: config.to_string().into_bytes(),
        ..CniRequest::default()
    };
    let mut version = Version::LATEST;
    match Command::parse(&request, &mut version).unwrap() {
        Command::Add(attachment) => *attachment,
        other => panic!("{other:?}"),
    }
}

/// The record of a pod on the overlay.
pub(super) fn port(container: &str, pod: &str, mac: Mac) -> Record {
    let mut record = json!({
        "containerId": container, "ifname": "eth0", "network": "n", "netns": "/run/netns/x", "boot": "b",
        "pod": { "namespace": "default", "name": pod }, "created": 0, "phase": "attached",
    });
    let lease = json!({ "port": "cv1", "addresses": [], "gateways": [], "mac": mac, "mtu": 1450 });
    record.as_object_mut().unwrap().extend(lease.as_object().unwrap().clone());
    serde_json::from_value(record).unwrap()
}

/// The record of a pod with a VF.
pub(super) fn vf(container: &str, pod: &str, mac: Mac) -> nic::Attachment {
    serde_json::from_value(json!({
        "key": { "containerId": container, "ifname": "eth0" }, "network": "n", "owner": format!("default/{pod}"),
        "phase": "attached", "vf": "0000:03:10.0", "pf": "0000:03:00.0", "index": 0, "netns": "/run/netns/x",
        "netnsId": null, "settings": {}, "before": null, "hostMac": null, "mac": mac, "interface": null,
    }))
    .unwrap()
}
