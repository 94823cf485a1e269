use serde_json::{Value, json};

use super::*;

fn schema() -> jsonschema::Validator {
    jsonschema::draft202012::new(&NicPolicy::schema()).unwrap()
}

fn value(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"))
}

#[test]
fn what_the_agent_takes_the_schema_takes() {
    let schema = schema();
    for entry in [
        "{pf: \"0000:03:00.0\", vfs: 4}",
        "{pf: eth0, vfs: max, carve: max}",
        "{pf: \"ens*f[01]\", vfs: 4, carve: 8}",
        "{pf: \"8086:1592\", vfs: 0}",
        "{pf: {address: \"0000:3b:*\", name: \"ens?f0\", id: \"8086:*\", numa: 1, driver: ice}, vfs: 1}",
        "{pf: eth0, vfs: 2, mac: derived}",
        "{pf: eth0, vfs: 2, mac: {base: 02:00:00:00:00:01}}",
        "{pf: eth0, vfs: 1, mac: {list: [02-00-00-00-00-01]}}",
        "{pf: eth0, vfs: 2, mac: {pool: {from: 02:00:00:00:00:01, to: 02:00:00:00:00:0F}}}",
        "{pf: eth0, vfs: 1, vlan: 4094, qos: 7, vlanProtocol: 802.1ad, spoofCheck: true, trust: false}",
        "{pf: eth0, vfs: 1, linkState: enable, minRate: 10, maxRate: 20, mtu: 9000, pfMtu: 9000}",
        "{pf: eth0, vfs: 1, driver: vfio-pci}",
        "{pf: eth0, vfs: 9, overrides: [{vfs: 1, mac: 02:00:00:00:00:01}, {vfs: \"2-3, 5\", vlan: 7}, {vfs: 6-}]}",
        "{pf: eth0, vfs: 9, pools: [{name: a, vfs: all}]}",
        "{pf: eth0, vfs: 9, pools: [{name: tenant-A_1, vfs: 0}, {name: b, vfs: \"1-2,4-\"}]}",
    ] {
        let yaml = format!("applyAtStart: true\npfs: [{entry}]");
        NicPolicy::from_yaml(&yaml).unwrap_or_else(|e| panic!("{entry}: {e}"));
        let errors: Vec<String> = schema.iter_errors(&value(&yaml)).map(|e| e.to_string()).collect();
        assert_eq!(errors, Vec::<String>::new(), "{entry}");
    }
}

#[test]
fn what_the_schema_refuses_the_agent_refuses() {
    let schema = schema();
    for entry in [
        "{pf: eth0}",
        "{vfs: 1}",
        "{pf: eth0, vfs: many}",
        "{pf: eth0, vfs: -1}",
        "{pf: eth0, vfs: 70000}",
        "{pf: eth0, vfs: 1, colour: red}",
        "{pf: \"a b\", vfs: 1}",
        "{pf: {colour: red}, vfs: 1}",
        "{pf: [eth0], vfs: 1}",
        "{pf: eth0, vfs: 1, vlan: 4095}",
        "{pf: eth0, vfs: 1, qos: 8, vlan: 1}",
        "{pf: eth0, vfs: 1, vlanProtocol: vxlan}",
        "{pf: eth0, vfs: 1, linkState: up}",
        "{pf: eth0, vfs: 1, mtu: 1000}",
        "{pf: eth0, vfs: 1, maxRate: 2000000}",
        "{pf: eth0, vfs: 1, driver: uio}",
        "{pf: eth0, vfs: 1, trust: maybe}",
        "{pf: eth0, vfs: 1, mac: random}",
        "{pf: eth0, vfs: 1, mac: {base: 01:00:5e:00:00:01}}",
        "{pf: eth0, vfs: 1, mac: {base: 02:00:00:00:00}}",
        "{pf: eth0, vfs: 1, mac: {pool: {from: 02:00:00:00:00:01}}}",
        "{pf: eth0, vfs: 1, overrides: [{vlan: 1}]}",
        "{pf: eth0, vfs: 1, overrides: [{vfs: \"a-b\", vlan: 1}]}",
        "{pf: eth0, vfs: 1, pools: [{name: \"a b\", vfs: 0}]}",
        "{pf: eth0, vfs: 1, pools: [{name: a}]}",
    ] {
        let yaml = format!("pfs: [{entry}]");
        assert!(!schema.is_valid(&value(&yaml)), "the schema takes {entry}");
        assert!(NicPolicy::from_yaml(&yaml).is_err(), "the agent takes {entry}");
    }
}

#[test]
fn every_key_is_described() {
    let schema = NicPolicy::schema();
    assert_eq!(schema["$schema"], json!("https://json-schema.org/draft/2020-12/schema"));
    let mut undescribed = Vec::new();
    let mut keys = 0;
    let definitions = schema["$defs"].as_object().unwrap().iter().map(|(name, d)| (name.as_str(), d));
    for (name, object) in definitions.chain([("policy", &schema)]) {
        for (key, property) in object["properties"].as_object().into_iter().flatten() {
            keys += 1;
            if property["description"].as_str().unwrap_or_default().is_empty() {
                undescribed.push(format!("{name}.{key}"));
            }
        }
    }
    assert_eq!(undescribed, Vec::<String>::new());
    assert!(keys > 30, "{keys}");
}
