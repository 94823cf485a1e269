//! Calls to the agent.

use std::io::{self, IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use culvert_api::agent::agent_reply::Result as Reply;
use culvert_api::agent::agent_request::Call;
use culvert_api::agent::{
    AgentReply, AgentRequest, FlowListRequest, NicApplyReply, NicApplyRequest, NicDiffReply, NicDiffRequest,
    NicEvent, NicListReply, NicListRequest, NicOrphansReply, NicOrphansRequest, NicPlanReply, NicPlanRequest,
    NicReleaseReply, NicReleaseRequest, NicShowReply, NicShowRequest, NicWatchRequest, PortListRequest,
    Progress, ServiceListRequest, StatusReply, StatusRequest,
};
use culvert_api::fastpath::{
    Counters, ExplainRequest, Explanation, GetCountersRequest, ListFlowsResponse, ListPortsResponse,
    ListServicesResponse,
};
use culvert_api::frame;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("agent at {0} not reachable ({1}): is culvert-agent running?")]
    Away(PathBuf, io::Error),
    #[error("agent at {0}: {1}: must run as root")]
    Permission(PathBuf, io::Error),
    #[error("agent at {0}: {1}")]
    Talk(PathBuf, io::Error),
    #[error("agent at {0} hung up: it was stopped, or this reader was too slow for it")]
    HungUp(PathBuf),
    #[error("{0}")]
    Refused(String),
    #[error("agent at {0} answered another question: are both of the same version?")]
    Mismatch(PathBuf),
    #[error("{0}: {1}")]
    Policy(PathBuf, io::Error),
    #[error("{0}: holds no policy")]
    NoPolicy(PathBuf),
    #[error("standard output: {0}")]
    Print(io::Error),
}

impl ClientError {
    /// Whether it may be otherwise in a moment, when the agent or the fast path has been started.
    pub(crate) const fn may_pass(&self) -> bool {
        matches!(self, Self::Away(..) | Self::Talk(..) | Self::HungUp(_) | Self::Refused(_))
    }
}

/// The agent, reached anew for each call.
pub(crate) struct Client {
    socket: PathBuf,
}

macro_rules! calls {
    ($($name:ident($request:expr) -> $variant:ident($reply:ty);)*) => {
        $(pub(crate) fn $name(&self) -> Result<$reply, ClientError> {
            match self.call($request)? {
                Reply::$variant(reply) => Ok(reply),
                _ => Err(self.mismatch()),
            }
        })*
    };
}

impl Client {
    pub(crate) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    calls! {
        status(Call::Status(StatusRequest {})) -> Status(StatusReply);
        nic_list(Call::NicList(NicListRequest {})) -> NicList(NicListReply);
        nic_apply(Call::NicApply(NicApplyRequest {})) -> NicApply(NicApplyReply);
        port_list(Call::PortList(PortListRequest {})) -> PortList(ListPortsResponse);
        counters(Call::Counters(GetCountersRequest {})) -> Counters(Counters);
        service_list(Call::ServiceList(ServiceListRequest {})) -> ServiceList(ListServicesResponse);
    }

    /// `policy`: text of another policy than the one in force, or nothing.
    pub(crate) fn nic_plan(&self, policy: String) -> Result<NicPlanReply, ClientError> {
        match self.call(Call::NicPlan(NicPlanRequest { policy }))? {
            Reply::NicPlan(reply) => Ok(reply),
            _ => Err(self.mismatch()),
        }
    }

    /// `policy`: as in [`Self::nic_plan`].
    pub(crate) fn nic_diff(&self, policy: String) -> Result<NicDiffReply, ClientError> {
        match self.call(Call::NicDiff(NicDiffRequest { policy }))? {
            Reply::NicDiff(reply) => Ok(reply),
            _ => Err(self.mismatch()),
        }
    }

    pub(crate) fn flow_list(&self, limit: u32) -> Result<ListFlowsResponse, ClientError> {
        match self.call(Call::FlowList(FlowListRequest { limit }))? {
            Reply::FlowList(reply) => Ok(reply),
            _ => Err(self.mismatch()),
        }
    }

    pub(crate) fn explain(&self, question: ExplainRequest) -> Result<Explanation, ClientError> {
        match self.call(Call::Explain(question))? {
            Reply::Explain(reply) => Ok(reply),
            _ => Err(self.mismatch()),
        }
    }

    pub(crate) fn nic_show(&self, name: &str) -> Result<NicShowReply, ClientError> {
        match self.call(Call::NicShow(NicShowRequest { name: name.to_owned() }))? {
            Reply::NicShow(reply) => Ok(reply),
            _ => Err(self.mismatch()),
        }
    }

    pub(crate) fn nic_orphans(&self) -> Result<NicOrphansReply, ClientError> {
        match self.call(Call::NicOrphans(NicOrphansRequest {}))? {
            Reply::NicOrphans(reply) => Ok(reply),
            _ => Err(self.mismatch()),
        }
    }

    pub(crate) fn nic_release(&self, vfs: &[String], force: bool) -> Result<NicReleaseReply, ClientError> {
        match self.call(Call::NicRelease(NicReleaseRequest { vfs: vfs.to_vec(), force }))? {
            Reply::NicRelease(reply) => Ok(reply),
            _ => Err(self.mismatch()),
        }
    }

    /// Hands every event to `show`, until that says that it wants no more or the agent ends.
    pub(crate) fn nic_watch(
        &self,
        mut show: impl FnMut(NicEvent) -> Result<bool, ClientError>,
    ) -> Result<(), ClientError> {
        let mut stream = self.connect()?;
        let talk = |e| ClientError::Talk(self.socket.clone(), e);
        let call = Some(Call::NicWatch(NicWatchRequest {}));
        frame::write(&mut stream, &AgentRequest { call }).map_err(talk)?;
        loop {
            let reply = match frame::read::<AgentReply>(&mut stream) {
                Ok(reply) => reply.result,
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(ClientError::HungUp(self.socket.clone()));
                }
                Err(e) => return Err(talk(e)),
            };
            match reply {
                Some(Reply::NicEvent(event)) => {
                    if !show(event)? {
                        return Ok(());
                    }
                }
                Some(Reply::Error(error)) => return Err(ClientError::Refused(error.message)),
                _ => return Err(self.mismatch()),
            }
        }
    }

    /// An answer that does not fit the question.
    pub(crate) fn mismatch(&self) -> ClientError {
        ClientError::Mismatch(self.socket.clone())
    }

    fn call(&self, call: Call) -> Result<Reply, ClientError> {
        let mut stream = self.connect()?;
        let answer = frame::call(&mut stream, call, show);
        match answer.map_err(|e| ClientError::Talk(self.socket.clone(), e))? {
            Reply::Error(error) => Err(ClientError::Refused(error.message)),
            reply => Ok(reply),
        }
    }

    fn connect(&self) -> Result<UnixStream, ClientError> {
        let socket = || self.socket.clone();
        UnixStream::connect(&self.socket).map_err(|e| match e.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Permission(socket(), e),
            _ => ClientError::Away(socket(), e),
        })
    }
}

/// Shows one step of a call that takes long, to people only.
fn show(step: &Progress) {
    let mut err = io::stderr().lock();
    if err.is_terminal() {
        // Progress that cannot be shown is no reason to stop.
        let _ = writeln!(err, "[{}/{}] {}", step.done, step.total, step.text);
    }
}
