//! Nodes that are nothing but the kernel: veth, VXLAN device, nft.

use culvert_hw_tests::net::Netns;

use super::{PodsError, Side, VIP, address};

/// The kernel's side.
#[derive(Debug)]
pub(super) struct Kernel {
    node: Netns,
    client: Netns,
    near: Netns,
    far: Netns,
    /// Dropped after the pods.
    _peer: Netns,
}

impl Kernel {
    pub(super) fn new() -> Result<Self, PodsError> {
        let (node, peer) = (Netns::create("knode1")?, Netns::create("knode2")?);
        node.ip(&format!("link add wire mtu 1500 type veth peer name wire netns {}", peer.name()))?;
        let (client, near, far) = (pod(&node, 1, 2)?, pod(&node, 1, 3)?, pod(&peer, 2, 3)?);
        overlay(&node, 1)?;
        overlay(&peer, 2)?;
        node.sh("nft add table ip bench
            nft add chain ip bench services '{ type nat hook prerouting priority dstnat; }'")?;
        Ok(Self { node, client, near, far, _peer: peer })
    }
}

impl Side for Kernel {
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
        let endpoint = address(if far { 2 } else { 1 }, 3);
        self.node.sh(&format!(
            "nft flush chain ip bench services
            nft add rule ip bench services ip daddr {VIP} dnat to {endpoint}"
        ))?;
        Ok(())
    }
}

/// Underlay and overlay of node `own`.
fn overlay(node: &Netns, own: u8) -> Result<(), PodsError> {
    let peer = 3 - own;
    // What is longer than the MTU is cut before it enters the wire.
    node.sh("sysctl -qw net.ipv4.ip_forward=1
        ethtool -K wire gso off tso off gro off >/dev/null 2>&1 || ip link set wire gso_max_segs 1")?;
    node.ip(&format!(
        "link set wire up
        addr add 192.168.9.{own}/24 dev wire
        link add vxlan0 mtu 1450 type vxlan id 4096 dstport 4789 local 192.168.9.{own} nolearning
        link set vxlan0 address 02:63:c0:a8:09:0{own} up
        neigh add 10.244.{peer}.0 lladdr 02:63:c0:a8:09:0{peer} dev vxlan0 nud permanent
        route add 10.244.{peer}.0/24 via 10.244.{peer}.0 dev vxlan0 onlink"
    ))?;
    node.sh(&format!("bridge fdb add 02:63:c0:a8:09:0{peer} dev vxlan0 dst 192.168.9.{peer}"))?;
    Ok(())
}

/// A pod of a node, on a routed veth.
fn pod(node: &Netns, number: u8, pod: u8) -> Result<Netns, PodsError> {
    let netns = Netns::create(&format!("kpod{number}{pod}"))?;
    let address = address(number, pod);
    node.ip(&format!(
        "link add pod{pod} mtu 1450 type veth peer name eth0 mtu 1450 netns {}
        link set pod{pod} up
        addr add 169.254.1.1/32 dev pod{pod}",
        netns.name()
    ))?;
    netns.ip(&format!(
        "link set eth0 up
        addr add {address}/32 dev eth0
        route add 169.254.1.1 dev eth0
        route add default via 169.254.1.1"
    ))?;
    node.ip(&format!("route add {address}/32 dev pod{pod}"))?;
    Ok(netns)
}
