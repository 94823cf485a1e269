//! A NIC as uplink, by DPDK's own driver for it: the kernel has given it away (vfio-pci), and knows nothing of what it
//! sends and receives.

use std::io;
use std::path::Path;

use culvert_api::value::{IfName, PciAddress};
use culvert_dpdk::PortError;

/// Kernel drivers that leave a device to programs.
const GIVEN_AWAY: [&str; 3] = ["vfio-pci", "uio_pci_generic", "igb_uio"];

/// Why a NIC cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NicError {
    /// There is none.
    #[error("nic {pci}: there is no PCI device at this address; `lspci -D` lists those there are")]
    Absent {
        /// Its address.
        pci: PciAddress,
    },
    /// The kernel, or nobody, has it; the node itself may live on it.
    #[error(
        "nic {pci}: its kernel driver is {}: bind it to vfio-pci first, which takes it away from the kernel \
         (`driverctl set-override {pci} vfio-pci`)", .driver.as_deref().unwrap_or("none")
    )]
    Driver {
        /// Its address.
        pci: PciAddress,
        /// The driver it is bound to.
        driver: Option<String>,
    },
    /// DPDK.
    #[error(
        "nic {pci}: DPDK cannot use it. It needs a driver of DPDK's for this NIC (Debian: librte-net-*), \
         an IOMMU, and its IOMMU group for itself alone"
    )]
    Refused {
        /// Its address.
        pci: PciAddress,
        /// Why not.
        source: Box<PortError>,
    },
}

/// The name under which it is a port, as it is no interface.
pub fn name() -> IfName {
    "nic".parse().expect("the name of an interface")
}

/// Checks that a NIC has been given away, on the machine whose files lie below `root`.
///
/// # Errors
/// When there is none, or the kernel has it.
pub fn check(root: &Path, pci: PciAddress) -> Result<(), NicError> {
    let device = root.join("sys/bus/pci/devices").join(pci.to_string());
    if !device.exists() {
        return Err(NicError::Absent { pci });
    }
    let driver = match std::fs::read_link(device.join("driver")) {
        Ok(link) => link.file_name().map(|name| name.to_string_lossy().into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some("not to be found out".to_owned()),
    };
    match driver {
        Some(driver) if GIVEN_AWAY.contains(&driver.as_str()) => Ok(()),
        driver => Err(NicError::Driver { pci, driver }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_a_nic_that_the_kernel_has_given_away_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let pci: PciAddress = "0000:03:00.1".parse().unwrap();
        let refusal = || check(root.path(), pci).map_err(|error| error.to_string());
        assert!(refusal().unwrap_err().starts_with("nic 0000:03:00.1: there is no PCI device"));
        let device = root.path().join("sys/bus/pci/devices/0000:03:00.1");
        fs::create_dir_all(&device).unwrap();
        assert!(refusal().unwrap_err().starts_with("nic 0000:03:00.1: its kernel driver is none: bind it"));
        for (driver, given_away) in [("igb", false), ("mlx5_core", false), ("vfio-pci", true)] {
            symlink(format!("../../../../bus/pci/drivers/{driver}"), device.join("driver")).unwrap();
            let refused = refusal();
            assert_eq!(refused.is_ok(), given_away, "{refused:?}");
            if let Err(text) = refused {
                assert!(
                    text.contains(&format!("its kernel driver is {driver}: bind it to vfio-pci")),
                    "{text}"
                );
            }
            fs::remove_file(device.join("driver")).unwrap();
        }
        assert_eq!(name().as_str(), "nic");
    }
}
