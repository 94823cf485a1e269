//! Which driver a PCI function has, how many VFs there are, and whether new VFs get drivers: the writes.

use culvert_api::value::PciAddress;

use crate::root::{FileError, HostRoot, link_name, write};

/// The driver for programs in user space.
pub const VFIO_PCI: &str = "vfio-pci";

/// Drivers that leave a function to a program in user space.
const USERSPACE: [&str; 3] = [VFIO_PCI, "uio_pci_generic", "igb_uio"];

/// A driver that could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A write failed.
    #[error("{address}: driver cannot be changed")]
    File {
        /// The function.
        address: PciAddress,
        /// The write.
        source: FileError,
    },
    /// The function has none, or another driver, after the kernel was asked to look for it.
    #[error(
        "{address}: {wanted} did not take it ({found}); is the module loaded, and does it know the device?",
        found = found.as_deref().unwrap_or("no driver did")
    )]
    NotTaken {
        /// The function.
        address: PciAddress,
        /// Who was to drive it.
        wanted: String,
        /// Who does.
        found: Option<String>,
    },
}

/// Whether `driver` leaves the function to a program in user space.
pub fn is_userspace(driver: &str) -> bool {
    USERSPACE.contains(&driver)
}

/// Gives the function to the kernel's own driver for it, anew if that has it already: the driver then reads the MAC
/// again that the PF holds for a VF.
pub fn bind_kernel(root: &HostRoot, address: PciAddress) -> Result<(), DriverError> {
    rebind(root, address, None)?;
    match current(root, address)? {
        Some(driver) if !is_userspace(&driver) => Ok(()),
        found => Err(DriverError::NotTaken { address, wanted: "the kernel's own driver".to_owned(), found }),
    }
}

/// Gives the function to vfio-pci.
pub fn bind_vfio(root: &HostRoot, address: PciAddress) -> Result<(), DriverError> {
    if current(root, address)?.as_deref() == Some(VFIO_PCI) {
        return Ok(());
    }
    rebind(root, address, Some(VFIO_PCI))?;
    match current(root, address)? {
        Some(driver) if driver == VFIO_PCI => Ok(()),
        found => Err(DriverError::NotTaken { address, wanted: VFIO_PCI.to_owned(), found }),
    }
}

/// driver_override, unbind, drivers_probe: the order matters, as unbinding alone would let udev bind it again.
fn rebind(root: &HostRoot, address: PciAddress, driver: Option<&str>) -> Result<(), DriverError> {
    let error = |source| DriverError::File { address, source };
    let device = root.pci_device(address);
    write(&device.join("driver_override"), &format!("{}\n", driver.unwrap_or_default())).map_err(error)?;
    if current(root, address)?.is_some() {
        match write(&device.join("driver/unbind"), &address.to_string()) {
            // Somebody else was quicker.
            Err(e) if e.is_absent() => {}
            done => done.map_err(error)?,
        }
    }
    write(&root.path("sys/bus/pci/drivers_probe"), &address.to_string()).map_err(error)
}

/// The driver that has the function.
pub fn current(root: &HostRoot, address: PciAddress) -> Result<Option<String>, DriverError> {
    link_name(&root.pci_device(address).join("driver"))
        .map_err(|source| DriverError::File { address, source })
}

/// Writes `sriov_numvfs`: creates VFs (from 0), or removes them all (0). Takes as long as the drivers take.
pub fn set_num_vfs(root: &HostRoot, pf: PciAddress, count: u16) -> Result<(), FileError> {
    write(&root.pci_device(pf).join("sriov_numvfs"), &count.to_string())
}

/// Writes `sriov_drivers_autoprobe`: whether the kernel looks for drivers for VFs that are created from now on.
pub fn set_autoprobe(root: &HostRoot, pf: PciAddress, on: bool) -> Result<(), FileError> {
    write(&root.pci_device(pf).join("sriov_drivers_autoprobe"), if on { "1" } else { "0" })
}
