//! NICs as `culvert nic list` and `culvert nic show` tell of them.

use std::collections::BTreeMap;

use culvert_api::agent::{self, NicListReply, NicShowReply};
use culvert_api::value::PciAddress;
use culvert_device_plugin::{Device, Health};
use culvert_host::inventory::Vf;
use culvert_host::netlink::VfCounters;

use super::attachment::Attachment;
use super::card::eswitch_word;
use super::devices::link_word;
use super::event::Events;
use super::journal::State;
use super::name::Found;
use super::observe::{Observed, ObservedPf};
use super::tally::PfCounters;
use super::wanted::{Holds, Wanted, WantedVf};

/// How many past events `culvert nic show` has of an object.
const HISTORY: usize = 50;

/// What lists are made from.
pub(super) struct View<'a> {
    observed: &'a Observed,
    wanted: &'a Wanted<'a>,
    holds: &'a Holds,
    attachments: BTreeMap<PciAddress, &'a Attachment>,
    devices: BTreeMap<PciAddress, Device>,
}

impl<'a> View<'a> {
    pub(super) fn new(
        observed: &'a Observed,
        wanted: &'a Wanted<'a>,
        holds: &'a Holds,
        state: &'a State,
        devices: Vec<Device>,
    ) -> Self {
        let attachments = state.attachments.values().map(|a| (a.vf, a)).collect();
        Self {
            observed,
            wanted,
            holds,
            attachments,
            devices: devices.into_iter().map(|d| (d.pci, d)).collect(),
        }
    }

    /// Everything.
    pub(super) fn list(&self) -> NicListReply {
        NicListReply { pfs: self.observed.pfs.iter().map(|pf| self.pf(pf, &pf.pf.vfs)).collect() }
    }

    /// One PF, or one VF and its PF, with counters and history.
    pub(super) fn show(&self, found: &Found<'_>, counters: &PfCounters, events: &Events) -> NicShowReply {
        let pf = found.pf;
        let address = pf.pf.pci.address;
        let mut shown = match found.vf {
            Some(vf) => self.pf(pf, std::slice::from_ref(vf)),
            None => self.pf(pf, &pf.pf.vfs),
        };
        for vf in &mut shown.vfs {
            let index = vf.index;
            let counted = counters.iter().find(|(i, _)| u32::from(i.get()) == index);
            vf.counters = counted.map(|(_, c)| counters_of(c));
        }
        NicShowReply {
            pf: Some(shown),
            vf_index: found.vf.map(|vf| vf.index.get().into()),
            history: events.history(address, found.vf.map(|vf| (vf.index, vf.pci.address)), HISTORY),
        }
    }

    fn pf(&self, pf: &ObservedPf, vfs: &[Vf]) -> agent::Pf {
        let interface = pf.pf.interface();
        let text = |value: Option<String>| value.unwrap_or_default();
        agent::Pf {
            pci: pf.pf.pci.address.to_string(),
            interface: text(interface.map(|i| i.name.clone())),
            id: pf.pf.pci.id.to_string(),
            model: pf.pf.pci.id.name(),
            driver: text(pf.pf.pci.driver.clone()),
            numa_node: pf.pf.pci.numa_node.map_or(-1, i32::from),
            mac: text(interface.and_then(|i| i.mac).map(|m| m.to_string())),
            link: link_word(pf).to_owned(),
            mtu: interface.map_or(0, |i| i.mtu),
            total_vfs: pf.pf.total_vfs.into(),
            vfs: vfs.iter().map(|vf| self.vf(pf, vf)).collect(),
            protected_by: pf.claims.join(", "),
            permanent_mac: text(pf.permanent_mac.map(|m| m.to_string())),
            iommu_group: pf.pf.pci.iommu_group.map_or(-1, |g| g.number as i32),
            serial: text(pf.pf.serial.clone()),
            eswitch_mode: eswitch_word(pf.eswitch),
            error: text(pf.error.clone()),
            root_complex: text(pf.pf.pci.root_complex.clone()),
            root_port: text(pf.pf.pci.root_port.map(|port| port.to_string())),
            rdma_devices: pf.pf.pci.rdma.clone(),
            drivers_autoprobe: pf.pf.autoprobe,
            interfaces: pf.pf.interfaces.iter().map(|i| i.name.clone()).collect(),
        }
    }

