//! The far node: a namespace with the kernel's own VXLAN device.

use super::{Addresses, Family};
use crate::frame::Outcome;
use crate::net::Netns;

/// A node that is nothing but the kernel. Its pods hang on it by veth; it routes between them and the overlay.
#[derive(Debug)]
pub struct Far {
    netns: Netns,
    number: u8,
    underlay: Family,
}

impl Far {
    /// Kernel interface name of the wire.
    pub const WIRE: &str = "cvup0";

    /// Makes node 1 or 2 of the two, whose tunnel goes over `underlay`; it has no wire yet.
    pub fn create(number: u8, underlay: Family) -> Outcome<Self> {
        let netns = Netns::create("far")?;
        netns.sh("for f in ipv4.ip_forward ipv6.conf.all.forwarding; do sysctl -qw net.$f=1; done
            sysctl -qw net.ipv6.conf.default.accept_dad=0")?;
        Ok(Self { netns, number, underlay })
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Takes interface [`Far::WIRE`] out of `node` and sets up underlay and overlay on it.
    pub fn take_wire(&self, node: &Netns) -> Outcome {
        node.ip(&format!("link set {} netns {}", Self::WIRE, self.netns.name()))?;
        let own = self.number;
        let peer = 3 - own;
        self.netns.ip(&format!(
            "link set cvup0 mtu 1500 up
            addr add 10.1.1.{own}/24 dev cvup0
            addr add fd00:1::{own}/64 dev cvup0 nodad",
        ))?;
        self.add_tunnel("vxlan0", 4096)?;
        self.netns.ip(&format!("link set vxlan0 up\naddr add 10.244.{own}.1/32 dev vxlan0"))?;
        self.lead_through(&self.netns, "vxlan0", peer)
    }

    /// Takes the kernel's Geneve device in place of that for VXLAN, or of an earlier one: over `underlay` from now on.
    pub fn take_geneve(&mut self, underlay: Family) -> Outcome {
        self.underlay = underlay;
        let (own, peer) = (self.number, 3 - self.number);
        let (mac, mtu, remote) = (self.inner_mac(own), self.mtu(), self.underlay_address(peer));
        self.netns.sh("for d in vxlan0 geneve0; do [ ! -e /sys/class/net/$d ] || ip link del $d; done")?;
        // It has one peer, and takes as its own address what the route to that gives.
        self.netns.ip(&format!(
            "link add geneve0 address {mac} mtu {mtu} type geneve id 4096 dstport 6081 remote {remote}
            link set geneve0 up
            addr add 10.244.{own}.1/32 dev geneve0"
        ))?;
        self.lead_through(&self.netns, "geneve0", peer)
    }

    /// Makes a VXLAN device to the other node.
    fn add_tunnel(&self, name: &str, vni: u32) -> Outcome {
        let own = self.number;
        let peer = 3 - own;
        let (mac, peer_mac, mtu) = (self.inner_mac(own), self.inner_mac(peer), self.mtu());
        let (local, remote) = (self.underlay_address(own), self.underlay_address(peer));
        self.netns.ip(&format!(
            "link add {name} address {mac} mtu {mtu} type vxlan id {vni} dstport 4789 local {local} nolearning"
        ))?;
        self.netns.sh(&format!("bridge fdb add {peer_mac} dev {name} dst {remote}"))?;
        Ok(())
    }

    /// Routes to the other node's pods through a VXLAN device. Their first address, as a next hop, is never resolved: its
    /// neighbour entry is fixed.
    fn lead_through(&self, netns: &Netns, device: &str, peer: u8) -> Outcome {
        let peer_mac = self.inner_mac(peer);
        netns.ip(&format!(
            "neigh add 10.244.{peer}.0 lladdr {peer_mac} dev {device} nud permanent
            neigh add fd00:244:{peer}:: lladdr {peer_mac} dev {device} nud permanent
            route add 10.244.{peer}.0/24 via 10.244.{peer}.0 dev {device} onlink
            route add fd00:244:{peer}::/64 via fd00:244:{peer}:: dev {device} onlink"
        ))
    }

    fn underlay_address(&self, node: u8) -> String {
        match self.underlay {
            Family::V4 => format!("10.1.1.{node}"),
            Family::V6 => format!("fd00:1::{node}"),
        }
    }

    /// The inner MAC address of a tunnel endpoint is 02:63 and the last four bytes of its underlay address unless its Node
    /// object says otherwise.
    fn inner_mac(&self, node: u8) -> String {
        match self.underlay {
            Family::V4 => format!("02:63:0a:01:01:0{node}"),
            Family::V6 => format!("02:63:00:00:00:0{node}"),
        }
    }

    /// Largest IP packet that fits into the tunnel, in bytes.
    pub fn mtu(&self) -> u16 {
        match self.underlay {
            Family::V4 => 1450,
            Family::V6 => 1430,
        }
    }

    /// Makes a pod's namespace one end of another network over the same wire: its only interface is a VXLAN device.
    pub fn add_tenant(&self, pod: &Netns, vni: u32, addresses: Addresses) -> Outcome {
        let Addresses { v4, v6 } = addresses;
        let name = format!("vxlan{vni}");
        self.add_tunnel(&name, vni)?;
        // It goes on to send and receive through the namespace that it was made in.
        self.netns.ip(&format!("link set {name} netns {}", pod.name()))?;
        pod.ip(&format!(
            "link set {name} up\naddr add {v4}/32 dev {name}\naddr add {v6}/128 dev {name} nodad"
        ))?;
        self.lead_through(pod, &name, 3 - self.number)
    }

    /// Hangs a pod's namespace on the node by a veth pair named after it.
    pub fn add_pod(&self, name: &str, pod: &Netns, addresses: Addresses) -> Outcome {
        let Addresses { v4, v6 } = addresses;
        let (own, mtu) = (self.number, self.mtu());
        // IPv6, unlike ARP, answers for an address only on the interface that has it.
        self.netns.ip(&format!(
            "link add {name} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}
            link set {name} up
            addr add fd00:244:{own}::1/128 dev {name} nodad",
            pod.name()
        ))?;
        pod.ip(&format!(
            "link set eth0 up
            addr add {v4}/32 dev eth0
            addr add {v6}/128 dev eth0 nodad
            route add 10.244.{own}.1 dev eth0
            route add fd00:244:{own}::1 dev eth0
            route add default via 10.244.{own}.1
            route add default via fd00:244:{own}::1 dev eth0"
        ))?;
        self.netns.ip(&format!("route add {v4}/32 dev {name}\nroute add {v6}/128 dev {name}"))
    }
}
