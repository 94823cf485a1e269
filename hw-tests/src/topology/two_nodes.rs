//! Two nodes with culvert-fastpath and no agent: the tables are written here.
//!
//! ```text
//!  client  near                     far
//!     |     |                        |
//!  culvert-fastpath (node 1)  culvert-fastpath (node 2)
//!     +------------ wire ------------+               a veth, by packet sockets
//! ```

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use culvert_api::fastpath as proto;
use nix::sys::signal::{Signal, kill};

use super::Control;
use crate::frame::{Outcome, wait_for};
use crate::net::{Netns, Process, program};

/// Both nodes and their pods, and a Service.
#[derive(Debug)]
pub struct TwoNodes {
    nodes: [Node; 2],
    ports: Vec<(proto::Protocol, u16)>,
    client: Netns,
    near: Netns,
    far: Netns,
}

#[derive(Debug)]
struct Node {
    control: Control,
    process: Process,
    netns: Netns,
    revision: u64,
}

impl TwoNodes {
    /// Address of the Service.
    pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
    /// Interface of each node towards the other.
    pub const WIRE: &str = "wire";
    /// Network of the tunnels.
    pub const VNI: u32 = 4096;

    /// Address of pod `number` on node 1 or 2: number 2 is the client, 3 the server.
    pub const fn address(node: u8, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, node, number)
    }

    /// Starts both, with a Service of these ports, which lead to the far server. Worker 1 of node 1 runs on CPU 0, that of node 2
    /// on CPU 1: with everything else, on two CPUs.
    pub fn start(dir: &Path, ports: &[(proto::Protocol, u16)]) -> Outcome<Self> {
        let [one, two] = [Netns::create("node1")?, Netns::create("node2")?];
        one.ip(&format!("link add wire mtu 1500 type veth peer name wire netns {}", two.name()))?;
        for node in [&one, &two] {
            // What is longer than the MTU is cut before it enters the wire, as on any other.
            node.sh("ethtool -K wire gso off tso off gro off tx-udp-segmentation off >/dev/null && ip link set wire up")?;
        }
        let mut nodes = [Node::start(dir, 1, one)?, Node::start(dir, 2, two)?];
        let [one, two] = &mut nodes;
        one.program(1, true, ports)?;
        two.program(2, true, ports)?;
        let (client, near, far) = (one.pod(1, 2)?, one.pod(1, 3)?, two.pod(2, 3)?);
        Ok(Self { nodes, ports: ports.to_vec(), client, near, far })
    }

    /// The client, a pod of node 1.
    pub fn client(&self) -> &Netns {
        &self.client
    }

    /// A server on the same node.
    pub fn near(&self) -> &Netns {
        &self.near
    }

    /// A server on node 2.
    pub fn far(&self) -> &Netns {
        &self.far
    }

    /// The namespaces of both nodes, each of which has an end of the wire.
    pub fn nodes(&self) -> [&Netns; 2] {
        [&self.nodes[0].netns, &self.nodes[1].netns]
    }

    /// Lets the address of the Service lead to the near or to the far server.
    pub fn serve(&mut self, far: bool) -> Outcome {
        self.nodes[0].program(1, far, &self.ports)
    }

    /// Kills what forwards on node 1, as `kill -9` does; its keeper goes on.
    pub fn kill_forwarder(&self) -> Outcome {
        for id in self.nodes[0].process.children()? {
            kill(id, Signal::SIGKILL)?;
        }
        Ok(())
    }

    /// CPU time of both fast paths so far, in seconds.
    pub fn cpu_seconds(&self) -> Outcome<f64> {
        let mut sum = 0.0;
        for node in &self.nodes {
            sum += node.process.cpu_seconds()?;
        }
        Ok(sum)
    }
}

