//! Device information files, version 1.1.0 of the Network Plumbing Working Group's device-info-spec.
//!
//! <https://github.com/k8snetworkplumbingwg/device-info-spec/blob/main/SPEC.md>

use culvert_api::value::{PciAddress, ResourceName};
use serde_json::{Value, json};

use crate::Device;

/// Where Multus looks for the file of a device.
pub(super) fn file_name(resource: &ResourceName, pci: PciAddress) -> String {
    format!("{}-{}-{pci}-device.json", resource.prefix, resource.pool)
}

/// The device that a file of this resource is about; `None` if the file is none of these.
pub(super) fn device_of(resource: &ResourceName, file_name: &str) -> Option<PciAddress> {
    let rest = file_name.strip_prefix(&format!("{}-{}-", resource.prefix, resource.pool))?;
    rest.strip_suffix("-device.json")?.parse().ok()
}

/// What the information file of `device` holds.
pub fn information(device: &Device) -> Value {
    let mut pci = json!({ "pci-address": device.pci.to_string() });
    if let Some(pf) = device.pf {
        pci["pf-pci-address"] = json!(pf.to_string());
    }
    if device.vhost_net {
        pci["vhost-net"] = json!("/dev/vhost-net");
    }
    if let Some(rdma) = device.rdma.as_ref().filter(|rdma| !rdma.devices.is_empty()) {
        pci["rdma-device"] = json!(rdma.devices.join(","));
    }
    if let Some(representor) = &device.representor {
        pci["representor-device"] = json!(representor);
    }
    json!({ "type": "pci", "version": "1.1.0", "pci": pci })
}
