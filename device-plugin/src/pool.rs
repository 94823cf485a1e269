//! The devices of one resource, as kubelet shall see them.

use std::collections::BTreeMap;

use culvert_api::kubelet::v1beta1;
use culvert_api::value::{PciAddress, ResourceName};

use crate::{Device, Health};

#[cfg(test)]
mod tests;

/// All devices of a machine by address, each with the resource that offers it.
pub(crate) type Inventory = BTreeMap<PciAddress, (Option<ResourceName>, Device)>;

/// One resource and its devices. A value: the servers hold snapshots of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pool {
    resource: ResourceName,
    members: BTreeMap<PciAddress, Member>,
}

/// A device in a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// What was last known of it.
    pub(crate) device: Device,
    /// Whether the machine still has it.
    pub(crate) present: bool,
}

impl Member {
    /// Why new pods may not have it, if so.
    pub(crate) fn problem(&self) -> Option<&str> {
        match &self.device.health {
            _ if !self.present => Some("gone from the machine"),
            Health::Unhealthy(reason) => Some(reason),
            Health::Healthy => None,
        }
    }
}

impl Pool {
    pub(crate) fn new(resource: ResourceName) -> Self {
        Self { resource, members: BTreeMap::new() }
    }

    pub(crate) fn resource(&self) -> &ResourceName {
        &self.resource
    }

    pub(crate) fn get(&self, pci: PciAddress) -> Option<&Member> {
        self.members.get(&pci)
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Follows the machine. A member that has vanished stays and is unhealthy: kubelet drops what it no longer finds
    /// in the list, and with it the capacity and the health in the status of the pod that holds the device. A member
    /// that belongs to another pool now, or to none, leaves.
    pub(crate) fn update(&mut self, inventory: &Inventory) {
        let mine = |offered: &Option<ResourceName>| offered.as_ref() == Some(&self.resource);
        self.members.retain(|pci, _| inventory.get(pci).is_none_or(|(offered, _)| mine(offered)));
        for member in self.members.values_mut() {
            member.present = false;
        }
        for (_, device) in inventory.values().filter(|(offered, _)| mine(offered)) {
            self.members.insert(device.pci, Member { device: device.clone(), present: true });
        }
    }

    /// The list for kubelet, in the order of PCI addresses.
    pub(crate) fn list(&self) -> Vec<v1beta1::Device> {
        let to_kubelet =
            |member: &Member| v1beta1::Device {
                id: member.device.pci.to_string(),
                health: if member.problem().is_none() { "Healthy" } else { "Unhealthy" }.to_owned(),
                topology: member.device.numa.filter(|_| !member.device.hide_numa).map(|node| {
                    v1beta1::TopologyInfo { nodes: vec![v1beta1::NumaNode { id: i64::from(node) }] }
                }),
            };
        self.members().map(to_kubelet).collect()
    }
}
