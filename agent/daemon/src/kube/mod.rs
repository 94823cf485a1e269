//! Kubernetes objects: what the agent knows of the cluster.
//!
//! They come from a folder of YAML files ([`folder`] reads it, [`watch`] notices changes). Whoever uses them gets
//! [`Snapshot`]s: immutable, cheap to share, replaced as a whole. One and the next share all objects that are the same, so
//! that what is different between any two of them is found without a look at the rest.

mod folder;
mod manifest;
mod object;
mod types;
mod watch;

pub use folder::Folder;
pub use manifest::{Manifest, ManifestError};
pub use object::{Kind, Name, Object, ObjectId, Objects};
pub use types::{
    ClientIPConfig, Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode,
    ForZone, Node, NodeAddress, NodeSpec, NodeStatus, ObjectMeta, Pod, PodIP, PodStatus, Service,
    ServicePort, ServiceSpec, SessionAffinityConfig,
};
pub use watch::watch;

/// What a source of objects knows at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// The objects.
    pub objects: Objects,
    /// Everything there is has been read: what is absent here does not exist.
    pub synced: bool,
    /// What is wrong with the source, one line each.
    pub problems: Vec<String>,
}
