//! What kubelet may give away: the VFs of the policy's pools, and whether they are ready.

use culvert_device_plugin::{Device, Health, IommuGroup};
use culvert_host::inventory::Vf;

use super::observe::ObservedPf;
use super::wanted::{Hold, Holds, Wanted, WantedVf};

/// Every VF that the policy speaks of and that exists, by PF and index. A VF that went away is not among them.
pub(super) fn devices(wanted: &Wanted<'_>, holds: &Holds) -> Vec<Device> {
    let mut devices = Vec::new();
    for pf in &wanted.pfs {
        for vf in &pf.now.pf.vfs {
            let Some(goal) = pf.vfs.iter().find(|goal| goal.index == vf.index) else { continue };
            devices.push(device(pf.now, vf, goal, holds.get(&vf.pci.address)));
        }
    }
    devices
}

fn device(pf: &ObservedPf, vf: &Vf, goal: &WantedVf, hold: Option<&Hold>) -> Device {
    let problem = problem(pf, vf, goal, hold);
    Device {
        pool: goal.pool.clone(),
        pf: Some(pf.pf.pci.address),
        vf: Some(vf.index),
        numa: vf.pci.numa_node.or(pf.pf.pci.numa_node),
        iommu_group: vf.pci.iommu_group.map(|g| IommuGroup { number: g.number, no_iommu: g.no_iommu }),
        driver: vf.pci.driver.clone(),
        netdev: vf.interface.as_ref().map(|i| i.name.clone()),
        health: problem.map_or(Health::Healthy, Health::Unhealthy),
        ..Device::new(vf.pci.address)
    }
}

/// Why nobody should be given the VF now.
fn problem(pf: &ObservedPf, vf: &Vf, goal: &WantedVf, hold: Option<&Hold>) -> Option<String> {
    if let Some(problem) = link_problem(pf) {
        return Some(problem);
    }
    if hold.is_some() {
        return None;
    }
    if let Some(user) = pf.users.get(&vf.index) {
        return Some(format!("it is used by {user}"));
    }
    let rest = goal.rest(pf, vf, None);
    (!rest.is_empty()).then(|| format!("to be done: {}", rest.describe()))
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
