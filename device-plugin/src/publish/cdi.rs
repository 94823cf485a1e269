//! Container Device Interface: device nodes by name, put in by the container runtime.
//!
//! <https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>

use culvert_api::value::ResourceName;
use serde_json::{Value, json};

use crate::Device;
use crate::grant::Grant;
use crate::pool::Pool;

/// First version with `hostPath`.
const VERSION: &str = "0.5.0";

/// The class that sriov-network-device-plugin uses, so that names stay as they were.
const CLASS: &str = "net-pci";

/// The name by which a container gets the device: `culvert.io/net-pci=0000:03:02.0`.
pub(crate) fn cdi_name(resource: &ResourceName, device: &Device) -> String {
    format!("{}/{CLASS}={}", resource.prefix, device.pci)
}

/// All devices of the pool that come with device nodes. The specification knows no device without any.
pub(super) fn specification(pool: &Pool) -> Value {
    let devices: Vec<Value> = pool
        .members()
        .filter(|member| member.present)
        .filter_map(|member| {
            let nodes = Grant::of(&member.device).ok()?.nodes;
            let nodes: Vec<Value> = nodes
                .iter()
                .map(|n| json!({ "path": n.container_path, "hostPath": n.host_path, "permissions": n.permissions }))
                .collect();
            (!nodes.is_empty())
                .then(|| json!({ "name": member.device.pci.to_string(), "containerEdits": { "deviceNodes": nodes } }))
        })
        .collect();
    json!({ "cdiVersion": VERSION, "kind": format!("{}/{CLASS}", pool.resource().prefix), "devices": devices })
}
