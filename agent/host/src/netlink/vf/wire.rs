//! The bytes: `IFLA_VFINFO_LIST` of `linux/if_link.h`, filled by `rtnl_fill_vfinfo` and read by `do_setvfinfo` in
//! `net/core/rtnetlink.c`.

use culvert_api::value::{LinkState, Mac, Rate, VfIndex, VlanId, VlanProtocol, VlanQos};

use super::{VfChange, VfCounters, VfRates, VfSettings, VfVlanTag};
use crate::netlink::attr::{Attributes, Reader, u32_at, u64_of};

pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_SETLINK: u16 = 19;
/// `struct ifinfomsg`.
const IFINFOMSG: usize = 16;

const IFLA_NUM_VF: u16 = 21;
const IFLA_VFINFO_LIST: u16 = 22;
const IFLA_EXT_MASK: u16 = 29;
const RTEXT_FILTER_VF: u32 = 1;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;

const IFLA_VF_INFO: u16 = 1;
const IFLA_VF_MAC: u16 = 1;
const IFLA_VF_VLAN: u16 = 2;
const IFLA_VF_SPOOFCHK: u16 = 4;
const IFLA_VF_LINK_STATE: u16 = 5;
const IFLA_VF_RATE: u16 = 6;
const IFLA_VF_STATS: u16 = 8;
const IFLA_VF_TRUST: u16 = 9;
const IFLA_VF_VLAN_LIST: u16 = 12;
const IFLA_VF_VLAN_INFO: u16 = 1;
/// MAX_ADDR_LEN, the room for a MAC.
const ADDRESS_MAX: usize = 32;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;

/// `struct ifinfomsg` with nothing but an interface index.
fn ifinfomsg(interface: u32) -> [u8; IFINFOMSG] {
    let mut header = [0; IFINFOMSG];
    header[4..8].copy_from_slice(&interface.to_ne_bytes());
    header
}

/// Asks for the VFs of a PF, with their counters or without.
pub(super) fn question(pf: u32, counters: bool) -> Vec<u8> {
    let mut message = Attributes::after(&ifinfomsg(pf));
    let mask = if counters { RTEXT_FILTER_VF } else { RTEXT_FILTER_VF | RTEXT_FILTER_SKIP_STATS };
    message.put_u32s(IFLA_EXT_MASK, &[mask]);
    message.finish()
}

/// Changes VFs of a PF: one IFLA_VF_INFO with all attributes for each.
pub(super) fn order(pf: u32, changes: &[(VfIndex, VfChange)]) -> Vec<u8> {
    let mut message = Attributes::after(&ifinfomsg(pf));
    message.nest(IFLA_VFINFO_LIST, |list| {
        for (vf, change) in changes {
            list.nest(IFLA_VF_INFO, |info| put(info, u32::from(*vf), change));
        }
    });
    message.finish()
}

fn put(info: &mut Attributes, vf: u32, change: &VfChange) {
    if let Some(mac) = change.mac {
        let mut value = [0; 4 + ADDRESS_MAX];
        value[..4].copy_from_slice(&vf.to_ne_bytes());
        value[4..10].copy_from_slice(&mac.octets());
        info.put(IFLA_VF_MAC, &value);
    }
    if let Some(vlan) = change.vlan {
        let numbers = [vf, vlan.id.into(), vlan.qos.into()];
        match vlan.protocol {
            // Drivers without 802.1ad never see the newer attribute.
            VlanProtocol::Dot1q => info.put_u32s(IFLA_VF_VLAN, &numbers),
            VlanProtocol::Dot1ad => info.nest(IFLA_VF_VLAN_LIST, |list| {
                let mut value: Vec<u8> = numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
                value.extend_from_slice(&ETH_P_8021AD.to_be_bytes());
                value.extend_from_slice(&[0; 2]);
                list.put(IFLA_VF_VLAN_INFO, &value);
            }),
        }
    }
    if let Some(rates) = change.rates {
        info.put_u32s(IFLA_VF_RATE, &[vf, rates.min.get(), rates.max.get()]);
    }
    if let Some(on) = change.spoof_check {
        info.put_u32s(IFLA_VF_SPOOFCHK, &[vf, on.into()]);
    }
    if let Some(state) = change.link_state {
        let state = match state {
            LinkState::Auto => 0,
            LinkState::Enable => 1,
            LinkState::Disable => 2,
        };
        info.put_u32s(IFLA_VF_LINK_STATE, &[vf, state]);
    }
    if let Some(on) = change.trust {
        info.put_u32s(IFLA_VF_TRUST, &[vf, on.into()]);
    }
}

