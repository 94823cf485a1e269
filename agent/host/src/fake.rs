//! Made-up machines for tests: folders that look like sysfs and procfs to everything in this crate.

mod make;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use culvert_api::value::{Mac, PciAddress};
use tempfile::TempDir;

pub use make::{I40E, ICE, IGB, MLX5, Make, vf_address};

use crate::{HostRoot, PciId};

/// A made-up machine; it goes away with the value.
#[derive(Debug)]
pub struct FakeHost {
    folder: TempDir,
    next_ifindex: u32,
}

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
        // In memory where there is such a folder: a machine with hundreds of VFs is thousands of files.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        let host = Self { folder: folder.unwrap(), next_ifindex: 2 };
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

    /// A function below the root port of bus `bus`, as `/sys/devices` has it, and the link to it.
    fn function(&self, address: PciAddress, bus: u8, id: PciId, class: &str, numa: i32) -> PathBuf {
        let domain = address.domain();
        let below = format!("pci{domain:04x}:{:02x}/{}", bus & 0xf0, root_port(address, bus));
        let folder = self.path(format!("sys/devices/{below}/{address}"));
        fs::create_dir_all(&folder).unwrap();
        symlink(format!("../../../devices/{below}/{address}"), self.device(address)).unwrap();
        for (file, text) in [
            ("vendor", format!("0x{:04x}", id.vendor)),
            ("device", format!("0x{:04x}", id.device)),
            ("class", class.to_owned()),
            ("numa_node", numa.to_string()),
        ] {
            fs::write(folder.join(file), text + "\n").unwrap();
        }
        for file in ["driver_override", "uevent"] {
            fs::write(folder.join(file), "(null)\n").unwrap();
        }
        folder
    }

    /// Puts a function into an IOMMU group; one without a name is a real one.
    pub fn set_iommu_group(&self, address: PciAddress, number: u32, name: &str) {
        let target = self.path(format!("sys/kernel/iommu_groups/{number}"));
        fs::create_dir_all(&target).unwrap();
        fs::write(target.join("name"), format!("{name}\n")).unwrap();
        let link = self.device(address).join("iommu_group");
        let _ = fs::remove_file(&link);
        symlink(target, link).unwrap();
    }

    /// Adds a NIC without VFs, with the interface `name`. PFs that differ in their function are of one card: they have its
    /// serial number and its root port.
    pub fn add_pf(&mut self, make: Make, address: PciAddress, name: &str, numa: i32) {
        let folder = self.function(address, address.bus(), make.pf, "0x020000", numa);
        self.set_iommu_group(address, u32::from(address.bus()) * 8 + u32::from(address.function()), "");
        for (file, text) in [
            ("sriov_totalvfs", make.total_vfs.to_string()),
            ("sriov_drivers_autoprobe", "1".to_owned()),
            ("sriov_vf_device", format!("{:x}", make.vf.device)),
            ("sriov_offset", make.offset.to_string()),
            ("sriov_stride", make.stride.to_string()),
            // Readable by nobody, as nobody may read it; written like the real one.
            ("sriov_numvfs", "0".to_owned()),
        ] {
            fs::write(folder.join(file), text + "\n").unwrap();
        }
        fs::write(folder.join("config"), config_space(address.bus())).unwrap();
        self.set_aer(address, "fatal", 0);
        self.set_aer(address, "nonfatal", 0);
        self.set_driver(address, Some(make.pf_driver));
        self.add_rdma(make, address, &format!("{}_{}", name, address.function()));
        let mac = Mac::local_from(u64::from(address.bus()) * 8 + u64::from(address.function()));
        self.add_interface(address, name, mac);
    }

    /// Adds the VFs `0..count` of a PF; `named` gives each an interface and the kernel's driver.
    pub fn add_vfs(&mut self, make: Make, pf: PciAddress, count: u16, named: bool) {
        let numa = fs::read_to_string(self.device(pf).join("numa_node")).unwrap().trim().parse().unwrap();
        let base = u32::from(pf.bus()) * 8 + u32::from(pf.function());
        for index in 0..count {
            let address = vf_address(make, pf, index);
            let folder = self.function(address, pf.bus(), make.vf, "0x020000", numa);
            self.set_iommu_group(address, base * 1000 + u32::from(index), "");
            symlink(format!("../{pf}"), folder.join("physfn")).unwrap();
            symlink(format!("../{address}"), self.device(pf).join(format!("virtfn{index}"))).unwrap();
            if named {
                self.set_driver(address, Some(make.vf_driver));
                let mac = Mac::local_from(0x1_0000_0000 + u64::from(base) * 0x1_0000 + u64::from(index));
                self.add_interface(address, &format!("vf{index}"), mac);
                self.add_rdma(make, address, &format!("{base}_{index}"));
            }
        }
    }

    /// Sets the total of a function's errors of a severity, "fatal" or "nonfatal".
    pub fn set_aer(&self, address: PciAddress, severity: &str, total: u64) {
        let total = format!("DLP {total}\nSDES 0\nTOTAL_ERR_{} {total}\n", severity.to_uppercase());
        fs::write(self.device(address).join(format!("aer_dev_{severity}")), total).unwrap();
    }

    /// Only mlx5 has RDMA devices in these trees.
    fn add_rdma(&self, make: Make, address: PciAddress, name: &str) {
        if make.pf_driver == "mlx5_core" {
            fs::create_dir_all(self.device(address).join(format!("infiniband/mlx5_{name}"))).unwrap();
        }
    }

    /// Sets a PF's NIC to switchdev mode: port names, and a representor for each of its first `count` VFs.
    pub fn add_representors(&mut self, pf: PciAddress, count: u16) {
        let net = self.device(pf).join("net");
        let uplink = fs::read_dir(&net).unwrap().next().unwrap().unwrap().file_name();
        let (uplink, number) = (uplink.to_string_lossy().into_owned(), pf.function());
        let mut ports = vec![(uplink.clone(), format!("p{number}"))];
        for index in 0..count {
            let name = format!("{uplink}_{index}");
            self.add_interface(pf, &name, Mac::local_from(0x2_0000_0000 + u64::from(index)));
            ports.push((name, format!("pf{number}vf{index}")));
        }
        for (interface, port) in ports {
            fs::write(net.join(&interface).join("phys_port_name"), port + "\n").unwrap();
            fs::write(net.join(&interface).join("phys_switch_id"), format!("{:02x}4e5f\n", pf.bus()))
                .unwrap();
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

/// The root port above bus `bus`.
fn root_port(address: PciAddress, bus: u8) -> String {
    format!("{:04x}:{:02x}:{:02x}.0", address.domain(), bus & 0xf0, 1 + (bus & 0xf))
}

/// A configuration space of a PCI Express function: AER, then a serial number that ends with `card`.
fn config_space(card: u8) -> Vec<u8> {
    let mut config = vec![0; 4096];
    config[0x100..0x104].copy_from_slice(&0x1402_0001_u32.to_le_bytes());
    config[0x140..0x144].copy_from_slice(&0x0001_0003_u32.to_le_bytes());
    config[0x144..0x14c].copy_from_slice(&[card, 0xb2, 0xa1, 0xff, 0xff, 0x91, 0x96, 0xb4]);
    config
}
