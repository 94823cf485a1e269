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
    plan(Input { policy, node: "n", observed, holds: &Holds::new(), autoprobe: &BTreeMap::new() })
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
    let autoprobe = BTreeMap::new();
    let with_pod = |observed: &Observed| {
        plan(Input { policy: &policy, node: "n", observed, holds: &holds, autoprobe: &autoprobe })
    };
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
        "pfs: [{pf: eth9, vfs: 1}, {pf: 0000:09:00.0, vfs: 1}, {pf: 0000:04:00.0, vfs: 1},
               {pf: eth24, vfs: 1}, {pf: 0000:03:00.0, vfs: 2}]",
    );
    let plan = plan_for(&policy, &observed);
    assert_eq!(
        plan.blocked,
        [
            "eth9: this machine has no such NIC with SR-IOV",
            "0000:09:00.0: this machine has no such NIC with SR-IOV",
            "0000:04:00.0: it has no network interface (driver: none), which VFs are set up by",
            "0000:03:00.0: the policy has two entries for it; the one for 0000:03:00.0 does not count",
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
    let holds = Holds::new();
    let input =
        Input { policy: &policy, node: "n", observed: &observed, holds: &holds, autoprobe: &autoprobe };
    assert_eq!(texts(&plan(input)), ["0000:03:00.0: give new VFs drivers again"]);
    // An administrator's own choice is none of ours.
    assert!(plan_for(&policy, &observed).steps.is_empty());
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
                prop_assert_eq!(pf.pf.vfs.len(), wanted.vfs.len());
                let macs: BTreeSet<_> = pf.settings.values().map(|s| s.mac).collect();
                prop_assert_eq!(macs.len(), wanted.vfs.len());
                for (vf, wanted) in pf.pf.vfs.iter().zip(&wanted.vfs) {
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
        let holds = Holds::new();
        let rest = {
            let now = model.now();
            plan(Input { policy: &policy, node: "n", observed: &now, holds: &holds, autoprobe: &autoprobe })
        };
        do_all(&model, &rest);
        prop_assert_eq!(model.now(), whole.now());
    }
}
