//! The policy as written, and how it becomes one that makes sense.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;

use super::super::ConfigError;
use super::mac::{MacPolicy, MacRule, RawMac, plus};
use super::vfset::VfSet;
use super::{NicPolicy, Override, PfPolicy, PfSelector, Pool, Rates, VfCount, VfDriver, VfSettings};
use crate::value::{LinkState, Mac, Mtu, PoolName, Rate, VfIndex, VlanId, VlanProtocol, VlanQos};

/// What the node's SR-IOV NICs should be.
#[derive(Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in super::super) struct RawNicPolicy {
    /// Whether the agent carries the policy out by itself: when it starts, and when the policy has changed. Without this it
    /// waits for `culvert nic apply`.
    #[serde(default)]
    apply_at_start: bool,
    /// The physical functions (PFs) to look after; all others are left alone.
    pfs: Vec<RawPf>,
}

/// A struct that also has the keys of a VF's settings: serde cannot flatten them in and still refuse unknown keys.
macro_rules! with_settings {
    ($(#[$outer:meta])* $name:ident { $($(#[$meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$outer])*
        #[derive(Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct $name {
            $($(#[$meta])* $field: $type,)*
            /// Port VLAN: the NIC adds and removes its tag, the VF sees untagged frames. 0 means none.
            vlan: Option<VlanId>,
            /// 802.1p priority of the port VLAN's tag.
            qos: Option<VlanQos>,
            /// Protocol of the port VLAN's tag.
            vlan_protocol: Option<VlanProtocol>,
            /// Whether frames with another source MAC are dropped. Left to the driver if not given.
            spoof_check: Option<bool>,
            /// Whether the VF may change its MAC and its filters. Left to the driver if not given.
            trust: Option<bool>,
            /// Link state that the VF sees. Left to the driver if not given.
            link_state: Option<LinkState>,
            /// Guaranteed transmit rate in Mbit/s; 0 means none.
            min_rate: Option<Rate>,
            /// Limit of the transmit rate in Mbit/s; 0 means none.
            max_rate: Option<Rate>,
            /// MTU of the VF's interface. The PF's must be as large; see `pfMtu`.
            mtu: Option<Mtu>,
            /// Who drives the VF.
            driver: Option<VfDriver>,
        }

        impl $name {
            /// These settings, and for those that are not given the ones of `base`.
            fn over(&self, base: &Settings) -> Settings {
                Settings {
                    vlan: self.vlan.unwrap_or(base.vlan),
                    // A priority and a protocol belong to the VLAN that they are written beside.
                    qos: self.qos.unwrap_or(if self.vlan.is_some() { VlanQos::MIN } else { base.qos }),
                    vlan_protocol: self
                        .vlan_protocol
                        .unwrap_or(if self.vlan.is_some() { VlanProtocol::default() } else { base.vlan_protocol }),
                    spoof_check: self.spoof_check.or(base.spoof_check),
                    trust: self.trust.or(base.trust),
                    link_state: self.link_state.or(base.link_state),
                    min_rate: self.min_rate.or(base.min_rate),
                    max_rate: self.max_rate.or(base.max_rate),
                    // The kernel has no MTU for a VF that it does not drive.
                    mtu: self.mtu.or(base.mtu.filter(|_| self.driver != Some(VfDriver::VfioPci))),
                    driver: self.driver.unwrap_or(base.driver),
                }
            }
        }
    };
}

with_settings!(
    /// What PFs should be. Settings of VFs that stand here are those of all its VFs.
    RawPf {
        /// Which PFs: a PCI address, an interface name, a pattern of either (`ens*f0`, `0000:3b:*`), `vendor:device`, or
        /// several conditions. A PF that the node itself lives on has to be named by its PCI address. Where several
        /// entries match one PF, one that names it (by address or interface) goes before patterns, and one with all
        /// conditions of another and more goes before that; anything else is an error.
        pf: PfSelector,
        /// How many VFs are in service, or `max`.
        vfs: VfCount,
        /// How many VFs are made; if not given, as many as are in service. The others lie idle, so that `vfs` can grow while
        /// pods have VFs: the number that a PF has made only changes while none is in use.
        carve: Option<VfCount>,
        /// Where the VFs' MACs come from.
        #[serde(default)]
        mac: RawMac,
        /// MTU of the PF's own interface. Left as it is if not given.
        pf_mtu: Option<Mtu>,
        /// Settings of some VFs that differ. A VF may be in one of them.
        #[serde(default)]
        overrides: Vec<RawOverride>,
        /// Pools that kubelet gives VFs away from, as resources. A VF may be in one of them; those in none are nobody's.
        #[serde(default)]
        pools: Vec<RawPool>,
    }
);

with_settings!(
    /// Settings of some VFs.
    RawOverride {
        /// Which: `3`, `0-3`, `0-1,5`, `4-` (from 4 on), `all`.
        vfs: VfSet,
        /// Its MAC, for a single VF.
        mac: Option<Mac>,
    }
);

/// A pool of VFs.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawPool {
    /// Its name: the part of the resource's name after the prefix.
    name: PoolName,
    /// Which VFs: `3`, `0-3`, `0-1,5`, `4-` (from 4 on), `all`.
    vfs: VfSet,
}

#[derive(Clone)]
struct Settings {
    vlan: VlanId,
    qos: VlanQos,
    vlan_protocol: VlanProtocol,
    spoof_check: Option<bool>,
    trust: Option<bool>,
    link_state: Option<LinkState>,
    min_rate: Option<Rate>,
    max_rate: Option<Rate>,
    mtu: Option<Mtu>,
    driver: VfDriver,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            vlan: VlanId::MIN,
            qos: VlanQos::MIN,
            vlan_protocol: VlanProtocol::default(),
            spoof_check: None,
            trust: None,
            link_state: None,
            min_rate: None,
            max_rate: None,
            mtu: None,
            driver: VfDriver::default(),
        }
    }
}

