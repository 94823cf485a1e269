//! Made-up machines for tests: folders that look like sysfs and procfs to everything in this crate.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use culvert_api::value::{Mac, PciAddress};
use tempfile::TempDir;

use crate::{HostRoot, PciId};

/// A made-up machine; it goes away with the value.
#[derive(Debug)]
pub struct FakeHost {
    folder: TempDir,
    next_ifindex: u32,
}

/// A make of NIC, with its way of numbering VFs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Make {
    /// The PF.
    pub pf: PciId,
    /// Driver of the PF.
    pub pf_driver: &'static str,
    /// The VFs.
    pub vf: PciId,
    /// Driver of the VFs.
    pub vf_driver: &'static str,
    /// `sriov_totalvfs`.
    pub total_vfs: u16,
    /// Distance from the PF to the first VF, in functions.
    pub offset: u16,
    /// Distance between VFs, in functions.
    pub stride: u16,
}

/// Intel 82576: VFs on the next bus, every other function.
pub const IGB: Make = Make {
    pf: PciId { vendor: 0x8086, device: 0x10c9 },
    pf_driver: "igb",
    vf: PciId { vendor: 0x8086, device: 0x10ca },
    vf_driver: "igbvf",
    total_vfs: 7,
    offset: 128,
    stride: 2,
};

/// Intel E810: many VFs, one after the other.
pub const ICE: Make = Make {
    pf: PciId { vendor: 0x8086, device: 0x1592 },
    pf_driver: "ice",
    vf: PciId { vendor: 0x8086, device: 0x1889 },
    vf_driver: "iavf",
    total_vfs: 256,
    offset: 8,
    stride: 1,
};

/// NVIDIA ConnectX-6 Dx: VFs right behind the PF, the same driver for both.
pub const MLX5: Make = Make {
    pf: PciId { vendor: 0x15b3, device: 0x101d },
    pf_driver: "mlx5_core",
    vf: PciId { vendor: 0x15b3, device: 0x101e },
    vf_driver: "mlx5_core",
    total_vfs: 127,
    offset: 2,
    stride: 1,
};

impl Default for FakeHost {
    fn default() -> Self {
        Self::new()
    }
}

#[allow(clippy::unwrap_used)]
impl FakeHost {
    /// A machine without NICs.
    ///
    /// # Panics
    /// Here as in all of this module, when the temporary folder cannot be written.
    pub fn new() -> Self {
        let host = Self { folder: TempDir::new().unwrap(), next_ifindex: 2 };
        for folder in ["sys/bus/pci/devices", "sys/bus/pci/drivers", "sys/kernel/iommu_groups", "proc"] {
            fs::create_dir_all(host.path(folder)).unwrap();
        }
        host.file("sys/bus/pci/drivers_probe", "");
        host.file("proc/sys/kernel/random/boot_id", "01234567-89ab-cdef-0123-456789abcdef\n");
        host
    }

    /// Where it is.
    pub fn root(&self) -> HostRoot {
        HostRoot::new(self.folder.path())
    }

    fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// Writes a file, with the folders above it.
    pub fn file(&self, relative: impl AsRef<Path>, text: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn device(&self, address: PciAddress) -> PathBuf {
        self.path(format!("sys/bus/pci/devices/{address}"))
    }

    fn function(&self, address: PciAddress, id: PciId, class: &str, numa: i32, group: u32) -> PathBuf {
        let folder = self.device(address);
        fs::create_dir_all(&folder).unwrap();
        for (file, text) in [
            ("vendor", format!("0x{:04x}", id.vendor)),
            ("device", format!("0x{:04x}", id.device)),
            ("class", class.to_owned()),
            ("numa_node", numa.to_string()),
            ("driver_override", "(null)".to_owned()),
        ] {
            fs::write(folder.join(file), text + "\n").unwrap();
        }
        let target = self.path(format!("sys/kernel/iommu_groups/{group}"));
        fs::create_dir_all(&target).unwrap();
        fs::write(target.join("name"), "\n").unwrap();
        symlink(target, folder.join("iommu_group")).unwrap();
        folder
    }

    /// Adds a NIC without VFs, with the interface `name`.
    pub fn add_pf(&mut self, make: Make, address: PciAddress, name: &str, numa: i32) {
        let folder = self.function(address, make.pf, "0x020000", numa, u32::from(address.bus()));
        fs::write(folder.join("sriov_totalvfs"), format!("{}\n", make.total_vfs)).unwrap();
        fs::write(folder.join("sriov_drivers_autoprobe"), "1\n").unwrap();
        // Readable by nobody, as nobody may read it; written like the real one.
        fs::write(folder.join("sriov_numvfs"), "0\n").unwrap();
        self.set_driver(address, Some(make.pf_driver));
        let mac = Mac::local_from(u64::from(address.bus()));
        self.add_interface(address, name, mac);
    }

    /// Adds the VFs `0..count` of a PF; `named` gives each an interface and the kernel's driver.
    pub fn add_vfs(&mut self, make: Make, pf: PciAddress, count: u16, named: bool) {
        for index in 0..count {
            let address = vf_address(make, pf, index);
            let folder = self.function(address, make.vf, "0x020000", 0, 1000 + u32::from(index));
            symlink(self.device(pf), folder.join("physfn")).unwrap();
            symlink(&folder, self.device(pf).join(format!("virtfn{index}"))).unwrap();
            if named {
                self.set_driver(address, Some(make.vf_driver));
                self.add_interface(
                    address,
                    &format!("vf{index}"),
                    Mac::local_from(0x1_0000 + u64::from(index)),
                );
            }
        }
    }

    /// Binds a driver, or none.
    pub fn set_driver(&self, address: PciAddress, driver: Option<&str>) {
        let link = self.device(address).join("driver");
        let _ = fs::remove_file(&link);
        if let Some(driver) = driver {
            let target = self.path(format!("sys/bus/pci/drivers/{driver}"));
            fs::create_dir_all(&target).unwrap();
            fs::write(target.join("unbind"), "").unwrap();
            symlink(target, link).unwrap();
        }
    }

    /// Adds an interface to a PCI function.
    pub fn add_interface(&mut self, address: PciAddress, name: &str, mac: Mac) {
        let folder = self.device(address).join("net").join(name);
        fs::create_dir_all(&folder).unwrap();
        for (file, text) in [
            ("ifindex", self.next_ifindex.to_string()),
            ("address", mac.to_string()),
            ("mtu", "1500".to_owned()),
            ("flags", "0x1003".to_owned()),
            ("operstate", "up".to_owned()),
        ] {
            fs::write(folder.join(file), text + "\n").unwrap();
        }
        self.next_ifindex += 1;
    }

    /// Takes away all interfaces of a PCI function, as when they are moved to another namespace.
    pub fn remove_interfaces(&self, address: PciAddress) {
        let _ = fs::remove_dir_all(self.device(address).join("net"));
    }

    /// Adds a process that has `files` open.
    pub fn add_process(&self, pid: u32, name: &str, files: &[&str]) {
        self.file(format!("proc/{pid}/comm"), name);
        let folder = self.path(format!("proc/{pid}/fd"));
        fs::create_dir_all(&folder).unwrap();
        for (number, file) in files.iter().enumerate() {
            symlink(file, folder.join(number.to_string())).unwrap();
        }
    }
}

/// Address of a VF, as the PCIe specification's section 9.2.1.2 has it: PF + offset + index * stride, over all functions
/// of the bus and those after it.
pub fn vf_address(make: Make, pf: PciAddress, index: u16) -> PciAddress {
    let function = u32::from(pf.bus()) * 256 + u32::from(pf.device()) * 8 + u32::from(pf.function());
    let vf = function + u32::from(make.offset) + u32::from(index) * u32::from(make.stride);
    let text = format!("{:04x}:{:02x}:{:02x}.{:x}", pf.domain(), vf >> 8, vf >> 3 & 0x1f, vf & 7);
    text.parse().expect("is made of a bus, a device and a function")
}
