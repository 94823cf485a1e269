//! The names and labels of sriov-network-metrics-exporter, so that what was built on them goes on to work.

use std::fmt;

use culvert_host::netlink::VfCounters;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text as format};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::super::NicSnapshot;
use super::{Labels, Sink};
use crate::nic::VfTally;

/// Encodes what that exporter would.
pub(in super::super) fn text(nic: NicSnapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("sriov");
    registry.register_collector(Box::new(nic));
    let mut out = String::new();
    format::encode(&mut out, &registry)?;
    Ok(out)
}

impl Collector for NicSnapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut sink = Sink(encoder);
        // OpenMetrics would have counters end in "_total": of unknown type, they may keep their names.
        let mut family = |name: &str, help: &str, value: fn(&VfCounters) -> u64| {
            let values =
                self.tally.vfs.iter().filter_map(|vf| Some((labels(vf), value(vf.counters.as_ref()?))));
            sink.family(name, help, MetricType::Unknown, values)
        };
        family("vf_rx_bytes", "Received bytes per virtual function", |c| c.rx_bytes)?;
        family("vf_tx_bytes", "Transmitted bytes per virtual function", |c| c.tx_bytes)?;
        family("vf_rx_packets", "Received packets per virtual function", |c| c.rx_packets)?;
        family("vf_tx_packets", "Transmitted packets per virtual function", |c| c.tx_packets)?;
        family("vf_rx_dropped", "Packets dropped on receipt per virtual function", |c| c.rx_dropped)?;
        family("vf_tx_dropped", "Packets dropped on transmit per virtual function", |c| c.tx_dropped)?;
        family("vf_rx_broadcast", "Received broadcast packets per virtual function", |c| c.broadcast)?;
        family("vf_rx_multicast", "Received multicast packets per virtual function", |c| c.multicast)?;
        let devices = self.holders.iter().map(|(pci, holder)| {
            let (namespace, pod) = holder.pod.split_once('/').unwrap_or_default();
            let labels = vec![
                ("pciAddr", pci.to_string()),
                ("dev_type", holder.resource.clone()),
                ("pod", pod.to_owned()),
                ("namespace", namespace.to_owned()),
                ("container", holder.container.clone()),
            ];
            (labels, 1)
        });
        sink.family("kubepoddevice", "Devices of containers", MetricType::Unknown, devices)
    }
}

fn labels(vf: &VfTally) -> Labels {
    vec![
        ("pf", vf.pf_interface.clone()),
        ("vf", vf.index.to_string()),
        ("pciAddr", vf.pci.to_string()),
        ("numa_node", vf.numa.map(|n| n.to_string()).unwrap_or_default()),
    ]
}