impl RawNicPolicy {
    pub(in super::super) fn validate(self) -> Result<NicPolicy, ConfigError> {
        let mut seen = BTreeSet::new();
        let mut macs = BTreeMap::new();
        let mut pfs = Vec::with_capacity(self.pfs.len());
        for raw in self.pfs {
            if !seen.insert(raw.pf.clone()) {
                return Err(ConfigError::value("nic.pfs", &raw.pf, "is named twice; give each PF one entry"));
            }
            let policy = raw.validate()?;
            policy.collect_macs(&mut macs)?;
            pfs.push(policy);
        }
        Ok(NicPolicy { apply_at_start: self.apply_at_start, pfs })
    }
}

impl PfPolicy {
    /// Adds the MACs that the policy fixes, with their owners.
    fn collect_macs(&self, macs: &mut BTreeMap<Mac, String>) -> Result<(), ConfigError> {
        // How many `max` is depends on the PF; for such an entry the plan looks for addresses that are there twice.
        let VfCount::Exactly(count) = self.vfs else { return Ok(()) };
        for index in 0..count {
            let vf = self.vf(vf_index(index));
            let Some(MacPolicy::Fixed(mac)) = vf.map(|vf| vf.mac) else { continue };
            let here = format!("vf {index} of {}", self.pf);
            if let Some(other) = macs.insert(mac, here.clone()) {
                return Err(ConfigError::value(
                    format!("{here}: mac"),
                    mac,
                    format!("is that of {other}, too"),
                ));
            }
        }
        Ok(())
    }
}

impl RawPf {
    fn validate(self) -> Result<PfPolicy, ConfigError> {
        let pf = self.pf.clone();
        let carve = self.carve()?;
        let base = self.over(&Settings::default());
        let mut overrides: Vec<Override> = Vec::with_capacity(self.overrides.len());
        for raw in &self.overrides {
            self.check_range(&raw.vfs, "overrides")?;
            if let (Some(mac), None) = (raw.mac, raw.vfs.single()) {
                let key = format!("overrides of {pf}: mac");
                return Err(ConfigError::value(key, mac, format!("is one address for vfs {}", raw.vfs)));
            }
            if let (Some(mac), false) = (raw.mac, pf.is_explicit()) {
                return Err(several(&pf, &format!("overrides of {pf}: mac"), &mac));
            }
            if let Some(vf) = overrides.iter().find_map(|other| other.vfs.common(&raw.vfs)) {
                let reason = "is in two overrides; give it one";
                return Err(ConfigError::value(format!("overrides of {pf}: vf"), vf, reason));
            }
            let settings = raw.over(&base).validate(&format!("vfs {} of {pf}", raw.vfs), self.pf_mtu)?;
            overrides.push(Override { vfs: raw.vfs.clone(), mac: raw.mac, settings });
        }
        let mut pools: Vec<Pool> = Vec::with_capacity(self.pools.len());
        for RawPool { name, vfs } in &self.pools {
            self.check_range(vfs, &format!("pool {name}"))?;
            for other in &pools {
                if other.name == *name {
                    let reason = "is there twice; join their vfs";
                    return Err(ConfigError::value(format!("pools of {pf}: pool"), name, reason));
                }
                if let Some(vf) = other.vfs.common(vfs) {
                    let reason = format!("is in pool {}, too", other.name);
                    return Err(ConfigError::value(format!("pool {name} of {pf}: vf"), vf, reason));
                }
            }
            pools.push(Pool { name: name.clone(), vfs: vfs.clone() });
        }
        Ok(PfPolicy {
            vfs: self.vfs,
            carve,
            mtu: self.pf_mtu,
            mac: self.mac_rule()?,
            base: base.validate(&pf.to_string(), self.pf_mtu)?,
            overrides,
            pools,
            pf,
        })
    }

