//! VFs that nobody has, but that are not as they should be, and what became of them.

use culvert_api::agent::{NicOrphansReply, NicReleaseReply};
use serde::Serialize;

use crate::output::{Block, View};
use crate::view::or_dash;

/// `nic orphans`.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Orphans(Vec<Orphan>);

#[derive(Serialize)]
struct Orphan {
    object: String,
    vf: String,
    reason: String,
    user: String,
}

/// `nic release`.
#[derive(Serialize)]
pub(crate) struct Released {
    done: Vec<String>,
    refused: Vec<String>,
    failed: Vec<String>,
}

pub(crate) fn orphans(reply: NicOrphansReply) -> Orphans {
    let orphan =
        |o: culvert_api::agent::Orphan| Orphan { object: o.object, vf: o.vf, reason: o.reason, user: o.user };
    Orphans(reply.orphans.into_iter().map(orphan).collect())
}

pub(crate) fn released(reply: NicReleaseReply) -> Released {
    Released { done: reply.done, refused: reply.refused, failed: reply.failed }
}

impl Orphans {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Released {
    pub(crate) fn is_incomplete(&self) -> bool {
        !self.refused.is_empty() || !self.failed.is_empty()
    }
}

impl View for Orphans {
    fn blocks(&self) -> Vec<Block> {
        if self.is_empty() {
            return vec![Block::Lines(vec!["no orphans".to_owned()])];
        }
        let row = |o: &Orphan| vec![o.object.clone(), o.vf.clone(), o.reason.clone(), or_dash(&o.user)];
        let table =
            Block::Table(vec!["OBJECT", "VF", "REASON", "IN USE BY"], self.0.iter().map(row).collect());
        let hint = "`culvert nic release --all` takes those back that nobody uses".to_owned();
        vec![table, Block::Lines(vec![hint])]
    }
}

impl View for Released {
    fn blocks(&self) -> Vec<Block> {
        let lines = |word: &str, texts: &[String]| -> Vec<String> {
            texts.iter().map(|text| format!("{word}: {text}")).collect()
        };
        let count = format!(
            "{} taken back, {} in use, {} failed",
            self.done.len(),
            self.refused.len(),
            self.failed.len()
        );
        vec![
            Block::Lines(lines("done", &self.done)),
            Block::Lines(lines("refused", &self.refused)),
            Block::Lines(lines("failed", &self.failed)),
            Block::Lines(vec![count]),
        ]
    }
}
