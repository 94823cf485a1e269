use culvert_api::config::nic::NicPolicy;

use super::super::identity::Leases;
use super::super::model;
use super::super::wanted::{Holds, wanted};
use super::*;

const PF: &str = "0000:03:00.0";

/// The orphans of a machine whose three VFs are as the policy says, but for what `change` does to it.
fn found(
    attachments: Vec<Attachment>,
    stale: &[Key],
    places: &[(&str, Place)],
    change: impl FnOnce(&mut Observed),
) -> Vec<(String, Option<String>)> {
    let policy = "pfs: [{ pf: 0000:03:00.0, vfs: 3, mac: { base: 02:00:00:00:01:00 } }]";
    let policy = NicPolicy::from_yaml(policy).unwrap();
    let mut pf = model::pf(PF, 7);
    model::create_vfs(&mut pf, 3);
    let (holds, leases) = (Holds::new(), Leases::new());
    let mut observed = Observed { pfs: vec![pf], ..Observed::default() };
    let goals = wanted(&policy, "n", &observed, &holds, &leases).pfs.remove(0).vfs;
    let pf = &mut observed.pfs[0];
    for goal in goals {
        pf.settings.get_mut(&goal.index).unwrap().mac = goal.settings.mac;
        let vf = pf.pf.vfs.iter_mut().find(|vf| vf.index == goal.index).unwrap();
        vf.interface.as_mut().unwrap().mac = goal.settings.mac;
    }
    change(&mut observed);
    let attachments: BTreeMap<Key, Attachment> =
        attachments.into_iter().map(|a| (a.key.clone(), a)).collect();
    let places = places.iter().map(|(vf, place)| (vf.parse().unwrap(), place.clone())).collect();
    let wanted = wanted(&policy, "n", &observed, &holds, &leases);
    let orphans = orphans(&wanted, &attachments, stale, &places);
    orphans.into_iter().map(|o| (format!("{}: {}", o.object, o.reason), o.user)).collect()
}

fn lose(observed: &mut Observed, vf: usize) {
    observed.pfs[0].pf.vfs[vf].interface = None;
    let index = observed.pfs[0].pf.vfs[vf].index;
    observed.pfs[0].users.insert(index, "somebody in another network namespace".to_owned());
}

#[test]
fn vfs_as_the_policy_says_and_vfs_of_living_pods_are_no_orphans() {
    let pods = model::attachment("c1", "0000:04:00.0", Phase::Attached);
    assert_eq!(found(vec![pods], &[], &[], |observed| lose(observed, 0)), []);
}

#[test]
fn what_a_pod_left_behind_is_told_with_its_name() {
    for (phase, reason) in [
        (Phase::Attached, "default/c1 is gone, and its DEL did not come"),
        (Phase::Attaching, "was not given to default/c1 completely"),
        (Phase::Detaching, "was not taken back from default/c1 completely"),
    ] {
        let left = model::attachment("c1", "0000:04:00.0", phase);
        let stale = [left.key.clone()];
        let found = found(vec![left], &stale, &[], |observed| lose(observed, 0));
        assert_eq!(found, [(format!("vf 0 of {PF}: {reason}"), None)]);
    }
}

#[test]
fn an_interface_in_a_foreign_namespace_is_an_orphan_with_the_process_that_runs_there() {
    let place = |path: &str, process: Option<&str>| Place {
        path: path.to_owned(),
        process: process.map(str::to_owned),
    };
    let places = [
        ("0000:04:00.0", place("/proc/77/ns/net", Some("process sleep (pid 77)"))),
        ("0000:04:00.1", place("/run/netns/left", None)),
    ];
    let found = found(Vec::new(), &[], &places, |observed| (0..3).for_each(|vf| lose(observed, vf)));
    let text = |vf: usize, what: &str| format!("vf {vf} of {PF}: its interface is in {what}");
    assert_eq!(
        found,
        [
            (text(0, "network namespace /proc/77/ns/net"), Some("process sleep (pid 77)".to_owned())),
            (text(1, "network namespace /run/netns/left"), None),
            (text(2, "a network namespace that nothing shows"), None),
        ]
    );
}

#[test]
fn wrong_settings_and_drivers_of_free_vfs_are_orphans_and_those_in_use_are_somebodys() {
    let found = found(Vec::new(), &[], &[], |observed| {
        let pf = &mut observed.pfs[0];
        let [first, second, third] = &mut pf.pf.vfs[..] else { panic!("there are three") };
        pf.settings.get_mut(&first.index).unwrap().vlan.id = 7.try_into().unwrap();
        for vf in [second, third] {
            vf.pci.driver = Some("vfio-pci".to_owned());
            vf.interface = None;
        }
        pf.users.insert(pf.pf.vfs[2].index, "process qemu (pid 7), through vfio".to_owned());
    });
    assert_eq!(
        found,
        [
            (format!("vf 0 of {PF}: is not as the policy says: set vlan 0"), None),
            (format!("vf 1 of {PF}: is not as the policy says: let the kernel's driver probe it"), None),
        ]
    );
}

#[test]
fn only_interfaces_of_the_kernel_that_no_record_explains_are_looked_for() {
    let mut pf = model::pf(PF, 7);
    model::create_vfs(&mut pf, 4);
    for vf in [0, 1, 2] {
        pf.pf.vfs[vf].interface = None;
    }
    pf.pf.vfs[1].pci.driver = Some("vfio-pci".to_owned());
    let observed = Observed { pfs: vec![pf], ..Observed::default() };
    let pods = model::attachment("c1", "0000:04:00.0", Phase::Attached);
    let expected: PciAddress = "0000:04:00.2".parse().unwrap();
    let attachments = BTreeMap::from([(pods.key.clone(), pods)]);
    assert_eq!(astray(&observed, &attachments), BTreeSet::from([expected]));
}
