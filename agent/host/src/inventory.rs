//! SR-IOV network cards: physical functions, their virtual functions, and the interfaces of both.
//!
//! One pass over sysfs, linear in the number of functions: seven files per VF. `sriov_numvfs` is never read: while VFs
//! are being removed, reading it can hang for ever (`sriov_numvfs_show` takes the device lock). The `virtfn*` links say
//! the same and more.

mod interface;

use std::collections::BTreeMap;

use culvert_api::value::{PciAddress, VfIndex};

pub use interface::{Interface, interfaces};

use crate::netlink::Link;
use crate::pci::{PciDevice, PciId};
use crate::root::{FileError, Folder, HostRoot};
use interface::Interfaces;

#[cfg(test)]
mod tests;

/// Base class "network controller" of the PCI Code and ID Assignment Specification: the upper byte of `class`.
const NETWORK_CONTROLLER: u32 = 0x02;

/// The SR-IOV network cards of a machine.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Physical functions, by PCI address.
    pub pfs: Vec<Pf>,
    /// What could not be read; the functions concerned are left out.
    pub problems: Vec<FileError>,
}

/// A physical function that can have VFs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pf {
    /// The PCI function.
    pub pci: PciDevice,
    /// The card's serial number, `b4-96-91-ff-ff-a1-b2-c0`; all PFs of a card have the same.
    pub serial: Option<String>,
    /// Its network interfaces in this namespace, without representors; several where one function has several ports
    /// (mlx4).
    pub interfaces: Vec<Interface>,
    /// Most VFs that the driver allows.
    pub total_vfs: u16,
    /// Whether the kernel looks for drivers for new VFs; `None` if it cannot be told not to.
    pub autoprobe: Option<bool>,
    /// The VFs that exist, by index.
    pub vfs: Vec<Vf>,
}

/// A virtual function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vf {
    /// Its index below the PF.
    pub index: VfIndex,
    /// The PCI function.
    pub pci: PciDevice,
    /// Its network interface, if it has one in this namespace.
    pub interface: Option<Interface>,
    /// The interface that stands for it in the NIC's switch (switchdev mode).
    pub representor: Option<Interface>,
}

impl Inventory {
    /// Reads the machine from sysfs alone. Only a list of PCI functions that cannot be had at all is an error.
    pub fn scan(root: &HostRoot) -> Result<Self, FileError> {
        Self::read(root, &Interfaces::InSysfs)
    }

    /// Reads the machine, with `links` as all interfaces of the program's namespace: no interface is looked for in sysfs
    /// then, nor by name. Where the kernel does not tell whose they are (before Linux 5.14), as [`Self::scan`].
    pub fn scan_with(root: &HostRoot, links: &[Link]) -> Result<Self, FileError> {
        Self::read(root, &Interfaces::from_links(links))
    }

    fn read(root: &HostRoot, interfaces: &Interfaces<'_>) -> Result<Self, FileError> {
        let mut inventory = Self::default();
        let Some(devices) = Folder::open(root.path("sys/bus/pci/devices"))? else { return Ok(inventory) };
        for name in devices.names()? {
            let Ok(address) = name.parse() else { continue };
            match Pf::read(&devices, address, interfaces) {
                Ok(found) => inventory.pfs.extend(found),
                Err(problem) => inventory.problems.push(problem),
            }
        }
        inventory.pfs.sort_unstable_by_key(|pf| pf.pci.address);
        Ok(inventory)
    }

    /// The PF at `address`.
    pub fn pf(&self, address: PciAddress) -> Option<&Pf> {
        self.pfs.iter().find(|pf| pf.pci.address == address)
    }

    /// The VF at `address`, and its PF.
    pub fn vf(&self, address: PciAddress) -> Option<(&Pf, &Vf)> {
        self.pfs.iter().find_map(|pf| Some((pf, pf.vfs.iter().find(|vf| vf.pci.address == address)?)))
    }
}

impl Pf {
    /// Reads one PF; `None` if the function at `address` is no network card with SR-IOV.
    pub fn scan(root: &HostRoot, address: PciAddress) -> Result<Option<Self>, FileError> {
        let Some(devices) = Folder::open(root.path("sys/bus/pci/devices"))? else { return Ok(None) };
        Self::read(&devices, address, &Interfaces::InSysfs)
    }

    fn read(
        devices: &Folder,
        address: PciAddress,
        known: &Interfaces<'_>,
    ) -> Result<Option<Self>, FileError> {
        let name = address.to_string();
        let Some(total_vfs) = devices.value(&format!("{name}/sriov_totalvfs"))? else { return Ok(None) };
        let Some(folder) = devices.at(&name)? else { return Ok(None) };
        if folder.hex("class")?.is_none_or(|class| class >> 16 != NETWORK_CONTROLLER) {
            return Ok(None);
        }
        let Some(pci) = PciDevice::read(devices, &folder, address)? else { return Ok(None) };
        let (interfaces, mut representors) = known.of_pf(&folder, address)?;
        let vfs = vfs(devices, &folder, &pci, known, &mut representors)?;
        Ok(Some(Self {
            serial: PciDevice::serial(&folder)?,
            interfaces,
            total_vfs,
            autoprobe: folder.text("sriov_drivers_autoprobe")?.map(|text| text == "1"),
            vfs,
            pci,
        }))
    }

    /// The interface that netlink knows the PF by.
    pub fn interface(&self) -> Option<&Interface> {
        self.interfaces.first()
    }
}

/// Addresses of the VFs of `pf`, by index.
pub fn vf_addresses(root: &HostRoot, pf: PciAddress) -> Result<Vec<(VfIndex, PciAddress)>, FileError> {
    Folder::open(root.pci_device(pf))?.map_or(Ok(Vec::new()), |folder| virtfns(&folder))
}

fn virtfns(pf: &Folder) -> Result<Vec<(VfIndex, PciAddress)>, FileError> {
    let mut found = Vec::new();
    for name in pf.names()? {
        let Some(index) = name.strip_prefix("virtfn").and_then(|n| n.parse().ok()) else { continue };
        // A link that is gone by now belongs to a VF that is being removed.
        let Some(address) = pf.link(&name)?.and_then(|n| n.parse().ok()) else { continue };
        found.push((index, address));
    }
    found.sort_unstable();
    Ok(found)
}

fn vfs(
    devices: &Folder,
    folder: &Folder,
    pf: &PciDevice,
    known: &Interfaces<'_>,
    representors: &mut BTreeMap<VfIndex, Interface>,
) -> Result<Vec<Vf>, FileError> {
    // All VFs of a PF have the same numbers: its vendor's, and the device id of its SR-IOV capability.
    let id = folder.text("sriov_vf_device")?.and_then(|text| u16::from_str_radix(&text, 16).ok());
    let id = id.map(|device| PciId { device, ..pf.id });
    let mut vfs = Vec::new();
    for (index, address) in virtfns(folder)? {
        let Some(own) = devices.at(&address.to_string())? else { continue };
        let id = match id {
            Some(id) => id,
            // Before Linux 4.15.
            None => {
                let Some(id) = PciId::read(&own)? else { continue };
                id
            }
        };
        let pci = PciDevice::read_vf(&own, address, pf, id)?;
        let interface = known.of_vf(&own, &pci)?;
        vfs.push(Vf { index, pci, interface, representor: representors.remove(&index) });
    }
    Ok(vfs)
}
