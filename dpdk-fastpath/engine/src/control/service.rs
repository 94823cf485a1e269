//! The gRPC service: every call is carried out by the control thread, one after the other.

use culvert_api::fastpath as proto;
use culvert_api::fastpath::fast_path_server::FastPath as Rpc;
use culvert_api::value::Mac;
use culvert_dpdk::PortError;
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};

use super::error::{AttachError, ReplaceError, chain};
use super::state::{FastPath, Published};
use crate::explain::QuestionError;
use crate::port::{BackendError, ManagerError};
use crate::table::{Port, Problem, TableError};

/// Most flows of a listing for which none was said.
const DEFAULT_FLOWS: usize = 10_000;

/// Something for the control thread to do.
pub type Call = Box<dyn FnOnce(&mut FastPath) + Send>;

/// Hands the calls of clients to the control thread.
#[derive(Debug, Clone)]
pub struct Service {
    calls: mpsc::Sender<Call>,
}

impl Service {
    /// A service whose calls come out of the receiver.
    pub fn new(waiting: usize) -> (Self, mpsc::Receiver<Call>) {
        let (calls, receiver) = mpsc::channel(waiting);
        (Self { calls }, receiver)
    }

    /// Has the control thread do something, and waits for the outcome.
    async fn ask<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut FastPath) -> Result<T, Status> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let gone = || Status::unavailable("the fast path is shutting down");
        let (answer, outcome) = oneshot::channel();
        let call = Box::new(move |fast_path: &mut FastPath| {
            // A client that has gone does not wait for the answer.
            let _ = answer.send(call(fast_path));
        });
        self.calls.send(call).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?.map(Response::new)
    }
}

#[tonic::async_trait]
impl Rpc for Service {
    async fn get_info(&self, _: Request<proto::GetInfoRequest>) -> Result<Response<proto::Info>, Status> {
        self.ask(|fast_path| Ok(fast_path.info())).await
    }

    async fn attach_port(
        &self,
        request: Request<proto::AttachPortRequest>,
    ) -> Result<Response<proto::Port>, Status> {
        let request = request.into_inner();
        self.ask(move |fast_path| {
            let port = Port::try_from(&request).map_err(|error| refused(&error))?;
            let mac =
                Mac::try_from(port.mac.0).map_err(|error| Status::invalid_argument(error.to_string()))?;
            let name = port.name.clone();
            fast_path.attach(port, mac).map_err(|error| attach_status(&error))?;
            fast_path.port(&name).ok_or_else(|| Status::internal(format!("port {name}: vanished")))
        })
        .await
    }

    async fn detach_port(
        &self,
        request: Request<proto::DetachPortRequest>,
    ) -> Result<Response<proto::DetachPortResponse>, Status> {
        let name = request.into_inner().name;
        self.ask(move |fast_path| match fast_path.detach(&name) {
            Ok(existed) => Ok(proto::DetachPortResponse { existed }),
            Err(error) => Err(manager_status(&error)),
        })
        .await
    }

    async fn replace_tables(
        &self,
        request: Request<proto::Tables>,
    ) -> Result<Response<proto::ReplaceTablesResponse>, Status> {
        let tables = request.into_inner();
        self.ask(move |fast_path| {
            let Published { applied, adopted_after } =
                fast_path.replace(&tables).map_err(|error| replace_status(&error))?;
            Ok(proto::ReplaceTablesResponse {
                revision: tables.revision,
                services: applied.services as u32,
                backends: applied.backends as u32,
                remotes: applied.remotes as u32,
                publish_microseconds: adopted_after.as_micros() as u64,
            })
        })
        .await
    }

    async fn apply_changes(
        &self,
        request: Request<proto::Changes>,
    ) -> Result<Response<proto::ApplyChangesResponse>, Status> {
        let changes = request.into_inner();
        self.ask(move |fast_path| {
            let Published { applied, adopted_after } =
                fast_path.change(&changes).map_err(|error| refused(&error))?;
            Ok(proto::ApplyChangesResponse {
                revision: changes.revision,
                services: applied.services as u32,
                backends: applied.backends as u32,
                remotes: applied.remotes as u32,
                publish_microseconds: adopted_after.as_micros() as u64,
            })
        })
        .await
    }

    async fn list_ports(
        &self,
        _: Request<proto::ListPortsRequest>,
    ) -> Result<Response<proto::ListPortsResponse>, Status> {
        self.ask(|fast_path| {
            fast_path.count_losses();
            Ok(proto::ListPortsResponse { ports: fast_path.list_ports() })
        })
        .await
    }

    async fn list_services(
        &self,
        _: Request<proto::ListServicesRequest>,
    ) -> Result<Response<proto::ListServicesResponse>, Status> {
        self.ask(|fast_path| Ok(proto::ListServicesResponse { services: fast_path.list_services() })).await
    }

    async fn list_flows(
        &self,
        request: Request<proto::ListFlowsRequest>,
    ) -> Result<Response<proto::ListFlowsResponse>, Status> {
        let limit = match request.into_inner().limit {
            0 => DEFAULT_FLOWS,
            limit => limit as usize,
        };
        self.ask(move |fast_path| Ok(fast_path.list_flows(limit))).await
    }

    async fn explain(
        &self,
        request: Request<proto::ExplainRequest>,
    ) -> Result<Response<proto::Explanation>, Status> {
        let question = request.into_inner();
        let wrong = |error: QuestionError| Status::invalid_argument(error.to_string());
        self.ask(move |fast_path| fast_path.explain(&question).map_err(wrong)).await
    }

    async fn get_counters(
        &self,
        _: Request<proto::GetCountersRequest>,
    ) -> Result<Response<proto::Counters>, Status> {
        self.ask(|fast_path| {
            fast_path.count_losses();
            Ok(fast_path.list_counters())
        })
        .await
    }
}

/// What is wrong with a request, by the object in it.
fn refused(error: &TableError) -> Status {
    match error.problem() {
        Problem::OldRevision { .. } | Problem::OtherBase { .. } | Problem::NotSynced => {
            Status::failed_precondition(error.to_string())
        }
        _ => Status::invalid_argument(error.to_string()),
    }
}

fn replace_status(error: &ReplaceError) -> Status {
    match error {
        ReplaceError::Refused(error) => refused(error),
        ReplaceError::UnderlayMtu { .. } => Status::invalid_argument(error.to_string()),
    }
}

fn attach_status(error: &AttachError) -> Status {
    match error {
        AttachError::Refused(error) => refused(error),
        AttachError::Port(error) => manager_status(error),
    }
}

fn manager_status(error: &ManagerError<BackendError>) -> Status {
    let text = chain(error);
    match error {
        ManagerError::Name { .. } | ManagerError::IsUplink { .. } => Status::invalid_argument(text),
        ManagerError::Backend { source: BackendError::Device(error), .. }
            if matches!(**error, PortError::BadConfig { .. }) =>
        {
            Status::invalid_argument(text)
        }
        ManagerError::OtherDevice { .. } => Status::failed_precondition(text),
        ManagerError::Full { .. } => Status::resource_exhausted(text),
        ManagerError::Backend { .. } => Status::internal(text),
    }
}
