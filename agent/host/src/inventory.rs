//! SR-IOV network cards: physical functions, their virtual functions, and the interfaces of both.
//!
//! One pass over sysfs, linear in the number of functions. `sriov_numvfs` is never read: while VFs are being removed,
//! reading it can hang for ever (`sriov_numvfs_show` takes the device lock). The `virtfn*` links say the same and more.

use std::path::Path;

use culvert_api::value::{Mac, PciAddress, VfIndex};

use crate::pci::{PciDevice, PciFunction};
use crate::root::{FileError, HostRoot, link_name, names, parse, read};

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
    /// Its network interfaces in this namespace; several where one function has several ports (mlx4).
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
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up (IFF_UP).
    pub up: bool,
    /// RFC 2863 state: "up", "down", "unknown"...
    pub operstate: String,
}

impl Inventory {
    /// Reads the machine. Only a list of PCI functions that cannot be had at all is an error.
    pub fn scan(root: &HostRoot) -> Result<Self, FileError> {
        let mut inventory = Self::default();
        for name in names(&root.path("sys/bus/pci/devices"))? {
            let Ok(address) = name.parse() else { continue };
            match Pf::scan(root, address) {
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
        let function = PciFunction::new(root, address);
        let Some(total_vfs) = function.number("sriov_totalvfs")? else { return Ok(None) };
        if function.hex("class")?.is_none_or(|class| class >> 16 != NETWORK_CONTROLLER) {
            return Ok(None);
        }
        let Some(pci) = function.read(address)? else { return Ok(None) };
        Ok(Some(Self {
            pci,
            interfaces: interfaces(root, address)?,
            total_vfs,
            autoprobe: function.text("sriov_drivers_autoprobe")?.map(|text| text == "1"),
            vfs: vfs(root, address)?,
        }))
    }

    /// The interface that netlink knows the PF by.
    pub fn interface(&self) -> Option<&Interface> {
        self.interfaces.first()
    }
}

/// Addresses of the VFs of `pf`, by index.
pub fn vf_addresses(root: &HostRoot, pf: PciAddress) -> Result<Vec<(VfIndex, PciAddress)>, FileError> {
    let folder = root.pci_device(pf);
    let mut found = Vec::new();
    for name in names(&folder)? {
        let Some(index) = name.strip_prefix("virtfn").and_then(|n| n.parse().ok()) else { continue };
        // A link that is gone by now belongs to a VF that is being removed.
        let Some(address) = link_name(&folder.join(&name))?.and_then(|n| n.parse().ok()) else { continue };
        found.push((index, address));
    }
    found.sort_unstable();
    Ok(found)
}

fn vfs(root: &HostRoot, pf: PciAddress) -> Result<Vec<Vf>, FileError> {
    let mut vfs = Vec::new();
    for (index, address) in vf_addresses(root, pf)? {
        let Some(pci) = PciFunction::new(root, address).read(address)? else { continue };
        vfs.push(Vf { index, pci, interface: interfaces(root, address)?.into_iter().next() });
    }
    Ok(vfs)
}

/// Network interfaces of a PCI function in the namespace that sysfs was mounted in, by index.
pub fn interfaces(root: &HostRoot, address: PciAddress) -> Result<Vec<Interface>, FileError> {
    let folder = root.pci_device(address).join("net");
    let mut found = Vec::new();
    for name in names(&folder)? {
        found.extend(Interface::read(&folder.join(&name), name)?);
    }
    found.sort_unstable_by_key(|i| i.index);
    Ok(found)
}

impl Interface {
    /// `None` if it was renamed or went away while it was read.
    fn read(folder: &Path, name: String) -> Result<Option<Self>, FileError> {
        const IFF_UP: u32 = 1;
        let Some(index) = parse(&folder.join("ifindex"))? else { return Ok(None) };
        let flags = read(&folder.join("flags"))?;
        let flags = flags.and_then(|f| u32::from_str_radix(f.strip_prefix("0x")?, 16).ok()).unwrap_or(0);
        Ok(Some(Self {
            name,
            index,
            mac: parse(&folder.join("address"))?,
            mtu: parse(&folder.join("mtu"))?.unwrap_or(0),
            up: flags & IFF_UP != 0,
            operstate: read(&folder.join("operstate"))?.unwrap_or_else(|| "unknown".to_owned()),
        }))
    }
}
