//! A simulated NIC: the kernel's netdevsim takes every setting of a VF, and has a switch and health reporters, which the
//! emulated NIC has not. Debian's kernels come without it: `ci/setup` builds it for the guest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use culvert_host::devlink::DevlinkDevice;
use serde_json::Value;

use crate::frame::{Outcome, Stop};
use crate::net::run;

/// The device with number 1; it goes away with the value.
#[derive(Debug)]
pub struct Netdevsim {
    /// Its network interface.
    pub interface: String,
    /// Index of the interface.
    pub index: u32,
}

const BUS: &str = "/sys/bus/netdevsim";
const DEBUG: &str = "/sys/kernel/debug";

impl Netdevsim {
    /// Makes one with a port and `vfs` VFs.
    ///
    /// # Errors
    /// Skips where the module could not be built, with what `ci/setup` said.
    pub fn create(vfs: u16) -> Outcome<Self> {
        if !run(Command::new("modprobe").arg("netdevsim"))?.status.success() {
            let release = run(Command::new("uname").arg("-r"))?.success()?;
            let why = format!("/lib/modules/{}/extra/netdevsim.missing", release.trim());
            let why = fs::read_to_string(why).unwrap_or_else(|_| "run `make setup`".to_owned());
            return Err(Stop::Skip(format!("the guest's kernel has no netdevsim: {}", why.trim())));
        }
        if !Path::new(DEBUG).join("netdevsim").exists() {
            run(Command::new("mount").args(["-t", "debugfs", "debugfs", DEBUG]))?.success()?;
        }
        fs::write(Path::new(BUS).join("new_device"), "1 1")?;
        let mut made = Self { interface: String::new(), index: 0 };
        fs::write(made.debug("max_vfs"), vfs.to_string())?;
        fs::write(made.folder().join("sriov_numvfs"), vfs.to_string())?;
        made.interface = run(Command::new("ls").arg(made.folder().join("net")))?.success()?.trim().to_owned();
        let index = made.folder().join("net").join(&made.interface).join("ifindex");
        made.index = fs::read_to_string(index)?.trim().parse()?;
        Ok(made)
    }

    /// Its name for devlink.
    pub fn devlink(&self) -> DevlinkDevice {
        DevlinkDevice { bus: "netdevsim".to_owned(), name: "netdevsim1".to_owned() }
    }

    /// A file of its own in debugfs.
    pub fn debug(&self, file: &str) -> PathBuf {
        Path::new(DEBUG).join("netdevsim/netdevsim1").join(file)
    }

    fn folder(&self) -> PathBuf {
        Path::new(BUS).join("devices/netdevsim1")
    }

    /// What iproute2 says of its VFs.
    pub fn kernel_view(&self) -> Outcome<Vec<Value>> {
        let text = run(Command::new("ip").args(["-json", "link", "show", &self.interface]))?.success()?;
        let links: Vec<Value> = serde_json::from_str(&text)?;
        Ok(links.first().and_then(|link| link["vfinfo_list"].as_array().cloned()).unwrap_or_default())
    }
}

impl Drop for Netdevsim {
    fn drop(&mut self) {
        let _ = fs::write(Path::new(BUS).join("del_device"), "1");
    }
}
