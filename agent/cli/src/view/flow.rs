//! Tracked flows.

use culvert_api::fastpath::{Flow, ListFlowsResponse};
use serde::Serialize;

use super::{endpoint, or_dash, protocol, tenant};
use crate::output::{Block, View};

/// `flow list`.
#[derive(Serialize)]
pub(crate) struct List {
    total: u64,
    flows: Vec<FlowView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FlowView {
    tenant: u32,
    protocol: &'static str,
    source: String,
    destination: String,
    new_source: String,
    new_destination: String,
    reply: bool,
    state: String,
    idle_seconds: u64,
    service: String,
}

pub(crate) fn list(reply: ListFlowsResponse) -> List {
    List { total: reply.total, flows: reply.flows.into_iter().map(flow_view).collect() }
}

fn flow_view(flow: Flow) -> FlowView {
    FlowView {
        tenant: flow.tenant,
        protocol: protocol(flow.protocol),
        source: endpoint(&flow.source, flow.source_port),
        destination: endpoint(&flow.destination, flow.destination_port),
        new_source: endpoint(&flow.new_source, flow.new_source_port),
        new_destination: endpoint(&flow.new_destination, flow.new_destination_port),
        reply: flow.reply,
        state: flow.state,
        idle_seconds: flow.idle_seconds,
        service: flow.service,
    }
}

impl View for List {
    fn blocks(&self) -> Vec<Block> {
        let heading = vec![
            "TENANT",
            "PROTOCOL",
            "SOURCE",
            "DESTINATION",
            "NEW SOURCE",
            "NEW DESTINATION",
            "DIRECTION",
            "STATE",
            "IDLE",
            "SERVICE",
        ];
        let mut blocks = vec![Block::Table(heading, self.flows.iter().map(FlowView::row).collect())];
        let shown = self.flows.len() as u64;
        if shown < self.total {
            let text = format!("{shown} of {} flows shown; --limit shows more", self.total);
            blocks.push(Block::Lines(vec![text]));
        }
        blocks
    }
}

impl FlowView {
    fn row(&self) -> Vec<String> {
        vec![
            tenant(self.tenant),
            self.protocol.to_owned(),
            self.source.clone(),
            self.destination.clone(),
            self.new_source.clone(),
            self.new_destination.clone(),
            if self.reply { "reply" } else { "request" }.to_owned(),
            or_dash(&self.state),
            format!("{}s", self.idle_seconds),
            or_dash(&self.service),
        ]
    }
}