impl Node {
    fn start(dir: &Path, number: u8, netns: Netns) -> Outcome<Self> {
        let (name, socket) = (format!("fastpath{number}"), dir.join(format!("{number}.sock")));
        let config = dir.join(format!("{name}.yaml"));
        let text = format!(
            "socket: {}\ncontrolCpu: 0\nworkers: [{}]\n\
             memory: {{ hugepages: preferred, megabytes: 96, mbufs: 8192 }}\nflows: 65536\n\
             uplink: {{ afPacket: {{ interface: wire, mac: \"02:00:00:00:09:0{number}\" }} }}\n",
            socket.display(),
            number - 1,
        );
        std::fs::write(&config, text)?;
        let mut command = netns.command(program("culvert-fastpath")?);
        command.arg("--config").arg(&config);
        let mut process = Process::spawn(&name, &mut command, dir)?;
        let control = wait_for("culvert-fastpath serves", Duration::from_secs(20), || {
            process.check_alive()?;
            let control = Control::connect(&socket).ok();
            Ok(control.filter(|control| control.info().is_ok()))
        })?;
        Ok(Self { control, process, netns, revision: 0 })
    }

    /// Attaches a pod, as the agent and the CNI do.
    fn pod(&self, number: u8, pod: u8) -> Outcome<Netns> {
        let netns = Netns::create(&format!("pod{number}{pod}"))?;
        let (name, address) = (format!("pod{pod}"), TwoNodes::address(number, pod));
        self.control.attach(proto::AttachPortRequest {
            name: name.clone(),
            addresses: vec![address.octets().to_vec()],
            mac: vec![2, 0, 0, 1, number, pod],
            mtu: 1450,
            owner: format!("default/{name}"),
            ..Default::default()
        })?;
        self.netns.ip(&format!("link set {name} netns {}", netns.name()))?;
        netns.ip(&format!(
            "link set {name} name eth0
            link set eth0 up
            addr add {address}/32 dev eth0
            route add 10.244.{number}.1 dev eth0 scope link
            route add default via 10.244.{number}.1"
        ))?;
        Ok(netns)
    }

    /// Programs node `own`; the Service's endpoint is on node 2 if it is `far`.
    fn program(&mut self, own: u8, far: bool, ports: &[(proto::Protocol, u16)]) -> Outcome {
        self.revision += 1;
        let peer = 3 - own;
        let cidr = |node: u8| vec![proto::Prefix { address: vec![10, 244, node, 0], prefix_len: 24 }];
        let mac = |node: u8| vec![2, 0x63, 192, 168, 9, node];
        let service = |&(protocol, port): &(proto::Protocol, u16)| proto::Service {
            namespace: "default".to_owned(),
            name: "service".to_owned(),
            port_name: format!("{protocol:?}{port}"),
            protocol: protocol.into(),
            vip: TwoNodes::VIP.octets().to_vec(),
            port: port.into(),
            backends: vec![proto::Backend {
                address: TwoNodes::address(if far { 2 } else { 1 }, 3).octets().to_vec(),
                port: port.into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        self.control.replace(proto::Tables {
            revision: self.revision,
            synced: true,
            node: Some(proto::LocalNode {
                name: format!("node-{own}"),
                gateways: vec![vec![10, 244, own, 1]],
                gateway_mac: vec![2, 0, 0, 0, 0xff, own],
                underlay: vec![proto::UnderlayAddress {
                    address: vec![192, 168, 9, own],
                    prefix_len: 24,
                    router: vec![],
                }],
                vtep_mac: mac(own),
                vni: TwoNodes::VNI,
                pod_cidrs: cidr(own),
                ..Default::default()
            }),
            remotes: vec![proto::RemoteNode {
                name: format!("node-{peer}"),
                vtep: vec![192, 168, 9, peer],
                vtep_mac: mac(peer),
                pod_cidrs: cidr(peer),
                ..proto::RemoteNode::default()
            }],
            services: ports.iter().map(service).collect(),
        })?;
        Ok(())
    }
}
