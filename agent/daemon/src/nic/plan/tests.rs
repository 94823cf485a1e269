use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::model::{self, Model};
use super::super::wanted::Hold;
use super::*;
use crate::nic::step::Action;
use culvert_api::config::nic::VfDriver;
use culvert_host::netlink::VfChange;

const PF: &str = "0000:03:00.0";

fn policy(yaml: &str) -> NicPolicy {
    NicPolicy::from_yaml(yaml).unwrap()
}

/// The plan for `pfs` without pods.
fn plan_for(policy: &NicPolicy, observed: &Observed) -> Plan {
    plan(model::input(policy, observed))
}

fn texts(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|s| format!("{}: {}", s.object, s.action)).collect()
}

fn do_all(model: &Model, plan: &Plan) {
    for step in &plan.steps {
        model.step(step).unwrap_or_else(|e| panic!("{step:?}: {e}"));
    }
}

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
fn the_number_of_vfs_changes_through_zero_and_only_while_none_is_in_use() {
    let model = Model::new(vec![model::pf(PF, 7)]);
    do_all(&model, &plan_for(&policy("pfs: [{pf: eth24, vfs: 2}]"), &model.now()));

    let more = policy("pfs: [{pf: eth24, vfs: 4, vlan: 5}]");
    let steps = texts(&plan_for(&more, &model.now()));
    assert_eq!(steps[0], "0000:03:00.0: remove all VFs");
    assert_eq!(steps[2], "0000:03:00.0: create 4 VFs");

    model.lock().pfs[0].users.insert(VfIndex::MIN, "process dpdk-testpmd (pid 7), through vfio".to_owned());
    let held = plan_for(&more, &model.now());
    assert_eq!(
        held.blocked[0],
        "0000:03:00.0: it has 2 VFs, 4 are wanted, and all have to go for that, \
         but vf 0: it is used by process dpdk-testpmd (pid 7), through vfio"
    );
    assert!(
        held.blocked[1]
            .starts_with("vf 0 of 0000:03:00.0: to be done when it is free: set vlan 5; it is used")
    );
    assert_eq!(
        texts(&held),
        ["vf 1 of 0000:03:00.0: set vlan 5"],
        "those that are free are set up all the same"
    );

    let none = plan_for(&policy("pfs: [{pf: eth24, vfs: 0}]"), &model.now());
    assert!(none.steps.is_empty() && none.blocked.len() == 1);
    model.lock().pfs[0].users.clear();
    let none = plan_for(&policy("pfs: [{pf: eth24, vfs: 0}]"), &model.now());
    assert_eq!(texts(&none), ["0000:03:00.0: remove all VFs"]);
}

#[test]
fn a_pods_own_settings_are_no_difference_and_others_wait_until_the_vf_is_free() {
    let model = Model::new(vec![model::pf(PF, 7)]);
    let policy = policy("pfs: [{pf: eth24, vfs: 1, vlan: 5}]");
    do_all(&model, &plan_for(&policy, &model.now()));
    let mut observed = model.now();
    let vf = observed.pfs[0].pf.vfs[0].pci.address;
    observed.pfs[0].pf.vfs[0].interface = None;
    let mac = "02:00:00:00:00:77".parse().unwrap();
    observed.pfs[0].settings.get_mut(&VfIndex::MIN).unwrap().mac = Some(mac);
    let settings = VfChange { mac: Some(mac), ..VfChange::default() };
    let holds = Holds::from([(vf, Hold { owner: "default/web".to_owned(), settings })]);
    let with_pod = |observed: &Observed| plan(Input { holds: &holds, ..model::input(&policy, observed) });
    assert_eq!(with_pod(&observed), Plan::default());

    observed.pfs[0].settings.get_mut(&VfIndex::MIN).unwrap().vlan.id = 6.try_into().unwrap();
    let drifted = with_pod(&observed);
    assert!(drifted.steps.is_empty());
    assert_eq!(
        drifted.blocked,
        ["vf 0 of 0000:03:00.0: to be done when it is free: set vlan 5; it is used by default/web"]
    );
}

