//! The node's own way to pods and Services: a port of the fast path in the node's network namespace.
//!
//! The fast path makes the interface; the agent gives it addresses out of the node's pod ranges, and routes for the
//! cluster's pod and Service ranges. All of that goes with the interface: to be rid of the host port is to detach it. What
//! stands against a route is found before anything is made, and what others made is left alone.

mod interface;
mod overlap;

use std::sync::Arc;
use std::time::Duration;

use culvert_api::config::agent::HostPort as Config;
use culvert_api::fastpath::{AttachPortRequest, Info, Port, PortKind};
use culvert_host::netlink::{Netlink, NetlinkError};
use culvert_host::netns::{Netns, NetnsError};
use ipnet::IpNet;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use interface::{HostInterface, HostInterfaceError};
pub use overlap::{Landscape, Overlap};

use crate::errors::chain;
use crate::fastpath::{FastPath, FastPathError};
use crate::health::{Reporter, State};
use crate::kube::{Node, Snapshot};
use crate::pods::{AttachError, Lease, Overlay};
use crate::tables::octets;

/// How often it is looked at whether all is still as it should be.
const PERIOD: Duration = Duration::from_secs(10);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Why the host port is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum HostPortError {
    /// The fast path.
    #[error(transparent)]
    FastPath(#[from] FastPathError),
    /// The node's addresses, or those of the port.
    #[error(transparent)]
    Lease(#[from] AttachError),
    /// A range of this node's pods that the node would not find.
    #[error("pod range {cidr} of this node is in none of overlay.hostPort.podCidrs")]
    Unrouted {
        /// The range.
        cidr: IpNet,
    },
    /// Something of the node is in the way.
    #[error(transparent)]
    Overlap(#[from] Overlap),
    /// The interface.
    #[error(transparent)]
    Interface(#[from] HostInterfaceError),
    /// The node's network namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// What is there already could not be read.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// The task that keeps the host port as it is wanted.
#[derive(Debug)]
pub struct HostPort {
    /// Name of this node.
    pub node: String,
    /// What is wanted; `None`: no such port.
    pub config: Option<Config>,
    /// Who makes the interface.
    pub fastpath: FastPath,
    /// Who knows the node's ranges, and which addresses are given out.
    pub overlay: Arc<Overlay>,
    /// The cluster's objects.
    pub objects: watch::Receiver<Arc<Snapshot>>,
    /// What was last heard of the fast path.
    pub info: watch::Receiver<Option<Info>>,
    /// The part's line.
    pub health: Reporter,
}

impl HostPort {
    /// Runs until `stop`. The port is left as it is then.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            // Read first: what changes meanwhile is a reason to look again.
            let (instance, node) = (self.instance(), self.node_object());
            let pause = match &instance {
                None => PERIOD,
                Some(_) => self.round().await,
            };
            let another_process = async {
                let other =
                    |info: &Option<Info>| info.as_ref().map(|info| &info.instance) != instance.as_ref();
                if self.info.wait_for(other).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let another_node = async {
                let other = |snapshot: &Arc<Snapshot>| {
                    snapshot.objects.nodes.get(self.node.as_str()) != node.as_ref()
                };
                if self.objects.wait_for(other).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
                () = another_process => {}
                () = another_node => {}
            }
        }
    }

    fn instance(&self) -> Option<String> {
        self.info.borrow().as_ref().map(|info| info.instance.clone())
    }

    fn node_object(&self) -> Option<Arc<Node>> {
        self.objects.borrow().objects.nodes.get(self.node.as_str()).cloned()
    }

    /// Does what is to be done, and says how it went. Returns when to look again.
    async fn round(&self) -> Duration {
        match self.keep().await {
            Ok(Some(lease)) => {
                let addresses: Vec<_> = lease.addresses.iter().map(ToString::to_string).collect();
                self.health.set(State::Ok, format!("{}: {}", lease.port, addresses.join(" ")));
                PERIOD
            }
            Ok(None) => {
                self.health.set(State::Off, "");
                PERIOD
            }
            // The fast path's own line says so.
            Err(HostPortError::FastPath(e)) if e.is_away() => RETRY,
            Err(HostPortError::Lease(e @ AttachError::NotReady(_))) => {
                self.health.set(State::Starting, e.to_string());
                RETRY
            }
            Err(e) => {
                self.health.set(State::Degraded, chain(&e));
                RETRY
            }
        }
    }

    async fn keep(&self) -> Result<Option<Lease>, HostPortError> {
        let ports = self.fastpath.ports().await?.ports;
        let wanted =
            |port: &&Port| self.config.as_ref().is_some_and(|config| config.name.as_str() == port.name);
        let (kept, gone): (Vec<_>, Vec<_>) =
            ports.iter().filter(|port| port.kind() == PortKind::Host).partition(wanted);
        for port in gone {
            self.fastpath.detach_port(&port.name).await?;
            info!(port = port.name, "host port removed");
        }
        let Some(config) = &self.config else { return Ok(None) };
        let (lease, ranges) = self.overlay.host_lease(config)?;
        if let Some(cidr) = ranges.iter().find(|cidr| !config.pod_cidrs.iter().any(|all| all.contains(*cidr)))
        {
            return Err(HostPortError::Unrouted { cidr: *cidr });
        }
        let netns = Netns::current()?;
        let landscape = Landscape::of(&Netlink::open()?).await?;
        let there = kept.first().copied();
        landscape.check(config, there.map(|_| config.name.as_str()))?;
        if !there.is_some_and(|port| is_as_wanted(port, &lease)) {
            self.fastpath.attach_port(request(&lease, &self.node)).await?;
        }
        if HostInterface::open(&netns, &lease, &ranges, config)?.set_up().await? {
            info!(port = %lease.port, addresses = ?lease.addresses, "host port set up");
        }
        Ok(Some(lease))
    }
}

fn request(lease: &Lease, node: &str) -> AttachPortRequest {
    AttachPortRequest {
        name: lease.port.to_string(),
        addresses: lease.addresses.iter().map(|a| octets(*a)).collect(),
        mac: lease.mac.octets().to_vec(),
        mtu: lease.mtu.into(),
        owner: format!("node {node}"),
        kind: PortKind::Host.into(),
        ..AttachPortRequest::default()
    }
}

fn is_as_wanted(port: &Port, lease: &Lease) -> bool {
    let addresses: Vec<_> = lease.addresses.iter().map(|a| octets(*a)).collect();
    port.addresses == addresses && port.mac == lease.mac.octets() && port.mtu == u32::from(lease.mtu)
}
