//! The service on `kubelet.sock`.

use std::path::PathBuf;
use std::sync::Arc;

use culvert_api::kubelet::v1beta1::registration_server::Registration;
use culvert_api::kubelet::v1beta1::{Empty, RegisterRequest};
use culvert_api::value::ResourceName;
use tonic::{Request, Response, Status};

use super::dial::connect;
use super::state::State;

/// Answers plugins that call.
#[derive(Debug)]
pub(super) struct Registrar {
    pub(super) folder: PathBuf,
    pub(super) state: Arc<State>,
}

#[tonic::async_trait]
impl Registration for Registrar {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let RegisterRequest { version, endpoint, resource_name, .. } = request.into_inner();
        if let Some(message) = self.state.refusal() {
            return Err(Status::unknown(message));
        }
        if version != "v1beta1" {
            return Err(Status::unknown(format!("version {version:?}: only v1beta1 is supported")));
        }
        if let Err(error) = resource_name.parse::<ResourceName>() {
            return Err(Status::unknown(format!("invalid extended resource name: {error}")));
        }
        connect(&self.state, &resource_name, &self.folder.join(endpoint)).await.map_err(Status::unknown)?;
        Ok(Response::new(Empty {}))
    }
}
