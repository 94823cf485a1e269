//! From a pod: it speaks for itself only. Frames have no VLAN tag and the pod's Ethernet address, packets its IP address and
//! go to the router's Ethernet address. What is for a group is dropped; ARP and neighbour discovery are for the router.

use super::flow::Key;
use super::tables::Port;
use super::{Inside, Model, Origin, Step};
use crate::wire::dissect::{Net, dissect};
use crate::wire::{Frame, is_group};

impl Model {
    pub(crate) fn admit_pod(&mut self, port: u16, pod: &Port, received: &Frame) -> Step<Inside> {
        let frame = &received.bytes[..];
        let packet = dissect(frame).map_err(|why| self.drop(port, why))?;
        if packet.tagged {
            return Err(self.drop(port, "vlan-tag"));
        }
        if packet.eth_src != pod.mac {
            return Err(self.drop(port, "spoofed-mac"));
        }
        match packet.net {
            Net::Arp => return Err(self.arp_from_pod(port, pod, frame)),
            Net::Other(_) => return Err(self.drop(port, "ether-type")),
            Net::V4 | Net::V6 => {}
        }
        if packet.is_discovery() {
            return Err(self.discovery_from_pod(port, pod, frame, &packet));
        }
        if is_group(packet.eth_dst) {
            return Err(self.drop(port, "multicast"));
        }
        if packet.eth_dst != self.node().gateway_mac {
            return Err(self.drop(port, "not-our-mac"));
        }
        if !pod.addresses.contains(&packet.src) {
            return Err(self.drop(port, "spoofed-address"));
        }
        if super::route::is_group(packet.dst) {
            return Err(self.drop(port, "multicast"));
        }
        let frame = frame[..packet.end].to_vec();
        let left = received.left;
        Ok(Inside { port, origin: Origin::Pod, frame, left, key: Key::of(&packet, pod.tenant), packet })
    }
}
