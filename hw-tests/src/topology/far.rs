//! The far node: a namespace with the kernel's own VXLAN device.

use crate::frame::Outcome;
use crate::net::Netns;

/// The kernel's node. Its pods hang on it by veth; it routes between them and the overlay.
#[derive(Debug)]
pub struct Far {
    netns: Netns,
}

impl Far {
    /// Kernel interface name of the wire.
    pub const WIRE: &str = "cvup0";

    /// Makes the namespace; it has no wire yet.
    pub fn create() -> Outcome<Self> {
        let netns = Netns::create("far")?;
        netns.sh("for f in ipv4.ip_forward ipv6.conf.all.forwarding; do sysctl -qw net.$f=1; done
            sysctl -qw net.ipv6.conf.default.accept_dad=0")?;
        Ok(Self { netns })
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Takes the kernel end of the fast path's uplink tap out of `node` and sets up underlay and overlay on it.
    pub fn take_wire(&self, node: &Netns) -> Outcome {
        node.ip(&format!("link set {} netns {}", Self::WIRE, self.netns.name()))?;
        // The inner MAC address of a VXLAN tunnel endpoint is 02:63 and its underlay address unless its Node object
        // says otherwise. `via` a pod range's first address is never resolved: the neighbour entry says all.
        self.netns.ip(
            "link set cvup0 mtu 1500 up
            addr add 10.1.1.2/24 dev cvup0
            addr add fd00:1::2/64 dev cvup0 nodad
            link add vxlan0 address 02:63:0a:01:01:02 mtu 1450 type vxlan id 4096 dstport 4789 local 10.1.1.2 nolearning
            link set vxlan0 up
            addr add 10.244.2.1/32 dev vxlan0
            addr add fd00:244:2::1/128 dev vxlan0 nodad
            neigh add 10.244.1.0 lladdr 02:63:0a:01:01:01 dev vxlan0 nud permanent
            neigh add fd00:244:1:: lladdr 02:63:0a:01:01:01 dev vxlan0 nud permanent
            route add 10.244.1.0/24 via 10.244.1.0 dev vxlan0 onlink
            route add fd00:244:1::/64 via fd00:244:1:: dev vxlan0 onlink",
        )?;
        self.netns.sh("bridge fdb add 02:63:0a:01:01:01 dev vxlan0 dst 10.1.1.1")?;
        Ok(())
    }

    /// Hangs a pod's namespace on the node by a veth pair named after it.
    pub fn add_pod(&self, name: &str, pod: &Netns, addresses: super::Addresses) -> Outcome {
        let super::Addresses { v4, v6 } = addresses;
        self.netns.ip(&format!(
            "link add {name} mtu 1450 type veth peer name eth0 mtu 1450 netns {}
            link set {name} up",
            pod.name()
        ))?;
        pod.ip(&format!(
            "link set eth0 up
            addr add {v4}/32 dev eth0
            addr add {v6}/128 dev eth0 nodad
            route add 10.244.2.1 dev eth0
            route add fd00:244:2::1 dev eth0
            route add default via 10.244.2.1
            route add default via fd00:244:2::1 dev eth0"
        ))?;
        self.netns.ip(&format!("route add {v4}/32 dev {name}\nroute add {v6}/128 dev {name}"))
    }
}