    fn carve(&self) -> Result<VfCount, ConfigError> {
        let carve = self.carve.unwrap_or(self.vfs);
        let enough = match (carve, self.vfs) {
            (VfCount::Max, _) => true,
            (VfCount::Exactly(_), VfCount::Max) => false,
            (VfCount::Exactly(carve), VfCount::Exactly(vfs)) => carve >= vfs,
        };
        if enough {
            return Ok(carve);
        }
        let reason = format!("must be at least vfs, which is {}", self.vfs);
        Err(ConfigError::value(format!("{}: carve", self.pf), carve, reason))
    }

    /// Refuses VFs that there will not be.
    fn check_range(&self, vfs: &VfSet, owner: &str) -> Result<(), ConfigError> {
        let VfCount::Exactly(count) = self.vfs else { return Ok(()) };
        if vfs.highest() < count {
            return Ok(());
        }
        let reason = match count {
            0 => "there are no VFs (vfs: 0)".to_owned(),
            _ => format!("must be 0-{} (vfs: {count})", count - 1),
        };
        Err(ConfigError::value(format!("{owner} of {}: vf", self.pf), vfs.highest(), reason))
    }

    fn mac_rule(&self) -> Result<MacRule, ConfigError> {
        let (pf, key) = (&self.pf, |what: &str| format!("{}: mac {what}", self.pf));
        match &self.mac {
            RawMac::Base(base) if !pf.is_explicit() => Err(several(pf, &key("base"), base)),
            RawMac::List(list) if !pf.is_explicit() => {
                Err(several(pf, &format!("{pf}: number of addresses in mac list"), &list.len()))
            }
            RawMac::Derived => Ok(MacRule::Derived),
            RawMac::List(list) if self.vfs == VfCount::Exactly(list.len().try_into().unwrap_or(u16::MAX)) => {
                Ok(MacRule::List(list.clone()))
            }
            RawMac::List(list) => {
                let key = format!("{pf}: number of addresses in mac list");
                let reason = format!("must be {}, one for each VF", self.vfs);
                Err(ConfigError::value(key, list.len(), reason))
            }
            RawMac::Base(base) => match self.vfs {
                VfCount::Exactly(count) if plus(*base, u64::from(count.saturating_sub(1))).is_none() => {
                    let reason = format!("leaves no unicast addresses for {count} VFs");
                    Err(ConfigError::value(key("base"), base, reason))
                }
                _ => Ok(MacRule::Base(*base)),
            },
            RawMac::Pool(range) => {
                let pool =
                    range.validate().map_err(|reason| ConfigError::value(key("pool"), range, reason))?;
                match self.vfs {
                    VfCount::Exactly(count) if u64::from(count) > pool.size() => {
                        let reason = format!("has {} addresses, for {count} VFs", pool.size());
                        Err(ConfigError::value(key("pool"), range, reason))
                    }
                    _ => Ok(MacRule::Pool(pool)),
                }
            }
        }
    }
}

/// Addresses for one PF where there may be several.
fn several(pf: &PfSelector, key: &str, value: &dyn fmt::Display) -> ConfigError {
    let reason = format!(
        "would be for each PF that {pf} matches; name one PF by its address or interface, or use pool or derived"
    );
    ConfigError::value(key, value, reason)
}

fn vf_index(index: u16) -> VfIndex {
    VfIndex::try_from(u32::from(index)).expect("every u16 is one")
}

impl Settings {
    fn validate(self, object: &str, pf_mtu: Option<Mtu>) -> Result<VfSettings, ConfigError> {
        let error = |key: &str, value: &dyn fmt::Display, reason: &str| {
            Err(ConfigError::value(format!("{object}: {key}"), value, reason))
        };
        if self.vlan == VlanId::MIN && self.qos != VlanQos::MIN {
            return error("qos", &self.qos, "needs a vlan");
        }
        if self.vlan == VlanId::MIN && self.vlan_protocol == VlanProtocol::Dot1ad {
            return error("vlanProtocol", &"802.1ad", "needs a vlan");
        }
        let rates = match (self.min_rate, self.max_rate) {
            (None, None) => None,
            (min, max) => Some(Rates { min: min.unwrap_or(Rate::MIN), max: max.unwrap_or(Rate::MIN) }),
        };
        if let Some(Rates { min, max }) = rates
            && max != Rate::MIN
            && min > max
        {
            return error("minRate", &min, &format!("must not be above maxRate {max}"));
        }
        if let (Some(mtu), VfDriver::VfioPci) = (self.mtu, self.driver) {
            return error(
                "mtu",
                &mtu,
                "is for the kernel's driver; a program that uses vfio-pci sets its own",
            );
        }
        if let (Some(mtu), Some(pf_mtu)) = (self.mtu, pf_mtu)
            && mtu > pf_mtu
        {
            return error("mtu", &mtu, &format!("must not be above pfMtu {pf_mtu}"));
        }
        Ok(VfSettings {
            vlan: self.vlan,
            qos: self.qos,
            vlan_protocol: self.vlan_protocol,
            spoof_check: self.spoof_check,
            trust: self.trust,
            link_state: self.link_state,
            rates,
            mtu: self.mtu,
            driver: self.driver,
        })
    }
}
