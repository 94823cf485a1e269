//! The stand-in's pod resources API, which tells who holds what.

use culvert_api::config::device_plugin::Registration;
use culvert_api::kubelet::podresources::pod_resources_lister_client::PodResourcesListerClient;
use culvert_api::kubelet::podresources::{
    AllocatableResourcesRequest, ContainerDevices, GetPodResourcesRequest, ListPodResourcesRequest,
};
use culvert_device_plugin::Health;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::Endpoint;

use crate::node::{A, Node, PATIENCE, all, vfs};

fn ids(devices: &[ContainerDevices]) -> Vec<&str> {
    assert!(devices.iter().all(|d| d.resource_name == A && d.device_ids.len() == 1), "{devices:?}");
    devices.iter().map(|d| d.device_ids[0].as_str()).collect()
}

#[tokio::test]
async fn pods_and_what_they_hold_are_listed_a_device_at_a_time() {
    let node = Node::new(vfs("a", 0..4));
    let kubelet = node.kubelet().await;
    let plugin = node.plugin(Registration::Kubelet);
    kubelet.wait(A, PATIENCE, all(4)).await.unwrap();
    let server = kubelet.pod_resources().await.unwrap();
    let socket = server.socket().to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap();
    let mut client = PodResourcesListerClient::new(channel);

    kubelet.allocate("prod/web", A, 2).await.unwrap();
    let pods = client.list(ListPodResourcesRequest {}).await.unwrap().into_inner().pod_resources;
    assert_eq!((pods.len(), pods[0].namespace.as_str(), pods[0].name.as_str()), (1, "prod", "web"));
    let devices = &pods[0].containers[0].devices;
    assert_eq!(ids(devices), ["0000:03:02.0", "0000:03:02.1"]);
    assert_eq!(devices[0].topology.as_ref().unwrap().nodes[0].id, 0);

    node.change("0000:03:02.3", |d| d.health = Health::Unhealthy("down".to_owned()));
    kubelet.wait(A, PATIENCE, |r| r.allocatable() == 3).await.unwrap();
    let healthy =
        client.get_allocatable_resources(AllocatableResourcesRequest {}).await.unwrap().into_inner();
    assert_eq!(ids(&healthy.devices), ["0000:03:02.0", "0000:03:02.1", "0000:03:02.2"]);

    let web = GetPodResourcesRequest { pod_name: "web".to_owned(), pod_namespace: "prod".to_owned() };
    let found = client.get(web.clone()).await.unwrap().into_inner().pod_resources.unwrap();
    assert_eq!(found, pods[0]);
    kubelet.release("prod/web");
    assert_eq!(client.get(web).await.unwrap_err().code(), tonic::Code::NotFound);
    plugin.shutdown().await;
}
