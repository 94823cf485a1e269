//! Kubernetes objects, as far as the agent reads them.
//!
//! Each type has the name that the Kubernetes API gives it, each field is the API's field of the same name, and its
//! documentation says what the API means by it. All other fields are passed over, as an object has dozens of them. A field
//! of another type than the API's is an error; one that is null is, as for the API server, one that is absent.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// What every object has: `meta/v1 ObjectMeta`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ObjectMeta {
    /// The name, unique among objects of its kind in its namespace.
    pub name: Option<String>,
    /// The namespace; a Node has none.
    pub namespace: Option<String>,
    /// Notes for tools, such as ours.
    pub annotations: Option<BTreeMap<String, String>>,
    /// What objects are selected by.
    pub labels: Option<BTreeMap<String, String>>,
}

/// A machine of the cluster: `v1 Node`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Its name, labels and annotations.
    #[serde(deserialize_with = "or_default")]
    pub metadata: ObjectMeta,
    /// What it is to be.
    pub spec: Option<NodeSpec>,
    /// What its kubelet said last.
    pub status: Option<NodeStatus>,
}

/// What a node is to be.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// The range of its pods' addresses; the first of `podCIDRs`.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<String>,
    /// The ranges, at most one of each family.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Option<Vec<String>>,
}

/// What a node's kubelet said last.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Where the node is reached.
    pub addresses: Option<Vec<NodeAddress>>,
}

/// Where a node is reached.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname` and others.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub type_: String,
    /// An IP address or a name.
    #[serde(deserialize_with = "or_default")]
    pub address: String,
}

/// Some containers that share a network namespace: `v1 Pod`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Its name, labels and annotations.
    #[serde(deserialize_with = "or_default")]
    pub metadata: ObjectMeta,
    /// What its kubelet said last.
    pub status: Option<PodStatus>,
}

/// What a pod's kubelet said last.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PodStatus {
    /// Its address; the first of `podIPs`.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// Its addresses, at most one of each family.
    #[serde(rename = "podIPs")]
    pub pod_ips: Option<Vec<PodIP>>,
}

/// An address of a pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PodIP {
    /// The address.
    #[serde(deserialize_with = "or_default")]
    pub ip: String,
}

/// A virtual address for some endpoints: `v1 Service`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Its name, labels and annotations.
    #[serde(deserialize_with = "or_default")]
    pub metadata: ObjectMeta,
    /// What it is to be.
    pub spec: Option<ServiceSpec>,
}

/// What a Service is to be.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub type_: Option<String>,
    /// The virtual address, the first of `clusterIPs`; `None` for a Service that has none.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// The virtual addresses, at most one of each family.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Option<Vec<String>>,
    /// What it listens to.
    pub ports: Option<Vec<ServicePort>>,
    /// `Cluster`, or `Local`: clients within the cluster reach only endpoints on their own node.
    pub internal_traffic_policy: Option<String>,
    /// `None`, or `ClientIP`: a client keeps its endpoint.
    pub session_affinity: Option<String>,
    /// More of that.
    pub session_affinity_config: Option<SessionAffinityConfig>,
}

/// A port that a Service listens to.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServicePort {
    /// The name by which EndpointSlices speak of it.
    pub name: Option<String>,
    /// `TCP`, `UDP` or `SCTP`; without it TCP.
    pub protocol: Option<String>,
    /// The number.
    #[serde(deserialize_with = "or_default")]
    pub port: i32,
}

/// How a client keeps its endpoint.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SessionAffinityConfig {
    /// With affinity `ClientIP`.
    #[serde(rename = "clientIP")]
    pub client_ip: Option<ClientIPConfig>,
}

/// How a client, told by its address, keeps its endpoint.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientIPConfig {
    /// For how long, in seconds.
    pub timeout_seconds: Option<i32>,
}

/// Some endpoints of a Service: `discovery.k8s.io/v1 EndpointSlice`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// Its name, labels and annotations.
    #[serde(deserialize_with = "or_default")]
    pub metadata: ObjectMeta,
    /// What its addresses are: `IPv4`, `IPv6` or `FQDN`.
    #[serde(deserialize_with = "or_default")]
    pub address_type: String,
    /// The endpoints.
    #[serde(deserialize_with = "or_default")]
    pub endpoints: Vec<Endpoint>,
    /// The ports that each of the endpoints has.
    pub ports: Option<Vec<EndpointPort>>,
}

/// What serves a Service, mostly a pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Its addresses, of which only the first is to be used.
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<String>,
    /// Whether it is fit to serve.
    pub conditions: Option<EndpointConditions>,
    /// The node that it is on.
    pub node_name: Option<String>,
    /// For whom it is meant.
    pub hints: Option<Box<EndpointHints>>,
}

/// For whom an endpoint is meant, by the wish of the Service's `trafficDistribution` or of its topology mode.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointHints {
    /// Clients in these zones.
    pub for_zones: Option<Vec<ForZone>>,
    /// Clients on these nodes.
    pub for_nodes: Option<Vec<ForNode>>,
}

/// A zone whose clients an endpoint is meant for.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ForZone {
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
}

/// A node whose clients an endpoint is meant for.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ForNode {
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
}

/// Whether an endpoint is fit to serve.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// It is; unknown counts as yes.
    pub ready: Option<bool>,
    /// It would be, were it not that it may be shutting down; unknown counts as `ready`.
    pub serving: Option<bool>,
    /// It is shutting down.
    pub terminating: Option<bool>,
}

/// A port of endpoints.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    /// The name of the Service's port that it is for.
    pub name: Option<String>,
    /// `TCP`, `UDP` or `SCTP`; without it TCP.
    pub protocol: Option<String>,
    /// The number.
    pub port: Option<i32>,
}

/// Reads null as the default.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
