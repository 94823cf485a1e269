//! Ports of the fast path.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use culvert_api::fastpath::{ListPortsResponse, Port, PortDevice, PortKind, Segmentation, Waking};
use serde::Serialize;

use super::{address, mac, or_dash, tenant};
use crate::output::{Block, View};

/// `port list`.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct List(Vec<PortView>);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PortView {
    name: String,
    kind: &'static str,
    owner: String,
    addresses: Vec<String>,
    mac: String,
    mtu: u32,
    tenant: u32,
    worker: u32,
    /// `memif` or `vhost-user`; absent: a kernel interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'static str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    socket: String,
    /// What makes a worker that sleeps look at the port: `kernel`, `interrupt`, or `timer`.
    woken_by: &'static str,
    /// Decided connections of the pod may go by the short cut; of the uplink: those with pods of other nodes.
    short_cut: bool,
    rx_packets: u64,
    rx_bytes: u64,
    rx_dropped: u64,
    tx_packets: u64,
    tx_bytes: u64,
    tx_dropped: u64,
    rx_deferred: u64,
    /// Super-packets, and packets without their checksum, that its device was left; it cuts them itself.
    tx_device_offloaded: u64,
    /// Those that the fast path cut, or whose checksum it made, for a device of DPDK.
    tx_software_offloaded: u64,
    /// Those of them that the device's driver refused.
    tx_offload_refused: u64,
    /// Of an uplink by DPDK.
    #[serde(skip_serializing_if = "Option::is_none")]
    segmentation: Option<SegmentationView>,
    /// By reason.
    drops: BTreeMap<String, u64>,
}

/// Who cuts super-packets in tunnels.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SegmentationView {
    /// `device` or `software`: the fast path.
    by: &'static str,
    /// What the device is asked to do, in DPDK's words.
    device_offloads: Vec<String>,
    /// Why not more.
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

impl From<Segmentation> for SegmentationView {
    fn from(segmentation: Segmentation) -> Self {
        let Segmentation { device_offloads, reason } = segmentation;
        let by = if device_offloads.is_empty() { "software" } else { "device" };
        Self { by, device_offloads, reason }
    }
}

pub(crate) fn list(reply: ListPortsResponse) -> List {
    List(reply.ports.into_iter().map(port_view).collect())
}

fn port_view(port: Port) -> PortView {
    let kind = match port.kind() {
        PortKind::Uplink => "uplink",
        PortKind::Pod => "pod",
        PortKind::Host => "host",
        PortKind::Unspecified => "?",
    };
    let device = match port.device() {
        PortDevice::Unspecified => None,
        PortDevice::Memif => Some("memif"),
        PortDevice::VhostUser => Some("vhost-user"),
    };
    let woken_by = match port.waking() {
        Waking::Unspecified => "?",
        Waking::Kernel => "kernel",
        Waking::Interrupt => "interrupt",
        Waking::Never => "timer",
    };
    let counters = port.counters.unwrap_or_default();
    PortView {
        kind,
        device,
        socket: port.socket,
        woken_by,
        short_cut: port.short_cut,
        name: port.name,
        owner: port.owner,
        addresses: port.addresses.iter().map(|a| address(a)).collect(),
        mac: mac(&port.mac),
        mtu: port.mtu,
        tenant: port.tenant,
        worker: port.worker,
        rx_packets: counters.rx_packets,
        rx_bytes: counters.rx_bytes,
        rx_dropped: counters.rx_dropped,
        tx_packets: counters.tx_packets,
        tx_bytes: counters.tx_bytes,
        tx_dropped: counters.tx_dropped,
        rx_deferred: counters.rx_deferred,
        tx_device_offloaded: counters.tx_device_offloaded,
        tx_software_offloaded: counters.tx_software_offloaded,
        tx_offload_refused: counters.tx_offload_refused,
        segmentation: port.segmentation.map(Into::into),
        drops: port.drops.into_iter().map(|drop| (drop.name, drop.value)).collect(),
    }
}

impl PortView {
    /// What most packets were dropped for, most first.
    fn reasons(&self) -> String {
        const SHOWN: usize = 3;
        let mut drops: Vec<_> = self.drops.iter().collect();
        drops.sort_by_key(|(_, count)| Reverse(**count));
        let shown = drops.iter().take(SHOWN).map(|(reason, count)| format!("{reason} {count}"));
        let more = if drops.len() > SHOWN { ", ..." } else { "" };
        shown.collect::<Vec<_>>().join(", ") + more
    }
}

