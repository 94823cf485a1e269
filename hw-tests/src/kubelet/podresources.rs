//! The pod resources API: who holds what.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use culvert_api::kubelet::podresources::pod_resources_lister_server::{
    PodResourcesLister, PodResourcesListerServer,
};
use culvert_api::kubelet::podresources::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, ContainerDevices, ContainerResources,
    GetPodResourcesRequest, GetPodResourcesResponse, ListPodResourcesRequest, ListPodResourcesResponse,
    NumaNode, PodResources as Pod, TopologyInfo,
};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::state::{Resource, State};

/// The running server; it ends when dropped.
#[derive(Debug)]
pub struct PodResources {
    socket: PathBuf,
    server: JoinHandle<()>,
}

impl PodResources {
    pub(super) async fn start(folder: &Path, state: Arc<State>) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        // Kubelet makes the socket under another name and renames it into place.
        let (made, socket) = (folder.join(".kubelet.sock"), folder.join("kubelet.sock"));
        let _ = std::fs::remove_file(&made);
        let listener = UnixListener::bind(&made)?;
        std::fs::rename(&made, &socket)?;
        let server = tokio::spawn(async move {
            let served = Server::builder()
                .add_service(PodResourcesListerServer::new(Lister { state }))
                .serve_with_incoming(UnixListenerStream::new(listener))
                .await;
            if let Err(error) = served {
                eprintln!("pod resources: {error}");
            }
        });
        Ok(Self { socket, server })
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for PodResources {
    fn drop(&mut self) {
        self.server.abort();
        let _ = std::fs::remove_file(&self.socket);
    }
}

struct Lister {
    state: Arc<State>,
}

impl Lister {
    /// Pods by `namespace/name`; all devices in one container.
    fn pods(&self) -> BTreeMap<String, Pod> {
        let resources = self.state.resources();
        let mut pods: BTreeMap<String, Pod> = BTreeMap::new();
        for held in self.state.allocations() {
            let (namespace, name) = held.pod.split_once('/').unwrap_or(("default", &held.pod));
            let pod = pods.entry(held.pod.clone()).or_insert_with(|| Pod {
                name: name.to_owned(),
                namespace: namespace.to_owned(),
                containers: vec![ContainerResources { name: "main".to_owned(), ..Default::default() }],
            });
            for id in &held.ids {
                pod.containers[0].devices.push(devices(&held.resource, id, resources.get(&held.resource)));
            }
        }
        pods
    }
}

/// Kubelet makes an entry of every single device.
fn devices(name: &str, id: &str, resource: Option<&Resource>) -> ContainerDevices {
    let known = resource.and_then(|r| r.devices.get(id));
    ContainerDevices {
        resource_name: name.to_owned(),
        device_ids: vec![id.to_owned()],
        topology: known
            .filter(|d| !d.numa.is_empty())
            .map(|d| TopologyInfo { nodes: d.numa.iter().map(|node| NumaNode { id: *node }).collect() }),
    }
}

#[tonic::async_trait]
impl PodResourcesLister for Lister {
    async fn list(
        &self,
        _: Request<ListPodResourcesRequest>,
    ) -> Result<Response<ListPodResourcesResponse>, Status> {
        Ok(Response::new(ListPodResourcesResponse { pod_resources: self.pods().into_values().collect() }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<AllocatableResourcesRequest>,
    ) -> Result<Response<AllocatableResourcesResponse>, Status> {
        let mut all = Vec::new();
        for (name, resource) in &self.state.resources() {
            let healthy = resource.devices.iter().filter(|(_, d)| d.healthy);
            all.extend(healthy.map(|(id, _)| devices(name, id, Some(resource))));
        }
        Ok(Response::new(AllocatableResourcesResponse { devices: all, cpu_ids: Vec::new() }))
    }

    async fn get(
        &self,
        request: Request<GetPodResourcesRequest>,
    ) -> Result<Response<GetPodResourcesResponse>, Status> {
        let GetPodResourcesRequest { pod_name, pod_namespace } = request.into_inner();
        let pod = self.pods().remove(&format!("{pod_namespace}/{pod_name}"));
        match pod {
            Some(pod) => Ok(Response::new(GetPodResourcesResponse { pod_resources: Some(pod) })),
            None => Err(Status::not_found(format!("pod {pod_namespace}/{pod_name} holds nothing"))),
        }
    }
}
