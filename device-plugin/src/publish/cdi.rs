//! Container Device Interface: device nodes by name, put in by the container runtime.
//!
//! <https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>

use std::collections::BTreeMap;

use culvert_api::hash::fnv1a;
use culvert_api::kubelet::v1beta1::DeviceSpec;
use culvert_api::value::{PciAddress, ResourceName, ResourcePrefix};
use serde_json::{Value, json};

use crate::Device;
use crate::grant::Grant;
use crate::pool::Pool;

/// First version with `hostPath`.
const VERSION: &str = "0.5.0";

/// The class that sriov-network-device-plugin uses, so that names stay as they were.
const CLASS: &str = "net-pci";

/// Longest name of an annotation, without what is before its `/`.
const ANNOTATION_MAX: usize = 63;

/// Device nodes of devices; those that come without any are not among them.
pub(super) type Nodes = BTreeMap<PciAddress, Vec<DeviceSpec>>;

/// Vendor and class of the devices of all resources with this prefix.
fn kind(prefix: &ResourcePrefix) -> String {
    // A vendor begins with a letter.
    let letter = if prefix.as_str().starts_with(|c: char| c.is_ascii_digit()) { "culvert-" } else { "" };
    format!("{letter}{prefix}/{CLASS}")
}

/// The name by which a container gets the device: `culvert.io/net-pci=0000:03:02.0`.
pub(crate) fn cdi_name(resource: &ResourceName, device: &Device) -> String {
    format!("{}={}", kind(&resource.prefix), device.pci)
}

/// The annotation that names a container's devices of a resource. Each resource has its own: kubelet keeps one of two
/// values for one name.
pub(crate) fn annotation_name(resource: &ResourceName) -> String {
    let name = format!("{}_{}", resource.prefix, resource.pool);
    if name.len() <= ANNOTATION_MAX {
        return format!("cdi.k8s.io/{name}");
    }
    format!("cdi.k8s.io/culvert_{:016x}", fnv1a(&[name.as_bytes()]))
}

/// The device nodes of a pool's devices.
pub(super) fn nodes(pool: &Pool) -> Nodes {
    let present = pool.members().filter(|member| member.present);
    let nodes = present.filter_map(|m| Some((m.device.pci, Grant::of(&m.device).ok()?.nodes)));
    nodes.filter(|(_, nodes)| !nodes.is_empty()).collect()
}

/// The specification of all devices whose resources have this prefix.
pub(super) fn specification(
    prefix: &ResourcePrefix,
    devices: &BTreeMap<&PciAddress, &Vec<DeviceSpec>>,
) -> Value {
    let node = |n: &DeviceSpec| json!({ "path": n.container_path, "hostPath": n.host_path, "permissions": n.permissions });
    let device = |(pci, nodes): (&&PciAddress, &&Vec<DeviceSpec>)| {
        let nodes: Vec<Value> = nodes.iter().map(node).collect();
        json!({ "name": pci.to_string(), "containerEdits": { "deviceNodes": nodes } })
    };
    let devices: Vec<Value> = devices.iter().map(device).collect();
    json!({ "cdiVersion": VERSION, "kind": kind(prefix), "devices": devices })
}
