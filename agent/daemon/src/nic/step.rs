//! One change of the machine.

use std::fmt;

use culvert_api::agent::PlanStep;
use culvert_api::config::nic::VfDriver;
use culvert_api::value::{Mtu, PciAddress, VfIndex};
use culvert_host::driver::VFIO_PCI;
use culvert_host::netlink::VfChange;
use serde::{Deserialize, Serialize};

/// What a change is made to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Object {
    /// The PF.
    pub pf: PciAddress,
    /// One VF of it; `None`: the PF itself.
    pub vf: Option<VfIndex>,
}

/// One change. Doing it again changes nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is changed.
    pub object: Object,
    /// How.
    pub action: Action,
}

/// How something is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Brings the PF's interface up: many NICs only reset their VFs properly then.
    LinkUp {
        /// Index of the interface.
        interface: u32,
        /// Name of the interface.
        name: String,
    },
    /// Whether new VFs get drivers at once. Without one, a VF first learns its MAC and then its driver probes, once.
    Autoprobe(bool),
    /// Creates VFs, or removes all.
    NumVfs(u16),
    /// Changes what the PF holds of the VF.
    Settings {
        /// Index of the PF's interface.
        interface: u32,
        /// What to change.
        change: VfChange,
    },
    /// Gives the VF to a driver, anew if that has it already.
    Bind(VfDriver),
    /// Sets the MTU of the interface, be it the PF's or the VF's.
    Mtu(Mtu),
}

impl Object {
    /// The PF itself.
    pub fn pf(pf: PciAddress) -> Self {
        Self { pf, vf: None }
    }

    /// A VF of it.
    pub fn vf(pf: PciAddress, vf: VfIndex) -> Self {
        Self { pf, vf: Some(vf) }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vf {
            Some(vf) => write!(f, "vf {vf} of {}", self.pf),
            None => self.pf.fmt(f),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkUp { name, .. } => write!(f, "bring {name} up"),
            Self::Autoprobe(false) => write!(f, "leave new VFs without a driver"),
            Self::Autoprobe(true) => write!(f, "give new VFs drivers again"),
            Self::NumVfs(0) => write!(f, "remove all VFs"),
            Self::NumVfs(count) => write!(f, "create {count} VFs"),
            Self::Settings { change, .. } => change.fmt(f),
            Self::Bind(VfDriver::Kernel) => write!(f, "let the kernel's driver probe it"),
            Self::Bind(VfDriver::VfioPci) => write!(f, "bind it to {VFIO_PCI}"),
            Self::Mtu(mtu) => write!(f, "set mtu {mtu}"),
        }
    }
}

impl Step {
    /// The write that does it, for people to read.
    pub fn write(&self) -> String {
        let Object { pf, vf } = self.object;
        let device = format!("/sys/bus/pci/devices/{pf}");
        let vf = vf.map(|vf| vf.to_string()).unwrap_or_default();
        match &self.action {
            Action::LinkUp { interface, .. } => format!("netlink RTM_SETLINK {interface}: IFF_UP"),
            Action::Autoprobe(on) => format!("{device}/sriov_drivers_autoprobe <- {}", u8::from(*on)),
            Action::NumVfs(count) => format!("{device}/sriov_numvfs <- {count}"),
            Action::Settings { interface, change } => {
                format!("netlink RTM_SETLINK {interface}: {}", change.attribute_names())
            }
            Action::Bind(driver) => {
                let name = match driver {
                    VfDriver::Kernel => "\"\"",
                    VfDriver::VfioPci => VFIO_PCI,
                };
                format!("{device}/virtfn{vf}/driver_override <- {name}, /sys/bus/pci/drivers_probe <- the VF")
            }
            Action::Mtu(mtu) if vf.is_empty() => {
                format!("netlink RTM_SETLINK of {pf}'s interface: IFLA_MTU {mtu}")
            }
            Action::Mtu(mtu) => format!("netlink RTM_SETLINK of virtfn{vf}'s interface: IFLA_MTU {mtu}"),
        }
    }
}

impl From<&Step> for PlanStep {
    fn from(step: &Step) -> Self {
        Self {
            object: step.object.to_string(),
            action: step.action.to_string(),
            write: step.write(),
            touches: Vec::new(),
        }
    }
}
