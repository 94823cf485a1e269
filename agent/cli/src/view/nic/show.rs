//! `nic show`.

use culvert_api::agent::NicShowReply;
use serde::Serialize;

use super::event::EventView;
use super::list::vfs;
use super::{CountersView, PfView, VfView, number};
use crate::output::{Block, View};
use crate::view::on_off;

/// One PF or VF.
#[derive(Serialize)]
#[serde(rename_all = "camelCase", untagged)]
pub(crate) enum Show {
    /// A PF with its VFs.
    Pf { pf: Box<PfView>, history: Vec<EventView> },
    /// A VF and where it is.
    Vf {
        pf: String,
        #[serde(rename = "pfInterface")]
        pf_interface: String,
        vf: Box<VfView>,
        history: Vec<EventView>,
    },
}

/// `None` if the answer lacks what was asked for.
pub(crate) fn show(reply: NicShowReply) -> Option<Show> {
    let mut pf = PfView::from(reply.pf?);
    let history = reply.history.into_iter().map(EventView::from).collect();
    match reply.vf_index {
        None => Some(Show::Pf { pf: Box::new(pf), history }),
        Some(index) => {
            let place = pf.vfs.iter().position(|vf| vf.index == index)?;
            let vf = Box::new(pf.vfs.swap_remove(place));
            Some(Show::Vf { pf: pf.pci, pf_interface: pf.interface, vf, history })
        }
    }
}

impl View for Show {
    fn blocks(&self) -> Vec<Block> {
        match self {
            Self::Pf { pf, history } => {
                let mut blocks = vec![Block::Fields(format!("PF {}", pf.pci), pf.fields())];
                blocks.extend(vfs(std::slice::from_ref(&**pf)));
                blocks.extend(past(history));
                blocks
            }
            Self::Vf { pf, pf_interface, vf, history } => {
                let of = if pf_interface.is_empty() { pf.clone() } else { format!("{pf} ({pf_interface})") };
                let mut blocks = vec![Block::Fields(format!("VF {} of {of}", vf.index), vf.fields())];
                if let Some(a) = &vf.attachment {
                    blocks.push(Block::Fields("Pod".to_owned(), a.fields()));
                }
                if let Some(counters) = &vf.counters {
                    blocks.push(counters.block());
                }
                blocks.extend(past(history));
                blocks
            }
        }
    }
}

type Fields = Vec<(&'static str, String)>;

impl PfView {
    fn fields(&self) -> Fields {
        let known = |flag: Option<bool>| flag.map(on_off).unwrap_or_default();
        vec![
            ("interface", self.interfaces.join(", ")),
            ("model", self.model.clone()),
            ("device id", self.id.clone()),
            ("serial number", self.serial.clone()),
            ("driver", self.driver.clone()),
            ("MAC", self.mac.clone()),
            ("permanent MAC", self.permanent_mac.clone()),
            ("link", self.link.clone()),
            ("error", self.error.clone()),
            ("switch", self.eswitch_mode.clone()),
            ("MTU", self.mtu.to_string()),
            ("NUMA node", number(self.numa_node)),
            ("IOMMU group", number(self.iommu_group)),
            ("PCIe root", format!("{} {}", self.root_complex, self.root_port).trim().to_owned()),
            ("RDMA devices", self.rdma_devices.join(", ")),
            ("VFs", format!("{} of {}", self.vfs.len(), self.total_vfs)),
            ("drivers for new VFs", known(self.drivers_autoprobe)),
            ("protected by", self.protected_by.clone()),
        ]
    }
}

impl VfView {
    fn fields(&self) -> Fields {
        let rate = |mbit: u32| if mbit == 0 { String::new() } else { format!("{mbit} Mbit/s") };
        let health = if self.healthy { "healthy".to_owned() } else { format!("unhealthy: {}", self.problem) };
        let owner = if self.owner.is_empty() { "nobody".to_owned() } else { self.owner.clone() };
        vec![
            ("PCI address", self.pci.clone()),
            ("device id", self.id.clone()),
            ("interface", self.interface.clone()),
            ("representor", self.representor.clone()),
            ("driver", self.driver.clone()),
            ("NUMA node", number(self.numa_node)),
            ("IOMMU group", number(self.iommu_group)),
            ("RDMA devices", self.rdma_devices.join(", ")),
            ("pool", self.pool.clone()),
            ("health", health),
            ("used by", owner),
            ("MAC", self.mac.clone()),
            ("VLAN", self.vlan()),
            ("spoof check", on_off(self.spoof_check)),
            ("trust", on_off(self.trust)),
            ("link state", self.link_state.clone()),
            ("min rate", rate(self.min_rate)),
            ("max rate", rate(self.max_rate)),
            ("MTU", number(self.mtu)),
            ("policy wants", self.wanted.clone()),
            ("to be done", self.to_be_done.clone()),
        ]
    }
}

impl super::AttachmentView {
    fn fields(&self) -> Fields {
        vec![
            ("pod", self.pod.clone()),
            ("container", self.container.clone()),
            ("interface", self.interface.clone()),
            ("network", self.network.clone()),
            ("state", self.phase.clone()),
            ("MAC", self.mac.clone()),
            ("addresses", self.addresses.join(", ")),
            ("own settings", self.settings.clone()),
            ("namespace", self.netns.clone()),
        ]
    }
}

impl CountersView {
    fn block(&self) -> Block {
        let row = |direction: &str, numbers: [String; 5]| {
            std::iter::once(direction.to_owned()).chain(numbers).collect::<Vec<_>>()
        };
        let dash = || "-".to_owned();
        let (rx, tx) = (
            [self.rx_packets, self.rx_bytes, self.rx_dropped, self.rx_broadcast, self.rx_multicast]
                .map(|n| n.to_string()),
            [
                self.tx_packets.to_string(),
                self.tx_bytes.to_string(),
                self.tx_dropped.to_string(),
                dash(),
                dash(),
            ],
        );
        let heading = vec!["COUNTERS", "PACKETS", "BYTES", "DROPPED", "BROADCAST", "MULTICAST"];
        Block::Table(heading, vec![row("received", rx), row("sent", tx)])
    }
}

/// What happened since the agent was started.
fn past(history: &[EventView]) -> Option<Block> {
    let row =
        |e: &EventView| vec![e.time.clone(), format!("{} {}", e.kind, e.state), e.object(), e.text.clone()];
    let heading = vec!["SINCE THE AGENT'S START", "EVENT", "OBJECT", "WHAT"];
    (!history.is_empty()).then(|| Block::Table(heading, history.iter().map(row).collect()))
}
