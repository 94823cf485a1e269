//! The kinds of objects that the agent uses, and the set of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::types::{EndpointSlice, Node, ObjectMeta, Pod, Service};

/// Namespace and name of an object; the namespace of a Node is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The namespace.
    pub namespace: String,
    /// The name in it.
    pub name: String,
}

/// An object of a kind that the agent uses.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// A node of the cluster.
    Node(Arc<Node>),
    /// A pod.
    Pod(Arc<Pod>),
    /// A Service.
    Service(Arc<Service>),
    /// Some endpoints of a Service.
    EndpointSlice(Arc<EndpointSlice>),
}

/// Kind, namespace and name: what tells objects apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    kind: &'static str,
    name: Name,
}

/// Objects by kind and name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objects {
    /// Nodes by name.
    pub nodes: BTreeMap<String, Arc<Node>>,
    /// Pods.
    pub pods: BTreeMap<Name, Arc<Pod>>,
    /// Services.
    pub services: BTreeMap<Name, Arc<Service>>,
    /// EndpointSlices.
    pub slices: BTreeMap<Name, Arc<EndpointSlice>>,
}

impl Name {
    /// The name of a namespaced object; one without a namespace is in `default`, as kubectl has it.
    pub fn of(meta: &ObjectMeta) -> Self {
        let namespace = meta.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
        Self::new(namespace, meta.name.as_deref().unwrap_or_default())
    }

    /// `namespace/name`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return f.write_str(&self.name);
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Object {
    /// What tells this object apart from all others.
    pub fn id(&self) -> ObjectId {
        let (kind, name) = match self {
            Self::Node(o) => ("node", Name::new("", o.metadata.name.as_deref().unwrap_or_default())),
            Self::Pod(o) => ("pod", Name::of(&o.metadata)),
            Self::Service(o) => ("service", Name::of(&o.metadata)),
            Self::EndpointSlice(o) => ("endpointslice", Name::of(&o.metadata)),
        };
        ObjectId { kind, name }
    }
}

impl ObjectId {
    /// Whether the object has a name at all.
    pub fn is_named(&self) -> bool {
        !self.name.name.is_empty()
    }
}

impl fmt::Display for ObjectId {
    /// `service default/web`, `node node-a`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl Objects {
    /// Takes `object` in, in place of one with the same id.
    pub fn insert(&mut self, object: Object) {
        let name = object.id().name;
        match object {
            Object::Node(node) => drop(self.nodes.insert(name.name, node)),
            Object::Pod(pod) => drop(self.pods.insert(name, pod)),
            Object::Service(service) => drop(self.services.insert(name, service)),
            Object::EndpointSlice(slice) => drop(self.slices.insert(name, slice)),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.nodes.len() + self.pods.len() + self.services.len() + self.slices.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
