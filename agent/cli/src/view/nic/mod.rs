//! PFs and VFs: listed, drawn, shown one by one, and what happens to them.

mod diff;
mod event;
mod list;
mod orphan;
mod plan;
mod show;
mod tree;

use culvert_api::agent::{Pf, Vf, VfAttachment, VfCounters};
use serde::Serialize;

pub(crate) use diff::{diff, schema};
pub(crate) use event::{EventView, line};
pub(crate) use list::list;
pub(crate) use orphan::{orphans, released};
pub(crate) use plan::{applied, plan};
pub(crate) use show::show;
pub(crate) use tree::tree;

/// A PF as JSON has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PfView {
    pci: String,
    interface: String,
    interfaces: Vec<String>,
    id: String,
    model: String,
    serial: String,
    driver: String,
    numa_node: Option<u32>,
    iommu_group: Option<u32>,
    root_complex: String,
    root_port: String,
    rdma_devices: Vec<String>,
    eswitch_mode: String,
    mac: String,
    permanent_mac: String,
    link: String,
    error: String,
    mtu: u32,
    total_vfs: u32,
    drivers_autoprobe: Option<bool>,
    protected_by: String,
    vfs: Vec<VfView>,
}

/// A VF as JSON has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VfView {
    index: u32,
    pci: String,
    id: String,
    interface: String,
    representor: String,
    driver: String,
    numa_node: Option<u32>,
    iommu_group: Option<u32>,
    rdma_devices: Vec<String>,
    mac: String,
    vlan: u32,
    vlan_qos: u32,
    vlan_protocol: String,
    spoof_check: bool,
    trust: bool,
    link_state: String,
    min_rate: u32,
    max_rate: u32,
    mtu: Option<u32>,
    pool: String,
    healthy: bool,
    problem: String,
    wanted: String,
    to_be_done: String,
    owner: String,
    attachment: Option<AttachmentView>,
    /// Only where one VF or PF is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    counters: Option<CountersView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AttachmentView {
    pod: String,
    container: String,
    interface: String,
    network: String,
    phase: String,
    netns: String,
    mac: String,
    addresses: Vec<String>,
    settings: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CountersView {
    rx_packets: u64,
    rx_bytes: u64,
    rx_dropped: u64,
    rx_broadcast: u64,
    rx_multicast: u64,
    tx_packets: u64,
    tx_bytes: u64,
    tx_dropped: u64,
}

impl From<Pf> for PfView {
    fn from(pf: Pf) -> Self {
        Self {
            pci: pf.pci,
            interface: pf.interface,
            interfaces: pf.interfaces,
            id: pf.id,
            model: pf.model,
            serial: pf.serial,
            driver: pf.driver,
            numa_node: u32::try_from(pf.numa_node).ok(),
            iommu_group: u32::try_from(pf.iommu_group).ok(),
            root_complex: pf.root_complex,
            root_port: pf.root_port,
            rdma_devices: pf.rdma_devices,
            eswitch_mode: pf.eswitch_mode,
            mac: pf.mac,
            permanent_mac: pf.permanent_mac,
            link: pf.link,
            error: pf.error,
            mtu: pf.mtu,
            total_vfs: pf.total_vfs,
            drivers_autoprobe: pf.drivers_autoprobe,
            protected_by: pf.protected_by,
            vfs: pf.vfs.into_iter().map(VfView::from).collect(),
        }
    }
}

impl From<Vf> for VfView {
    fn from(vf: Vf) -> Self {
        Self {
            index: vf.index,
            pci: vf.pci,
            id: vf.id,
            interface: vf.interface,
            representor: vf.representor,
            driver: vf.driver,
            numa_node: u32::try_from(vf.numa_node).ok(),
            iommu_group: u32::try_from(vf.iommu_group).ok(),
            rdma_devices: vf.rdma_devices,
            mac: vf.mac,
            vlan: vf.vlan,
            vlan_qos: vf.vlan_qos,
            vlan_protocol: vf.vlan_protocol,
            spoof_check: vf.spoof_check,
            trust: vf.trust,
            link_state: vf.link_state,
            min_rate: vf.min_rate,
            max_rate: vf.max_rate,
            mtu: Some(vf.mtu).filter(|mtu| *mtu != 0),
            pool: vf.pool,
            healthy: vf.healthy,
            problem: vf.problem,
            wanted: vf.wanted,
            to_be_done: vf.to_be_done,
            owner: vf.owner,
            attachment: vf.attachment.map(AttachmentView::from),
            counters: vf.counters.map(CountersView::from),
        }
    }
}

impl From<VfAttachment> for AttachmentView {
    fn from(a: VfAttachment) -> Self {
        Self {
            pod: a.pod,
            container: a.container,
            interface: a.interface,
            network: a.network,
            phase: a.phase,
            netns: a.netns,
            mac: a.mac,
            addresses: a.addresses,
            settings: a.settings,
        }
    }
}

impl From<VfCounters> for CountersView {
    fn from(c: VfCounters) -> Self {
        Self {
            rx_packets: c.rx_packets,
            rx_bytes: c.rx_bytes,
            rx_dropped: c.rx_dropped,
            rx_broadcast: c.rx_broadcast,
            rx_multicast: c.rx_multicast,
            tx_packets: c.tx_packets,
            tx_bytes: c.tx_bytes,
            tx_dropped: c.tx_dropped,
        }
    }
}

impl PfView {
    fn model(&self) -> &str {
        if self.model.is_empty() { &self.id } else { &self.model }
    }
}

impl VfView {
    /// `100`, `100 qos 3`, `100 qos 3 802.1ad`, or nothing.
    fn vlan(&self) -> String {
        let mut text = match (self.vlan, self.vlan_qos) {
            (0, _) => return String::new(),
            (vlan, 0) => vlan.to_string(),
            (vlan, qos) => format!("{vlan} qos {qos}"),
        };
        if !matches!(self.vlan_protocol.as_str(), "" | "802.1Q") {
            text = format!("{text} {}", self.vlan_protocol);
        }
        text
    }

    fn health(&self) -> &'static str {
        if self.healthy { "healthy" } else { "unhealthy" }
    }
}

fn number(value: Option<u32>) -> String {
    value.map(|n| n.to_string()).unwrap_or_default()
}
