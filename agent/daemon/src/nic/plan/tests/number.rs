//! How many VFs a PF has, while some are in use and not.

use super::*;

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
