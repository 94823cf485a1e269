//! NIC policy: section `nic` of the agent's configuration.
//!
//! ```yaml
//! applyAtStart: true
//! pfs:
//!   - pf: 0000:03:00.0                # a PCI address, an interface name, patterns of both, or vendor:device
//!     vfs: 4                          # VFs in service, or max
//!     carve: 8                        # VFs that are made, so that vfs can grow while pods have some
//!     vlan: 100
//!     overrides:
//!       - { vfs: 2-3, vlan: 200, driver: vfio-pci }
//!     pools:
//!       - { name: tenant-a, vfs: 0-1 }
//!       - { name: tenant-b, vfs: 2- }
//!   - pf: { name: "ens*f1", id: "8086:1592", numa: 0 }
//!     vfs: max
//!     mac: { pool: { from: 02:00:00:00:10:00, to: 02:00:00:00:1f:ff } }
//! ```

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::value::{LinkState, Mtu, PoolName, Rate, VfIndex, VlanId, VlanProtocol, VlanQos};

mod glob;
mod mac;
mod raw;
#[cfg(feature = "schema")]
mod schema;
mod selector;
#[cfg(test)]
mod tests;
mod vfset;

pub use mac::{MacPolicy, MacRange};
pub(super) use raw::RawNicPolicy;
pub use selector::{PfFacts, PfSelector};
pub use vfset::VfCount;

use mac::MacRule;
use vfset::VfSet;

/// What the node's SR-IOV NICs should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NicPolicy {
    /// Whether the agent carries the policy out by itself: when it starts, and when the policy has changed. Without this
    /// it waits to be told.
    pub apply_at_start: bool,
    /// The physical functions that Culvert looks after; all others are left alone.
    pub pfs: Vec<PfPolicy>,
}

/// What the PFs that a selector means should be, each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PfPolicy {
    /// Which PFs.
    pub pf: PfSelector,
    /// How many VFs are in service: set up, and in the pools that name them.
    pub vfs: VfCount,
    /// How many VFs are made. Those beyond `vfs` lie idle without a driver; `vfs` can grow up to here while VFs are in use.
    pub carve: VfCount,
    /// MTU of the PF's own interface; `None` leaves it as it is.
    pub mtu: Option<Mtu>,
    mac: MacRule,
    /// Settings of VFs that no override names.
    base: VfSettings,
    overrides: Vec<Override>,
    pools: Vec<Pool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Override {
    vfs: VfSet,
    mac: Option<crate::value::Mac>,
    settings: VfSettings,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pool {
    name: PoolName,
    vfs: VfSet,
}

/// The base profile of one VF: what it is while no pod has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VfPolicy {
    /// The administrative MAC.
    pub mac: MacPolicy,
    /// Everything that VFs may share.
    pub settings: VfSettings,
    /// The pool that offers it; `None`: nobody may have it.
    pub pool: Option<PoolName>,
}

/// What a VF should be, but for its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VfSettings {
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

    /// Reads a policy from the section's text alone, or from a whole configuration of the agent.
    ///
    /// # Errors
    /// Those of [`super::agent::AgentConfig::from_yaml`].
    pub fn from_any_yaml(text: &str) -> Result<Self, ConfigError> {
        // Only the section has this key at the outermost level.
        match super::parse::<BTreeMap<String, IgnoredAny>>(text)?.contains_key("pfs") {
            true => Self::from_yaml(text),
            false => Ok(super::agent::AgentConfig::from_yaml(text)?.nic.unwrap_or_default()),
        }
    }
}

impl PfPolicy {
    /// What VF `index` should be; `None` if its MAC rule has no address for it.
    pub fn vf(&self, index: VfIndex) -> Option<VfPolicy> {
        let different = self.overrides.iter().find(|o| o.vfs.contains(index));
        let pool = self.pools.iter().find(|pool| pool.vfs.contains(index));
        let mac = match different.and_then(|o| o.mac) {
            Some(mac) => MacPolicy::Fixed(mac),
            None => self.mac.of(index)?,
        };
        let settings = different.map_or(&self.base, |o| &o.settings).clone();
        Some(VfPolicy { mac, settings, pool: pool.map(|pool| pool.name.clone()) })
    }

    /// Names of its pools.
    pub fn pools(&self) -> impl Iterator<Item = &PoolName> {
        self.pools.iter().map(|pool| &pool.name)
    }

    /// What it says of VFs that a PF with `count` VFs in service does not have: "pool a: vf 9". A policy that gives the
    /// number was checked when it was read.
    pub fn beyond(&self, count: u16) -> Option<String> {
        let overrides = self.overrides.iter().map(|o| ("overrides".to_owned(), o.vfs.highest()));
        let pools = self.pools.iter().map(|p| (format!("pool {}", p.name), p.vfs.highest()));
        let (owner, vf) = overrides.chain(pools).find(|(_, highest)| *highest >= count)?;
        Some(format!("{owner}: vf {vf}"))
    }
}
