//! The kinds of objects that the agent uses, and the set of them.

use std::fmt;
use std::sync::Arc;

use super::types::{EndpointSlice, Node, ObjectMeta, Pod, Service};
use crate::shared_map::SharedMap;

/// Namespace and name of an object; the namespace of a Node is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name in it.
    pub name: Arc<str>,
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

/// A kind of objects that the agent uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1 Node`.
    Node,
    /// `v1 Pod`.
    Pod,
    /// `v1 Service`.
    Service,
    /// `discovery.k8s.io/v1 EndpointSlice`.
    EndpointSlice,
}

/// Kind, namespace and name: what tells objects apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// The kind.
    pub kind: Kind,
    /// Namespace and name.
    pub name: Name,
}

/// Objects by kind and name. Clones share what is the same in them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objects {
    /// Nodes by name.
    pub nodes: SharedMap<Arc<str>, Node>,
    /// Pods.
    pub pods: SharedMap<Name, Pod>,
    /// Services.
    pub services: SharedMap<Name, Service>,
    /// EndpointSlices.
    pub slices: SharedMap<Name, EndpointSlice>,
}

impl Name {
    /// The name of a namespaced object; one without a namespace is in `default`, as kubectl has it.
    pub fn of(meta: &ObjectMeta) -> Self {
        let namespace = meta.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
        Self::new(namespace, meta.name.as_deref().unwrap_or_default())
    }

    /// `namespace/name`.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
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
        match self {
            Self::Node(o) => ObjectId::node(o.metadata.name.as_deref().unwrap_or_default()),
            Self::Pod(o) => ObjectId::new(Kind::Pod, Name::of(&o.metadata)),
            Self::Service(o) => ObjectId::new(Kind::Service, Name::of(&o.metadata)),
            Self::EndpointSlice(o) => ObjectId::new(Kind::EndpointSlice, Name::of(&o.metadata)),
        }
    }
}

impl ObjectId {
    /// Of an object in a namespace.
    pub fn new(kind: Kind, name: Name) -> Self {
        Self { kind, name }
    }

    /// Of a Node.
    pub fn node(name: impl Into<Arc<str>>) -> Self {
        Self::new(Kind::Node, Name::new("", name))
    }
}

impl fmt::Display for ObjectId {
    /// `service default/web`, `node node-a`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Node => "node",
            Kind::Pod => "pod",
            Kind::Service => "service",
            Kind::EndpointSlice => "endpointslice",
        };
        write!(f, "{kind} {}", self.name)
    }
}

impl Objects {
    /// Takes `object` in, in place of one with the same id; one that is equal stays.
    pub fn insert(&mut self, object: Object) {
        let name = object.id().name;
        match object {
            Object::Node(node) => self.nodes.insert(name.name, node),
            Object::Pod(pod) => self.pods.insert(name, pod),
            Object::Service(service) => self.services.insert(name, service),
            Object::EndpointSlice(slice) => self.slices.insert(name, slice),
        }
    }

    /// Whether there is an object of this id.
    pub fn contains(&self, id: &ObjectId) -> bool {
        match id.kind {
            Kind::Node => self.nodes.contains_key(&id.name.name),
            Kind::Pod => self.pods.contains_key(&id.name),
            Kind::Service => self.services.contains_key(&id.name),
            Kind::EndpointSlice => self.slices.contains_key(&id.name),
        }
    }

    /// Removes the object of this id; whether it was there.
    pub fn remove(&mut self, id: &ObjectId) -> bool {
        match id.kind {
            Kind::Node => self.nodes.remove(&id.name.name),
            Kind::Pod => self.pods.remove(&id.name),
            Kind::Service => self.services.remove(&id.name),
            Kind::EndpointSlice => self.slices.remove(&id.name),
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
