//! `nic list`.

use culvert_api::agent::NicListReply;
use serde::Serialize;

use super::{PfView, VfView, number};
use crate::output::{Block, View};
use crate::view::{on_off, or_dash};

/// All PFs, and all VFs.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct List(pub(super) Vec<PfView>);

pub(crate) fn list(reply: NicListReply) -> List {
    List(reply.pfs.into_iter().map(PfView::from).collect())
}

impl View for List {
    fn blocks(&self) -> Vec<Block> {
        if self.0.is_empty() {
            return vec![none()];
        }
        let pfs = self.0.iter().map(PfView::row).collect();
        let heading =
            vec!["PF", "INTERFACE", "MODEL", "DRIVER", "NUMA", "MAC", "LINK", "MTU", "VFS", "PROTECTED BY"];
        let mut blocks = vec![Block::Table(heading, pfs)];
        blocks.extend(vfs(&self.0));
        blocks
    }
}

/// What is said of a node without such a card.
pub(super) fn none() -> Block {
    Block::Lines(vec!["no network card with SR-IOV on this node".to_owned()])
}

/// The VFs of these PFs; nothing if they have none.
pub(super) fn vfs(pfs: &[PfView]) -> Option<Block> {
    let rows: Vec<_> = pfs.iter().flat_map(|pf| pf.vfs.iter().map(|vf| vf.row(&pf.pci))).collect();
    let heading = vec![
        "PF",
        "VF",
        "PCI",
        "INTERFACE",
        "DRIVER",
        "MAC",
        "VLAN",
        "SPOOFCHK",
        "TRUST",
        "LINK",
        "GROUP",
        "POOL",
        "HEALTH",
        "OWNER",
    ];
    (!rows.is_empty()).then_some(Block::Table(heading, rows))
}

impl PfView {
    fn row(&self) -> Vec<String> {
        vec![
            self.pci.clone(),
            or_dash(&self.interface),
            or_dash(self.model()),
            or_dash(&self.driver),
            or_dash(&number(self.numa_node)),
            or_dash(&self.mac),
            or_dash(&self.link),
            self.mtu.to_string(),
            format!("{}/{}", self.vfs.len(), self.total_vfs),
            or_dash(&self.protected_by),
        ]
    }
}

impl VfView {
    fn row(&self, pf: &str) -> Vec<String> {
        vec![
            pf.to_owned(),
            self.index.to_string(),
            self.pci.clone(),
            or_dash(&self.interface),
            or_dash(&self.driver),
            or_dash(&self.mac),
            or_dash(&self.vlan()),
            on_off(self.spoof_check),
            on_off(self.trust),
            or_dash(&self.link_state),
            or_dash(&number(self.iommu_group)),
            or_dash(&self.pool),
            self.health().to_owned(),
            or_dash(&self.owner),
        ]
    }
}
