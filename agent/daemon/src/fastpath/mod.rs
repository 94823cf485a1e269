//! The fast path, as the agent sees it: a gRPC service on a Unix socket that may go and come back at any time.

mod difference;
mod keep;

use std::path::{Path, PathBuf};
use std::time::Duration;

use culvert_api::fastpath::fast_path_client::FastPathClient;
use culvert_api::fastpath::{
    ApplyChangesResponse, AttachPortRequest, Changes, Counters, DetachPortRequest, ExplainRequest,
    Explanation, GetCountersRequest, GetInfoRequest, Info, ListFlowsRequest, ListFlowsResponse,
    ListPortsRequest, ListPortsResponse, ListServicesRequest, ListServicesResponse, Port,
    ReplaceTablesResponse, Tables,
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

pub use keep::{Desired, Keeper};

/// How long a call may take. Publishing the largest tables takes about half a second.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long the fast path may take to say that it is there.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// Longest message either side takes: that of the agent's own socket.
const MAX_MESSAGE: usize = culvert_api::frame::MAX_FRAME;

/// A client of the fast path. Connects when it is used, and again after the connection is lost.
#[derive(Debug, Clone)]
pub struct FastPath {
    socket: PathBuf,
    client: FastPathClient<Channel>,
}

/// A call to the fast path that did not work.
#[derive(Debug, thiserror::Error)]
pub enum FastPathError {
    /// Nobody listens on the socket, or the connection broke.
    #[error("fast path at {} not reachable ({reason}): is culvert-fastpath running?", socket.display())]
    Away {
        /// The socket.
        socket: PathBuf,
        /// What the transport said.
        reason: String,
    },
    /// No answer in time.
    #[error("fast path at {} did not answer {call} within {} s", socket.display(), deadline.as_secs())]
    Silent {
        /// The socket.
        socket: PathBuf,
        /// The call.
        call: &'static str,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// It refused.
    #[error("fast path refused {call}: {}", status.message())]
    Refused {
        /// The call.
        call: &'static str,
        /// What it said.
        status: Box<Status>,
    },
}

impl FastPathError {
    /// Whether the fast path is not there, or does not answer: the same call may work later.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::Silent { .. })
    }
}

impl FastPath {
    /// A client of the fast path at `socket`. Needs a tokio runtime; connects at the first call.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        let socket = socket.into();
        let path = socket.clone();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The address is only what the HTTP/2 `:authority` says.
        let channel = Endpoint::from_static("http://fastpath").connect_with_connector_lazy(connector);
        let client = FastPathClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        Self { socket, client }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Who is there, and how far it has been programmed.
    pub async fn info(&self) -> Result<Info, FastPathError> {
        let mut client = self.client.clone();
        self.answer("GetInfo", PROBE_DEADLINE, async move { client.get_info(GetInfoRequest {}).await }).await
    }

    /// Creates a port, or changes the one of that name.
    pub async fn attach_port(&self, port: AttachPortRequest) -> Result<Port, FastPathError> {
        let mut client = self.client.clone();
        self.answer("AttachPort", DEADLINE, async move { client.attach_port(port).await }).await
    }

    /// Removes a port; says whether it was there.
    pub async fn detach_port(&self, name: &str) -> Result<bool, FastPathError> {
        let mut client = self.client.clone();
        let request = DetachPortRequest { name: name.to_owned() };
        let call = async move { client.detach_port(request).await };
        Ok(self.answer("DetachPort", DEADLINE, call).await?.existed)
    }

    /// Publishes tables.
    pub async fn replace_tables(&self, tables: Tables) -> Result<ReplaceTablesResponse, FastPathError> {
        let mut client = self.client.clone();
        self.answer("ReplaceTables", DEADLINE, async move { client.replace_tables(tables).await }).await
    }

    /// Publishes what is different from the tables in force.
    pub async fn apply_changes(&self, changes: Changes) -> Result<ApplyChangesResponse, FastPathError> {
        let mut client = self.client.clone();
        self.answer("ApplyChanges", DEADLINE, async move { client.apply_changes(changes).await }).await
    }

    /// All ports with their counters.
    pub async fn ports(&self) -> Result<ListPortsResponse, FastPathError> {
        let mut client = self.client.clone();
        self.answer("ListPorts", DEADLINE, async move { client.list_ports(ListPortsRequest {}).await }).await
    }

    /// All services with their counters.
    pub async fn services(&self) -> Result<ListServicesResponse, FastPathError> {
        let mut client = self.client.clone();
        self.answer(
            "ListServices",
            DEADLINE,
            async move { client.list_services(ListServicesRequest {}).await },
        )
        .await
    }

    /// At most `limit` flows.
    pub async fn flows(&self, limit: u32) -> Result<ListFlowsResponse, FastPathError> {
        let mut client = self.client.clone();
        self.answer("ListFlows", DEADLINE, async move { client.list_flows(ListFlowsRequest { limit }).await })
            .await
    }

    /// What would become of a packet, and why.
    pub async fn explain(&self, question: ExplainRequest) -> Result<Explanation, FastPathError> {
        let mut client = self.client.clone();
        self.answer("Explain", DEADLINE, async move { client.explain(question).await }).await
    }

    /// Counters of everything.
    pub async fn counters(&self) -> Result<Counters, FastPathError> {
        let mut client = self.client.clone();
        let call = async move { client.get_counters(GetCountersRequest {}).await };
        self.answer("GetCounters", PROBE_DEADLINE, call).await
    }

    async fn answer<T>(
        &self,
        call: &'static str,
        deadline: Duration,
        work: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, FastPathError> {
        let socket = || self.socket.clone();
        match timeout(deadline, work).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status))
                if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) =>
            {
                Err(FastPathError::Away { socket: socket(), reason: innermost(&status) })
            }
            Ok(Err(status)) => Err(FastPathError::Refused { call, status: Box::new(status) }),
            Err(_) => Err(FastPathError::Silent { socket: socket(), call, deadline }),
        }
    }
}

/// The last error of the chain: tonic's own text says only "transport error".
fn innermost(status: &Status) -> String {
    let mut source = std::error::Error::source(status);
    let mut text = status.message().to_owned();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}
