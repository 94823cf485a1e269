//! Calling a plugin, as kubelet does after it has heard of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use culvert_api::kubelet::v1beta1::Empty;
use culvert_api::kubelet::v1beta1::device_plugin_client::DevicePluginClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::halt::Moment;
use super::state::State;

pub(super) type PluginClient = DevicePluginClient<Channel>;

/// Kubelet gives a plugin this long to accept.
const DIAL: Duration = Duration::from_secs(10);

/// Opens a channel to a plugin's socket.
pub(super) async fn dial(socket: &Path) -> Result<Channel, String> {
    let path = socket.to_owned();
    let connector = service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    match tokio::time::timeout(DIAL, endpoint.connect_with_connector(connector)).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(format!("cannot dial {}: {error}", socket.display())),
        Err(_) => Err(format!("cannot dial {}: no answer in {DIAL:?}", socket.display())),
    }
}

/// Connects a registered plugin: asks for its options, then follows its list.
pub(super) async fn connect(state: &Arc<State>, resource: &str, socket: &Path) -> Result<(), String> {
    state.halt().pass(Moment::BeforeDial).await;
    let mut client = DevicePluginClient::new(dial(socket).await?);
    let options = client
        .get_device_plugin_options(Empty {})
        .await
        .map_err(|status| format!("GetDevicePluginOptions: {}", status.message()))?
        .into_inner();
    state.halt().pass(Moment::BeforeAnswer).await;
    let connection = state.registered(resource, options);
    let following = follow(state.clone(), resource.to_owned(), client.clone(), connection);
    state.connected(resource, client, connection, || tokio::spawn(following).abort_handle());
    Ok(())
}

async fn follow(state: Arc<State>, resource: String, mut client: PluginClient, connection: usize) {
    state.halt().pass(Moment::BeforeList).await;
    if let Ok(lists) = client.list_and_watch(Empty {}).await {
        let mut lists = lists.into_inner();
        while let Ok(Some(list)) = lists.message().await {
            state.halt().pass(Moment::InList).await;
            state.list(&resource, list.devices);
        }
    }
    state.lost(&resource, connection);
}
