//! Ports of the fast path.

use culvert_api::fastpath::{ListPortsResponse, Port, PortKind};
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
    rx_packets: u64,
    rx_bytes: u64,
    rx_dropped: u64,
    tx_packets: u64,
    tx_bytes: u64,
    tx_dropped: u64,
}

pub(crate) fn list(reply: ListPortsResponse) -> List {
    List(reply.ports.into_iter().map(port_view).collect())
}

fn port_view(port: Port) -> PortView {
    let kind = match port.kind() {
        PortKind::Uplink => "uplink",
        PortKind::Pod => "pod",
        PortKind::Unspecified => "?",
    };
    let counters = port.counters.unwrap_or_default();
    PortView {
        kind,
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
            "RX PACKETS",
            "RX DROPPED",
            "TX PACKETS",
            "TX DROPPED",
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
                p.rx_packets.to_string(),
                p.rx_dropped.to_string(),
                p.tx_packets.to_string(),
                p.tx_dropped.to_string(),
            ]
        };
        vec![Block::Table(heading, self.0.iter().map(row).collect())]
    }
}
