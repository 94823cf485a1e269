use std::sync::atomic::{AtomicUsize, Ordering};

use culvert_api::kubelet::podresources::pod_resources_lister_server::{
    PodResourcesLister, PodResourcesListerServer,
};
use culvert_api::kubelet::podresources::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, ContainerDevices, ContainerResources,
    GetPodResourcesRequest, GetPodResourcesResponse, ListPodResourcesResponse, PodResources as Pod,
};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use super::*;

/// A kubelet with one pod, whose devices have this number.
struct Kubelet(usize);

/// One that refuses.
const REFUSES: Kubelet = Kubelet(usize::MAX);

static NEXT: AtomicUsize = AtomicUsize::new(0);

#[tonic::async_trait]
impl PodResourcesLister for Kubelet {
    async fn list(
        &self,
        _: Request<ListPodResourcesRequest>,
    ) -> Result<Response<ListPodResourcesResponse>, Status> {
        if self.0 == REFUSES.0 {
            return Err(Status::unimplemented("the feature is off"));
        }
        let devices = ["0000:03:02", "0000:03:03"].map(|device| ContainerDevices {
            resource_name: "culvert.io/tenant-a".to_owned(),
            device_ids: vec![format!("{device}.{}", self.0)],
            topology: None,
        });
        let container =
            ContainerResources { name: "main".to_owned(), devices: devices.to_vec(), cpu_ids: Vec::new() };
        let pod =
            Pod { name: "web".to_owned(), namespace: "default".to_owned(), containers: vec![container] };
        Ok(Response::new(ListPodResourcesResponse { pod_resources: vec![pod] }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<AllocatableResourcesRequest>,
    ) -> Result<Response<AllocatableResourcesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get(
        &self,
        _: Request<GetPodResourcesRequest>,
    ) -> Result<Response<GetPodResourcesResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Makes the socket under another name and renames it into place, as kubelet does.
fn serve(socket: &Path, kubelet: Kubelet) -> JoinHandle<()> {
    let made = socket.with_file_name(format!(".{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    let listener = UnixListener::bind(&made).unwrap();
    std::fs::rename(made, socket).unwrap();
    tokio::spawn(async move {
        let server = tonic::transport::Server::builder().add_service(PodResourcesListerServer::new(kubelet));
        server.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
    })
}

async fn ids(api: &PodResources) -> Vec<String> {
    api.devices().await.unwrap().into_iter().map(|d| d.id).collect()
}

#[tokio::test]
async fn a_kubelet_that_puts_another_socket_in_place_of_its_own_is_asked_anew() {
    let dir = TempDir::new().unwrap();
    let socket = PodResources::beside(&dir.path().join("device-plugins"));
    assert_eq!(socket, dir.path().join("pod-resources/kubelet.sock"));
    std::fs::create_dir(socket.parent().unwrap()).unwrap();
    let api = PodResources::new(&socket);
    let error = crate::errors::chain(&api.devices().await.unwrap_err());
    assert!(error.contains("pod-resources/kubelet.sock: No such file"), "{error}");

    let first = serve(&socket, Kubelet(1));
    assert_eq!(ids(&api).await, ["0000:03:02.1", "0000:03:03.1"]);
    let given = api.devices().await.unwrap().remove(0);
    assert_eq!(
        (given.pod.as_str(), given.resource.as_str(), given.container.as_str()),
        ("default/web", "culvert.io/tenant-a", "main")
    );
    let second = serve(&socket, Kubelet(2));
    assert_eq!(ids(&api).await, ["0000:03:02.2", "0000:03:03.2"]);
    first.abort();
    second.abort();
}

#[tokio::test]
async fn a_kubelet_that_refuses_or_only_listens_is_an_error_and_no_empty_list() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("kubelet.sock");
    let api = PodResources::new(&socket);
    let server = serve(&socket, REFUSES);
    let error = api.devices().await.unwrap_err().to_string();
    assert!(error.contains("the feature is off"), "{error}");
    server.abort();

    std::fs::remove_file(&socket).unwrap();
    let _silent = UnixListener::bind(&socket).unwrap();
    let error = api.devices().await.unwrap_err().to_string();
    assert!(error.contains("did not answer"), "{error}");
}
