//! What is remembered of one attachment.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use culvert_api::hash::fnv1a;
use culvert_api::value::{IfName, Mac, Vni};
use serde::{Deserialize, Serialize};

use super::socket::Socket;

/// What tells attachments apart (CNI specification 1.1.0, section 2: a container and an interface name in it).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// The runtime's id of the container or sandbox.
    pub container_id: String,
    /// Name of the interface in the pod.
    pub ifname: IfName,
}

/// One attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Whose it is.
    #[serde(flatten)]
    pub key: Key,
    /// Name of the CNI network that it belongs to.
    pub network: String,
    /// The pod, where the runtime told.
    pub pod: Option<PodName>,
    /// Path of the pod's network namespace.
    pub netns: PathBuf,
    /// The boot in which it was made: no namespace outlives one.
    pub boot: String,
    /// When it was made, in milliseconds since 1970.
    pub created: u64,
    /// How far it is.
    pub phase: Phase,
    /// Network identifier of its tenant; absent: the cluster's own routing domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Vni>,
    /// Where a program in the pod finds the port; absent: the port is an interface of the pod's kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<Socket>,
    /// What was given.
    #[serde(flatten)]
    pub lease: Lease,
}

/// Namespace and name of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodName {
    /// The namespace.
    pub namespace: String,
    /// The name in it.
    pub name: String,
}

/// How far an attachment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Being made; after a restart of the agent it has to be undone.
    Attaching,
    /// Complete.
    Attached,
    /// Being undone.
    Detaching,
}

/// A port of the fast path and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// Name of the port.
    pub port: IfName,
    /// Addresses, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// The router for each address.
    pub gateways: Vec<IpAddr>,
    /// MAC address of the pod's interface.
    pub mac: Mac,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
}

impl Key {
    /// A name that fits for an interface and a file, the same for the same key: "cv" and 52 bits of its hash.
    pub fn port_name(&self) -> IfName {
        // No container id holds a zero byte: the two parts cannot be confused.
        let hash = fnv1a(&[self.container_id.as_bytes(), &[0], self.ifname.as_str().as_bytes()]);
        format!("cv{:013x}", hash >> 12).parse().expect("15 letters and digits are an interface name")
    }
}

impl Phase {
    /// The phase as people and JSON see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attaching => "attaching",
            Self::Attached => "attached",
            Self::Detaching => "detaching",
        }
    }
}

impl Record {
    /// For people: the pod's name, else the container's id.
    pub fn owner(&self) -> String {
        self.pod.as_ref().map_or_else(|| self.key.container_id.clone(), PodName::to_string)
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interface {} of container {}", self.ifname, self.container_id)
    }
}

#[cfg(test)]
mod tests {
    use super::super::socket::Sharing;
    use super::*;

    fn key(container: &str, ifname: &str) -> Key {
        Key { container_id: container.to_owned(), ifname: ifname.parse().unwrap() }
    }

    #[test]
    fn port_names_are_stable_and_differ_by_container_and_interface() {
        let name = |c: &str, i: &str| key(c, i).port_name();
        // Ports and files of a running node bear these names: a change here loses them.
        assert_eq!(name("abc", "eth0").as_str(), "cv540c4ae81be81");
        assert_ne!(name("abc", "eth0"), name("abc", "eth1"));
        assert_ne!(name("abc", "eth0"), name("abd", "eth0"));
        assert_ne!(name("ab", "ceth0"), name("abc", "eth0"));
    }

    #[test]
    fn a_record_reads_back_as_written() {
        let record = Record {
            key: key("abc", "eth0"),
            network: "culvert".to_owned(),
            pod: Some(PodName { namespace: "default".to_owned(), name: "web".to_owned() }),
            netns: "/run/netns/web".into(),
            boot: "b".to_owned(),
            created: 17,
            phase: Phase::Attaching,
            tenant: Some(5001.try_into().unwrap()),
            socket: Some(Socket { sharing: Sharing::VhostUser, path: "/var/lib/kubelet/pods/1/eth0".into() }),
            lease: Lease {
                port: "cv1".parse().unwrap(),
                addresses: vec!["10.1.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
                gateways: vec!["10.1.0.1".parse().unwrap()],
                mac: "02:00:00:00:00:01".parse().unwrap(),
                mtu: 1450,
            },
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record, "{text}");
    }
}
