//! Kubelet's pod resources API: which pod was given which device.
//!
//! Kubelet knows this from the moment it has allocated a device, before any CNI is called, and until the pod is gone.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use culvert_api::kubelet::podresources::ListPodResourcesRequest;
use culvert_api::kubelet::podresources::pod_resources_lister_client::PodResourcesListerClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tower::service_fn;

#[cfg(test)]
mod tests;

/// How long kubelet may take. It asks all its managers, and answers in milliseconds.
const DEADLINE: Duration = Duration::from_secs(3);
/// Longest answer: a node has a few hundred pods, each with a few hundred bytes and one entry per device.
const MAX_ANSWER: usize = 64 << 20;

/// A client of the API. Each call connects anew, as kubelet puts another socket in place of its own when it starts.
#[derive(Debug, Clone)]
pub struct PodResources {
    socket: PathBuf,
}

/// A device that a pod was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenDevice {
    /// Kubelet's id of the device: what its plugin calls it, for VFs the PCI address.
    pub id: String,
    /// The resource that it is one of: "culvert.io/tenant-a".
    pub resource: String,
    /// The pod: "namespace/name".
    pub pod: String,
    /// The container in it.
    pub container: String,
}

/// Why kubelet does not say.
#[derive(Debug, thiserror::Error)]
pub enum PodResourcesError {
    /// Nobody listens.
    #[error("cannot connect to {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody listens who does not speak the protocol.
    #[error("{}: is this kubelet?", socket.display())]
    Transport {
        /// The socket.
        socket: PathBuf,
        /// What the transport said.
        source: tonic::transport::Error,
    },
    /// It refused.
    #[error("kubelet refuses to list pod resources: {0}")]
    Refused(String),
    /// No answer in time.
    #[error("kubelet did not answer on {} within {} s", .0.display(), DEADLINE.as_secs())]
    Silent(PathBuf),
}

impl PodResources {
    /// Where kubelet has its socket if `kubelet_dir` is its folder for device plugins.
    pub fn beside(kubelet_dir: &Path) -> PathBuf {
        kubelet_dir.with_file_name("pod-resources").join("kubelet.sock")
    }

    /// A client of the API on `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// All devices that pods have been given, of any plugin.
    ///
    /// # Errors
    /// When kubelet is away or does not know the API. Nothing follows for any device then.
    pub async fn devices(&self) -> Result<Vec<GivenDevice>, PodResourcesError> {
        let answer = timeout(DEADLINE, self.ask()).await;
        answer.map_err(|_| PodResourcesError::Silent(self.socket.clone()))?
    }

    async fn ask(&self) -> Result<Vec<GivenDevice>, PodResourcesError> {
        let socket = || self.socket.clone();
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| PodResourcesError::Connect { socket: socket(), source })?;
        // The connector is asked for exactly one connection.
        let mut stream = Some(TokioIo::new(stream));
        let connector = service_fn(move |_| {
            let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
            async move { stream }
        });
        // Kubelet's server, as all of Go's, wants an `:authority`, whatever it is.
        let channel = Endpoint::from_static("http://localhost")
            .connect_with_connector(connector)
            .await
            .map_err(|source| PodResourcesError::Transport { socket: socket(), source })?;
        let mut client = PodResourcesListerClient::new(channel).max_decoding_message_size(MAX_ANSWER);
        let answer = client.list(ListPodResourcesRequest {}).await;
        let pods = answer.map_err(|status| PodResourcesError::Refused(status.message().to_owned()))?;
        let mut given = Vec::new();
        for pod in pods.into_inner().pod_resources {
            let name = format!("{}/{}", pod.namespace, pod.name);
            for container in pod.containers {
                for devices in container.devices {
                    given.extend(devices.device_ids.into_iter().map(|id| GivenDevice {
                        id,
                        resource: devices.resource_name.clone(),
                        pod: name.clone(),
                        container: container.name.clone(),
                    }));
                }
            }
        }
        Ok(given)
    }
}
