//! Which entry of the policy a PF is set up by.

use super::*;

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
        assert_eq!(crate::nic::wanted::conflicts(&policy, &model.now()).len(), 1);
        do_all(&model, &plan);
        assert_eq!(counts(&model), [0, 3], "the other PF is carved");
    }
}
