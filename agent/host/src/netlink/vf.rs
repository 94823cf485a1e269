//! What a PF holds of each of its virtual functions: MAC, VLAN, checks, rates.
//!
//! `IFLA_VFINFO_LIST` of `linux/if_link.h`. The kernel takes any number of attributes of one VF in one message
//! (`do_setvfinfo` in `net/core/rtnetlink.c`), stops at the first that the driver refuses, and does not say which
//! one that was.

use std::fmt;

use culvert_api::value::{LinkState, Mac, Rate, VfIndex, VlanId, VlanProtocol, VlanQos};
use futures::TryStreamExt as _;
use nix::errno::Errno;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{
    LinkAttribute, LinkExtentMask, LinkMessage, LinkVfInfo, VfInfo, VfInfoLinkState, VfInfoMac, VfInfoRate,
    VfInfoSpoofCheck, VfInfoTrust, VfInfoVlan, VfLinkState, VfVlan, VfVlanInfo, VlanProtocol as TagProtocol,
};
use serde::{Deserialize, Serialize};

use super::{Netlink, NetlinkError};

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

impl Netlink {
    /// Reads what the PF with interface index `pf` holds of its VFs, by VF index.
    pub async fn vf_settings(&self, pf: u32) -> Result<Vec<VfSettings>, NetlinkError> {
        // Without statistics: an attribute holds 64 KiB, too little for more than about 200 VFs with them.
        let mut request = self.handle.link().get().match_index(pf);
        let mask = vec![LinkExtentMask::Vf, LinkExtentMask::SkipStats];
        request.message_mut().attributes.push(LinkAttribute::ExtMask(mask));
        let error = |e| NetlinkError::new(format!("interface {pf}"), "read its VFs", e);
        let Some(message) = request.execute().try_next().await.map_err(error)? else {
            return Ok(Vec::new());
        };
        let mut settings: Vec<VfSettings> = message
            .attributes
            .iter()
            .filter_map(|a| if let LinkAttribute::VfInfoList(list) = a { Some(list) } else { None })
            .flatten()
            .filter_map(|info| VfSettings::from_attributes(&info.0))
            .collect();
        settings.sort_unstable_by_key(|s| s.index);
        Ok(settings)
    }

    /// Changes VF `vf` of the PF with interface index `pf`, and reads it back.
    ///
    /// All of it goes in one message. If the kernel refuses, each attribute is sent alone, all of them, and the error
    /// names those that did not work. A driver that takes a value but does not keep it is an error too.
    pub async fn change_vf(&self, pf: u32, vf: VfIndex, change: &VfChange) -> Result<(), NetlinkError> {
        let parts = change.parts();
        if parts.is_empty() {
            return Ok(());
        }
        let object = || format!("vf {vf} of interface {pf}");
        if self.send(pf, vf, change).await.is_err() {
            let mut refused: Option<(Vec<String>, rtnetlink::Error)> = None;
            for part in &parts {
                if let Err(e) = self.send(pf, vf, part).await {
                    refused.get_or_insert_with(|| (Vec::new(), e)).0.push(part.to_string());
                }
            }
            if let Some((actions, e)) = refused {
                return Err(NetlinkError::new(object(), actions.join(", "), e));
            }
        }
        let settings = self.vf_settings(pf).await?;
        let Some(now) = settings.iter().find(|s| s.index == vf) else {
            return Err(NetlinkError::kernel(object(), &change.to_string(), Errno::ENODEV));
        };
        let left = change.without(now);
        if left.is_empty() {
            return Ok(());
        }
        let what = format!("the driver took it, but reports {now}");
        Err(NetlinkError::protocol(object(), &left.to_string(), what))
    }

    async fn send(&self, pf: u32, vf: VfIndex, change: &VfChange) -> Result<(), rtnetlink::Error> {
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Unspec;
        message.header.index = pf;
        message.attributes.push(LinkAttribute::VfInfoList(vec![LinkVfInfo(change.attributes(vf))]));
        self.handle.link().set(message).execute().await
    }
}

