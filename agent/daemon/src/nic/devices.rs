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
    link_problem(pf).or_else(|| pf.error.clone()).or_else(used)
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
