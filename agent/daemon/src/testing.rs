//! What several unit tests need.

use std::fs;
use std::path::Path;

use culvert_api::config::nic::NicPolicy;
use culvert_host::HostRoot;
use culvert_host::guard::ApiServer;
use tokio_util::sync::CancellationToken;

use crate::nic::{NicConfig, NicManager};
use crate::plugin;

/// The owner of the NICs of a machine that has none; all its files are below `dir`.
pub(crate) async fn bare_machine(dir: &Path) -> NicManager {
    let root = dir.join("root");
    let boot = root.join("proc/sys/kernel/random");
    fs::create_dir_all(&boot).unwrap();
    fs::write(boot.join("boot_id"), "b\n").unwrap();
    let policy = NicPolicy { apply_at_start: false, pfs: Vec::new() };
    let config = NicConfig {
        policy,
        node: "a".to_owned(),
        state_dir: dir.to_owned(),
        root: HostRoot::new(root),
        api_server: ApiServer::default(),
        pod_resources: None,
        resources: plugin::resources(None).1,
    };
    NicManager::start(config, CancellationToken::new()).await.unwrap()
}
