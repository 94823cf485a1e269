//! Which steps there are, in which order.

use std::collections::BTreeSet;

use super::*;

#[test]
fn a_bare_pf_gets_its_vfs_without_drivers_then_settings_then_drivers() {
    let model = Model::new(vec![model::pf(PF, 7)]);
    let policy = policy(
        "pfs: [{pf: 0000:03:00.0, vfs: 2, mac: {base: 02:00:00:00:01:00}, vlan: 100,
                overrides: [{vfs: 1, vlan: 200, qos: 3, spoofCheck: true, driver: vfio-pci}]}]",
    );
    let first = plan_for(&policy, &model.now());
    assert_eq!(
        texts(&first),
        [
            "0000:03:00.0: bring eth24 up",
            "0000:03:00.0: leave new VFs without a driver",
            "0000:03:00.0: create 2 VFs",
            "0000:03:00.0: give new VFs drivers again",
            "vf 0 of 0000:03:00.0: set mac 02:00:00:00:01:00, vlan 100",
            "vf 0 of 0000:03:00.0: let the kernel's driver probe it",
            "vf 1 of 0000:03:00.0: set mac 02:00:00:00:01:01, vlan 200 qos 3, spoofchk on",
            "vf 1 of 0000:03:00.0: bind it to vfio-pci",
        ]
    );
    let writes: Vec<String> = first.steps.iter().map(Step::write).collect();
    assert_eq!(writes[2], "/sys/bus/pci/devices/0000:03:00.0/sriov_numvfs <- 2");
    assert_eq!(writes[6], "netlink RTM_SETLINK 24: IFLA_VF_MAC IFLA_VF_VLAN IFLA_VF_SPOOFCHK");
    do_all(&model, &first);
    assert_eq!(plan_for(&policy, &model.now()), Plan::default());
}

#[test]
fn a_changed_vlan_is_one_step_and_a_changed_mac_needs_a_new_probe() {
    let model = Model::new(vec![model::pf(PF, 7)]);
    let before = policy("pfs: [{pf: 0000:03:00.0, vfs: 2, mac: {base: 02:00:00:00:01:00}}]");
    do_all(&model, &plan_for(&before, &model.now()));

    let vlan = policy("pfs: [{pf: 0000:03:00.0, vfs: 2, vlan: 9, mac: {base: 02:00:00:00:01:00}}]");
    let steps = texts(&plan_for(&vlan, &model.now()));
    assert_eq!(steps, ["vf 0 of 0000:03:00.0: set vlan 9", "vf 1 of 0000:03:00.0: set vlan 9"]);

    let mac =
        policy("pfs: [{pf: 0000:03:00.0, vfs: 2, mac: {list: [02:00:00:00:01:00, 02:00:00:00:02:00]}}]");
    let steps = texts(&plan_for(&mac, &model.now()));
    assert_eq!(
        steps,
        [
            "vf 1 of 0000:03:00.0: set mac 02:00:00:00:02:00",
            "vf 1 of 0000:03:00.0: let the kernel's driver probe it"
        ]
    );
}

#[test]
fn macs_may_be_swapped_between_vfs() {
    let model = Model::new(vec![model::pf(PF, 7)]);
    let list =
        |a: &str, b: &str| policy(&format!("pfs: [{{pf: 0000:03:00.0, vfs: 2, mac: {{list: [{a}, {b}]}}}}]"));
    do_all(&model, &plan_for(&list("02:00:00:00:00:01", "02:00:00:00:00:02"), &model.now()));
    let swapped = list("02:00:00:00:00:02", "02:00:00:00:00:01");
    let plan = plan_for(&swapped, &model.now());
    assert_eq!((plan.steps.len(), plan.blocked.len()), (4, 0));
    do_all(&model, &plan);
    assert_eq!(plan_for(&swapped, &model.now()), Plan::default());
}

