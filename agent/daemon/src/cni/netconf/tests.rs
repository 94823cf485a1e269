use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parse(config: &Value) -> Result<NetConf, CniError> {
    let mut version = Version::LATEST;
    NetConf::parse(&object(config.to_string().as_bytes(), &mut version).unwrap())
}

/// A configuration of sriov-cni with more keys.
fn with(more: &Value) -> Result<NetConf, CniError> {
    let mut config = json!({
        "cniVersion": "0.3.1", "name": "sriov-net", "type": "sriov", "deviceID": "0000:03:02.0"
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    parse(&config)
}

#[test]
fn a_whole_configuration_of_sriov_cni_is_taken_as_it_is() {
    let conf = with(&json!({
        "pciBusID": "0000:03:02.0", "vlan": 1000, "vlanQoS": 4, "vlanProto": "802.1AD", "mac": "CA-FE-C0-FF-EE-00",
        "spoofchk": "on", "trust": "off", "link_state": "auto", "min_tx_rate": 100, "max_tx_rate": 200,
        "logLevel": "debug", "logFile": "/var/log/sriov.log", "dns": { "nameservers": ["10.1.0.1"] },
        "ipam": { "type": "host-local", "subnet": "10.56.217.0/24", "rangeStart": "10.56.217.171" },
        "capabilities": { "mac": true, "ips": true },
        "runtimeConfig": {
            "mac": "ce:fe:c0:ff:ee:01", "ips": ["10.56.217.180/24"], "deviceID": "0000:03:02.0", "portMappings": [],
            "CNIDeviceInfoFile": "/var/run/k8s.cni.cncf.io/devinfo/cni/sriov-net-1"
        },
        "prevResult": {},
    }))
    .unwrap();
    assert_eq!(conf.unknown, Vec::<String>::new());
    assert_eq!(conf.device, "0000:03:02.0".parse().ok());
    let tag = conf.vlan_tag(None).unwrap().unwrap();
    assert_eq!((tag.id.get(), tag.qos.get(), tag.protocol), (1000, 4, VlanProtocol::Dot1ad));
    assert_eq!(conf.mac.map(|mac| mac.to_string()).as_deref(), Some("ca:fe:c0:ff:ee:00"));
    assert_eq!(
        (conf.spoofchk, conf.trust, conf.link_state),
        (Some(true), Some(false), Some(LinkState::Auto))
    );
    assert_eq!(conf.rates.map(|r| (r.min.get(), r.max.get())), Some((100, 200)));
    assert_eq!(conf.ipam, Ipam::Plugin("host-local".to_owned()));
    assert_eq!(conf.runtime_config.ips, ["10.56.217.180/24"]);
    assert_eq!(
        conf.runtime_config.device_info.as_deref(),
        Some("/var/run/k8s.cni.cncf.io/devinfo/cni/sriov-net-1")
    );
}

#[test]
fn keys_are_read_in_any_case_and_empty_texts_and_nulls_as_absent() {
    let conf = with(
        &json!({ "VLAN": 100, "vlanqos": 2, "Trust": "on", "spoofchk": "", "mac": "", "link_state": null }),
    );
    let conf = conf.unwrap();
    let tag = conf.vlan_tag(None).unwrap().unwrap();
    assert_eq!((tag.id.get(), tag.qos.get()), (100, 2));
    assert_eq!((conf.trust, conf.spoofchk, conf.mac, conf.link_state), (Some(true), None, None, None));
    assert_eq!(conf.unknown, Vec::<String>::new());
}

#[test]
fn unknown_keys_pass_and_are_noted() {
    let conf = with(&json!({ "vlna": 100, "resourceName": "intel.com/x" })).unwrap();
    assert_eq!(conf.unknown, ["resourceName", "vlna"]);
    assert_eq!(conf.vlan, None);
}

#[test]
fn what_makes_no_sense_is_refused_by_key_value_and_reason() {
    for (more, part) in [
        (json!({ "vlan": 4095 }), "vlan 4095: must be 0-4094"),
        (json!({ "vlan": -1 }), "vlan: invalid value: integer `-1`"),
        (json!({ "vlan": "100" }), "vlan: invalid type: string \"100\""),
        (json!({ "vlan": 1, "vlanQoS": 8 }), "vlanQoS: vlan qos 8: must be 0-7"),
        (json!({ "vlan": 1, "vlanProto": "802.1x" }), "vlanProto \"802.1x\": must be 802.1q or 802.1ad"),
        (json!({ "mac": "01:00:00:00:00:00" }), "mac 01:00:00:00:00:00: is a multicast address"),
        (json!({ "mac": "ca:fe" }), "mac \"ca:fe\": must be six"),
        (json!({ "spoofchk": "yes" }), "spoofchk: must be \"on\" or \"off\""),
        (json!({ "link_state": "up" }), "link_state: unknown variant `up`"),
        (
            json!({ "min_tx_rate": 200, "max_tx_rate": 100 }),
            "min_tx_rate 200: must be at most max_tx_rate, 100",
        ),
        (json!({ "runtimeConfig": { "mac": "x" } }), "runtimeConfig.mac: mac \"x\""),
        (json!({ "runtimeConfig": [] }), "runtimeConfig []: must be an object"),
        (
            json!({ "pciBusID": "0000:03:02.1" }),
            "deviceID 0000:03:02.0 and pciBusID 0000:03:02.1: must name the same",
        ),
        (
            json!({ "runtimeConfig": { "deviceID": "0000:03:02.1" } }),
            "deviceID 0000:03:02.0 and runtimeConfig.deviceID 0000:03:02.1",
        ),
        (
            json!({ "ipam": { "type": "../../bin/sh" } }),
            "ipam.type \"../../bin/sh\": must be the name of a plugin",
        ),
        (json!({ "ipam": { "type": 3 } }), "ipam.type: invalid type"),
        (json!({ "ipam": { "addresses": [{ "address": "x" }] } }), "ipam.addresses"),
    ] {
        let error = with(&more).unwrap_err();
        assert_eq!(error.code(), 7, "{more}");
        assert!(error.to_string().contains(part), "{more}: {error}");
    }
}

#[test]
fn priority_and_service_tags_need_a_vlan_that_is_one() {
    for (more, part) in [
        (json!({ "vlanQoS": 3 }), "vlanQoS 3: needs a vlan"),
        (json!({ "vlanProto": "802.1q" }), "vlanProto 802.1q: needs a vlan"),
        (json!({ "vlan": 0, "vlanQoS": 3 }), "vlanQoS 3: needs a vlan of 1-4094"),
        (json!({ "vlan": 0, "vlanProto": "802.1ad" }), "vlanProto 802.1ad: needs a vlan of 1-4094"),
    ] {
        let error = with(&more).unwrap().vlan_tag(None).unwrap_err();
        assert!(error.to_string().contains(part), "{more}: {error}");
    }
    let untagged = with(&json!({ "vlan": 0, "vlanQoS": 0, "vlanProto": "802.1q" })).unwrap().vlan_tag(None);
    assert_eq!(untagged.unwrap(), Some(VfVlanTag::default()));
}

#[test]
fn a_network_of_vfs_without_a_device_is_no_pod_on_the_overlay() {
    for more in [json!({ "type": "sriov" }), json!({ "vlan": 100 }), json!({ "trust": "on" })] {
        let mut config = json!({ "cniVersion": "1.1.0", "name": "n", "type": "culvert-cni" });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let error = parse(&config).unwrap_err().to_string();
        assert!(error.contains("deviceID: is missing") && error.contains("resourceName"), "{error}");
    }
    let multus = json!({ "cniVersion": "1.1.0", "name": "n", "type": "sriov", "pciBusID": "0000:03:02.0" });
    assert_eq!(parse(&multus).unwrap().device, "0000:03:02.0".parse().ok());
}

#[test]
fn device_information_goes_nowhere_but_where_such_files_lie() {
    for path in [
        "/etc/cron.d/x",
        "/var/run/k8s.cni.cncf.io/devinfo/cni/",
        "/var/run/k8s.cni.cncf.io/devinfo/cni/../../x",
        "/var/run/k8s.cni.cncf.io/devinfo/cni/..",
        "/var/run/k8s.cni.cncf.io/devinfo/dp/x",
        "x",
    ] {
        let error = with(&json!({ "runtimeConfig": { "CNIDeviceInfoFile": path } })).unwrap_err().to_string();
        assert!(error.contains(path) && error.contains("must be a file in /var/run"), "{error}");
    }
}

/// Any value, with texts and numbers that keys know among others.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..5000u32).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "on",
            "802.1ad",
            "static",
            "0000:03:02.0",
            "02:00:00:00:00:01",
            "10.0.0.1/24"
        ])
        .prop_map(Value::from),
    ];
    let key =
        prop::sample::select([&KNOWN[..], &["addresses", "ips", "address", "CNIDeviceInfoFile"]].concat());
    leaf.prop_recursive(3, 24, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6).prop_map(|map| {
                Value::Object(map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_configuration_panics_and_what_is_refused_names_a_key(
        fields in prop::collection::btree_map(prop::sample::select(&KNOWN[..]), any_value(), 0..8),
    ) {
        let mut map: Map<String, Value> = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        map.insert("name".to_owned(), "n".into());
        let lenient = Basics::lenient(&map);
        match NetConf::parse(&map) {
            Ok(conf) => {
                prop_assert_eq!(lenient.delegate, conf.delegate(), "DEL runs the plugin that ADD ran");
                prop_assert_eq!(lenient.device_info, conf.runtime_config.device_info);
                prop_assert_eq!(lenient.for_vfs, conf.device.is_some());
                prop_assert_eq!(lenient.device, conf.device, "DEL is about the VF that ADD was about");
            }
            Err(error) => {
                let text = error.to_string();
                prop_assert!(KNOWN.iter().any(|key| text.contains(key)), "{}", text);
            }
        }
    }
}
