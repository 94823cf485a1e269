//! What one device brings into a container.

use culvert_api::kubelet::v1beta1::DeviceSpec;
use serde_json::{Map, Value, json};

use crate::Device;

/// Folder of RDMA's device nodes.
const INFINIBAND: &str = "/dev/infiniband";

/// What a name below [`INFINIBAND`] begins with, and what the peer calls it.
const RDMA_NODES: [&str; 4] = ["uverbs", "umad", "issm", "rdma_cm"];

/// The container node of vfio, needed beside the nodes of the groups.
const VFIO: &str = "/dev/vfio/vfio";
const VHOST_NET: &str = "/dev/vhost-net";
const TUN: &str = "/dev/net/tun";

/// Device nodes, and what the `_INFO` variable tells of the device.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grant {
    pub(crate) nodes: Vec<DeviceSpec>,
    pub(crate) info: Value,
}

/// Why a device cannot be used by a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GrantError {
    #[error("driver {0}, but no IOMMU group; switch the IOMMU on or allow vfio without one")]
    NoGroup(String),
    #[error("driver {0}, but no /dev/uio node")]
    NoUio(String),
}

impl Grant {
    pub(crate) fn of(device: &Device) -> Result<Self, GrantError> {
        let mut nodes = Vec::new();
        let mut info = json!({ "generic": { "deviceID": device.pci.to_string() } });
        if let Some(driver) = vfio_driver(device) {
            let group = device.iommu_group.ok_or_else(|| GrantError::NoGroup(driver.to_owned()))?;
            let path = format!("/dev/vfio/{}", group.number);
            info["vfio"] = json!({ "mount": VFIO, "dev-mount": path });
            nodes.push(node(VFIO, VFIO));
            if group.no_iommu {
                // DPDK looks for the plain number first, others for the name the kernel gives.
                let host = format!("/dev/vfio/noiommu-{}", group.number);
                nodes.extend([node(&path, &host), node(&host, &host)]);
            } else {
                nodes.push(node(&path, &path));
            }
        }
        if let Some(driver @ ("uio_pci_generic" | "igb_uio")) = device.driver.as_deref() {
            let number = device.uio.ok_or_else(|| GrantError::NoUio(driver.to_owned()))?;
            let path = format!("/dev/uio{number}");
            nodes.push(node(&path, &path));
            info["uio"] = json!({ "mount": path });
        }
        if let Some(rdma) = &device.rdma {
            let mut about = Map::new();
            for name in &rdma.nodes {
                let path = format!("{INFINIBAND}/{name}");
                nodes.push(node(&path, &path));
                if let Some(kind) = RDMA_NODES.into_iter().find(|kind| name.starts_with(kind)) {
                    about.insert(kind.to_owned(), Value::String(path));
                }
            }
            if let Some(first) = rdma.devices.first() {
                about.insert("rdma_dev".to_owned(), Value::String(first.clone()));
            }
            info["rdma"] = Value::Object(about);
        }
        if device.vhost_net {
            nodes.extend([node(VHOST_NET, VHOST_NET), node(TUN, TUN)]);
            info["vhost"] = json!({ "net-mount": VHOST_NET, "tun-mount": TUN });
        }
        if !device.extra.is_empty() {
            info["extra"] = json!(device.extra);
        }
        Ok(Self { nodes, info })
    }
}

/// The driver, if it hands the device to user space through vfio: `vfio-pci` or a vendor's variant of it, such as
/// `mlx5_vfio_pci`.
pub(crate) fn vfio_driver(device: &Device) -> Option<&str> {
    device.driver.as_deref().filter(|driver| *driver == "vfio-pci" || driver.ends_with("_vfio_pci"))
}

fn node(container: &str, host: &str) -> DeviceSpec {
    DeviceSpec {
        container_path: container.to_owned(),
        host_path: host.to_owned(),
        permissions: "rw".to_owned(),
    }
}
