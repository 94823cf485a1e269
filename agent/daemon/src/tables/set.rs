//! Tables whose clones share what is the same in them.

use std::net::IpAddr;
use std::sync::Arc;

use culvert_api::fastpath::{LocalNode, RemoteNode, Service, ServiceKey, Tables};

use super::octets;
use crate::shared_map::SharedMap;

/// What the fast path must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TableSet {
    /// Nothing is missing: what is absent here does not exist.
    pub synced: bool,
    /// This node, if it is known.
    pub node: Option<Arc<LocalNode>>,
    /// The other nodes by name.
    pub remotes: SharedMap<String, RemoteNode>,
    /// The Services' entries.
    pub services: SharedMap<Frontend, Service>,
}

/// Where clients reach a port of a Service: what tells the Services' entries apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    /// VNI of the tenant, or 0.
    pub tenant: u32,
    /// The virtual IP address.
    pub vip: IpAddr,
    /// The transport protocol, by its number in the control socket's protocol.
    pub protocol: i32,
    /// The port; 0 for pings.
    pub port: u16,
}

impl TableSet {
    /// All of it as one message.
    pub fn message(&self, revision: u64) -> Tables {
        Tables {
            revision,
            synced: self.synced,
            node: self.node.as_deref().cloned(),
            remotes: self.remotes.values().map(|remote| RemoteNode::clone(remote)).collect(),
            services: self.services.values().map(|service| Service::clone(service)).collect(),
        }
    }
}

impl Frontend {
    /// In the form of the control socket's protocol.
    pub fn key(&self) -> ServiceKey {
        ServiceKey {
            tenant: self.tenant,
            protocol: self.protocol,
            vip: octets(self.vip),
            port: self.port.into(),
        }
    }
}