#[test]
fn a_vfs_mtu_needs_one_of_the_pf_that_is_as_large_and_that_is_set_before_it() {
    let model = Model::new(vec![model::pf(PF, 7)]);
    let without =
        plan_for(&policy("pfs: [{pf: eth24, vfs: 2, overrides: [{vfs: 1, mtu: 9000}]}]"), &model.now());
    assert_eq!(
        without.blocked,
        ["vf 1 of 0000:03:00.0: mtu 9000: is above that of its PF, 1500; set pfMtu: 9000"]
    );
    let with = policy("pfs: [{pf: eth24, vfs: 2, pfMtu: 9000, overrides: [{vfs: 1, mtu: 9000}]}]");
    let plan = plan_for(&with, &model.now());
    assert_eq!(texts(&plan)[1], "0000:03:00.0: set mtu 9000");
    do_all(&model, &plan);
    assert_eq!(plan_for(&with, &model.now()), Plan::default());

    let higher = policy("pfs: [{pf: eth24, vfs: 2, pfMtu: 9100, overrides: [{vfs: 1, mtu: 9100}]}]");
    model.lock().pfs[0].users.insert(VfIndex::MIN, "default/web".to_owned());
    let held = plan_for(&higher, &model.now());
    assert!(held.steps.is_empty(), "the VF waits for its PF: {held:?}");
    assert_eq!(
        held.blocked,
        ["0000:03:00.0: set mtu 9100: when no VF is in use; vf 0: it is used by default/web"]
    );
}

#[test]
fn a_vf_whose_driver_was_being_changed_probes_anew() {
    let model = Model::new(vec![model::pf(PF, 7)]);
    let policy = policy("pfs: [{pf: eth24, vfs: 2}]");
    do_all(&model, &plan_for(&policy, &model.now()));
    let unsettled = BTreeSet::from([Object::vf(PF.parse().unwrap(), VfIndex::MIN)]);
    let now = model.now();
    let again = plan(Input { unsettled: &unsettled, ..model::input(&policy, &now) });
    assert_eq!(texts(&again), ["vf 0 of 0000:03:00.0: let the kernel's driver probe it"]);
}

#[test]
fn autoprobe_that_an_interrupted_plan_left_off_is_set_back_first() {
    let mut pf = model::pf(PF, 7);
    pf.pf.autoprobe = Some(false);
    let observed = Observed { pfs: vec![pf], ..Observed::default() };
    let autoprobe = BTreeMap::from([(PF.parse().unwrap(), true)]);
    let policy = policy("pfs: []");
    let input = Input { autoprobe: &autoprobe, ..model::input(&policy, &observed) };
    assert_eq!(texts(&plan(input)), ["0000:03:00.0: give new VFs drivers again"]);
    // An administrator's own choice is none of ours.
    assert!(plan_for(&policy, &observed).steps.is_empty());
}

#[test]
fn the_reply_names_what_each_step_touches() {
    let model = Model::new(vec![model::pf(PF, 7)]);
    do_all(&model, &plan_for(&policy("pfs: [{pf: eth24, vfs: 2}]"), &model.now()));
    model.lock().pfs[0].pf.interfaces[0].up = false;
    let reply = |policy: &NicPolicy, observed: &Observed| {
        let input = model::input(policy, observed);
        let reply = plan(input).reply(&input);
        reply.steps.into_iter().map(|s| format!("{}: {}", s.action, s.touches.join(", "))).collect::<Vec<_>>()
    };
    assert_eq!(
        reply(&policy("pfs: [{pf: eth24, vfs: 3, mac: {base: 02:00:00:00:01:00}}]"), &model.now())[..5],
        [
            "bring eth24 up: vf 0-1",
            "remove all VFs: vf 0-1",
            "leave new VFs without a driver: ",
            "create 3 VFs: new vf 0-2",
            "give new VFs drivers again: ",
        ]
    );
    model.lock().pfs[0].users.insert(VfIndex::MIN, "default/web".to_owned());
    assert_eq!(
        reply(&policy("pfs: [{pf: eth24, vfs: 2, vlan: 9}]"), &model.now()),
        ["bring eth24 up: vf 0-1, vf 0: it is used by default/web", "set vlan 9: 0000:04:00.1, vf24001"]
    );
}
