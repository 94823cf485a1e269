//! Answers to kubelet's `Allocate`.
//!
//! Names and shape of the environment are those of sriov-network-device-plugin, which applications for SR-IOV read.

use std::collections::{BTreeSet, HashMap};

use culvert_api::kubelet::v1beta1::{CdiDevice, ContainerAllocateResponse, DeviceSpec};
use culvert_api::value::ResourceName;
use serde_json::{Map, Value};

use crate::grant::{Grant, GrantError};
use crate::pool::{Member, Pool};
use crate::publish::{annotation_name, cdi_name};

#[cfg(test)]
mod tests;

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
    #[error("{resource}: device {id}: {problem}")]
    Grant { resource: ResourceName, id: String, problem: GrantError },
    #[error("{resource}: device {id}: gone from the machine")]
    Gone { resource: ResourceName, id: String },
    #[error(
        "{resource}: device {id}: was given to the container as {given}, but is {now} now; delete the pod, so that it is \
         given anew"
    )]
    Other { resource: ResourceName, id: String, given: String, now: String },
    #[error("{resource}: {wanted} devices wanted, {fixed} of them fixed, out of {available} available")]
    Size { resource: ResourceName, wanted: i32, fixed: usize, available: usize },
}

impl From<RequestError> for tonic::Status {
    fn from(error: RequestError) -> Self {
        let text = error.to_string();
        match error {
            RequestError::Unknown { .. } => Self::not_found(text),
            RequestError::Unhealthy { .. }
            | RequestError::Grant { .. }
            | RequestError::Gone { .. }
            | RequestError::Other { .. } => Self::failed_precondition(text),
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

/// How a container's device nodes are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nodes {
    /// Listed, for kubelet.
    Listed,
    /// By CDI, with devices named to the runtime through kubelet,
    Cdi,
    /// and in an annotation, too.
    CdiAnnotated,
}

/// Answers for one container; nothing is given if any of the devices cannot be.
pub(crate) fn allocate(
    pool: &Pool,
    ids: &[String],
    by: Nodes,
) -> Result<ContainerAllocateResponse, RequestError> {
    let resource = pool.resource();
    let mut nodes = Vec::new();
    let mut cdi_devices = Vec::new();
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
        let Grant { nodes: own, info: about } = Grant::of(&member.device)
            .map_err(|problem| RequestError::Grant { resource: resource.clone(), id: id.clone(), problem })?;
        if by != Nodes::Listed && !own.is_empty() {
            cdi_devices.push(CdiDevice { name: cdi_name(resource, &member.device) });
        }
        // Devices of one IOMMU group share its node, and all share that of vfio itself.
        for node in own.into_iter().filter(|_| by == Nodes::Listed) {
            if nodes.iter().all(|other: &DeviceSpec| other.container_path != node.container_path) {
                nodes.push(node);
            }
        }
        info.insert(id.clone(), about);
        addresses.push(id);
    }
    let mut annotations = HashMap::new();
    if by == Nodes::CdiAnnotated && !cdi_devices.is_empty() {
        let names: Vec<&str> = cdi_devices.iter().map(|device| device.name.as_str()).collect();
        annotations.insert(annotation_name(resource), names.join(","));
    }
    let name = environment_name(resource);
    let envs = HashMap::from([
        (format!("{name}_INFO"), Value::Object(info).to_string()),
        (name, addresses.join(",")),
    ]);
    Ok(ContainerAllocateResponse { envs, devices: nodes, annotations, cdi_devices, mounts: Vec::new() })
}