impl VfSettings {
    fn from_attributes(attributes: &[VfInfo]) -> Option<Self> {
        let mut index = None;
        let mut settings = Self {
            index: VfIndex::MIN,
            mac: None,
            vlan: VfVlanTag::default(),
            spoof_check: false,
            trust: false,
            link_state: LinkState::Auto,
            rates: VfRates { min: Rate::MIN, max: Rate::MIN },
        };
        for attribute in attributes {
            match attribute {
                VfInfo::Mac(info) => {
                    index = VfIndex::try_from(info.vf_id).ok();
                    settings.mac = Mac::try_from(&info.mac[..6]).ok();
                }
                // The list comes after the plain attribute and also holds the protocol.
                VfInfo::Vlan(info) => {
                    settings.vlan = VfVlanTag::read(info.vlan_id, info.qos, TagProtocol::Ieee8021Q);
                }
                VfInfo::VlanList(list) => {
                    for entry in list {
                        if let VfVlan::Info(info) = entry {
                            settings.vlan = VfVlanTag::read(info.vlan_id, info.qos, info.protocol);
                        }
                    }
                }
                VfInfo::SpoofCheck(info) => settings.spoof_check = info.enabled,
                VfInfo::Trust(info) => settings.trust = info.enabled,
                VfInfo::LinkState(info) => settings.link_state = read_link_state(info.state),
                VfInfo::Rate(info) => {
                    let rate = |mbps| Rate::try_from(mbps).unwrap_or(Rate::MAX);
                    settings.rates = VfRates { min: rate(info.min_tx_rate), max: rate(info.max_tx_rate) };
                }
                _ => {}
            }
        }
        settings.index = index?;
        Some(settings)
    }
}

impl Default for VfVlanTag {
    fn default() -> Self {
        Self { id: VlanId::MIN, qos: VlanQos::MIN, protocol: VlanProtocol::Dot1q }
    }
}

impl VfVlanTag {
    fn read(id: u32, qos: u32, protocol: TagProtocol) -> Self {
        let id = VlanId::try_from(id).unwrap_or(VlanId::MIN);
        let qos = VlanQos::try_from(qos).unwrap_or(VlanQos::MIN);
        let protocol = match protocol {
            TagProtocol::Ieee8021Ad => VlanProtocol::Dot1ad,
            _ => VlanProtocol::Dot1q,
        };
        Self { id, qos, protocol }
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

    fn attributes(&self, vf: VfIndex) -> Vec<VfInfo> {
        let vf = u32::from(vf);
        let mut list = Vec::new();
        list.extend(self.mac.map(|mac| VfInfo::Mac(VfInfoMac::new(vf, &mac.octets()))));
        list.extend(self.vlan.map(|vlan| {
            let (id, qos) = (vlan.id.into(), vlan.qos.into());
            // Drivers without 802.1ad never see the newer attribute.
            match vlan.protocol {
                VlanProtocol::Dot1q => VfInfo::Vlan(VfInfoVlan::new(vf, id, qos)),
                VlanProtocol::Dot1ad => {
                    let info = VfVlanInfo::new(vf, id, qos, TagProtocol::Ieee8021Ad);
                    VfInfo::VlanList(vec![VfVlan::Info(info)])
                }
            }
        }));
        list.extend(self.rates.map(|r| VfInfo::Rate(VfInfoRate::new(vf, r.min.get(), r.max.get()))));
        list.extend(self.spoof_check.map(|on| VfInfo::SpoofCheck(VfInfoSpoofCheck::new(vf, on))));
        list.extend(
            self.link_state.map(|state| VfInfo::LinkState(VfInfoLinkState::new(vf, write_link_state(state)))),
        );
        list.extend(self.trust.map(|on| VfInfo::Trust(VfInfoTrust::new(vf, on))));
        list
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

fn read_link_state(state: VfLinkState) -> LinkState {
    match state {
        VfLinkState::Enable => LinkState::Enable,
        VfLinkState::Disable => LinkState::Disable,
        _ => LinkState::Auto,
    }
}

fn write_link_state(state: LinkState) -> VfLinkState {
    match state {
        LinkState::Auto => VfLinkState::Auto,
        LinkState::Enable => VfLinkState::Enable,
        LinkState::Disable => VfLinkState::Disable,
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
