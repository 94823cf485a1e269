//! Configuration of culvert-agent.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::ConfigError;
use super::balancing::Balancing;
use super::cni::{Cni, RawCni};
use super::device_plugin::{DevicePlugin, RawDevicePlugin};
use super::nic::{NicPolicy, RawNicPolicy};
use crate::value::{Mtu, Vni};

#[cfg(test)]
mod tests;

/// What `culvert-agent --config FILE` runs with. A section that is absent leaves that part of the agent off.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentConfig {
    /// Name of this node's Node object; absent: the machine's host name.
    pub node: Option<String>,
    /// Unix socket for culvert-cni and culvert.
    pub socket: PathBuf,
    /// Folder for what must outlive the agent: attachments of pods and the journal of NIC changes.
    pub state_dir: PathBuf,
    /// Where `/metrics`, `/healthz` and `/readyz` are served; absent: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Folder of Kubernetes YAML.
    pub manifests: Option<PathBuf>,
    /// Control socket of the fast path.
    pub fastpath: Option<PathBuf>,
    /// The overlay network.
    pub overlay: Overlay,
    /// Who the API server is: the NIC that leads there is left alone.
    pub api_server: ApiServer,
    /// The SR-IOV NICs.
    pub nic: Option<NicPolicy>,
    /// The kubelet device plugin.
    pub device_plugin: Option<DevicePlugin>,
    /// The CNI.
    pub cni: Cni,
}

/// Where it is written who the API server is; without either, kubelet's kubeconfig and the environment tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ApiServer {
    /// Its address or name, and port: `10.0.0.1:6443`, `[fd00::1]:6443`.
    pub host: Option<String>,
    /// A kubeconfig that names it.
    pub kubeconfig: Option<PathBuf>,
}

/// The overlay network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// VXLAN network identifier of the cluster's own routing domain.
    pub vni: Vni,
    /// UDP destination port of VXLAN.
    pub vxlan_port: u16,
    /// Largest IP packet of the underlay, in bytes.
    pub underlay_mtu: Mtu,
    /// Length of the prefix that the nodes' IPv4 underlay addresses share.
    pub underlay_prefix: u8,
    /// Next hop for nodes outside that prefix.
    pub underlay_router: Option<IpAddr>,
    /// How Services spread new flows that do not say it themselves.
    pub balancing: Balancing,
}

impl Overlay {
    /// Bytes that VXLAN over IPv4 adds to a packet: IPv4, UDP and VXLAN headers and the inner Ethernet header.
    pub const VXLAN_OVERHEAD: u16 = 20 + 8 + 8 + 14;

    /// Largest IP packet of a pod, in bytes.
    pub fn pod_mtu(&self) -> u16 {
        self.underlay_mtu.get() - Self::VXLAN_OVERHEAD
    }
}

impl AgentConfig {
    /// Reads a configuration file's text.
    ///
    /// # Errors
    /// [`ConfigError::Yaml`] with line and column when the text is no YAML, holds a key that does not exist or a value
    /// of another type; [`ConfigError::Value`] naming the key when a value makes no sense.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        super::parse::<Raw>(text)?.validate()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Raw {
    node: Option<String>,
    socket: PathBuf,
    state_dir: PathBuf,
    metrics: Option<SocketAddr>,
    manifests: Option<PathBuf>,
    fastpath: Option<RawFastPath>,
    overlay: RawOverlay,
    api_server: ApiServer,
    nic: Option<RawNicPolicy>,
    device_plugin: Option<RawDevicePlugin>,
    cni: RawCni,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawFastPath {
    socket: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawOverlay {
    vni: Vni,
    vxlan_port: u16,
    underlay_mtu: Mtu,
    underlay_prefix: u8,
    underlay_router: Option<IpAddr>,
    balancing: Balancing,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            node: None,
            socket: PathBuf::from("/run/culvert/agent.sock"),
            state_dir: PathBuf::from("/var/lib/culvert"),
            metrics: None,
            manifests: None,
            fastpath: None,
            overlay: RawOverlay::default(),
            api_server: ApiServer::default(),
            nic: None,
            device_plugin: None,
            cni: RawCni::default(),
        }
    }
}

impl Default for RawFastPath {
    fn default() -> Self {
        Self { socket: PathBuf::from("/run/culvert/fastpath.sock") }
    }
}

