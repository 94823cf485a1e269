//! Finds plugins that wait in `plugins_registry`.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use culvert_api::kubelet::pluginregistration::registration_client::RegistrationClient;
use culvert_api::kubelet::pluginregistration::{InfoRequest, RegistrationStatus};
use tonic::transport::Channel;

use super::dial::{connect, dial};
use super::state::State;

/// How often the folder is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How long a plugin may take to say what it is.
const INFO: Duration = Duration::from_secs(1);

/// What tells a socket from one made anew at the same path.
type Made = (u64, i64, i64);

/// Looks for ever.
pub(super) async fn find(folder: PathBuf, state: Arc<State>) {
    let mut known = BTreeMap::new();
    loop {
        let found = sockets(&folder);
        known.retain(|path, made| found.get(path) == Some(made));
        for (path, made) in found {
            // One that was refused is not asked again, unless its socket is made anew.
            if !known.contains_key(&path) && greet(&path, &state).await {
                known.insert(path, made);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn sockets(folder: &Path) -> BTreeMap<PathBuf, Made> {
    let Ok(entries) = std::fs::read_dir(folder) else { return BTreeMap::new() };
    entries
        .flatten()
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .filter_map(|entry| {
            let about = entry.metadata().ok()?;
            let made = (about.ino(), about.mtime(), about.mtime_nsec());
            about.file_type().is_socket().then(|| (entry.path(), made))
        })
        .collect()
}

/// Asks the plugin what it is, connects it and tells it the outcome. False if it does not answer.
async fn greet(socket: &Path, state: &Arc<State>) -> bool {
    let Ok(channel) = dial(socket).await else { return false };
    let mut plugin = RegistrationClient::new(channel);
    let Ok(Ok(info)) = tokio::time::timeout(INFO, plugin.get_info(InfoRequest {})).await else {
        return false;
    };
    let info = info.into_inner();
    let outcome = if info.r#type != "DevicePlugin" {
        Err(format!("type {:?} is not known here", info.r#type))
    } else if !info.supported_versions.iter().any(|v| v == "v1beta1") {
        Err(format!("versions {:?}: only v1beta1 is supported", info.supported_versions))
    } else if let Some(message) = state.refusal() {
        Err(message)
    } else {
        let endpoint = if info.endpoint.is_empty() { socket } else { Path::new(&info.endpoint) };
        connect(state, &info.name, endpoint).await
    };
    notify(&mut plugin, outcome.err()).await
}

async fn notify(plugin: &mut RegistrationClient<Channel>, error: Option<String>) -> bool {
    let status = RegistrationStatus { plugin_registered: error.is_none(), error: error.unwrap_or_default() };
    plugin.notify_registration_status(status).await.is_ok()
}
