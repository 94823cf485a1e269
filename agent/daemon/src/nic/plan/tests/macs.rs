//! MACs that others have, and MACs of a pool.

use super::*;

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

    let small = super::policy(
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
