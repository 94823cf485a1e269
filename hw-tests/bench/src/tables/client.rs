//! Who calls: sends the tables and changes of them, and waits until the worker sees each.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_api::fastpath as proto;
use culvert_api::fastpath::fast_path_client::FastPathClient;
use culvert_engine::table::PortIndex;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use super::TablesError;
use super::agent::{self, AgentTimes};
use super::objects::{self, Size, is_endpoint};
use super::worker::Sight;
use crate::cli::Tables;

/// How long a change may take to be seen.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Whole exchanges for one change; each takes as long as a cold load, or nearly.
const EXCHANGES: u16 = 3;

/// What one run took.
#[derive(Debug)]
pub(super) struct Times {
    pub(super) cold: Duration,
    pub(super) endpoint: Vec<Duration>,
    pub(super) added: Vec<Duration>,
    pub(super) exchanged: Vec<Duration>,
    /// By how much the process grew.
    pub(super) megabytes: f64,
    /// What the agent took, if that was measured.
    pub(super) agent: Option<AgentTimes>,
}

/// The client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: PathBuf,
    pub(super) sight: Arc<Sight>,
    pub(super) tables: Tables,
    /// Measure the agent, too.
    pub(super) with_agent: bool,
}

impl Client {
    /// Everything that is measured, on this thread.
    pub(super) fn run(self) -> Result<Times, TablesError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(TablesError::io("start the client's runtime"))?;
        let mut times = runtime.block_on(async {
            let rpc = connect(&self.socket).await?;
            Session { client: &self, rpc, revision: 0 }.run().await
        })?;
        if self.with_agent {
            let Tables { services, endpoints, nodes, changes, .. } = self.tables;
            let size = Size { services, endpoints, nodes };
            times.agent = Some(agent::measure(&self.socket, &self.sight, size, changes)?);
        }
        Ok(times)
    }
}

struct Session<'a> {
    client: &'a Client,
    rpc: FastPathClient<Channel>,
    revision: u64,
}

impl Session<'_> {
    async fn run(mut self) -> Result<Times, TablesError> {
        let Tables { services, endpoints, nodes, changes, .. } = self.client.tables;
        let size = Size { services, endpoints, nodes };
        let next = |session: &mut Self| {
            session.revision += 1;
            session.revision
        };
        let revision = next(&mut self);
        let whole = objects::tables(size, revision, objects::CLIENT);
        let before = resident()?;
        let begin = self.replace(whole).await?;
        let cold = self.seen("the cold load", is_endpoint)? - begin;
        let megabytes = resident()? - before;

        let mut times =
            Times { cold, endpoint: vec![], added: vec![], exchanged: vec![], megabytes, agent: None };
        for _ in 0..changes {
            let (from, _) = self.client.sight.now();
            let begin = self.change(|changes| changes.services.push(objects::watched(from))).await?;
            let seen = self.seen("the change", |to| is_endpoint(to) && to != from)?;
            times.endpoint.push(seen - begin);
        }
        for _ in 0..changes {
            self.change(|changes| changes.removed_services.push(objects::watched_key())).await?;
            self.seen("the removal", |to| !is_endpoint(to))?;
            let begin =
                self.change(|changes| changes.services.push(objects::watched(objects::CLIENT))).await?;
            times.added.push(self.seen("the Service", is_endpoint)? - begin);
        }
        for _ in 0..EXCHANGES {
            let (from, _) = self.client.sight.now();
            let revision = next(&mut self);
            let whole = objects::tables(size, revision, from);
            let begin = self.replace(whole).await?;
            times.exchanged.push(self.seen("the exchange", |to| is_endpoint(to) && to != from)? - begin);
        }
        Ok(times)
    }

    /// Since when the worker's packets go by what was sent last.
    fn seen(&self, what: &'static str, wanted: impl Fn(PortIndex) -> bool) -> Result<Instant, TablesError> {
        self.client.sight.wait(PATIENCE, wanted).ok_or(TablesError::Unseen(what))
    }

    /// Replaces the tables; when the call was made.
    async fn replace(&mut self, tables: proto::Tables) -> Result<Instant, TablesError> {
        let begin = Instant::now();
        let outcome = self.rpc.replace_tables(tables).await;
        outcome.map_err(|status| TablesError::Refused { call: "ReplaceTables", status: Box::new(status) })?;
        Ok(begin)
    }

    /// Changes the tables; when the call was made.
    async fn change(&mut self, fill: impl FnOnce(&mut proto::Changes)) -> Result<Instant, TablesError> {
        let mut changes =
            proto::Changes { base: self.revision, revision: self.revision + 1, ..Default::default() };
        fill(&mut changes);
        self.revision += 1;
        let begin = Instant::now();
        let outcome = self.rpc.apply_changes(changes).await;
        outcome.map_err(|status| TablesError::Refused { call: "ApplyChanges", status: Box::new(status) })?;
        Ok(begin)
    }
}

async fn connect(socket: &Path) -> Result<FastPathClient<Channel>, TablesError> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The address is only what the HTTP/2 `:authority` says.
    let channel = Endpoint::from_static("http://fastpath").connect_with_connector(connector).await?;
    Ok(FastPathClient::new(channel))
}

/// Memory of this process, in MB.
fn resident() -> Result<f64, TablesError> {
    const PAGE: f64 = 4096.0;
    let statm = fs::read_to_string("/proc/self/statm").map_err(TablesError::io("read /proc/self/statm"))?;
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok());
    Ok(pages.unwrap_or(f64::NAN) * PAGE / 1e6)
}
