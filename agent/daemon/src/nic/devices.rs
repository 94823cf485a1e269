//! What kubelet may give away: the VFs of the policy's pools, and whether they are ready.

use culvert_device_plugin::{Device, Health, IommuGroup};
use culvert_host::inventory::Vf;

use super::observe::{Observed, ObservedPf};
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

/// What there is, for `culvert nic list`.
pub(super) fn list(
    observed: &Observed,
    wanted: &Wanted<'_>,
    holds: &Holds,
) -> culvert_api::agent::NicListReply {
    use culvert_api::agent;
    let known = devices(wanted, holds);
    let vf = |pf: &ObservedPf, vf: &Vf| {
        let device = known.iter().find(|d| d.pci == vf.pci.address);
        let settings = pf.settings.get(&vf.index);
        let mac = settings.and_then(|s| s.mac).or(vf.interface.as_ref().and_then(|i| i.mac));
        let owner = holds.get(&vf.pci.address).map(|h| &h.owner).or_else(|| pf.users.get(&vf.index));
        agent::Vf {
            index: vf.index.get().into(),
            pci: vf.pci.address.to_string(),
            interface: vf.interface.as_ref().map(|i| i.name.clone()).unwrap_or_default(),
            driver: vf.pci.driver.clone().unwrap_or_default(),
            mac: mac.map(|m| m.to_string()).unwrap_or_default(),
            vlan: settings.map_or(0, |s| s.vlan.id.into()),
            vlan_qos: settings.map_or(0, |s| s.vlan.qos.into()),
            spoof_check: settings.is_some_and(|s| s.spoof_check),
            trust: settings.is_some_and(|s| s.trust),
            link_state: settings.map(|s| s.link_state.to_string()).unwrap_or_default(),
            iommu_group: vf.pci.iommu_group.map_or(-1, |g| g.number as i32),
            pool: device.and_then(|d| d.pool.as_ref()).map(ToString::to_string).unwrap_or_default(),
            healthy: device.is_some_and(|d| d.health == Health::Healthy),
            owner: owner.cloned().unwrap_or_default(),
        }
    };
    let pf = |pf: &ObservedPf| {
        let interface = pf.pf.interface();
        agent::Pf {
            pci: pf.pf.pci.address.to_string(),
            interface: interface.map(|i| i.name.clone()).unwrap_or_default(),
            id: pf.pf.pci.id.to_string(),
            model: pf.pf.pci.id.name(),
            driver: pf.pf.pci.driver.clone().unwrap_or_default(),
            numa_node: pf.pf.pci.numa_node.map_or(-1, i32::from),
            mac: interface.and_then(|i| i.mac).map(|m| m.to_string()).unwrap_or_default(),
            link: link_word(pf).to_owned(),
            mtu: interface.map_or(0, |i| i.mtu),
            total_vfs: pf.pf.total_vfs.into(),
            vfs: pf.pf.vfs.iter().map(|v| vf(pf, v)).collect(),
            protected_by: pf.claims.join(", "),
        }
    };
    agent::NicListReply { pfs: observed.pfs.iter().map(pf).collect() }
}
