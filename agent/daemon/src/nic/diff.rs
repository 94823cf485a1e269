//! What is wanted beside what there is, attribute by attribute: a pure function.

use std::fmt::Display;

use culvert_api::agent::{NicAttribute, NicDiffReply};
use culvert_api::config::nic::VfDriver;
use culvert_host::driver;
use culvert_host::inventory::Vf;
use culvert_host::netlink::{VfChange, VfSettings};

use super::plan::Input;
use super::step::Object;
use super::wanted::{WantedPf, WantedVf};

#[cfg(test)]
mod tests;

/// Every attribute that the policy speaks of.
pub(super) fn diff(input: &Input<'_>) -> NicDiffReply {
    let wanted = input.wanted();
    let mut rows = Vec::new();
    for pf in &wanted.pfs {
        add_pf(&mut rows, pf);
        for vf in &pf.vfs {
            add_vf(&mut rows, pf, vf, input);
        }
    }
    NicDiffReply { attributes: rows, blocked: wanted.blocked }
}

/// The rows of one object.
struct Rows<'a> {
    rows: &'a mut Vec<NicAttribute>,
    object: String,
    user: String,
}

impl Rows<'_> {
    fn add(&mut self, attribute: &str, wanted: impl Display, observed: Option<impl Display>) {
        let (wanted, observed) = (wanted.to_string(), observed.map_or_else(String::new, |o| o.to_string()));
        let differs = wanted != observed;
        self.rows.push(NicAttribute {
            object: self.object.clone(),
            attribute: attribute.to_owned(),
            wanted,
            observed,
            differs,
            user: self.user.clone(),
        });
    }

    /// What the policy leaves to the driver is no row.
    fn maybe(&mut self, attribute: &str, wanted: Option<impl Display>, observed: Option<impl Display>) {
        if let Some(wanted) = wanted {
            self.add(attribute, wanted, observed);
        }
    }
}

fn add_pf(rows: &mut Vec<NicAttribute>, wanted: &WantedPf<'_>) {
    let pf = &wanted.now.pf;
    let mut rows = Rows { rows, object: Object::pf(pf.pci.address).to_string(), user: String::new() };
    let interface = pf.interface();
    rows.add("vfs", wanted.carve, Some(pf.vfs.len()));
    if wanted.carve > 0 {
        rows.add("state", "up", interface.map(|i| if i.up { "up" } else { "down" }));
    }
    rows.maybe("mtu", wanted.mtu, interface.map(|i| i.mtu));
}

fn add_vf(rows: &mut Vec<NicAttribute>, pf: &WantedPf<'_>, wanted: &WantedVf, input: &Input<'_>) {
    let now = pf.now.pf.vfs.iter().find(|now| now.index == wanted.index);
    let hold = now.and_then(|now| input.holds.get(&now.pci.address));
    let user = now.and_then(|now| input.user(pf.now, now.index, now.pci.address)).unwrap_or_default();
    let object = Object::vf(pf.now.pf.pci.address, wanted.index).to_string();
    let mut rows = Rows { rows, object, user };
    let settings =
        hold.map_or_else(|| wanted.settings.clone(), |hold| wanted.settings.overlaid(&hold.settings));
    add_settings(&mut rows, &settings, now.and_then(|now| pf.now.settings.get(&now.index)));
    if hold.is_some() {
        // Driver and interface are the pod's own while it has the VF.
        return;
    }
    rows.add("driver", driver_word(wanted, now), now.map(|now| now.pci.driver.as_deref().unwrap_or("none")));
    if let Some(interface) = now.and_then(|now| now.interface.as_ref()) {
        rows.maybe("interface mac", settings.mac, interface.mac);
        rows.maybe("mtu", wanted.mtu, Some(interface.mtu));
    } else if let (Some(mtu), VfDriver::Kernel) = (wanted.mtu, wanted.driver) {
        rows.add("mtu", mtu, None::<u32>);
    }
}

fn add_settings(rows: &mut Rows<'_>, wanted: &VfChange, now: Option<&VfSettings>) {
    let on_off = |on: bool| if on { "on" } else { "off" };
    rows.maybe("mac", wanted.mac, now.and_then(|now| now.mac));
    let (vlan, vlan_now) = (wanted.vlan, now.map(|now| now.vlan));
    rows.maybe("vlan", vlan.map(|v| v.id), vlan_now.map(|v| v.id));
    rows.maybe("qos", vlan.map(|v| v.qos), vlan_now.map(|v| v.qos));
    rows.maybe("vlanProtocol", vlan.map(|v| v.protocol), vlan_now.map(|v| v.protocol));
    rows.maybe("spoofCheck", wanted.spoof_check.map(on_off), now.map(|now| on_off(now.spoof_check)));
    rows.maybe("trust", wanted.trust.map(on_off), now.map(|now| on_off(now.trust)));
    rows.maybe("linkState", wanted.link_state, now.map(|now| now.link_state));
    rows.maybe("minRate", wanted.rates.map(|r| r.min), now.map(|now| now.rates.min));
    rows.maybe("maxRate", wanted.rates.map(|r| r.max), now.map(|now| now.rates.max));
}

/// The driver that the VF should have; the kernel's own has another name on each make of NIC.
fn driver_word(wanted: &WantedVf, now: Option<&Vf>) -> String {
    let driven = now.and_then(|now| now.pci.driver.as_deref()).filter(|name| !driver::is_userspace(name));
    match (wanted.driver, driven) {
        (VfDriver::VfioPci, _) => driver::VFIO_PCI.to_owned(),
        (VfDriver::Kernel, Some(name)) => name.to_owned(),
        (VfDriver::Kernel, None) => "the kernel's own".to_owned(),
    }
}
