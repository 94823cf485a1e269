//! What would become of a packet.

use culvert_api::fastpath::Explanation;
use serde::Serialize;

use super::endpoint;
use crate::output::{Block, View};

/// `explain`.
#[derive(Serialize)]
pub(crate) struct ExplanationView {
    service: Option<String>,
    endpoint: Option<String>,
    steps: Vec<String>,
}

pub(crate) fn explanation(reply: Explanation) -> ExplanationView {
    let Explanation { service, endpoint: address, endpoint_port, steps } = reply;
    ExplanationView {
        service: (!service.is_empty()).then_some(service),
        endpoint: (!address.is_empty()).then(|| endpoint(&address, endpoint_port)),
        steps,
    }
}

impl View for ExplanationView {
    fn blocks(&self) -> Vec<Block> {
        let mut lines = self.steps.clone();
        lines.extend(self.endpoint.as_ref().map(|endpoint| format!("-> {endpoint}")));
        vec![Block::Lines(lines)]
    }
}
