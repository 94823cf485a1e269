//! Configuration of culvert-agent.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use self::host_port::HostPort;
use self::overlay::RawOverlay;
pub use self::overlay::{DscpModel, EcnMode, Encapsulation, Overlay, Tenant, Ttl, ZeroChecksum};
use super::ConfigError;
use super::cni::{Cni, RawCni};
use super::device_plugin::{DevicePlugin, RawDevicePlugin};
use super::nic::{NicPolicy, RawNicPolicy};

mod host_port;
mod overlay;
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
