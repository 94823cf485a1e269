//! NICs, their VFs and who has them.

use std::collections::BTreeMap;
use std::fmt;

use culvert_api::value::PciAddress;
use culvert_device_plugin::Statuses;
use culvert_host::netlink::VfCounters;

use super::super::NicSnapshot;
use super::{Labels, Sink, one};
use crate::nic::{NicTally, PfTally, VfTally};
use crate::pod_resources::GivenDevice;

impl Sink<'_> {
    /// PFs, VFs and what the agent has to do with them.
    pub(super) fn nic(&mut self, nic: &NicSnapshot) -> fmt::Result {
        let NicSnapshot { tally, holders } = nic;
        self.vf_counters(tally, holders)?;
        let health = tally.vfs.iter().filter_map(|vf| Some((vf_labels(vf), u64::from(vf.healthy?))));
        self.gauge("vf_healthy", "Whether a VF of the policy can be given to a pod", health)?;
        let pf_labels =
            |pf: PciAddress, name: &str| vec![("pf", pf.to_string()), ("pf_interface", name.to_owned())];
        let pfs = |value: fn(&PfTally) -> u64| {
            tally.pfs.iter().map(move |pf| (pf_labels(pf.pci, &pf.interface), value(pf)))
        };
        self.gauge("pf_carrier", "Whether a PF has a carrier", pfs(|pf| u64::from(pf.carrier)))?;
        self.gauge("pf_vfs", "VFs that a PF has", pfs(|pf| pf.vfs as u64))?;
        self.gauge("pf_total_vfs", "VFs that a PF can have at most", pfs(|pf| pf.total_vfs.into()))?;
        self.gauge("nic_attachments", "VFs that pods have by CNI", one(tally.attachments as u64))?;
        self.gauge(
            "nic_attachments_unfinished",
            "VFs that are being given to pods or taken back, or could not be entirely",
            one(tally.unfinished as u64),
        )?;
        self.gauge(
            "nic_step_under_way",
            "Whether a step of a plan has been begun and not ended",
            one(u64::from(tally.step_under_way)),
        )
    }

    fn vf_counters(&mut self, tally: &NicTally, holders: &BTreeMap<PciAddress, GivenDevice>) -> fmt::Result {
        let each = |value: fn(&VfCounters) -> u64| {
            tally.vfs.iter().filter_map(move |vf| {
                let counters = vf.counters.as_ref()?;
                let mut labels = vf_labels(vf);
                labels.extend(owner_labels(vf, holders.get(&vf.pci)));
                Some((labels, value(counters)))
            })
        };
        self.counter("vf_rx_bytes", "Bytes that a VF received, as its PF counts them", each(|c| c.rx_bytes))?;
        self.counter("vf_tx_bytes", "Bytes that a VF sent, as its PF counts them", each(|c| c.tx_bytes))?;
        self.counter("vf_rx_packets", "Packets that a VF received", each(|c| c.rx_packets))?;
        self.counter("vf_tx_packets", "Packets that a VF sent", each(|c| c.tx_packets))?;
        self.counter("vf_rx_dropped", "Packets for a VF that the NIC dropped", each(|c| c.rx_dropped))?;
        self.counter("vf_tx_dropped", "Packets of a VF that the NIC dropped", each(|c| c.tx_dropped))?;
        self.counter("vf_rx_broadcast", "Broadcast packets that a VF received", each(|c| c.broadcast))?;
        self.counter("vf_rx_multicast", "Multicast packets that a VF received", each(|c| c.multicast))
    }

    /// What is on offer to kubelet.
    pub(super) fn pools(
        &mut self,
        pools: &Statuses,
        holders: &BTreeMap<PciAddress, GivenDevice>,
    ) -> fmt::Result {
        let each = |value: fn(&culvert_device_plugin::PoolStatus) -> u64| {
            pools.iter().map(move |(resource, pool)| (vec![("resource", resource.to_string())], value(pool)))
        };
        self.gauge("pool_devices", "Devices of a resource: its capacity", each(|p| p.devices as u64))?;
        self.gauge(
            "pool_healthy",
            "Devices of a resource that new pods may have",
            each(|p| p.healthy as u64),
        )?;
        self.gauge(
            "pool_registered",
            "Whether kubelet watches the list of a resource's devices",
            each(|p| u64::from(p.waiting.is_none())),
        )?;
        let allocated = pools.keys().map(|resource| {
            let resource = resource.to_string();
            let count = holders.values().filter(|h| h.resource == resource).count();
            (vec![("resource", resource)], count as u64)
        });
        self.gauge("pool_allocated", "Devices of a resource that kubelet has given to containers", allocated)
    }
}

fn vf_labels(vf: &VfTally) -> Labels {
    vec![
        ("pf", vf.pf.to_string()),
        ("pf_interface", vf.pf_interface.clone()),
        ("vf", vf.index.to_string()),
        ("pci", vf.pci.to_string()),
        ("pool", vf.pool.as_ref().map(ToString::to_string).unwrap_or_default()),
    ]
}

/// The pod that has a VF: as the CNI was told, else as kubelet tells; the container as only kubelet knows it.
fn owner_labels(vf: &VfTally, holder: Option<&GivenDevice>) -> Labels {
    let attached = vf.owner.as_deref().and_then(|owner| owner.split_once('/'));
    let held = holder.and_then(|h| h.pod.split_once('/'));
    let owner = attached.or(held);
    let (namespace, pod) = owner.unwrap_or_default();
    // A pod that has just gone may still be kubelet's answer: its container is none of the next pod's.
    let container = holder.filter(|_| held == owner).map_or("", |h| &h.container);
    vec![("namespace", namespace.to_owned()), ("pod", pod.to_owned()), ("container", container.to_owned())]
}