impl View for List {
    fn blocks(&self) -> Vec<Block> {
        let heading = vec![
            "PORT",
            "KIND",
            "OWNER",
            "ADDRESSES",
            "MAC",
            "MTU",
            "TENANT",
            "WORKER",
            "DEVICE",
            "WOKEN BY",
            "CUT BY",
            "SHORT CUT",
            "RX PACKETS",
            "RX DROPPED",
            "TX PACKETS",
            "TX DROPPED",
            "RX DEFERRED",
            "DROPPED FOR",
        ];
        let row = |p: &PortView| {
            vec![
                p.name.clone(),
                p.kind.to_owned(),
                or_dash(&p.owner),
                or_dash(&p.addresses.join(" ")),
                or_dash(&p.mac),
                p.mtu.to_string(),
                tenant(p.tenant),
                p.worker.to_string(),
                p.device.unwrap_or("kernel").to_owned(),
                p.woken_by.to_owned(),
                or_dash(p.segmentation.as_ref().map_or("", |segmentation| segmentation.by)),
                or_dash(if p.short_cut { "yes" } else { "" }),
                p.rx_packets.to_string(),
                p.rx_dropped.to_string(),
                p.tx_packets.to_string(),
                p.tx_dropped.to_string(),
                p.rx_deferred.to_string(),
                or_dash(&p.reasons()),
            ]
        };
        vec![Block::Table(heading, self.0.iter().map(row).collect())]
    }
}

#[cfg(test)]
mod tests {
    use culvert_api::fastpath::NamedCounter;

    use super::*;

    #[test]
    fn the_hosts_port_is_told_from_pods() {
        let port = Port { name: "culvert0".to_owned(), kind: PortKind::Host.into(), ..Port::default() };
        assert_eq!(
            serde_json::to_value(list(ListPortsResponse { ports: vec![port] })).expect("is JSON")[0]["kind"],
            "host"
        );
    }

    #[test]
    fn whether_a_port_has_the_short_cut_is_a_column_of_its_own() {
        let port = |name: &str, short_cut| Port { name: name.to_owned(), short_cut, ..Port::default() };
        let list = list(ListPortsResponse { ports: vec![port("a", true), port("b", false)] });
        let [Block::Table(heading, rows)] = &list.blocks()[..] else { panic!("the ports are a table") };
        let at = heading.iter().position(|title| *title == "SHORT CUT").expect("the column");
        assert_eq!(rows.iter().map(|row| row[at].as_str()).collect::<Vec<_>>(), ["yes", "-"]);
        assert!(rows.iter().all(|row| row.len() == heading.len()));
        let json = serde_json::to_value(&list).expect("is JSON");
        assert_eq!((&json[0]["shortCut"], &json[1]["shortCut"]), (&true.into(), &false.into()));
    }

    #[test]
    fn who_cuts_super_packets_is_shown_of_an_uplink_with_the_reason() {
        let shown = |segmentation| {
            let port = Port { segmentation, ..Port::default() };
            serde_json::to_value(port_view(port)).expect("is JSON")["segmentation"].take()
        };
        assert!(shown(None).is_null());
        let reason = "net_x lacks VXLAN_TNL_TSO".to_owned();
        let software = shown(Some(Segmentation { device_offloads: vec![], reason: reason.clone() }));
        assert_eq!((&software["by"], &software["reason"]), (&"software".into(), &reason.into()));
        let device_offloads = vec!["VXLAN_TNL_TSO".to_owned()];
        let device = shown(Some(Segmentation { device_offloads, reason: String::new() }));
        assert_eq!(
            (&device["by"], &device["deviceOffloads"][0]),
            (&"device".into(), &"VXLAN_TNL_TSO".into())
        );
    }

    #[test]
    fn the_reasons_that_count_most_come_first_and_json_has_all() {
        let drops = [("arp-truncated", 1), ("spoofed-mac", 7), ("vlan-tag", 9), ("martian", 2)];
        let drops = drops.map(|(name, value)| NamedCounter { name: name.to_owned(), value }).to_vec();
        let view = port_view(Port { drops, ..Port::default() });
        assert_eq!(view.reasons(), "vlan-tag 9, spoofed-mac 7, martian 2, ...");
        let json = serde_json::to_value(&view).expect("is JSON");
        assert_eq!(json["drops"]["arp-truncated"], 1);
        assert_eq!(port_view(Port::default()).reasons(), "");
    }
}
