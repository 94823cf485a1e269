//! A node that runs Culvert, and a far node that is nothing but the Linux kernel.
//!
//! ```text
//!  pod-a  pod-b  client            pod-c  pod-d
//!    |      |      |                 |      |        veth
//!  culvert-fastpath (node)         kernel routing and VXLAN (far)
//!    |                               |
//!    +---------- cvup0 --------------+                underlay 10.1.1.0/24, fd00:1::/64
//! ```
//! The uplink tap's kernel end lives in the far node's namespace, so it is the wire between the two, unless there is a
//! [`Wire`].

mod address;
mod agent;
pub mod cni;
mod control;
mod far;
pub mod manifest;
pub mod netdevsim;
mod node;
mod pod;
pub mod sriov;
mod two_nodes;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

pub use address::{Addresses, CLUSTER_IP, FAR_VTEP, Family, GATEWAY, VTEP, pod_address};
pub use agent::Agent;
pub use control::Control;
pub use far::Far;
pub use node::Node;
pub use pod::Pod;
pub use two_nodes::TwoNodes;
pub use wire::{Quality, Wire};

use crate::frame::{Context, Outcome, Stop, wait_for};
use crate::net;
use manifest::{Manifests, Service};
use sriov::Pf;

/// Port that the servers in the pods listen on, over TCP and UDP.
pub const POD_PORT: u16 = 8080;
/// Port of the Service.
pub const SERVICE_PORT: u16 = 80;
/// The uplink where it is an interface that the kernel keeps.
const VETH: &str = "uplink0";
/// What a bad wire's choice of packets begins with.
const SEED: u32 = 5;
/// The pods that serve: two here, two on the far node.
pub const BACKENDS: [&str; 4] = ["pod-a", "pod-b", "pod-c", "pod-d"];

impl Drop for Topology {
    /// Leaves the fast path's counters where the report of a failure finds them.
    fn drop(&mut self) {
        let counters = self.node.control().and_then(|control| control.counters());
        // Without a fast path there is nothing to tell.
        if let Ok(counters) = counters {
            let _ = std::fs::write(self.dir.join("counters.log"), control::describe(&counters));
        }
    }
}

/// Both nodes with their pods, and a Service over all that serve.
#[derive(Debug)]
pub struct Topology {
    dir: PathBuf,
    // Dropped in this order: pods go before the nodes that they hang on.
    pods: BTreeMap<&'static str, Pod>,
    /// The node that runs Culvert.
    pub node: Node,
    /// The kernel's node.
    pub far: Far,
    /// What lies between the two, if anything.
    pub wire: Option<Wire>,
}

impl Topology {
    /// Starts everything and returns when the Service has been programmed.
    pub fn start(context: &Context) -> Outcome<Self> {
        Self::start_over(context, Family::V4)
    }

    /// The same with tunnels over either IP version.
    pub fn start_over(context: &Context, underlay: Family) -> Outcome<Self> {
        Self::start_with(context, underlay, "")
    }

    /// The same with `overlay`, which begins with a comma, in the agent's configuration of the overlay.
    pub fn start_with(context: &Context, underlay: Family, overlay: &str) -> Outcome<Self> {
        Self::configured(context, underlay, overlay)?.with_pods(context)
    }

    /// The same with more lines, which end in a line break, in the fast path's configuration.
    pub fn start_with_fastpath(context: &Context, lines: &str) -> Outcome<Self> {
        Self::laid_out(context, Family::V4, ["", lines], on_the_tap)?.with_pods(context)
    }

    /// The same with a [`Wire`] between the nodes, which is a bad one if it has a `quality`.
    pub fn start_across(
        context: &Context,
        underlay: Family,
        overlay: &str,
        quality: Option<Quality>,
    ) -> Outcome<Self> {
        let lay = |node: &mut Node, far: &Far| {
            node.start_fastpath()?;
            let mut wire = Wire::create(node.netns())?;
            match quality {
                None => wire.connect()?,
                Some(quality) => wire.connect_badly(quality, SEED, context.dir())?,
            }
            far.take_wire(wire.netns())?;
            Ok(Some(wire))
        };
        Self::laid_out(context, underlay, [overlay, ""], lay)?.with_pods(context)
    }

    /// The same with a NIC that the kernel has given away as uplink, and one of the kernel's on the same wire for the far node.
    pub fn start_by_nic(context: &Context, ours: &Pf, far: &Pf) -> Outcome<Self> {
        let uplink = format!("uplink: {{ nic: {{ pci: '{}' }} }}\n", ours.pci);
        let lay = |node: &mut Node, other: &Far| {
            let netns = node.netns().name();
            for arguments in [
                format!("link set {} down", far.interface),
                format!("link set {} name {} netns {netns}", far.interface, Far::WIRE),
            ] {
                net::run(Command::new("ip").args(arguments.split(' ')))?.success()?;
            }
            let wire = on_the_tap(node, other)?;
            // An emulated NIC makes no checksums inside of tunnels.
            other.netns().sh(&format!("ethtool -K {} tx off >&2", Far::WIRE))?;
            Ok(wire)
        };
        Self::laid_out(context, Family::V4, ["", &uplink], lay)?.with_pods(context)
    }

