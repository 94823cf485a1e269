//! The far node: a namespace with the kernel's own VXLAN device.

use super::Addresses;
use crate::frame::Outcome;
use crate::net::Netns;

/// A node that is nothing but the kernel. Its pods hang on it by veth; it routes between them and the overlay.
#[derive(Debug)]
pub struct Far {
    netns: Netns,
    number: u8,
}

impl Far {
    /// Kernel interface name of the wire.
    pub const WIRE: &str = "cvup0";

    /// Makes node 1 or 2 of the two; it has no wire yet.
    pub fn create(number: u8) -> Outcome<Self> {
        let netns = Netns::create("far")?;
        netns.sh("for f in ipv4.ip_forward ipv6.conf.all.forwarding; do sysctl -qw net.$f=1; done
            sysctl -qw net.ipv6.conf.default.accept_dad=0")?;
        Ok(Self { netns, number })
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
        // The inner MAC address of a VXLAN tunnel endpoint is 02:63 and its underlay address unless its Node object
        // says otherwise. The peer's first pod address, as a next hop, is never resolved: its neighbour entry is fixed.
        self.netns.ip(&format!(
            "link set cvup0 mtu 1500 up
            addr add 10.1.1.{own}/24 dev cvup0
            addr add fd00:1::{own}/64 dev cvup0 nodad
            link add vxlan0 address 02:63:0a:01:01:0{own} mtu 1450 type vxlan id 4096 dstport 4789 local 10.1.1.{own} nolearning
            link set vxlan0 up
            addr add 10.244.{own}.1/32 dev vxlan0
            neigh add 10.244.{peer}.0 lladdr 02:63:0a:01:01:0{peer} dev vxlan0 nud permanent
            neigh add fd00:244:{peer}:: lladdr 02:63:0a:01:01:0{peer} dev vxlan0 nud permanent
            route add 10.244.{peer}.0/24 via 10.244.{peer}.0 dev vxlan0 onlink
            route add fd00:244:{peer}::/64 via fd00:244:{peer}:: dev vxlan0 onlink",
        ))?;
        self.netns.sh(&format!("bridge fdb add 02:63:0a:01:01:0{peer} dev vxlan0 dst 10.1.1.{peer}"))?;
        Ok(())
    }

    /// Hangs a pod's namespace on the node by a veth pair named after it.
    pub fn add_pod(&self, name: &str, pod: &Netns, addresses: Addresses) -> Outcome {
        let Addresses { v4, v6 } = addresses;
        let own = self.number;
        // IPv6, unlike ARP, answers for an address only on the interface that has it.
        self.netns.ip(&format!(
            "link add {name} mtu 1450 type veth peer name eth0 mtu 1450 netns {}
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
