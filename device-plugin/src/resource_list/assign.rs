//! Who gets which device.

use culvert_api::value::{PciAddress, ResourceName};

use super::{Finding, LinkType, ResourceList, Severity, VdpaType};

/// A network device that may be offered: a VF, or a PF that has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its address.
    pub pci: PciAddress,
    /// PCI vendor id.
    pub vendor: u16,
    /// PCI device id.
    pub device: u16,
    /// Bound kernel driver.
    pub driver: Option<String>,
    /// Address of its PF; its own if it is one.
    pub pf: PciAddress,
    /// All names of the PF's interface.
    pub pf_names: Vec<String>,
    /// Index below the PF; `None` if it is the PF.
    pub vf: Option<u32>,
    /// What runs on the link.
    pub link_type: Option<LinkType>,
    /// `acpi_index` of sysfs.
    pub acpi_index: Option<String>,
    /// Name of the Dynamic Device Personalization package in force.
    pub ddp_profile: Option<String>,
    /// InfiniBand partition key.
    pub p_key: Option<String>,
    /// Whether it has RDMA.
    pub rdma: bool,
    /// Its vDPA device, if there is one.
    pub vdpa: Option<VdpaType>,
    /// The resource that it belongs to whatever the file says.
    pub bound: Option<Bound>,
}

/// A resource that has a device whatever the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// The NIC policy gave it the device.
    Policy(ResourceName),
    /// A pod has the device from it; to offer it anywhere else would give it away twice.
    Held(ResourceName),
}

impl Bound {
    /// The resource.
    pub fn resource(&self) -> &ResourceName {
        match self {
            Self::Policy(resource) | Self::Held(resource) => resource,
        }
    }
}

/// Who gets which device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// For each candidate the index of its resource and of the selector there that took it.
    pub taken: Vec<Option<(usize, usize)>>,
    /// Resources that are empty, and resources that lost devices to others.
    pub findings: Vec<Finding>,
}

/// Gives each device to the first resource that takes it, in the order of the file. A device that is bound goes where
/// it is bound to, if anywhere; a selector of that resource that would not take it any more counts as its first.
pub fn assign(list: &ResourceList, candidates: &[Candidate]) -> Assignment {
    let mut taken = vec![None; candidates.len()];
    let mut findings = Vec::new();
    for (index, resource) in list.resources.iter().enumerate().filter(|(_, r)| r.is_served()) {
        let (mut own, mut earlier, mut policy) = (0, Lost::default(), Lost::default());
        for (device, slot) in candidates.iter().zip(&mut taken) {
            let selector = resource.selectors.iter().position(|s| s.takes(device));
            match (&device.bound, selector) {
                (Some(bound), _) if *bound.resource() == resource.name => {
                    *slot = Some((index, selector.unwrap_or(0)));
                    own += 1;
                }
                (_, None) | (Some(Bound::Held(_)), _) => {}
                (Some(Bound::Policy(winner)), _) => policy.add(device.pci, winner),
                (None, Some(selector)) => match *slot {
                    None => {
                        *slot = Some((index, selector));
                        own += 1;
                    }
                    Some((winner, _)) => earlier.add(device.pci, &list.resources[winner].name),
                },
            }
        }
        let mut warn = |text| findings.push(Finding { at: resource.at, severity: Severity::Warning, text });
        for (lost, why) in [(earlier, "which stands before it"), (policy, "a pool of the NIC policy")] {
            if let Some((first, winner)) = lost.first {
                warn(format!(
                    "resource {}: {} of its devices, {first} first, went to {winner}, {why}",
                    resource.name, lost.count
                ));
            }
        }
        if own == 0 {
            warn(format!(
                "resource {}: no device of this node is left for it; it is not offered",
                resource.name
            ));
        }
    }
    Assignment { taken, findings }
}

/// Devices that others got.
#[derive(Default)]
struct Lost {
    count: usize,
    first: Option<(PciAddress, ResourceName)>,
}

impl Lost {
    fn add(&mut self, device: PciAddress, winner: &ResourceName) {
        self.count += 1;
        self.first.get_or_insert_with(|| (device, winner.clone()));
    }
}
