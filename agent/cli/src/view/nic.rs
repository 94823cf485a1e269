//! PFs, VFs and what would be done to them.

use culvert_api::agent::{NicApplyReply, NicListReply, NicPlanReply, Pf, PlanStep, Vf};
use serde::Serialize;

use super::{on_off, or_dash};
use crate::output::{Block, View};

/// `nic list`.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct List(Vec<PfView>);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PfView {
    pci: String,
    interface: String,
    id: String,
    model: String,
    driver: String,
    numa_node: Option<u32>,
    mac: String,
    link: String,
    mtu: u32,
    total_vfs: u32,
    protected_by: String,
    vfs: Vec<VfView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VfView {
    index: u32,
    pci: String,
    interface: String,
    driver: String,
    mac: String,
    vlan: u32,
    vlan_qos: u32,
    spoof_check: bool,
    trust: bool,
    link_state: String,
    iommu_group: Option<u32>,
    pool: String,
    healthy: bool,
    owner: String,
}

pub(crate) fn list(reply: NicListReply) -> List {
    List(reply.pfs.into_iter().map(pf_view).collect())
}

fn pf_view(pf: Pf) -> PfView {
    PfView {
        pci: pf.pci,
        interface: pf.interface,
        id: pf.id,
        model: pf.model,
        driver: pf.driver,
        numa_node: u32::try_from(pf.numa_node).ok(),
        mac: pf.mac,
        link: pf.link,
        mtu: pf.mtu,
        total_vfs: pf.total_vfs,
        protected_by: pf.protected_by,
        vfs: pf.vfs.into_iter().map(vf_view).collect(),
    }
}

fn vf_view(vf: Vf) -> VfView {
    VfView {
        index: vf.index,
        pci: vf.pci,
        interface: vf.interface,
        driver: vf.driver,
        mac: vf.mac,
        vlan: vf.vlan,
        vlan_qos: vf.vlan_qos,
        spoof_check: vf.spoof_check,
        trust: vf.trust,
        link_state: vf.link_state,
        iommu_group: u32::try_from(vf.iommu_group).ok(),
        pool: vf.pool,
        healthy: vf.healthy,
        owner: vf.owner,
    }
}

impl View for List {
    fn blocks(&self) -> Vec<Block> {
        if self.0.is_empty() {
            return vec![Block::Lines(vec!["no network card with SR-IOV on this node".to_owned()])];
        }
        let pfs = self.0.iter().map(PfView::row).collect();
        let heading =
            vec!["PF", "INTERFACE", "MODEL", "DRIVER", "NUMA", "MAC", "LINK", "MTU", "VFS", "PROTECTED BY"];
        let mut blocks = vec![Block::Table(heading, pfs)];
        let vfs: Vec<_> = self.0.iter().flat_map(|pf| pf.vfs.iter().map(|vf| vf.row(&pf.pci))).collect();
        if !vfs.is_empty() {
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
            blocks.push(Block::Table(heading, vfs));
        }
        blocks
    }
}

impl PfView {
    fn row(&self) -> Vec<String> {
        let model = if self.model.is_empty() { &self.id } else { &self.model };
        vec![
            self.pci.clone(),
            or_dash(&self.interface),
            or_dash(model),
            or_dash(&self.driver),
            self.numa_node.map_or_else(|| "-".to_owned(), |n| n.to_string()),
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
        let vlan = match (self.vlan, self.vlan_qos) {
            (0, _) => "-".to_owned(),
            (vlan, 0) => vlan.to_string(),
            (vlan, qos) => format!("{vlan} qos {qos}"),
        };
        vec![
            pf.to_owned(),
            self.index.to_string(),
            self.pci.clone(),
            or_dash(&self.interface),
            or_dash(&self.driver),
            or_dash(&self.mac),
            vlan,
            on_off(self.spoof_check),
            on_off(self.trust),
            or_dash(&self.link_state),
            self.iommu_group.map_or_else(|| "-".to_owned(), |n| n.to_string()),
            or_dash(&self.pool),
            if self.healthy { "healthy" } else { "unhealthy" }.to_owned(),
            or_dash(&self.owner),
        ]
    }
}

/// `nic plan`.
#[derive(Serialize)]
pub(crate) struct Plan {
    steps: Vec<Step>,
    blocked: Vec<String>,
}

/// `nic apply`.
#[derive(Serialize)]
pub(crate) struct Applied {
    done: Vec<Step>,
    blocked: Vec<String>,
    failed: Vec<String>,
}

#[derive(Serialize)]
struct Step {
    object: String,
    action: String,
    write: String,
}

fn steps(steps: Vec<PlanStep>) -> Vec<Step> {
    steps.into_iter().map(|s| Step { object: s.object, action: s.action, write: s.write }).collect()
}

pub(crate) fn plan(reply: NicPlanReply) -> Plan {
    Plan { steps: steps(reply.steps), blocked: reply.blocked }
}

pub(crate) fn applied(reply: NicApplyReply) -> Applied {
    Applied { done: steps(reply.done), blocked: reply.blocked, failed: reply.failed }
}

impl Plan {
    /// Whether `apply` would do nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl Applied {
    pub(crate) fn has_failures(&self) -> bool {
        !self.failed.is_empty()
    }
}

impl View for Plan {
    fn blocks(&self) -> Vec<Block> {
        let count = match self.steps.len() {
            0 => "nothing to do".to_owned(),
            1 => "1 step; `culvert nic apply` does it".to_owned(),
            n => format!("{n} steps; `culvert nic apply` does them"),
        };
        vec![step_table(&self.steps), blocked(&self.blocked), Block::Lines(vec![count])]
    }
}

impl View for Applied {
    fn blocks(&self) -> Vec<Block> {
        let failed = self.failed.iter().map(|text| format!("failed: {text}")).collect();
        let steps = if self.done.len() == 1 { "step" } else { "steps" };
        let count = format!("{} {steps} done, {} failed", self.done.len(), self.failed.len());
        vec![step_table(&self.done), blocked(&self.blocked), Block::Lines(failed), Block::Lines(vec![count])]
    }
}

fn step_table(steps: &[Step]) -> Block {
    if steps.is_empty() {
        return Block::Lines(Vec::new());
    }
    let rows = steps
        .iter()
        .enumerate()
        .map(|(i, s)| vec![(i + 1).to_string(), s.object.clone(), s.action.clone(), s.write.clone()])
        .collect();
    Block::Table(vec!["STEP", "OBJECT", "ACTION", "WRITE"], rows)
}

fn blocked(reasons: &[String]) -> Block {
    Block::Lines(reasons.iter().map(|text| format!("blocked: {text}")).collect())
}
