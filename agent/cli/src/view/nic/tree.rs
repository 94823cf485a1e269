//! `nic list --tree`: PFs, below each its VFs, and at the end of each line the pod.

use culvert_api::agent::NicListReply;
use serde::Serialize;

use super::list::{self, List};
use super::{PfView, VfView, number};
use crate::output::{Block, View};
use crate::view::or_dash;

/// The same as [`List`], drawn.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Tree(List);

pub(crate) fn tree(reply: NicListReply) -> Tree {
    Tree(list::list(reply))
}

impl View for Tree {
    fn blocks(&self) -> Vec<Block> {
        let pfs = &self.0.0;
        if pfs.is_empty() {
            return vec![list::none()];
        }
        pfs.iter().map(|pf| Block::Tree(pf.trunk(), pf.branches())).collect()
    }
}

impl PfView {
    fn trunk(&self) -> String {
        let numa = number(self.numa_node);
        let words = [
            format!("{} {}", self.pci, self.interface).trim_end().to_owned(),
            self.model().to_owned(),
            self.driver.clone(),
            if numa.is_empty() { numa } else { format!("numa {numa}") },
            format!("link {}", self.link),
            format!("{} of {} VFs", self.vfs.len(), self.total_vfs),
            if self.protected_by.is_empty() {
                String::new()
            } else {
                format!("protected: {}", self.protected_by)
            },
        ];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join("  ")
    }

    fn branches(&self) -> Vec<Vec<String>> {
        self.vfs.iter().map(VfView::branch).collect()
    }
}

impl VfView {
    fn branch(&self) -> Vec<String> {
        let vlan = self.vlan();
        let who = match &self.attachment {
            Some(a) => format!("{} ({})", a.pod, a.interface),
            None if self.owner.is_empty() && self.healthy => "free".to_owned(),
            None if self.owner.is_empty() => format!("not ready: {}", self.problem),
            None => self.owner.clone(),
        };
        vec![
            format!("vf {}", self.index),
            self.pci.clone(),
            or_dash(if self.interface.is_empty() { &self.driver } else { &self.interface }),
            or_dash(&self.mac),
            if vlan.is_empty() { "-".to_owned() } else { format!("vlan {vlan}") },
            or_dash(&self.pool),
            who,
        ]
    }
}
