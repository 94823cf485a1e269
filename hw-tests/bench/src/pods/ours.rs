//! Nodes with culvert-fastpath.

use std::path::Path;
use std::time::Duration;

use culvert_api::fastpath as proto;
use culvert_hw_tests::frame::wait_for;
use culvert_hw_tests::net::{Netns, Process, program};
use culvert_hw_tests::topology::Control;
use nix::sys::signal::{Signal, kill};

use super::{ECHO, HTTP, IPERF, PodsError, Side, VIP, address};

/// Culvert's side.
#[derive(Debug)]
pub(super) struct Ours {
    nodes: [Node; 2],
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

impl Ours {
    /// Worker 1 of node 1 runs on CPU 0, that of node 2 on CPU 1: with everything else, on two CPUs.
    pub(super) fn new(dir: &Path) -> Result<Self, PodsError> {
        let [one, two] = [Netns::create("node1")?, Netns::create("node2")?];
        one.ip(&format!("link add wire mtu 1500 type veth peer name wire netns {}", two.name()))?;
        for node in [&one, &two] {
            // What is longer than the MTU is cut before it enters the wire, as on the kernel's side.
            node.sh("ethtool -K wire gso off tso off gro off tx-udp-segmentation off >/dev/null && ip link set wire up")?;
        }
        let mut nodes = [Node::start(dir, 1, one)?, Node::start(dir, 2, two)?];
        let [one, two] = &mut nodes;
        one.program(1, true)?;
        two.program(2, true)?;
        let (client, near, far) = (one.pod(1, 2)?, one.pod(1, 3)?, two.pod(2, 3)?);
        Ok(Self { nodes, client, near, far })
    }

    /// Kills what forwards on node 1, as `kill -9` does; its keeper goes on.
    pub(super) fn kill_forwarder(&self) -> Result<(), PodsError> {
        for id in self.nodes[0].process.children()? {
            kill(id, Signal::SIGKILL).map_err(|error| PodsError::Load(format!("kill: {error}")))?;
        }
        Ok(())
    }

    /// CPU time of both fast paths so far, in seconds.
    pub(super) fn cpu_seconds(&self) -> Result<f64, PodsError> {
        let mut sum = 0.0;
        for node in &self.nodes {
            sum += node.process.cpu_seconds()?;
        }
        Ok(sum)
    }
}

impl Side for Ours {
    fn client(&self) -> &Netns {
        &self.client
    }

    fn near(&self) -> &Netns {
        &self.near
    }

    fn far(&self) -> &Netns {
        &self.far
    }

    fn serve(&mut self, far: bool) -> Result<(), PodsError> {
        self.nodes[0].program(1, far)
    }
}

impl Node {
    fn start(dir: &Path, number: u8, netns: Netns) -> Result<Self, PodsError> {
        let (name, socket) = (format!("fastpath{number}"), dir.join(format!("{number}.sock")));
        let config = dir.join(format!("{name}.yaml"));
        let text = format!(
            "socket: {}\ncontrolCpu: 0\nworkers: [{}]\n\
             memory: {{ hugepages: preferred, megabytes: 96, mbufs: 8192 }}\nflows: 65536\n\
             uplink: {{ afPacket: {{ interface: wire, mac: \"02:00:00:00:09:0{number}\" }} }}\n",
            socket.display(),
            number - 1,
        );
        std::fs::write(&config, text).map_err(PodsError::io("write the configuration"))?;
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
    fn pod(&self, number: u8, pod: u8) -> Result<Netns, PodsError> {
        let netns = Netns::create(&format!("pod{number}{pod}"))?;
        let (name, address) = (format!("pod{pod}"), address(number, pod));
        self.control.attach(proto::AttachPortRequest {
            name: name.clone(),
            addresses: vec![octets(&address)],
            mac: vec![2, 0, 0, 1, number, pod],
            mtu: 1450,
            owner: format!("bench/{name}"),
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
    fn program(&mut self, own: u8, far: bool) -> Result<(), PodsError> {
        self.revision += 1;
        let peer = 3 - own;
        let cidr = |node: u8| vec![proto::Prefix { address: vec![10, 244, node, 0], prefix_len: 24 }];
        let mac = |node: u8| vec![2, 0x63, 192, 168, 9, node];
        let service = |(protocol, port): (proto::Protocol, u16)| proto::Service {
            namespace: "bench".to_owned(),
            name: "service".to_owned(),
            port_name: format!("{protocol:?}{port}"),
            protocol: protocol.into(),
            vip: octets(VIP),
            port: port.into(),
            backends: vec![proto::Backend {
                address: octets(&address(if far { 2 } else { 1 }, 3)),
                port: port.into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        use proto::Protocol::{Tcp, Udp};
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
                vni: 4096,
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
            services: [(Tcp, IPERF), (Udp, IPERF), (Tcp, ECHO), (Tcp, HTTP)].map(service).to_vec(),
        })?;
        Ok(())
    }
}

fn octets(address: &str) -> Vec<u8> {
    address.split('.').filter_map(|part| part.parse().ok()).collect()
}
