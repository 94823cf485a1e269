//! Who gets which device.

use culvert_api::value::PciAddress;

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
}

/// Who gets which device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// For each candidate the index of its resource and of the selector there that took it.
    pub taken: Vec<Option<(usize, usize)>>,
    /// Resources that are empty, and resources that lost devices to earlier ones.
    pub findings: Vec<Finding>,
}

/// Gives each device to the first resource that takes it, in the order of the file.
pub fn assign(list: &ResourceList, candidates: &[Candidate]) -> Assignment {
    let mut taken = vec![None; candidates.len()];
    let mut findings = Vec::new();
    for (index, resource) in list.resources.iter().enumerate() {
        let mut own = 0;
        let mut lost: Vec<(PciAddress, usize)> = Vec::new();
        for (device, slot) in candidates.iter().zip(&mut taken) {
            let Some(selector) = resource.selectors.iter().position(|s| s.takes(device)) else { continue };
            match *slot {
                None => {
                    *slot = Some((index, selector));
                    own += 1;
                }
                Some((earlier, _)) => lost.push((device.pci, earlier)),
            }
        }
        let mut warn = |text| findings.push(Finding { at: resource.at, severity: Severity::Warning, text });
        if let Some((first, earlier)) = lost.first() {
            let winner = &list.resources[*earlier].name;
            let count = lost.len();
            warn(format!(
                "resource {}: {count} of its devices, {first} first, went to {winner}, which stands before it",
                resource.name
            ));
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
