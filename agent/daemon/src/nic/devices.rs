//! What kubelet may give away: the VFs of the policy's pools, and whether they are ready.

use std::collections::BTreeMap;

use culvert_api::value::{PciAddress, ResourceName};
use culvert_device_plugin::{Device, Health, IommuGroup};
use culvert_host::inventory::Vf;

use super::observe::ObservedPf;
use super::wanted::{Holds, Wanted, WantedVf};

/// Devices that kubelet has given to pods, and from which resource, where that is a name.
pub(super) type Given = BTreeMap<PciAddress, Option<ResourceName>>;

/// Every VF that the policy speaks of and that exists, by PF and index. A VF that went away is not among them.
pub(super) fn devices(wanted: &Wanted<'_>, holds: &Holds, given: &Given) -> Vec<Device> {
    let mut devices = Vec::new();
    for pf in &wanted.pfs {
        for vf in &pf.now.pf.vfs {
            let Some(goal) = pf.vfs.iter().find(|goal| goal.index == vf.index) else { continue };
            let address = vf.pci.address;
            let held = holds.contains_key(&address) || given.contains_key(&address);
            devices.push(device(pf.now, vf, goal, held));
        }
    }
    devices
}

/// What a VF is, whatever it should be: healthy and in no pool.
pub(super) fn base(pf: &ObservedPf, vf: &Vf) -> Device {
    Device {
        pf: Some(pf.pf.pci.address),
        vf: Some(vf.index),
        root_port: vf.pci.root_port,
        numa: vf.pci.numa_node.or(pf.pf.pci.numa_node),
        iommu_group: vf.pci.iommu_group.map(|g| IommuGroup { number: g.number, no_iommu: g.no_iommu }),
        driver: vf.pci.driver.clone(),
        uio: vf.pci.uio,
        representor: vf.representor.as_ref().map(|i| i.name.clone()),
        netdev: vf.interface.as_ref().map(|i| i.name.clone()),
        ..Device::new(vf.pci.address)
    }
}

fn device(pf: &ObservedPf, vf: &Vf, goal: &WantedVf, held: bool) -> Device {
    let problem = problem(pf, vf, goal, held);
    Device {
        pool: goal.pool.clone(),
        health: problem.map_or(Health::Healthy, Health::Unhealthy),
        held,
        ..base(pf, vf)
    }
}

/// Why nobody should be given the VF now.
fn problem(pf: &ObservedPf, vf: &Vf, goal: &WantedVf, held: bool) -> Option<String> {
    if let problem @ Some(_) = trouble(pf, vf, held) {
        return problem;
    }
    let rest = goal.rest(pf, vf, None);
    (!held && !rest.is_empty()).then(|| format!("to be done: {}", rest.describe()))
}

/// Why nobody should be given the VF now, whatever it should be. That a pod has it, which got it the regular way, is no
/// reason: kubelet knows.
pub(super) fn trouble(pf: &ObservedPf, vf: &Vf, held: bool) -> Option<String> {
    let used = || pf.users.get(&vf.index).filter(|_| !held).map(|user| format!("it is used by {user}"));
    // Only for a moment is a VF without driver when it is given to a pod or taken back.
    let bare =
        || (held && vf.pci.driver.is_none()).then(|| "a pod has it, but its driver is gone".to_owned());
    link_problem(pf).or_else(|| pf.error.clone()).or_else(bare).or_else(used)
}

/// What is wrong with the PF's link.
fn link_problem(pf: &ObservedPf) -> Option<String> {
    let interface = pf.pf.interface()?;
    if !interface.up {
        return Some(format!("its PF {} is down", interface.name));
    }
    (!pf.carrier).then(|| format!("its PF {} has no carrier", interface.name))
}

/// State of a PF's link in a word.
pub(super) fn link_word(pf: &ObservedPf) -> &'static str {
    match pf.pf.interface() {
        None => "none",
        Some(interface) if !interface.up => "down",
        Some(_) if !pf.carrier => "no carrier",
        Some(_) => "up",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nic::model::{create_vfs, pf};

    #[test]
    fn a_vf_is_in_trouble_with_its_pf_its_driver_or_a_stranger_and_not_with_its_own_pod() {
        let mut fine = pf("0000:03:00.0", 4);
        fine.pf.interfaces[0].up = true;
        create_vfs(&mut fine, 1);
        let change = |change: &dyn Fn(&mut ObservedPf)| {
            let mut pf = fine.clone();
            change(&mut pf);
            pf
        };
        let told = |pf: &ObservedPf, held| trouble(pf, &pf.pf.vfs[0], held).unwrap_or_default();
        let index = fine.pf.vfs[0].index;
        let used = change(&|pf| drop(pf.users.insert(index, "testpmd".to_owned())));
        let bare = change(&|pf| pf.pf.vfs[0].pci.driver = None);
        let cases = [
            (change(&|_| {}), "", ""),
            (change(&|pf| pf.pf.interfaces[0].up = false), "is down", "is down"),
            (change(&|pf| pf.carrier = false), "has no carrier", "has no carrier"),
            (change(&|pf| pf.error = Some("fatal error".to_owned())), "fatal error", "fatal error"),
            (used, "it is used by testpmd", ""),
            (bare, "", "its driver is gone"),
        ];
        for (pf, free, held) in &cases {
            for (held, expected) in [(false, free), (true, held)] {
                let told = told(pf, held);
                assert!(told.ends_with(expected) && told.is_empty() == expected.is_empty(), "{told:?}");
            }
        }
    }
}
