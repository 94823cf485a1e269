//! What is wanted of NICs and what there is, and how a policy is written.

use culvert_api::agent::{NicAttribute, NicDiffReply};
use culvert_api::config::nic::NicPolicy;
use serde::Serialize;
use serde_json::Value;

use super::plan::blocked;
use crate::output::{Block, View};
use crate::view::or_dash;

/// `nic diff`.
#[derive(Serialize)]
pub(crate) struct Diff {
    attributes: Vec<Attribute>,
    blocked: Vec<String>,
}

#[derive(Serialize)]
struct Attribute {
    object: String,
    attribute: String,
    wanted: String,
    observed: String,
    differs: bool,
    user: String,
}

/// `nic schema`.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Schema(Value);

/// What differs, or everything.
pub(crate) fn diff(reply: NicDiffReply, all: bool) -> Diff {
    let attribute = |a: NicAttribute| Attribute {
        object: a.object,
        attribute: a.attribute,
        wanted: a.wanted,
        observed: a.observed,
        differs: a.differs,
        user: a.user,
    };
    let shown = reply.attributes.into_iter().filter(|a| all || a.differs);
    Diff { attributes: shown.map(attribute).collect(), blocked: reply.blocked }
}

pub(crate) fn schema() -> Schema {
    Schema(NicPolicy::schema())
}

impl Diff {
    /// Whether everything is as it should be.
    pub(crate) fn is_empty(&self) -> bool {
        !self.attributes.iter().any(|a| a.differs) && self.blocked.is_empty()
    }
}

impl View for Diff {
    fn blocks(&self) -> Vec<Block> {
        let rows: Vec<Vec<String>> = self.attributes.iter().map(Attribute::row).collect();
        let table = match rows.as_slice() {
            [] => Block::Lines(Vec::new()),
            _ => Block::Table(vec!["OBJECT", "ATTRIBUTE", "WANTED", "OBSERVED", "", "USER"], rows),
        };
        let count = match self.attributes.iter().filter(|a| a.differs).count() {
            0 => "nothing differs".to_owned(),
            1 => "1 attribute differs".to_owned(),
            n => format!("{n} attributes differ"),
        };
        vec![table, blocked(&self.blocked), Block::Lines(vec![count])]
    }
}

impl Attribute {
    fn row(&self) -> Vec<String> {
        let mark = if self.differs { "differs" } else { "" };
        let texts = [&self.object, &self.attribute, &self.wanted, &self.observed].map(|text| or_dash(text));
        texts.into_iter().chain([mark.to_owned(), self.user.clone()]).collect()
    }
}

impl View for Schema {
    fn blocks(&self) -> Vec<Block> {
        let text = serde_json::to_string_pretty(&self.0).expect("a value has text keys only");
        vec![Block::Lines(vec![text])]
    }
}