    /// The same with a veth to the far node, whose near end is the uplink by packet sockets, and more lines of the fast path's
    /// configuration.
    pub fn start_by_veth(context: &Context, lines: &str) -> Outcome<Self> {
        let uplink = format!("uplink: {{ afPacket: {{ interface: {VETH} }} }}\n{lines}");
        let lay = |node: &mut Node, far: &Far| {
            let wire = Far::WIRE;
            node.netns().ip(&format!(
                "link add {VETH} mtu 1500 type veth peer name {wire} mtu 1500\nlink set {VETH} up"
            ))?;
            // What is longer than the MTU is cut before it enters the wire.
            for end in [VETH, wire] {
                node.netns().sh(&format!(
                    "ethtool -K {end} tx off gso off tso off gro off tx-udp-segmentation off >&2"
                ))?;
            }
            node.start_fastpath()?;
            far.take_wire(node.netns()).map(|()| None)
        };
        Self::laid_out(context, Family::V4, ["", &uplink], lay)?.with_pods(context)
    }

    fn with_pods(mut self, context: &Context) -> Outcome<Self> {
        let net = &mut self;
        for name in ["pod-a", "pod-b", "client"] {
            let pod = Pod::local(context, &net.node, name)?;
            net.pods.insert(name, pod);
        }
        for (index, name) in ["pod-c", "pod-d"].into_iter().enumerate() {
            let pod = Pod::far(context, &net.far, name, pod_address(2, index as u8))?;
            net.node.manifests.pod(&pod, "node-b")?;
            net.pods.insert(name, pod);
        }
        for name in BACKENDS {
            net.pod(name).wait_until_serving()?;
        }
        net.node.manifests.service(&net.web(&BACKENDS))?;
        net.wait_for_backends(BACKENDS.len())?;
        Ok(self)
    }

    /// Both nodes, and no pod.
    pub fn without_pods(context: &Context) -> Outcome<Self> {
        Self::configured(context, Family::V4, "")
    }

    /// The same with tunnels over `underlay` and with more in the agent's configuration of the overlay.
    pub fn configured(context: &Context, underlay: Family, overlay: &str) -> Outcome<Self> {
        Self::laid_out(context, underlay, [overlay, ""], on_the_tap)
    }

    /// With more keys of the agent's overlay, and more lines of the fast path's configuration. `lay` starts the fast path, and lays
    /// the wire.
    fn laid_out(
        context: &Context,
        underlay: Family,
        [overlay, fastpath]: [&str; 2],
        lay: impl FnOnce(&mut Node, &Far) -> Outcome<Option<Wire>>,
    ) -> Outcome<Self> {
        let far = Far::create(2, underlay)?;
        let manifests = Manifests::create(context.dir())?;
        manifests.nodes(underlay)?;
        let mut node = Node::create(context, manifests, overlay, fastpath)?;
        let wire = lay(&mut node, &far)?;
        node.start_agent()?;
        Ok(Self { dir: context.dir().to_owned(), pods: BTreeMap::new(), node, far, wire })
    }

    /// A pod by name.
    ///
    /// # Panics
    /// When there is none: a mistake of the case.
    pub fn pod(&self, name: &str) -> &Pod {
        self.pods.get(name).unwrap_or_else(|| panic!("there is no pod {name}"))
    }

    /// The Service "web", over some of the pods.
    pub fn web(&self, backends: &[&str]) -> Service {
        let backends = backends.iter().map(|name| (name.to_string(), self.pod(name).addresses)).collect();
        Service {
            namespace: "default".to_owned(),
            name: "web".to_owned(),
            cluster_ip: CLUSTER_IP,
            backends,
            target: POD_PORT,
            balancing: None,
            affinity: 0,
        }
    }

    /// Where the Service "web" is.
    pub fn web_address(family: Family) -> SocketAddr {
        SocketAddr::new(CLUSTER_IP.get(family), SERVICE_PORT)
    }

    /// Waits until every virtual address of the fast path has `count` backends for TCP and UDP.
    pub fn wait_for_backends(&self, count: usize) -> Outcome {
        let what = format!("the Service has {count} backends");
        wait_for(&what, Duration::from_secs(5), || {
            let mut services = self.node.control()?.services()?;
            // Those for pings come on top, if they are wanted.
            services.retain(|service| service.port != 0);
            let ready = services.len() == 4 && services.iter().all(|s| s.backends.len() == count);
            Ok(ready.then_some(()))
        })
        .map_err(|stop: Stop| stop.while_doing("programming the fast path"))
    }
}

/// Nothing between the nodes: the far one has the uplink's kernel end.
fn on_the_tap(node: &mut Node, far: &Far) -> Outcome<Option<Wire>> {
    node.start_fastpath()?;
    far.take_wire(node.netns()).map(|()| None)
}