    fn vf(&self, pf: &ObservedPf, vf: &Vf) -> agent::Vf {
        let address = vf.pci.address;
        let device = self.devices.get(&address);
        let settings = pf.settings.get(&vf.index);
        let hold = self.holds.get(&address);
        let mac = settings.and_then(|s| s.mac).or(vf.interface.as_ref().and_then(|i| i.mac));
        let owner = hold.map(|h| &h.owner).or_else(|| pf.users.get(&vf.index));
        let goal = self.goal(pf, vf);
        let rest = goal.map(|goal| goal.rest(pf, vf, hold).describe());
        let text = |value: Option<String>| value.unwrap_or_default();
        let problem = match device.map(|d| &d.health) {
            None => "not of the policy".to_owned(),
            Some(Health::Healthy) => String::new(),
            Some(Health::Unhealthy(why)) => why.clone(),
        };
        agent::Vf {
            index: vf.index.get().into(),
            pci: address.to_string(),
            interface: text(vf.interface.as_ref().map(|i| i.name.clone())),
            driver: text(vf.pci.driver.clone()),
            mac: text(mac.map(|m| m.to_string())),
            vlan: settings.map_or(0, |s| s.vlan.id.into()),
            vlan_qos: settings.map_or(0, |s| s.vlan.qos.into()),
            spoof_check: settings.is_some_and(|s| s.spoof_check),
            trust: settings.is_some_and(|s| s.trust),
            link_state: text(settings.map(|s| s.link_state.to_string())),
            iommu_group: vf.pci.iommu_group.map_or(-1, |g| g.number as i32),
            pool: text(device.and_then(|d| d.pool.as_ref()).map(ToString::to_string)),
            healthy: problem.is_empty(),
            owner: owner.cloned().unwrap_or_default(),
            problem,
            vlan_protocol: text(settings.map(|s| s.vlan.protocol.to_string())),
            min_rate: settings.map_or(0, |s| s.rates.min.into()),
            max_rate: settings.map_or(0, |s| s.rates.max.into()),
            mtu: vf.interface.as_ref().map_or(0, |i| i.mtu),
            numa_node: vf.pci.numa_node.map_or(-1, i32::from),
            id: vf.pci.id.to_string(),
            wanted: text(goal.map(|goal| goal.settings.to_string())),
            to_be_done: text(rest),
            attachment: self.attachments.get(&address).map(|a| attachment(a)),
            counters: None,
            rdma_devices: vf.pci.rdma.clone(),
            representor: text(vf.representor.as_ref().map(|i| i.name.clone())),
        }
    }

    fn goal(&self, pf: &ObservedPf, vf: &Vf) -> Option<&WantedVf> {
        let pf = self.wanted.pfs.iter().find(|w| w.now.pf.pci.address == pf.pf.pci.address)?;
        pf.vfs.iter().find(|goal| goal.index == vf.index)
    }
}

fn attachment(of: &Attachment) -> agent::VfAttachment {
    let interface = of.interface.as_ref();
    agent::VfAttachment {
        pod: of.owner.clone(),
        container: of.key.container_id.clone(),
        interface: of.key.ifname.to_string(),
        network: of.network.clone(),
        phase: of.phase.as_str().to_owned(),
        netns: of.netns.display().to_string(),
        mac: interface.map(|i| i.mac.to_string()).unwrap_or_default(),
        addresses: interface.iter().flat_map(|i| &i.addresses).map(ToString::to_string).collect(),
        settings: if of.settings.is_empty() { String::new() } else { of.settings.to_string() },
    }
}

fn counters_of(c: &VfCounters) -> agent::VfCounters {
    agent::VfCounters {
        rx_packets: c.rx_packets,
        rx_bytes: c.rx_bytes,
        rx_dropped: c.rx_dropped,
        rx_broadcast: c.broadcast,
        rx_multicast: c.multicast,
        tx_packets: c.tx_packets,
        tx_bytes: c.tx_bytes,
        tx_dropped: c.tx_dropped,
    }
}
