//! What would be done to NICs, and what was.

use culvert_api::agent::{NicApplyReply, NicPlanReply, PlanStep};
use serde::Serialize;

use crate::output::{Block, View};
use crate::view::or_dash;

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
    touches: Vec<String>,
}

fn steps(steps: Vec<PlanStep>) -> Vec<Step> {
    let step = |s: PlanStep| Step { object: s.object, action: s.action, write: s.write, touches: s.touches };
    steps.into_iter().map(step).collect()
}

pub(crate) fn plan(reply: NicPlanReply) -> Plan {
    Plan { steps: steps(reply.steps), blocked: reply.blocked }
}

pub(crate) fn applied(reply: NicApplyReply) -> Applied {
    Applied { done: steps(reply.done), blocked: reply.blocked, failed: reply.failed }
}

impl Plan {
    /// Whether everything is as it should be.
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.blocked.is_empty()
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
            0 if self.blocked.is_empty() => "nothing to do".to_owned(),
            0 => "nothing can be done now".to_owned(),
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
        .map(|(i, s)| {
            let touches = or_dash(&s.touches.join(", "));
            vec![(i + 1).to_string(), s.object.clone(), s.action.clone(), s.write.clone(), touches]
        })
        .collect();
    Block::Table(vec!["STEP", "OBJECT", "ACTION", "WRITE", "TOUCHES"], rows)
}

pub(super) fn blocked(reasons: &[String]) -> Block {
    Block::Lines(reasons.iter().map(|text| format!("blocked: {text}")).collect())
}
