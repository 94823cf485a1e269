//! NIC policy: section `nic` of the agent's configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::ConfigError;
use crate::value::{
    IfName, LinkState, Mac, Mtu, PciAddress, PoolName, Rate, VfIndex, VlanId, VlanProtocol, VlanQos,
};

mod raw;
#[cfg(test)]
mod tests;

pub(super) use raw::RawNicPolicy;

/// What the node's SR-IOV NICs should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicPolicy {
    /// Whether the agent carries the policy out by itself when it starts. Without this it waits to be told.
    pub apply_at_start: bool,
    /// The physical functions that Culvert looks after; all others are left alone.
    pub pfs: Vec<PfPolicy>,
}

/// What one physical function should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PfPolicy {
    /// Which PF.
    pub pf: PfSelector,
    /// Its VFs: the VF with index `i` is element `i`.
    pub vfs: Vec<VfPolicy>,
}

/// How a policy names a PF.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PfSelector {
    /// By PCI address: explicit enough for a PF that the node itself lives on.
    Pci(PciAddress),
    /// By interface name.
    Interface(IfName),
}

/// The base profile of one VF: what it is while no pod has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VfPolicy {
    /// The administrative MAC.
    pub mac: MacPolicy,
    /// Port VLAN; 0 means none.
    pub vlan: VlanId,
    /// 802.1p priority of the port VLAN's tag.
    pub qos: VlanQos,
    /// Protocol of the port VLAN's tag.
    pub vlan_protocol: VlanProtocol,
    /// Whether frames with another source MAC are dropped; `None` leaves it to the driver.
    pub spoof_check: Option<bool>,
    /// Whether the VF may change its MAC and its filters; `None` leaves it to the driver.
    pub trust: Option<bool>,
    /// Link state that the VF sees; `None` leaves it to the driver.
    pub link_state: Option<LinkState>,
    /// Transmit rates; `None` leaves them to the driver.
    pub rates: Option<Rates>,
    /// MTU of the VF's interface; `None` leaves it to the driver.
    pub mtu: Option<Mtu>,
    /// Who drives the VF.
    pub driver: VfDriver,
    /// The pool that offers it; `None`: nobody may have it.
    pub pool: Option<PoolName>,
}

/// Where a VF's MAC comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MacPolicy {
    /// From the names of node and PF and the VF's index.
    Derived,
    /// As configured.
    Fixed(Mac),
}

/// Transmit rates of a VF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Guaranteed; 0 means none.
    pub min: Rate,
    /// Limit; 0 means none.
    pub max: Rate,
}

/// Who drives a VF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum VfDriver {
    /// The kernel's own driver for it: the VF is a network interface.
    #[default]
    #[serde(rename = "kernel")]
    Kernel,
    /// vfio-pci: the VF is for programs such as DPDK's.
    #[serde(rename = "vfio-pci")]
    VfioPci,
}

impl NicPolicy {
    /// Reads the section's text alone.
    ///
    /// # Errors
    /// Those of [`super::agent::AgentConfig::from_yaml`].
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        super::parse::<RawNicPolicy>(text)?.validate()
    }
}

impl FromStr for PfSelector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A colon is legal in an interface's name, but only aliases bear one.
        if text.contains(':') {
            return text.parse().map(Self::Pci).map_err(|e: crate::value::PciAddressError| e.to_string());
        }
        text.parse().map(Self::Interface).map_err(|e: crate::value::IfNameError| e.to_string())
    }
}

impl<'de> Deserialize<'de> for PfSelector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for PfSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(address) => address.fmt(f),
            Self::Interface(name) => name.fmt(f),
        }
    }
}
