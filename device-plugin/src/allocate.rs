//! What a container gets with its devices: environment and device nodes.
//!
//! Names and shape are those of sriov-network-device-plugin, which applications for SR-IOV read.

use std::collections::{BTreeSet, HashMap};

use culvert_api::kubelet::v1beta1::{ContainerAllocateResponse, DeviceSpec};
use culvert_api::value::ResourceName;
use serde_json::{Map, Value, json};

use crate::pool::{Member, Pool};
use crate::{Device, IommuGroup};

#[cfg(test)]
mod tests;

/// The container node of vfio, needed once beside the nodes of the groups.
const VFIO: &str = "/dev/vfio/vfio";

/// Why kubelet's request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("{resource}: the request names no device")]
    Empty { resource: ResourceName },
    #[error("{resource}: device {id:?}: not in this pool")]
    Unknown { resource: ResourceName, id: String },
    #[error("{resource}: device {id}: named twice in one request")]
    Twice { resource: ResourceName, id: String },
    #[error("{resource}: device {id}: not healthy: {reason}")]
    Unhealthy { resource: ResourceName, id: String, reason: String },
    #[error(
        "{resource}: device {id}: driver {driver}, but no IOMMU group; switch the IOMMU on or allow vfio without one"
    )]
    NoGroup { resource: ResourceName, id: String, driver: String },
    #[error("{resource}: {wanted} devices wanted, {fixed} of them fixed, out of {available} available")]
    Size { resource: ResourceName, wanted: i32, fixed: usize, available: usize },
}

impl From<RequestError> for tonic::Status {
    fn from(error: RequestError) -> Self {
        let text = error.to_string();
        match error {
            RequestError::Unknown { .. } => Self::not_found(text),
            RequestError::Unhealthy { .. } | RequestError::NoGroup { .. } => Self::failed_precondition(text),
            RequestError::Empty { .. } | RequestError::Twice { .. } | RequestError::Size { .. } => {
                Self::invalid_argument(text)
            }
        }
    }
}

/// Name of the environment variable that lists a container's devices of a resource: `culvert.io/tenant-a` gives
/// `PCIDEVICE_CULVERT_IO_TENANT-A`.
pub(crate) fn environment_name(resource: &ResourceName) -> String {
    format!("PCIDEVICE_{}_{}", resource.prefix, resource.pool).replace('.', "_").to_ascii_uppercase()
}

/// The members that a request names, in its order.
pub(crate) fn members<'p>(pool: &'p Pool, ids: &[String]) -> Result<Vec<&'p Member>, RequestError> {
    let resource = pool.resource();
    if ids.is_empty() {
        return Err(RequestError::Empty { resource: resource.clone() });
    }
    let mut seen = BTreeSet::new();
    ids.iter()
        .map(|id| {
            if !seen.insert(id) {
                return Err(RequestError::Twice { resource: resource.clone(), id: id.clone() });
            }
            let member = id.parse().ok().and_then(|pci| pool.get(pci));
            member.ok_or_else(|| RequestError::Unknown { resource: resource.clone(), id: id.clone() })
        })
        .collect()
}

/// Answers for one container; nothing is given if any of the devices cannot be.
pub(crate) fn allocate(pool: &Pool, ids: &[String]) -> Result<ContainerAllocateResponse, RequestError> {
    let resource = pool.resource();
    let mut nodes = Vec::new();
    let mut addresses = Vec::new();
    let mut info = Map::new();
    for member in members(pool, ids)? {
        let id = member.device.pci.to_string();
        if let Some(reason) = member.problem() {
            return Err(RequestError::Unhealthy {
                resource: resource.clone(),
                id,
                reason: reason.to_owned(),
            });
        }
        let mut about = json!({ "generic": { "deviceID": id } });
        if let Some(driver) = vfio_driver(&member.device) {
            let Some(group) = member.device.iommu_group else {
                return Err(RequestError::NoGroup {
                    resource: resource.clone(),
                    id,
                    driver: driver.to_owned(),
                });
            };
            about["vfio"] = json!({ "mount": VFIO, "dev-mount": format!("/dev/vfio/{}", group.number) });
            add_vfio(&mut nodes, group);
        }
        info.insert(id.clone(), about);
        addresses.push(id);
    }
    let name = environment_name(resource);
    let envs = HashMap::from([
        (format!("{name}_INFO"), Value::Object(info).to_string()),
        (name, addresses.join(",")),
    ]);
    Ok(ContainerAllocateResponse { envs, devices: nodes, ..Default::default() })
}

/// The driver, if it hands the device to user space through vfio: `vfio-pci` or a vendor's variant of it, such as
/// `mlx5_vfio_pci`.
pub(crate) fn vfio_driver(device: &Device) -> Option<&str> {
    device.driver.as_deref().filter(|driver| *driver == "vfio-pci" || driver.ends_with("_vfio_pci"))
}

/// Adds the nodes of a group. Several devices may share one.
fn add_vfio(nodes: &mut Vec<DeviceSpec>, group: IommuGroup) {
    let mut add = |container: String, host: String| {
        if nodes.iter().all(|n| n.container_path != container) {
            nodes.push(DeviceSpec {
                container_path: container,
                host_path: host,
                permissions: "rw".to_owned(),
            });
        }
    };
    add(VFIO.to_owned(), VFIO.to_owned());
    let group_node = format!("/dev/vfio/{}", group.number);
    if group.no_iommu {
        // DPDK looks for the plain number first, others for the name the kernel gives.
        let host = format!("/dev/vfio/noiommu-{}", group.number);
        add(group_node, host.clone());
        add(host.clone(), host);
    } else {
        add(group_node.clone(), group_node);
    }
}
