//! Device information files, version 1.1.0 of the Network Plumbing Working Group's device-info-spec.
//!
//! <https://github.com/k8snetworkplumbingwg/device-info-spec/blob/main/SPEC.md>

use culvert_api::value::ResourceName;
use serde_json::{Value, json};

use crate::Device;

/// Where Multus looks for the file of a device.
pub(super) fn file_name(resource: &ResourceName, device: &Device) -> String {
    format!("{}-{}-{}-device.json", resource.prefix, resource.pool, device.pci)
}

pub(super) fn information(device: &Device) -> Value {
    let mut pci = json!({ "pci-address": device.pci.to_string() });
    if let Some(pf) = device.pf {
        pci["pf-pci-address"] = json!(pf.to_string());
    }
    if device.vhost_net {
        pci["vhost-net"] = json!("/dev/vhost-net");
    }
    json!({ "type": "pci", "version": "1.1.0", "pci": pci })
}