impl Default for RawOverlay {
    fn default() -> Self {
        Self {
            vni: Vni::try_from(4096).expect("is within 24 bits"),
            vxlan_port: 4789,
            underlay_mtu: Mtu::try_from(1500).expect("is an MTU"),
            underlay_prefix: 24,
            underlay_router: None,
            balancing: Balancing::default(),
        }
    }
}

impl Raw {
    fn validate(self) -> Result<AgentConfig, ConfigError> {
        if let Some(node) = &self.node
            && !is_node_name(node)
        {
            let reason = "must be 1-253 lower-case letters, digits, '-' or '.', as a Node object's name";
            return Err(ConfigError::value("node", format_args!("{node:?}"), reason));
        }
        super::check_socket("socket", &self.socket)?;
        check_absolute("stateDir", &self.state_dir)?;
        if let Some(folder) = &self.manifests {
            check_absolute("manifests", folder)?;
        }
        if let Some(fastpath) = &self.fastpath {
            super::check_socket("fastpath.socket", &fastpath.socket)?;
            if fastpath.socket == self.socket {
                let reason = "is the agent's own socket; the fast path has another";
                return Err(ConfigError::value("fastpath.socket", fastpath.socket.display(), reason));
            }
        }
        Ok(AgentConfig {
            node: self.node,
            socket: self.socket,
            state_dir: self.state_dir,
            metrics: self.metrics,
            manifests: self.manifests,
            fastpath: self.fastpath.map(|f| f.socket),
            overlay: self.overlay.validate()?,
            api_server: self.api_server.validate()?,
            nic: self.nic.map(RawNicPolicy::validate).transpose()?,
            device_plugin: self.device_plugin.map(RawDevicePlugin::validate).transpose()?,
            cni: self.cni.validate()?,
        })
    }
}

impl ApiServer {
    fn validate(self) -> Result<Self, ConfigError> {
        if let Some(host) = &self.host {
            let port = host.rsplit_once(':').filter(|(name, _)| !name.is_empty());
            if !port.is_some_and(|(_, port)| port.parse().is_ok_and(|port: u16| port > 0)) {
                let reason = "must be an address or a name, a colon and a port, such as 10.0.0.1:6443";
                return Err(ConfigError::value("apiServer.host", format_args!("{host:?}"), reason));
            }
        }
        if let Some(kubeconfig) = &self.kubeconfig {
            check_absolute("apiServer.kubeconfig", kubeconfig)?;
        }
        Ok(self)
    }
}

impl RawOverlay {
    fn validate(self) -> Result<Overlay, ConfigError> {
        let Self { vni, vxlan_port, underlay_mtu, underlay_prefix, underlay_router, balancing } = self;
        if vxlan_port == 0 {
            return Err(ConfigError::value("overlay.vxlanPort", vxlan_port, "must be 1-65535"));
        }
        // IPv6 in the pods needs its 1280 bytes after the overlay has taken its share (RFC 8200, section 5).
        let least = Mtu::MIN.get() + Overlay::VXLAN_OVERHEAD;
        if underlay_mtu.get() < least {
            let reason =
                format!("must be at least {least}, so that pods have the {} that IPv6 needs", Mtu::MIN);
            return Err(ConfigError::value("overlay.underlayMtu", underlay_mtu, reason));
        }
        if !(1..=32).contains(&underlay_prefix) {
            return Err(ConfigError::value("overlay.underlayPrefix", underlay_prefix, "must be 1-32"));
        }
        if let Some(router) = underlay_router
            && (router.is_unspecified() || router.is_multicast() || router.is_loopback())
        {
            let reason = "must be the unicast address of a router on the underlay";
            return Err(ConfigError::value("overlay.underlayRouter", router, reason));
        }
        Ok(Overlay { vni, vxlan_port, underlay_mtu, underlay_prefix, underlay_router, balancing })
    }
}

/// Whether `name` is a DNS subdomain (RFC 1123), as names of Node objects are.
fn is_node_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= 253 && name.bytes().all(legal) && edge(name.bytes().next()) && edge(name.bytes().last())
}

fn check_absolute(key: &str, path: &Path) -> Result<(), ConfigError> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(ConfigError::value(key, path.display(), "must be an absolute path"))
}
