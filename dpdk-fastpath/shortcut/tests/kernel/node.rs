//! Nodes with the short cut, and pods.

use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;

use culvert_packet::encap::{Encapsulation, Endpoints, Marking, Template, Tunnel};
use culvert_packet::eth::EthAddr;
use culvert_shortcut::{End, Joined, Kernel, Remote, Slots, Surroundings, Tunnelled};

use crate::netns::Netns;
use crate::tap::Tap;

/// The pods' router.
pub(crate) const GATEWAY: EthAddr = EthAddr([2, 0, 0, 0, 0xff, 1]);
/// Network on the wire.
pub(crate) const VNI: u32 = 4096;
/// Packets of pods.
pub(crate) const MTU: u16 = 1450;
/// The epoch of all that is decided.
pub(crate) const EPOCH: u32 = 5;
/// Ticks of the slots' clock in a second.
const HZ: u64 = 1000;

/// A node, by its number.
pub(crate) struct Node {
    pub(crate) number: u8,
    pub(crate) netns: Netns,
    pub(crate) slots: Slots,
    pub(crate) kernel: Kernel,
}

/// A pod.
pub(crate) struct Pod {
    pub(crate) netns: Netns,
    pub(crate) tap: Tap,
    pub(crate) address: Ipv4Addr,
    pub(crate) mac: EthAddr,
}

impl Node {
    /// Without uplink.
    pub(crate) fn new(number: u8) -> Self {
        Self::with_slots(number, 4096)
    }

    /// The same, with so many slots.
    pub(crate) fn with_slots(number: u8, slots: u32) -> Self {
        Self::within(Netns::new(&format!("n{number}")), number, slots)
    }

    /// The same in a network namespace that is there.
    pub(crate) fn within(netns: Netns, number: u8, slots: u32) -> Self {
        let kernel = netns.within(|| Kernel::load(slots).unwrap());
        let slots = Slots::new(kernel.memory().clone(), HZ);
        kernel.memory().set_surroundings(&Surroundings {
            gateway: GATEWAY,
            uplink: wire_mac(number),
            tunnelled: Some(Tunnelled {
                vtep: vtep(number),
                port: Encapsulation::Vxlan.port(),
                vni: VNI,
                mac: vtep_mac(number),
            }),
        });
        kernel.memory().set_epoch(EPOCH);
        Self { number, netns, slots, kernel }
    }

    /// With a pod at port `port` that has joined.
    pub(crate) fn pod(&mut self, port: u16) -> Pod {
        let pod = Pod::new(self, port);
        let joined = self.netns.within(|| self.kernel.join_pod(port, pod.tap.as_fd()));
        assert_eq!(joined.unwrap(), Joined::Joined);
        pod
    }

    /// Joins the uplink, which has these packet sockets, and makes `remote` way 0 for packets up to `mtu` bytes. Its pods have
    /// addresses in 10.244.`remote`.0/24.
    pub(crate) fn connect(&mut self, remote: u8, mtu: u16) {
        let mac = wire_mac(self.number);
        self.netns.within(|| self.kernel.join_uplink("wire", mac, false)).unwrap();
        self.set_way(remote, mtu);
    }

    /// Makes `remote` way 0 for packets up to `mtu` bytes.
    pub(crate) fn set_way(&self, remote: u8, mtu: u16) {
        let tunnel = Tunnel {
            outer_dst: wire_mac(remote),
            outer_src: wire_mac(self.number),
            endpoints: Endpoints::V4 { src: vtep(self.number), dst: vtep(remote) },
            encapsulation: Encapsulation::Vxlan,
            vni: VNI,
            udp_port: Encapsulation::Vxlan.port(),
            marking: Marking::default(),
            zero_checksum6: false,
            inner_dst: vtep_mac(remote),
            inner_src: vtep_mac(self.number),
        };
        let template = Template::new(&tunnel);
        let pods = Some((Ipv4Addr::new(10, 244, remote, 0), Ipv4Addr::new(255, 255, 255, 0)));
        let way = Remote { vtep: vtep(remote), template: template.fixed4().unwrap(), mtu, pods };
        assert!(self.kernel.memory().set_way(0, Some(&way)));
    }

    /// Says that the kernel may take connections to a pod without asking, or no longer.
    pub(crate) fn welcomes(&self, pod: &Pod, port: u16, does: bool) {
        self.kernel.memory().set_place(pod.address, End::Door(port), does);
    }

    /// What the programs have dropped: undecided, not rewritten, from the node, with a VLAN tag.
    pub(crate) fn dropped(&self) -> [u64; 4] {
        self.kernel.dropped().unwrap().map(|(_, count)| count)
    }

    /// Joins the node's network namespace with another one by a cable with a NIC at each end that cuts no packets.
    pub(crate) fn wire(&self, remote: u8, other: &Netns) {
        let name = other.name();
        self.netns.ip(&format!("link add wire mtu 1500 type veth peer name wire netns {name}"));
        for (number, netns) in [(self.number, &self.netns), (remote, other)] {
            netns.ip(&format!("link set wire address {} up", wire_mac(number)));
            netns.run("ethtool -K wire gso off tso off gro off tx-udp-segmentation off");
        }
    }
}

impl Pod {
    /// Whose port has not been joined.
    pub(crate) fn new(node: &Node, port: u16) -> Self {
        let pod = Self {
            netns: Netns::new(&format!("p{port}")),
            tap: node.netns.within(|| Tap::new("tap0")),
            address: Ipv4Addr::new(10, 244, node.number, port as u8),
            mac: EthAddr([2, 0, 0, 1, node.number, port as u8]),
        };
        node.netns.ip(&format!("link set tap0 netns {}", pod.netns.name()));
        let (address, mac) = (pod.address, pod.mac);
        for command in [
            format!("link set tap0 mtu {MTU} address {mac} up"),
            format!("addr add {address}/32 dev tap0"),
            "route add 169.254.1.1 dev tap0 scope link".to_owned(),
            "route add default via 169.254.1.1".to_owned(),
            format!("neigh add 169.254.1.1 lladdr {GATEWAY} dev tap0"),
        ] {
            pod.netns.ip(&command);
        }
        pod
    }
}

/// Underlay address of a node.
pub(crate) fn vtep(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 9, node)
}

/// Ethernet address of its uplink.
pub(crate) fn wire_mac(node: u8) -> EthAddr {
    EthAddr([2, 0, 0, 0, 9, node])
}

/// Its Ethernet address in the tunnel.
pub(crate) fn vtep_mac(node: u8) -> EthAddr {
    EthAddr([2, 0, 0, 0, 0xaa, node])
}
