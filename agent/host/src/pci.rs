//! PCI functions as sysfs shows them: `Documentation/ABI/testing/sysfs-bus-pci`.
//!
//! Nothing is read that takes the lock of a device in the kernel (`sriov_numvfs`, `driver_override`, `uevent`): while a
//! driver is being unbound, such a read hangs until a program that has the VF open lets go of it.

mod names;
mod serial;

use std::path::{Component, Path};

use culvert_api::value::PciAddress;

use crate::driver;
use crate::root::{FileError, Folder};

/// What sysfs tells of one PCI function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciDevice {
    /// Where it is.
    pub address: PciAddress,
    /// Vendor and device.
    pub id: PciId,
    /// Bound driver.
    pub driver: Option<String>,
    /// NUMA node, where the firmware names one.
    pub numa_node: Option<u16>,
    /// IOMMU group.
    pub iommu_group: Option<IommuGroup>,
    /// The firmware's number of an onboard device, which names such as `eno1` are made from.
    pub acpi_index: Option<u32>,
    /// RDMA devices, such as `mlx5_0`.
    pub rdma: Vec<String>,
    /// Number of its `/dev/uioNUMBER`.
    pub uio: Option<u32>,
    /// The PCI hierarchy that it is in, as sysfs names it: `pci0000:40`. Functions of one root complex reach each other
    /// without the processor's interconnect.
    pub root_complex: Option<String>,
    /// The root port that it hangs below; `None` for one that is integrated into the root complex.
    pub root_port: Option<PciAddress>,
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
        names::of(self)
    }

    /// The numbers of a function; `None` if there is no such function.
    pub(crate) fn read(folder: &Folder) -> Result<Option<Self>, FileError> {
        let (Some(vendor), Some(device)) = (folder.hex("vendor")?, folder.hex("device")?) else {
            return Ok(None);
        };
        Ok(Some(Self { vendor: vendor as u16, device: device as u16 }))
    }
}

impl std::fmt::Display for PciId {
    /// `8086:10c9`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

impl PciDevice {
    /// A function of which nothing but address and numbers is known.
    pub fn new(address: PciAddress, id: PciId) -> Self {
        Self {
            address,
            id,
            driver: None,
            numa_node: None,
            iommu_group: None,
            acpi_index: None,
            rdma: Vec::new(),
            uio: None,
            root_complex: None,
            root_port: None,
        }
    }

    /// A function that is no VF; `devices` is sysfs' folder of them.
    pub(crate) fn read(
        devices: &Folder,
        folder: &Folder,
        address: PciAddress,
    ) -> Result<Option<Self>, FileError> {
        let Some(id) = PciId::read(folder)? else { return Ok(None) };
        let mut device = Self::new(address, id);
        // -1 where the firmware says nothing.
        device.numa_node = folder.value("numa_node")?;
        if let Some(target) = devices.target(&address.to_string())? {
            (device.root_complex, device.root_port) = upstream(&target, address);
        }
        device.read_own(folder)?;
        Ok(Some(device))
    }

    /// The VF at `address` of the PF `pf`. Where it is in the machine it has from its PF: the kernel puts a VF on its PF's
    /// bus or on a virtual one beside it (`virtfn_add_bus` in `drivers/pci/iov.c`).
    pub(crate) fn read_vf(
        folder: &Folder,
        address: PciAddress,
        pf: &Self,
        id: PciId,
    ) -> Result<Self, FileError> {
        let mut device = Self {
            numa_node: pf.numa_node,
            root_complex: pf.root_complex.clone(),
            root_port: pf.root_port,
            ..Self::new(address, id)
        };
        device.read_own(folder)?;
        Ok(device)
    }

    /// What each function has of its own.
    fn read_own(&mut self, folder: &Folder) -> Result<(), FileError> {
        self.driver = folder.link("driver")?;
        let userspace = self.driver.as_deref().is_some_and(driver::is_userspace);
        if let Some(number) = folder.link("iommu_group")?.and_then(|n| n.parse().ok()) {
            // A group without an IOMMU exists only as long as vfio has the function.
            let no_iommu = userspace && folder.text("iommu_group/name")?.as_deref() == Some("vfio-noiommu");
            self.iommu_group = Some(IommuGroup { number, no_iommu });
        }
        self.acpi_index = folder.value("acpi_index")?;
        if userspace {
            let uio = folder.at("uio")?.map(|f| f.names()).transpose()?.unwrap_or_default();
            self.uio = uio.iter().find_map(|name| name.strip_prefix("uio")?.parse().ok());
        } else if self.driver.is_some() {
            self.rdma = folder.at("infiniband")?.map(|f| f.names()).transpose()?.unwrap_or_default();
        }
        Ok(())
    }
}

/// Root complex and root port on the way to a function:
/// `../../../devices/pci0000:40/0000:40:01.0/0000:41:00.0`.
fn upstream(target: &Path, address: PciAddress) -> (Option<String>, Option<PciAddress>) {
    let parts = target.components().filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    let mut parts = parts.skip_while(|name| !is_root_complex(name));
    let complex = parts.next().map(str::to_owned);
    let port = parts.next().and_then(|name| name.parse().ok()).filter(|port| *port != address);
    (complex, port)
}

/// `pci0000:40`.
fn is_root_complex(name: &str) -> bool {
    let Some((domain, bus)) = name.strip_prefix("pci").and_then(|rest| rest.split_once(':')) else {
        return false;
    };
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    hex(domain) && hex(bus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_complex_and_root_port_are_the_first_two_folders_of_the_way() {
        let of = |path: &str, address: &str| upstream(Path::new(path), address.parse().unwrap());
        let direct = of("../../../devices/pci0000:40/0000:40:01.0/0000:41:00.0", "0000:41:00.0");
        assert_eq!(direct, (Some("pci0000:40".into()), Some("0000:40:01.0".parse().unwrap())));
        let switch = "../../../devices/pci0000:40/0000:40:03.1/0000:41:00.0/0000:42:10.0/0000:43:00.0";
        assert_eq!(of(switch, "0000:43:00.0").1, Some("0000:40:03.1".parse().unwrap()));
        let integrated = of("../../../devices/pci0000:00/0000:00:05.0", "0000:00:05.0");
        assert_eq!(integrated, (Some("pci0000:00".into()), None));
        // A domain of VMD lies below another device; its own complex counts.
        let vmd = "../../../devices/pci0000:5d/0000:5d:05.5/pci10000:00/10000:00:02.0/10000:01:00.0";
        assert_eq!(of(vmd, "0001:01:00.0").0, Some("pci0000:5d".into()));
        assert_eq!(of("/tmp/x/0000:41:00.0", "0000:41:00.0"), (None, None));
    }
}
