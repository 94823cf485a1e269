//! What the socket's calls do.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use culvert_api::agent::agent_reply::Result as Answer;
use culvert_api::agent::agent_request::Call;
use culvert_api::agent::{AgentRequest, Error, NicEvent, Progress, StatusReply};
use culvert_api::config::nic::NicPolicy;
use culvert_api::fastpath::Info;
use tokio::sync::{mpsc, watch};

use crate::cni::Cni;
use crate::errors::chain;
use crate::fastpath::{FastPath, FastPathError};
use crate::health::Health;
use crate::nic::NicManager;

/// Answers the calls of culvert-cni and culvert.
#[derive(Debug)]
pub struct Service {
    /// Name of this node.
    pub node: String,
    /// When the agent was started.
    pub started: Instant,
    /// The state of the agent's parts.
    pub health: Health,
    /// The CNI.
    pub cni: Cni,
    /// The owner of PFs and VFs.
    pub nics: NicManager,
    /// The fast path, if one is configured.
    pub fastpath: Option<FastPath>,
    /// What was last heard of it.
    pub info: watch::Receiver<Option<Info>>,
}

impl Service {
    /// Answers one call; what takes long tells `progress` how far it is.
    pub(super) async fn answer(
        &self,
        request: AgentRequest,
        progress: mpsc::UnboundedSender<Progress>,
    ) -> Answer {
        let Some(call) = request.call else {
            return error("a call that this agent does not know: is it older than the client?");
        };
        let answer = match call {
            Call::Cni(request) => return Answer::Cni(self.cni.handle(&request).await),
            Call::Status(_) => return Answer::Status(self.status()),
            Call::NicList(_) => self.nics.list().await.map(Answer::NicList).map_err(|e| chain(&e)),
            Call::NicPlan(request) => match other_policy(&request.policy) {
                Ok(policy) => self.nics.plan(policy).await.map(Answer::NicPlan).map_err(|e| chain(&e)),
                Err(e) => Err(e),
            },
            Call::NicDiff(request) => match other_policy(&request.policy) {
                Ok(policy) => self.nics.diff(policy).await.map(Answer::NicDiff).map_err(|e| chain(&e)),
                Err(e) => Err(e),
            },
            Call::NicApply(_) => self.nics.apply(progress).await.map(Answer::NicApply).map_err(|e| chain(&e)),
            Call::NicShow(request) => {
                self.nics.show(&request.name).await.map(Answer::NicShow).map_err(|e| chain(&e))
            }
            Call::NicOrphans(_) => self.nics.orphans().await.map(Answer::NicOrphans).map_err(|e| chain(&e)),
            Call::NicRelease(request) => {
                self.nics.release(request).await.map(Answer::NicRelease).map_err(|e| chain(&e))
            }
            Call::NicWatch(_) => {
                Err("events are sent to the end of a connection, not as one answer".to_owned())
            }
            Call::PortList(_) => self.ask(FastPath::ports, Answer::PortList).await,
            Call::Counters(_) => self.ask(FastPath::counters, Answer::Counters).await,
            Call::ServiceList(_) => self.ask(FastPath::services, Answer::ServiceList).await,
            Call::Explain(question) => {
                self.ask(async move |fastpath: &FastPath| fastpath.explain(question).await, Answer::Explain)
                    .await
            }
            Call::FlowList(request) => {
                let limit = request.limit;
                self.ask(async move |fastpath: &FastPath| fastpath.flows(limit).await, Answer::FlowList).await
            }
        };
        answer.unwrap_or_else(|e| error(&e))
    }

    fn status(&self) -> StatusReply {
        StatusReply {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node.clone(),
            uptime_seconds: self.started.elapsed().as_secs(),
            subsystems: self.health.subsystems(),
            fastpath: self.info.borrow().clone(),
        }
    }

    /// What somebody who watches is told first.
    pub(super) fn watching(&self) -> NicEvent {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        NicEvent {
            unix_milliseconds: now.map_or(0, |d| d.as_millis() as u64),
            kind: "watching".to_owned(),
            text: format!("node {}, {} VFs with pods", self.node, self.nics.attachments().len()),
            ..NicEvent::default()
        }
    }

    async fn ask<T>(
        &self,
        call: impl AsyncFnOnce(&FastPath) -> Result<T, FastPathError>,
        answer: impl FnOnce(T) -> Answer,
    ) -> Result<Answer, String> {
        let none =
            || "this node has no fast path: the agent's configuration has no section fastpath".to_owned();
        let fastpath = self.fastpath.as_ref().ok_or_else(none)?;
        call(fastpath).await.map(answer).map_err(|e| e.to_string())
    }
}

/// The policy in a request; `None` if the one in force is meant.
fn other_policy(text: &str) -> Result<Option<NicPolicy>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    NicPolicy::from_any_yaml(text).map(Some).map_err(|e| format!("the policy is refused: {e}"))
}

fn error(message: &str) -> Answer {
    Answer::Error(Error { message: message.to_owned() })
}
