//! The call that makes kubelet know a plugin.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use culvert_api::kubelet::v1beta1::RegisterRequest;
use culvert_api::kubelet::v1beta1::registration_client::RegistrationClient;
use culvert_api::value::ResourceName;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::Endpoint;
use tower::service_fn;

/// Version of the API.
pub(super) const VERSION: &str = "v1beta1";

/// Kubelet dials the plugin back within the call and gives that ten seconds.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Why kubelet does not know the plugin yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum RegisterError {
    #[error("{path}: cannot connect; is kubelet running?")]
    Connect { path: PathBuf, source: io::Error },
    #[error("kubelet does not answer on {path}")]
    Transport { path: PathBuf, source: tonic::transport::Error },
    #[error("kubelet refuses {resource}: {message}")]
    Refused { resource: ResourceName, message: String },
}

/// Registers the socket `endpoint`, a file name in the folder of `kubelet`, which must be served already.
pub(super) async fn register(
    kubelet: &Path,
    endpoint: &str,
    resource: &ResourceName,
) -> Result<(), RegisterError> {
    let path = || kubelet.to_owned();
    let stream = UnixStream::connect(kubelet)
        .await
        .map_err(|source| RegisterError::Connect { path: path(), source })?;
    // The connector is asked for exactly one connection.
    let mut stream = Some(TokioIo::new(stream));
    let connector = service_fn(move |_| {
        let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        async move { stream }
    });
    let channel = Endpoint::from_static("http://localhost")
        .timeout(TIMEOUT)
        .connect_with_connector(connector)
        .await
        .map_err(|source| RegisterError::Transport { path: path(), source })?;
    let request = RegisterRequest {
        version: VERSION.to_owned(),
        endpoint: endpoint.to_owned(),
        resource_name: resource.to_string(),
        options: None,
    };
    match RegistrationClient::new(channel).register(request).await {
        Ok(_) => Ok(()),
        Err(status) => {
            Err(RegisterError::Refused { resource: resource.clone(), message: status.message().to_owned() })
        }
    }
}
