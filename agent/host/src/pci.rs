//! PCI functions as sysfs shows them: `Documentation/ABI/testing/sysfs-bus-pci`.

use std::path::{Path, PathBuf};

use culvert_api::value::PciAddress;
use pci_ids::FromId as _;
use sysfs_class::SysClass;

use crate::root::{FileError, HostRoot, link_name, optional};

/// What sysfs tells of one PCI function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciDevice {
    /// Where it is.
    pub address: PciAddress,
    /// Vendor and device.
    pub id: PciId,
    /// Bound driver.
    pub driver: Option<String>,
    /// The driver that was asked for with `driver_override`.
    pub driver_override: Option<String>,
    /// NUMA node, where the firmware names one.
    pub numa_node: Option<u16>,
    /// IOMMU group.
    pub iommu_group: Option<IommuGroup>,
}

/// Numbers of vendor and device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciId {
    /// Vendor, such as 0x8086.
    pub vendor: u16,
    /// Device, such as 0x10c9.
    pub device: u16,
}

/// The devices that the IOMMU can only tell apart from others together: `/dev/vfio/NUMBER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IommuGroup {
    /// Its number.
    pub number: u32,
    /// Made by vfio without an IOMMU behind it: `/dev/vfio/noiommu-NUMBER`.
    pub no_iommu: bool,
}

impl PciId {
    /// Names of vendor and device in the PCI ID database; empty if it has neither.
    pub fn name(self) -> String {
        if let Some(device) = pci_ids::Device::from_vid_pid(self.vendor, self.device) {
            return format!("{} {}", device.vendor().name(), device.name());
        }
        pci_ids::Vendor::from_id(self.vendor).map_or_else(String::new, |vendor| vendor.name().to_owned())
    }
}

impl std::fmt::Display for PciId {
    /// `8086:10c9`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

/// A folder of `/sys/bus/pci/devices`, below any root.
pub(crate) struct PciFunction {
    path: PathBuf,
}

impl SysClass for PciFunction {
    fn base() -> &'static str {
        "bus/pci"
    }

    fn class() -> &'static str {
        "devices"
    }

    // SAFETY: nothing relies on the path being one of sysfs'; a wrong one reads as a function without attributes.
    unsafe fn from_path_unchecked(path: PathBuf) -> Self {
        Self { path }
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl PciFunction {
    pub(crate) fn new(root: &HostRoot, address: PciAddress) -> Self {
        Self { path: root.pci_device(address) }
    }

    /// A file's trimmed text; `None` if the function does not have it.
    pub(crate) fn text(&self, file: &str) -> Result<Option<String>, FileError> {
        optional(self.trim_file(file), &self.path.join(file))
    }

    /// A decimal number; `None` if the function does not have it.
    pub(crate) fn number<T: std::str::FromStr>(&self, file: &str) -> Result<Option<T>, FileError> {
        Ok(self.text(file)?.and_then(|text| text.parse().ok()))
    }

    /// A number as sysfs writes ids: `0x8086`.
    pub(crate) fn hex(&self, file: &str) -> Result<Option<u32>, FileError> {
        let parse = |text: String| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        Ok(self.text(file)?.and_then(parse))
    }

    /// Everything that PFs and VFs have in common; `None` if there is no such function.
    pub(crate) fn read(&self, address: PciAddress) -> Result<Option<PciDevice>, FileError> {
        let (Some(vendor), Some(device)) = (self.hex("vendor")?, self.hex("device")?) else {
            return Ok(None);
        };
        let group = link_name(&self.path.join("iommu_group"))?.and_then(|n| n.parse().ok());
        let iommu_group = match group {
            None => None,
            Some(number) => {
                let no_iommu = self.text("iommu_group/name")?.as_deref() == Some("vfio-noiommu");
                Some(IommuGroup { number, no_iommu })
            }
        };
        Ok(Some(PciDevice {
            address,
            id: PciId { vendor: vendor as u16, device: device as u16 },
            driver: link_name(&self.path.join("driver"))?,
            driver_override: self.text("driver_override")?.filter(|d| !d.is_empty() && d != "(null)"),
            // -1 where the firmware says nothing.
            numa_node: self.number("numa_node")?,
            iommu_group,
        }))
    }
}