/// The attributes of each VF in the answer to [`question`].
///
/// A list of many VFs is longer than its length can say (64 KiB: 334 VFs without counters, 200 with them; before Linux
/// that refuse such a list the length wraps), so entries are counted rather than measured.
pub(super) fn vfs(payload: &[u8]) -> Vec<Reader<'_>> {
    let mut found = Vec::new();
    let mut attributes = Reader::after(IFINFOMSG, payload);
    let mut count = usize::MAX;
    loop {
        let here = attributes.rest();
        match attributes.next() {
            None => return found,
            Some((IFLA_NUM_VF, value)) => count = u32_at(value, 0).map_or(usize::MAX, |n| n as usize),
            Some((IFLA_VFINFO_LIST, _)) => {
                let entries = Reader::after(4, here).take_while(|(kind, _)| *kind == IFLA_VF_INFO);
                found.extend(entries.take(count).map(|(_, value)| Reader::new(value)));
                return found;
            }
            Some(_) => {}
        }
    }
}

impl VfSettings {
    /// `None` without IFLA_VF_MAC, which every driver has.
    pub(super) fn read(attributes: Reader<'_>) -> Option<Self> {
        let mac = attributes.clone().find(IFLA_VF_MAC)?;
        let mut settings = Self {
            index: VfIndex::try_from(u32_at(mac, 0)?).ok()?,
            mac: mac.get(4..10).and_then(|octets| Mac::try_from(octets).ok()),
            vlan: VfVlanTag::default(),
            spoof_check: false,
            trust: false,
            link_state: LinkState::Auto,
            rates: VfRates { min: Rate::MIN, max: Rate::MIN },
        };
        for (kind, value) in attributes {
            // A driver that does not know reports all ones for what is on or off.
            let second = u32_at(value, 4).unwrap_or(0);
            match kind {
                IFLA_VF_VLAN => settings.vlan = vlan(value, ETH_P_8021Q),
                // Comes after the plain attribute and also holds the protocol.
                IFLA_VF_VLAN_LIST => {
                    if let Some(value) = Reader::new(value).find(IFLA_VF_VLAN_INFO) {
                        let protocol = value.get(12..14).map_or(0, |p| u16::from_be_bytes([p[0], p[1]]));
                        settings.vlan = vlan(value, protocol);
                    }
                }
                IFLA_VF_SPOOFCHK => settings.spoof_check = second == 1,
                IFLA_VF_TRUST => settings.trust = second == 1,
                IFLA_VF_LINK_STATE => {
                    settings.link_state = match second {
                        1 => LinkState::Enable,
                        2 => LinkState::Disable,
                        _ => LinkState::Auto,
                    };
                }
                IFLA_VF_RATE => {
                    let rate = |mbps| Rate::try_from(mbps).unwrap_or(Rate::MAX);
                    let max = u32_at(value, 8).unwrap_or(0);
                    settings.rates = VfRates { min: rate(second), max: rate(max) };
                }
                _ => {}
            }
        }
        Some(settings)
    }
}

/// VF, VLAN and priority, as in `struct ifla_vf_vlan`.
fn vlan(value: &[u8], protocol: u16) -> VfVlanTag {
    let number = |offset| u32_at(value, offset).unwrap_or(0);
    VfVlanTag {
        id: VlanId::try_from(number(4)).unwrap_or(VlanId::MIN),
        qos: VlanQos::try_from(number(8)).unwrap_or(VlanQos::MIN),
        protocol: if protocol == ETH_P_8021AD { VlanProtocol::Dot1ad } else { VlanProtocol::Dot1q },
    }
}

impl VfCounters {
    /// The VF and its IFLA_VF_STATS.
    pub(super) fn read(attributes: Reader<'_>) -> Option<(VfIndex, Self)> {
        let index = u32_at(attributes.clone().find(IFLA_VF_MAC)?, 0)?;
        let stats = Reader::new(attributes.find(IFLA_VF_STATS)?);
        let mut counters = Self::default();
        for (kind, value) in stats {
            let field = match kind {
                0 => &mut counters.rx_packets,
                1 => &mut counters.tx_packets,
                2 => &mut counters.rx_bytes,
                3 => &mut counters.tx_bytes,
                4 => &mut counters.broadcast,
                5 => &mut counters.multicast,
                7 => &mut counters.rx_dropped,
                8 => &mut counters.tx_dropped,
                _ => continue,
            };
            *field = u64_of(value).unwrap_or(0);
        }
        Some((VfIndex::try_from(index).ok()?, counters))
    }
}