#[test]
fn a_pf_that_the_node_lives_on_is_only_touched_when_named_by_its_pci_address() {
    let mut pf = model::pf(PF, 7);
    pf.claims = vec!["the IPv4 default route on br0".to_owned(), "address 10.0.0.5/24 on br0".to_owned()];
    let observed = Observed { pfs: vec![pf], ..Observed::default() };
    let by_name = plan_for(&policy("pfs: [{pf: eth24, vfs: 1}]"), &observed);
    assert!(by_name.steps.is_empty());
    assert_eq!(
        by_name.blocked,
        [
            "0000:03:00.0: the node needs eth24 for the IPv4 default route on br0, address 10.0.0.5/24 on br0; \
          name it by its PCI address to have it changed all the same"
        ]
    );
    let by_address = plan_for(&policy("pfs: [{pf: 0000:03:00.0, vfs: 1}]"), &observed);
    assert!(by_address.blocked.is_empty() && !by_address.steps.is_empty());
}

#[test]
fn what_cannot_be_is_blocked_by_name_and_the_rest_goes_on() {
    let mut without_driver = model::pf("0000:04:00.0", 7);
    without_driver.pf.interfaces.clear();
    without_driver.pf.pci.driver = None;
    let observed = Observed { pfs: vec![model::pf(PF, 7), without_driver], ..Observed::default() };
    let eight = policy("pfs: [{pf: eth24, vfs: 8}]");
    let policy = policy(
        "pfs: [{pf: eth9, vfs: 1}, {pf: 0000:09:00.0, vfs: 1}, {pf: 0000:04:00.0, vfs: 1}, {pf: eth24, vfs: 1}]",
    );
    let plan = plan_for(&policy, &observed);
    assert_eq!(
        plan.blocked,
        [
            "eth9: this machine has no such NIC with SR-IOV",
            "0000:09:00.0: this machine has no such NIC with SR-IOV",
            "0000:04:00.0: it has no network interface (driver: none), which VFs are set up by",
        ]
    );
    assert!(texts(&plan).contains(&"0000:03:00.0: create 1 VFs".to_owned()));
    let too_many = plan_for(&eight, &observed);
    assert_eq!(too_many.blocked, ["0000:03:00.0: 8 VFs are wanted, it can have 7"]);
}

