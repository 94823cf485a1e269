use culvert_api::config::nic::NicPolicy;
use culvert_api::value::VfIndex;

use super::super::model::{self, Model};
use super::super::plan::{Input, plan};
use super::super::wanted::{Hold, Holds};
use super::*;

fn machine() -> Model {
    Model::new(vec![model::pf("0000:03:00.0", 7)])
}

fn policy(text: &str) -> NicPolicy {
    NicPolicy::from_yaml(text).unwrap()
}

/// "OBJECT ATTRIBUTE: WANTED, OBSERVED" of the rows that differ.
fn differing(reply: &NicDiffReply) -> Vec<String> {
    let rows = reply.attributes.iter().filter(|row| row.differs);
    rows.map(|r| format!("{} {}: {}, {}", r.object, r.attribute, r.wanted, r.observed)).collect()
}

#[test]
fn a_bare_pf_differs_in_everything_and_after_the_plan_in_nothing() {
    let model = machine();
    let policy = policy(
        "pfs: [{pf: eth24, vfs: 1, pfMtu: 9000, mac: {base: 02:00:00:00:01:00}, vlan: 100, qos: 3, trust: true,
                linkState: enable, minRate: 10, maxRate: 20, mtu: 8000}]",
    );
    let before = diff(&model::input(&policy, &model.now()));
    assert_eq!(
        differing(&before),
        [
            "0000:03:00.0 vfs: 1, 0",
            "0000:03:00.0 state: up, down",
            "0000:03:00.0 mtu: 9000, 1500",
            "vf 0 of 0000:03:00.0 mac: 02:00:00:00:01:00, ",
            "vf 0 of 0000:03:00.0 vlan: 100, ",
            "vf 0 of 0000:03:00.0 qos: 3, ",
            "vf 0 of 0000:03:00.0 vlanProtocol: 802.1q, ",
            "vf 0 of 0000:03:00.0 trust: on, ",
            "vf 0 of 0000:03:00.0 linkState: enable, ",
            "vf 0 of 0000:03:00.0 minRate: 10, ",
            "vf 0 of 0000:03:00.0 maxRate: 20, ",
            "vf 0 of 0000:03:00.0 driver: the kernel's own, ",
            "vf 0 of 0000:03:00.0 mtu: 8000, ",
        ]
    );
    for step in &plan(model::input(&policy, &model.now())).steps {
        model.step(step).unwrap();
    }
    let after = diff(&model::input(&policy, &model.now()));
    assert_eq!(differing(&after), Vec::<String>::new());
    assert!(
        after.attributes.iter().any(|row| row.attribute == "interface mac" && row.observed == row.wanted)
    );
}

#[test]
fn a_drifted_vf_is_told_with_its_user_and_a_pods_own_settings_are_no_difference() {
    let model = machine();
    let policy = policy("pfs: [{pf: eth24, vfs: 2, vlan: 5, driver: vfio-pci}]");
    for step in &plan(model::input(&policy, &model.now())).steps {
        model.step(step).unwrap();
    }
    let mut observed = model.now();
    let vf = observed.pfs[0].pf.vfs[0].pci.address;
    let mac = "02:00:00:00:00:77".parse().unwrap();
    let settings = observed.pfs[0].settings.get_mut(&VfIndex::MIN).unwrap();
    settings.mac = Some(mac);
    settings.vlan.id = 6.try_into().unwrap();
    observed.pfs[0].pf.vfs[1].pci.driver = None;
    let hold = VfChange { mac: Some(mac), ..VfChange::default() };
    let holds = Holds::from([(vf, Hold { owner: "default/web".to_owned(), settings: hold })]);
    let reply = diff(&Input { holds: &holds, ..model::input(&policy, &observed) });
    assert_eq!(
        differing(&reply),
        ["vf 0 of 0000:03:00.0 vlan: 5, 6", "vf 1 of 0000:03:00.0 driver: vfio-pci, none"]
    );
    let vlan = reply.attributes.iter().find(|row| row.differs).unwrap();
    assert_eq!(vlan.user, "it is used by default/web");
}
