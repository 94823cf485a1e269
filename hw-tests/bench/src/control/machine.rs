//! A made-up machine: one PF, many VFs, a network namespace with the PF's interface.

use std::fs;
use std::path::PathBuf;

use culvert_api::value::PciAddress;
use culvert_host::fake::{FakeHost, ICE, vf_address};
use culvert_hw_tests::net::Netns;

use super::ControlError;

/// Name of the PF's interface.
const INTERFACE: &str = "ens1f0";

/// The machine; it goes away with the value.
#[derive(Debug)]
pub(super) struct Machine {
    host: FakeHost,
    netns: Netns,
    pf: PciAddress,
    vfs: u16,
}

impl Machine {
    /// VFs are bound to vfio-pci, so that none of them needs an interface.
    pub(super) fn new(vfs: u16) -> Result<Self, ControlError> {
        let netns = Netns::create("bench")?;
        netns.ip(&format!(
            "link add {INTERFACE} type veth peer name wire
             link set wire up
             link set {INTERFACE} up"
        ))?;
        let index = netns.sh(&format!("ip -o link show {INTERFACE} | cut -d: -f1"))?;
        let mut host = FakeHost::new();
        let pf: PciAddress = "0000:03:00.0".parse().map_err(|e| ControlError::Machine(format!("{e}")))?;
        host.add_pf(ICE, pf, INTERFACE, 0);
        host.add_vfs(ICE, pf, vfs, false);
        for vf in 0..vfs {
            host.set_driver(vf_address(ICE, pf, vf), Some("vfio-pci"));
        }
        host.file(format!("sys/bus/pci/devices/{pf}/net/{INTERFACE}/ifindex"), index.trim());
        host.file("proc/sys/kernel/random/boot_id", "bench\n");
        Ok(Self { host, netns, pf, vfs })
    }

    pub(super) fn root(&self) -> PathBuf {
        self.host.root().path("")
    }

    pub(super) fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The configuration file of sriov-network-device-plugin that offers all VFs as `culvert.io/vfs`.
    pub(super) fn resource_list() -> String {
        format!(
            r#"{{"resourceList":[{{"resourceName":"vfs","resourcePrefix":"culvert.io","selectors":{{"pfNames":["{INTERFACE}"]}}}}]}}"#
        )
    }

    /// How many VFs are left.
    pub(super) fn vfs(&self) -> usize {
        self.vfs.into()
    }

    /// Takes the last VF away. The kernel would speak of it, and of the PF, which has one VF less: the latter is said here.
    pub(super) fn lose_vf(&mut self) -> Result<(), ControlError> {
        let vf = self.vfs - 1;
        self.vfs = vf;
        let device = self.root().join(format!("sys/bus/pci/devices/{}", vf_address(ICE, self.pf, vf)));
        let link = self.root().join(format!("sys/bus/pci/devices/{}/virtfn{vf}", self.pf));
        fs::remove_file(link).map_err(ControlError::io("remove a VF"))?;
        fs::remove_dir_all(device).map_err(ControlError::io("remove a VF"))?;
        Ok(self.netns.ip(&format!("link set {INTERFACE} alias vf{vf}"))?)
    }
}
