//! What a PF holds of each of its virtual functions: MAC, VLAN, checks, rates.
//!
//! `IFLA_VFINFO_LIST` of `linux/if_link.h`. The kernel takes any number of attributes of any number of VFs in one
//! message (`do_setvfinfo` in `net/core/rtnetlink.c`), stops at the first that the driver refuses, and does not say which
//! one that was. A driver never sees that they came together: it has one function per attribute.

mod ops;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt;

use culvert_api::value::{LinkState, Mac, Rate, VfIndex, VlanId, VlanProtocol, VlanQos};
use serde::{Deserialize, Serialize};

/// What the PF's driver reports of one VF.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfSettings {
    /// Index of the VF below its PF.
    pub index: VfIndex,
    /// The MAC that the administrator gave; `None` if all zeros: the VF's driver then makes one up.
    pub mac: Option<Mac>,
    /// Port VLAN.
    pub vlan: VfVlanTag,
    /// Whether frames with a foreign source MAC are dropped; drivers that cannot do this count as off.
    pub spoof_check: bool,
    /// Whether the VF may change its MAC and add filters; drivers that cannot do this count as off.
    pub trust: bool,
    /// Link state that the VF sees.
    pub link_state: LinkState,
    /// Transmit rates.
    pub rates: VfRates,
}

/// Port VLAN of a VF: the NIC adds and removes this tag, the VF sees untagged frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfVlanTag {
    /// VLAN; 0 means none.
    pub id: VlanId,
    /// 802.1p priority of the tag.
    pub qos: VlanQos,
    /// Tag protocol.
    pub protocol: VlanProtocol,
}

/// Transmit rates of a VF; the kernel only takes both at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfRates {
    /// Guaranteed rate.
    pub min: Rate,
    /// Limit.
    pub max: Rate,
}

/// What to change of a VF; absent fields are not sent, so that drivers without them do not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfChange {
    /// Administrative MAC. Many drivers' VFs only take it at their next probe.
    pub mac: Option<Mac>,
    /// Port VLAN.
    pub vlan: Option<VfVlanTag>,
    /// Source MAC check.
    pub spoof_check: Option<bool>,
    /// Trust.
    pub trust: Option<bool>,
    /// Link state.
    pub link_state: Option<LinkState>,
    /// Transmit rates.
    pub rates: Option<VfRates>,
}

/// What the PF has counted for a VF since the VF was created: `IFLA_VF_STATS`. Received means: by the VF.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VfCounters {
    /// Packets that the VF received.
    pub rx_packets: u64,
    /// Packets that the VF sent.
    pub tx_packets: u64,
    /// Bytes that the VF received.
    pub rx_bytes: u64,
    /// Bytes that the VF sent.
    pub tx_bytes: u64,
    /// Broadcast packets received.
    pub broadcast: u64,
    /// Multicast packets received.
    pub multicast: u64,
    /// Packets for the VF that the NIC dropped.
    pub rx_dropped: u64,
    /// Packets of the VF that the NIC dropped.
    pub tx_dropped: u64,
}

impl Default for VfVlanTag {
    fn default() -> Self {
        Self { id: VlanId::MIN, qos: VlanQos::MIN, protocol: VlanProtocol::Dot1q }
    }
}

impl VfChange {
    /// This change as changes of one attribute each.
    fn parts(&self) -> Vec<Self> {
        let none = Self::default();
        let parts = [
            Self { mac: self.mac, ..none.clone() },
            Self { vlan: self.vlan, ..none.clone() },
            Self { spoof_check: self.spoof_check, ..none.clone() },
            Self { trust: self.trust, ..none.clone() },
            Self { link_state: self.link_state, ..none.clone() },
            Self { rates: self.rates, ..none.clone() },
        ];
        parts.into_iter().filter(|p| !p.is_empty()).collect()
    }

    /// What of this change is left to do when `now` is what the NIC has.
    pub fn without(&self, now: &VfSettings) -> Self {
        Self {
            mac: self.mac.filter(|m| Some(*m) != now.mac),
            vlan: self.vlan.filter(|v| *v != now.vlan),
            spoof_check: self.spoof_check.filter(|s| *s != now.spoof_check),
            trust: self.trust.filter(|t| *t != now.trust),
            link_state: self.link_state.filter(|l| *l != now.link_state),
            rates: self.rates.filter(|r| *r != now.rates),
        }
    }

    /// This change, with what `over` says instead where that says something.
    pub fn overlaid(&self, over: &Self) -> Self {
        Self {
            mac: over.mac.or(self.mac),
            vlan: over.vlan.or(self.vlan),
            spoof_check: over.spoof_check.or(self.spoof_check),
            trust: over.trust.or(self.trust),
            link_state: over.link_state.or(self.link_state),
            rates: over.rates.or(self.rates),
        }
    }

    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Names of the netlink attributes that carry the change: `IFLA_VF_MAC IFLA_VF_VLAN`.
    pub fn attribute_names(&self) -> String {
        let names = [
            self.mac.map(|_| "IFLA_VF_MAC"),
            self.vlan.map(|v| match v.protocol {
                VlanProtocol::Dot1q => "IFLA_VF_VLAN",
                VlanProtocol::Dot1ad => "IFLA_VF_VLAN_LIST",
            }),
            self.rates.map(|_| "IFLA_VF_RATE"),
            self.spoof_check.map(|_| "IFLA_VF_SPOOFCHK"),
            self.link_state.map(|_| "IFLA_VF_LINK_STATE"),
            self.trust.map(|_| "IFLA_VF_TRUST"),
        ];
        names.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

impl fmt::Display for VfVlanTag {
    /// `vlan 100`, `vlan 100 qos 3`, `vlan 100 proto 802.1ad`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vlan {}", self.id)?;
        if self.qos != VlanQos::MIN {
            write!(f, " qos {}", self.qos)?;
        }
        if self.protocol == VlanProtocol::Dot1ad {
            write!(f, " proto {}", self.protocol)?;
        }
        Ok(())
    }
}

impl fmt::Display for VfChange {
    /// `set mac 02:00:00:00:00:01, vlan 100, spoofchk on`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            self.mac.map(|mac| format!("mac {mac}")),
            self.vlan.map(|vlan| vlan.to_string()),
            self.spoof_check.map(|on| format!("spoofchk {}", on_off(on))),
            self.trust.map(|on| format!("trust {}", on_off(on))),
            self.link_state.map(|state| format!("link state {state}")),
            self.rates.map(|r| format!("min rate {} max rate {} Mbit/s", r.min, r.max)),
        ];
        write!(f, "set {}", words.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for VfSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mac = self.mac.map_or_else(|| "none".to_owned(), |m| m.to_string());
        write!(
            f,
            "mac {mac}, {}, spoofchk {}, trust {}, link state {}, min rate {} max rate {} Mbit/s",
            self.vlan,
            on_off(self.spoof_check),
            on_off(self.trust),
            self.link_state,
            self.rates.min,
            self.rates.max
        )
    }
}