#[test]
fn a_mac_that_another_device_or_a_pod_has_is_refused_for_that_vf_only() {
    let mut observed =
        Observed { pfs: vec![model::pf(PF, 7), model::pf("0000:04:00.0", 7)], ..Observed::default() };
    let taken = "02:00:00:00:00:01".parse().unwrap();
    observed.other_macs.insert(taken, "eno1".to_owned());
    let policy = policy("pfs: [{pf: eth24, vfs: 2, mac: {base: 02:00:00:00:00:01}}]");
    let by_card = plan_for(&policy, &observed);
    assert_eq!(
        by_card.blocked,
        ["vf 0 of 0000:03:00.0: mac 02:00:00:00:00:01 is that of eno1, too; give it another"]
    );
    assert!(texts(&by_card).contains(&"vf 1 of 0000:03:00.0: set mac 02:00:00:00:00:02, vlan 0".to_owned()));

    observed.other_macs.clear();
    model::create_vfs(&mut observed.pfs[1], 1);
    observed.pfs[1].settings.get_mut(&VfIndex::MIN).unwrap().mac = Some(taken);
    let by_foreign_vf = plan_for(&policy, &observed);
    assert!(by_foreign_vf.blocked[0].contains("is that of vf 0 of 0000:04:00.0, too"), "{by_foreign_vf:?}");
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

fn two_pfs() -> Model {
    Model::new(vec![model::pf(PF, 7), model::pf("0000:04:00.0", 7)])
}

fn counts(model: &Model) -> Vec<usize> {
    model.lock().pfs.iter().map(|pf| pf.pf.vfs.len()).collect()
}

#[test]
fn one_entry_may_be_about_several_pfs_and_one_that_names_a_pf_goes_before_it() {
    for (entries, wanted) in [
        ("{pf: \"eth*\", vfs: 2}", vec![2, 2]),
        ("{pf: \"8086:10c9\", vfs: max}", vec![7, 7]),
        ("{pf: \"0000:0[34]:00.?\", vfs: 1}", vec![1, 1]),
        ("{pf: {driver: igb, numa: 0}, vfs: 1}", vec![1, 1]),
        ("{pf: {driver: igb, numa: 1}, vfs: 1}", vec![0, 0]),
        ("{pf: \"eth*\", vfs: 2}, {pf: eth32, vfs: 3}", vec![2, 3]),
        ("{pf: \"0000:03:00.0\", vfs: 3}, {pf: \"eth*\", vfs: 2}", vec![3, 2]),
        ("{pf: {id: \"8086:*\"}, vfs: 2}, {pf: {id: \"8086:*\", name: \"eth3?\"}, vfs: 3}", vec![2, 3]),
    ] {
        let (model, policy) = (two_pfs(), policy(&format!("pfs: [{entries}]")));
        let plan = plan_for(&policy, &model.now());
        assert_eq!(plan.blocked.is_empty(), wanted != [0, 0], "{entries}: {:?}", plan.blocked);
        do_all(&model, &plan);
        assert_eq!(counts(&model), wanted, "{entries}");
    }
}

#[test]
fn a_pf_that_two_entries_match_alike_is_left_alone_and_both_are_named() {
    for entries in [
        "{pf: \"eth2*\", vfs: 2}, {pf: \"8086:10c9\", vfs: 3}",
        "{pf: eth24, vfs: 2}, {pf: \"0000:03:00.0\", vfs: 3}, {pf: eth32, vfs: 3}",
    ] {
        let (model, policy) = (two_pfs(), policy(&format!("pfs: [{entries}]")));
        let plan = plan_for(&policy, &model.now());
        let told = format!("{:?}", plan.blocked);
        assert!(told.contains("0000:03:00.0: the entries eth2"), "{told}");
        assert!(told.contains("of the policy both match it"), "{told}");
        assert_eq!(super::super::wanted::conflicts(&policy, &model.now()).len(), 1);
        do_all(&model, &plan);
        assert_eq!(counts(&model), [0, 3], "the other PF is carved");
    }
}

#[test]
fn more_vfs_than_are_in_service_let_it_grow_and_shrink_without_a_new_carve() {
    let model = Model::new(vec![model::pf(PF, 7)]);
    let vfs = |count: u16| {
        policy(&format!("pfs: [{{pf: eth24, vfs: {count}, carve: 6, pools: [{{name: a, vfs: all}}]}}]"))
    };
    do_all(&model, &plan_for(&vfs(2), &model.now()));
    assert_eq!(counts(&model), [6]);
    assert_eq!(model.lock().pfs[0].pf.vfs[2].pci.driver, None, "those beyond lie idle");

    model.lock().pfs[0].users.insert(VfIndex::MIN, "default/web".to_owned());
    let grown = plan_for(&vfs(3), &model.now());
    assert_eq!(grown.blocked, Vec::<String>::new());
    assert_eq!(texts(&grown)[1], "vf 2 of 0000:03:00.0: let the kernel's driver probe it");
    do_all(&model, &grown);
    assert_eq!(plan_for(&vfs(3), &model.now()), Plan::default());
    let (fewer, now) = (vfs(1), model.now());
    assert_eq!(plan_for(&fewer, &now), Plan::default(), "surplus VFs only leave their pool");
    assert_eq!(model::input(&fewer, &now).wanted().pfs[0].vfs.len(), 1);
}

#[test]
fn surplus_vfs_stay_until_none_is_in_use() {
    let model = Model::new(vec![model::pf(PF, 7)]);
    do_all(&model, &plan_for(&policy("pfs: [{pf: eth24, vfs: 4}]"), &model.now()));
    let two = policy("pfs: [{pf: eth24, vfs: 2}]");
    model.lock().pfs[0].users.insert(VfIndex::try_from(3).unwrap(), "default/web".to_owned());
    let held = plan_for(&two, &model.now());
    assert!(held.steps.is_empty());
    assert_eq!(
        held.blocked,
        [
            "0000:03:00.0: it has 4 VFs, 2 are wanted: the others stay, offered to nobody, until no VF is in use; \
          vf 3: it is used by default/web"
        ]
    );
    model.lock().pfs[0].users.clear();
    do_all(&model, &plan_for(&two, &model.now()));
    assert_eq!(counts(&model), [2]);
}

#[test]
fn what_kubelet_gave_away_is_in_use_and_so_is_everything_while_it_does_not_say() {
    let model = Model::new(vec![model::pf(PF, 7)]);
    do_all(&model, &plan_for(&policy("pfs: [{pf: eth24, vfs: 2}]"), &model.now()));
    let (more, now) = (policy("pfs: [{pf: eth24, vfs: 3, vlan: 9}]"), model.now());
    let with = |kubelet: &Kubelet| plan(Input { kubelet, ..model::input(&more, &now) });
    let given =
        Kubelet::Given(BTreeMap::from([(now.pfs[0].pf.vfs[1].pci.address, "default/web".to_owned())]));
    let plan = with(&given);
    assert_eq!(texts(&plan), ["vf 0 of 0000:03:00.0: set vlan 9"]);
    assert!(plan.blocked[0].ends_with("but vf 1: kubelet gave it to default/web"), "{:?}", plan.blocked);

    let plan = with(&Kubelet::Away("cannot connect to kubelet.sock".to_owned()));
    assert!(plan.steps.is_empty());
    let reason = "kubelet does not say whether a pod has it: cannot connect to kubelet.sock";
    assert_eq!(plan.blocked.len(), 3);
    assert!(plan.blocked.iter().all(|b| b.ends_with(reason)), "{:?}", plan.blocked);

    let nobody = Kubelet::Given(BTreeMap::new());
    assert_eq!(texts(&with(&nobody))[0], "0000:03:00.0: remove all VFs");
    let (bare, away) = (model::pf(PF, 7), Kubelet::Away("no".to_owned()));
    let bare = Observed { pfs: vec![bare], ..Observed::default() };
    let first = super::plan(Input { kubelet: &away, ..model::input(&more, &bare) });
    assert!(first.blocked.is_empty(), "VFs that do not exist are nobody's: {:?}", first.blocked);
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
fn a_pool_of_macs_is_shared_and_what_it_gives_is_recorded_first() {
    let (folder, model) = (tempfile::TempDir::new().unwrap(), two_pfs());
    let policy = policy(
        "pfs: [{pf: \"eth*\", vfs: 2, mac: {pool: {from: 02:00:00:00:00:01, to: 02:00:00:00:00:04}}}]",
    );
    let first = plan_for(&policy, &model.now());
    assert_eq!(first.leases.len(), 4);
    let mut journal = crate::nic::journal::Journal::open(folder.path(), "boot-1").unwrap();
    journal.lease(&first.leases).unwrap();
    do_all(&model, &first);
    let macs: Vec<String> = model
        .lock()
        .pfs
        .iter()
        .flat_map(|pf| pf.settings.values().map(|s| s.mac.unwrap().to_string()))
        .collect();
    assert_eq!(macs, [1, 2, 3, 4].map(|n| format!("02:00:00:00:00:0{n}")));

    // After a reboot the first card is gone: the other keeps its addresses.
    drop(journal);
    let journal = crate::nic::journal::Journal::open(folder.path(), "boot-2").unwrap();
    let observed = Observed { pfs: vec![model::pf("0000:04:00.0", 7)], ..Observed::default() };
    let again = plan(Input { leases: &journal.state().leases, ..model::input(&policy, &observed) });
    assert!(
        texts(&again).iter().any(|step| step.contains("vf 0 of 0000:04:00.0: set mac 02:00:00:00:00:03")),
        "{again:?}"
    );
    assert!(again.leases.is_empty());

    let small = tests::policy(
        "pfs: [{pf: \"eth*\", vfs: 2, mac: {pool: {from: 02:00:00:00:00:01, to: 02:00:00:00:00:03}}}]",
    );
    let short = plan_for(&small, &two_pfs().now());
    assert_eq!(
        short.blocked,
        [
            "vf 1 of 0000:04:00.0: the mac pool 02:00:00:00:00:01 to 02:00:00:00:00:03 has no free address; make it larger"
        ]
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

/// Policies for the two PFs of [`machines`].
fn policies() -> impl Strategy<Value = NicPolicy> {
    let vf =
        (0_u32..3, any::<bool>(), proptest::option::of(any::<bool>()), proptest::option::of(1400_u32..1500));
    let pf = proptest::collection::vec(vf, 0..5);
    (pf.clone(), pf, 0_u8..4).prop_map(|(a, b, mac)| {
        let entry = |pf: &str, number: u32, vfs: &[(u32, bool, Option<bool>, Option<u32>)]| {
            let mut text = format!("  - pf: \"{pf}\"\n    vfs: {}\n", vfs.len());
            if mac == 0 {
                text += &format!("    mac: {{base: \"02:00:00:00:0{number}:00\"}}\n");
            }
            text += "    overrides:\n";
            for (index, (vlan, vfio, trust, mtu)) in vfs.iter().enumerate() {
                text += &format!("      - {{vfs: {index}, vlan: {vlan}");
                if let Some(trust) = trust {
                    text += &format!(", trust: {trust}");
                }
                match (vfio, mtu) {
                    (true, _) => text += ", driver: vfio-pci",
                    (false, Some(mtu)) => text += &format!(", mtu: {mtu}"),
                    (false, None) => {}
                }
                text += "}\n";
            }
            if vfs.is_empty() { text.replace("    overrides:\n", "") } else { text }
        };
        policy(&format!("pfs:\n{}{}", entry("0000:03:00.0", 1, &a), entry("eth32", 2, &b)))
    })
}

/// Two PFs as another policy left them, some VFs in use, one setting drifted.
fn machines() -> impl Strategy<Value = Observed> {
    let users = proptest::collection::btree_set(0_u32..4, 0..3);
    (policies(), proptest::option::of(users), any::<bool>(), any::<bool>()).prop_map(
        |(before, users, up, probe)| {
            let model = Model::new(vec![model::pf(PF, 7), model::pf("0000:04:00.0", 7)]);
            if up {
                do_all(&model, &plan_for(&before, &model.now()));
            }
            let mut observed = model.now();
            observed.pfs[1].pf.autoprobe = if probe { None } else { Some(true) };
            for index in users.into_iter().flatten() {
                let pf = &mut observed.pfs[0];
                if let Some(vf) = pf.pf.vfs.get_mut(index as usize) {
                    pf.users.insert(vf.index, "somebody".to_owned());
                    vf.interface = None;
                }
            }
            observed
        },
    )
}

proptest! {
    /// The model panics when a step touches a VF in use.
    #[test]
    fn any_machine_is_as_wanted_after_one_round_and_vfs_in_use_are_never_touched(
        policy in policies(),
        observed in machines(),
    ) {
        let model = Model::new(observed.pfs.clone());
        let first = plan_for(&policy, &observed);
        do_all(&model, &first);
        let second = plan_for(&policy, &model.now());
        prop_assert_eq!(&second.steps, &Vec::new());
        prop_assert_eq!(&second.blocked, &first.blocked);
        if first.blocked.is_empty() {
            for (pf, wanted) in model.lock().pfs.iter().zip(&policy.pfs) {
                prop_assert_eq!(pf.pf.vfs.len(), usize::from(wanted.vfs.of(7)));
                let macs: BTreeSet<_> = pf.settings.values().map(|s| s.mac).collect();
                prop_assert_eq!(macs.len(), pf.pf.vfs.len());
                for vf in &pf.pf.vfs {
                    let wanted = wanted.vf(vf.index).unwrap().settings;
                    prop_assert_eq!(vf.pci.driver.as_deref() == Some("vfio-pci"), wanted.driver == VfDriver::VfioPci);
                    prop_assert_eq!(pf.settings[&vf.index].vlan.id, wanted.vlan);
                    if let Some(interface) = &vf.interface {
                        prop_assert_eq!(interface.mac, pf.settings[&vf.index].mac);
                    }
                }
            }
        }
    }

    /// Whatever step the agent dies before, the next plan ends where the first would have.
    #[test]
    fn a_plan_cut_short_anywhere_and_made_anew_ends_at_the_same_machine(
        policy in policies(),
        observed in machines(),
        cut in 0_usize..30,
    ) {
        let whole = Model::new(observed.pfs.clone());
        let first = plan_for(&policy, &observed);
        do_all(&whole, &first);
        let model = Model::new(observed.pfs.clone());
        let mut autoprobe = BTreeMap::new();
        for step in first.steps.iter().take(cut) {
            // As the journal does.
            if let Action::Autoprobe(on) = step.action {
                autoprobe.entry(step.object.pf).or_insert(!on);
            }
            model.step(step).unwrap();
        }
        let rest = {
            let now = model.now();
            plan(Input { autoprobe: &autoprobe, ..model::input(&policy, &now) })
        };
        do_all(&model, &rest);
        prop_assert_eq!(model.now(), whole.now());
    }
}
