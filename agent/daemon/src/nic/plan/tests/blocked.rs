//! What is left alone, and why.

use culvert_host::netlink::VfChange;

use super::super::super::wanted::Hold;
use super::*;

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
    let first = super::super::plan(Input { kubelet: &away, ..model::input(&more, &bare) });
    assert!(first.blocked.is_empty(), "VFs that do not exist are nobody's: {:?}", first.blocked);
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
