//! What a device plugin wants to know of network functions beyond the inventory: NICs without SR-IOV, link types, RDMA.

use std::collections::BTreeSet;

use culvert_api::value::PciAddress;

use crate::inventory::{Interface, interfaces};
use crate::pci::PciDevice;
use crate::root::{FileError, Folder, HostRoot};

#[cfg(test)]
mod tests;

/// Base class "network controller", the upper byte of `class`.
const NETWORK_CONTROLLER: u32 = 0x02;

/// A network controller that is neither PF nor VF as far as this machine knows: a plain NIC, or a VF that was handed to
/// this virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The PCI function.
    pub pci: PciDevice,
    /// Its network interfaces in this namespace, by index.
    pub interfaces: Vec<Interface>,
}

/// Network controllers without SR-IOV; functions in `known` are not looked at.
pub fn plain_nics(root: &HostRoot, known: &BTreeSet<PciAddress>) -> Result<Vec<Nic>, FileError> {
    let mut found = Vec::new();
    let Some(devices) = Folder::open(root.path("sys/bus/pci/devices"))? else { return Ok(found) };
    for name in devices.names()? {
        let Ok(address) = name.parse::<PciAddress>() else { continue };
        if known.contains(&address)
            || devices.hex(&format!("{name}/class"))?.is_none_or(|c| c >> 16 != NETWORK_CONTROLLER)
        {
            continue;
        }
        let Some(folder) = devices.at(&name)? else { continue };
        if folder.text("sriov_totalvfs")?.is_some() || folder.link("physfn")?.is_some() {
            continue;
        }
        let Some(pci) = PciDevice::read(&devices, &folder, address)? else { continue };
        found.push(Nic { pci, interfaces: interfaces(root, address)? });
    }
    Ok(found)
}

/// What runs on the link of `interface` of the function at `address`: a number ARPHRD_* of `linux/if_arp.h`, 1 for
/// Ethernet, 32 for InfiniBand.
pub fn hardware_type(
    root: &HostRoot,
    address: PciAddress,
    interface: &str,
) -> Result<Option<u16>, FileError> {
    let folder = Folder::open(root.pci_device(address).join("net").join(interface))?;
    folder.map_or(Ok(None), |folder| folder.value("type"))
}

/// Names below `/dev/infiniband` of the function's RDMA devices, and `rdma_cm` of the machine if it has that.
pub fn rdma_nodes(root: &HostRoot, address: PciAddress) -> Result<Vec<String>, FileError> {
    let mut nodes = Vec::new();
    let Some(folder) = Folder::open(root.pci_device(address))? else { return Ok(nodes) };
    for class in ["infiniband_verbs", "infiniband_mad"] {
        if let Some(class) = folder.at(class)? {
            nodes.extend(class.names()?);
        }
    }
    if Folder::open(root.path("sys/class/misc/rdma_cm"))?.is_some() {
        nodes.push("rdma_cm".to_owned());
    }
    Ok(nodes)
}

/// The first partition key of an RDMA device's first port, such as `0x8001` (`Documentation/ABI/stable/sysfs-class-infiniband`).
pub fn p_key(root: &HostRoot, address: PciAddress, device: &str) -> Result<Option<String>, FileError> {
    let keys = root.pci_device(address).join("infiniband").join(device).join("ports/1/pkeys");
    Folder::open(keys)?.map_or(Ok(None), |keys| keys.text("0"))
}
