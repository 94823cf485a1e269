//! Random policies on random machines.

use std::collections::BTreeSet;

use culvert_api::config::nic::VfDriver;
use proptest::prelude::*;

use super::*;
use crate::nic::step::Action;

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
