//! What the control thread writes: other nodes, and what holds for all.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use culvert_packet::encap::Template4;
use culvert_packet::eth::EthAddr;

use crate::layout::{IS_WAY, Way};
use crate::memory::Memory;
use crate::slots::End;

/// What tunnel packets to this node look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnelled {
    /// This node's end.
    pub vtep: Ipv4Addr,
    /// UDP destination port.
    pub port: u16,
    /// Network.
    pub vni: u32,
    /// Destination of frames in the tunnel.
    pub mac: EthAddr,
}

/// What holds for all packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings {
    /// The pods' router.
    pub gateway: EthAddr,
    /// The address of the uplink.
    pub uplink: EthAddr,
    /// Tunnel packets, if they are taken at all.
    pub tunnelled: Option<Tunnelled>,
}

/// A pod, by the indexes of interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pod {
    /// The node's end of the pair; not 0.
    pub node_side: u32,
    /// Its tap, in the pod.
    pub tap: u32,
    /// The longest IP packet that it takes, in bytes.
    pub mtu: u16,
    /// Its tap's address.
    pub mac: EthAddr,
}

/// Another node.
#[derive(Debug, Clone, Copy)]
pub struct Remote<'a> {
    /// Its end of the tunnel.
    pub vtep: Ipv4Addr,
    /// What is in front of packets to it.
    pub template: &'a Template4,
    /// The longest of these packets, in bytes.
    pub mtu: u16,
    /// A network with pods of it, and its mask: connections from there to a pod of this node need no decision.
    pub pods: Option<(Ipv4Addr, Ipv4Addr)>,
}

impl Remote<'_> {
    fn is_in(&self, way: &Way) -> bool {
        let (pods, mask) = self.pods.map_or((0, 0), |(net, mask)| (word(net), word(mask)));
        way.vtep.load(Ordering::Relaxed) == word(self.vtep)
            && way.mtu.load(Ordering::Relaxed) == self.mtu
            && way.pods.load(Ordering::Relaxed) == pods
            && way.pods_mask.load(Ordering::Relaxed) == mask
            && is(&way.header, self.template.bytes())
            && way.class_mask.load(Ordering::Relaxed) == self.template.class_mask()
    }
}

/// An address as it is in a header.
fn word(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

fn address(word: u32) -> Ipv4Addr {
    Ipv4Addr::from(word.to_ne_bytes())
}

impl Memory {
    /// From now on slots of this epoch are used, and no others; none at all if it is 0.
    pub fn set_epoch(&self, epoch: u32) {
        self.globals().epoch.store(epoch, Ordering::SeqCst);
    }

    /// The epoch of the slots that are used.
    pub fn epoch(&self) -> u32 {
        self.globals().epoch.load(Ordering::Relaxed)
    }

    /// Says what holds for all packets. No epoch must be in force.
    pub fn set_surroundings(&self, surroundings: &Surroundings) {
        let Surroundings { gateway, uplink, tunnelled } = surroundings;
        let globals = self.globals();
        put(&globals.gateway_mac, &gateway.0);
        put(&globals.uplink_mac, &uplink.0);
        let vtep = tunnelled.map_or(0, |to| word(to.vtep));
        if let Some(Tunnelled { port, vni, mac, .. }) = tunnelled {
            let [_, a, b, c] = vni.to_be_bytes();
            put(&globals.vxlan, &[8, 0, 0, 0, a, b, c, 0]);
            put(&globals.vtep_mac, &mac.0);
            globals.udp_port.store(port.to_be(), Ordering::Relaxed);
        }
        globals.vtep.store(vtep, Ordering::Release);
    }

    /// Says how a pod is reached; `None`: not at all. `false` if there is no room for it.
    pub fn set_door(&self, port: u16, to: Option<&Pod>) -> bool {
        let Some(door) = self.doors().get(usize::from(port)) else { return false };
        // What is half written must not be used.
        door.node_side.store(0, Ordering::SeqCst);
        if let Some(Pod { node_side, tap, mtu, mac }) = to {
            door.tap.store(*tap, Ordering::Relaxed);
            door.mtu.store(*mtu, Ordering::Relaxed);
            put(&door.mac, &mac.0);
            door.node_side.store(*node_side, Ordering::Release);
        }
        true
    }

    /// Says that a pod is reached as it was before, by the node's end of its pair, or not for now.
    pub(crate) fn open_door(&self, port: u16, node_side: Option<u32>) {
        let door = self.doors().get(usize::from(port));
        door.into_iter().for_each(|door| door.node_side.store(node_side.unwrap_or(0), Ordering::SeqCst));
    }

    /// Says that no pod is reached any more.
    pub(crate) fn close_doors(&self) {
        self.doors().iter().for_each(|door| door.node_side.store(0, Ordering::SeqCst));
    }

    /// Says which interface leads to other nodes, by its index, and the address of the fast path there, which is `apart` if no
    /// interface of the kernel has it.
    pub fn set_uplink(&self, index: u32, mac: EthAddr, apart: bool) {
        let globals = self.globals();
        put(&globals.uplink_mac, &mac.0);
        globals.is_apart.store(apart.into(), Ordering::Relaxed);
        globals.uplink.store(index, Ordering::Release);
    }

    /// Says that no interface leads to other nodes.
    pub(crate) fn close_uplink(&self) {
        self.globals().uplink.store(0, Ordering::SeqCst);
    }

    /// Says how another node is reached; `None`: not at all. `false` if there is no room for it.
    pub fn set_way(&self, number: u32, to: Option<&Remote<'_>>) -> bool {
        let Some(way) = self.ways().get(number as usize) else { return false };
        if to.is_some_and(|to| to.is_in(way)) {
            return true;
        }
        // What is half written must not be used.
        let before = way.vtep.swap(0, Ordering::SeqCst);
        if before != 0 && to.is_none_or(|to| word(to.vtep) != before) {
            self.set_place(address(before), End::Way(number), false);
        }
        if let Some(Remote { vtep, template, mtu, pods }) = to {
            put(&way.header, template.bytes());
            way.class_mask.store(template.class_mask(), Ordering::Relaxed);
            way.mtu.store(*mtu, Ordering::Relaxed);
            let (pods, mask) = pods.map_or((0, 0), |(net, mask)| (word(net), word(mask)));
            way.pods.store(pods, Ordering::Relaxed);
            way.pods_mask.store(mask, Ordering::Relaxed);
            way.vtep.store(word(*vtep), Ordering::Release);
            self.set_place(*vtep, End::Way(number), true);
        }
        true
    }

    /// Says that somebody has an address, and no other pod or node, or that it no longer has it. Where there is no room for it, connections to it are decided by
    /// the fast path.
    pub fn set_place(&self, address: Ipv4Addr, end: End, has: bool) {
        let (Some(number), address) = (end.to_bits(), word(address)) else { return };
        let at = address.wrapping_mul(0x9e37_79b1) >> 21;
        let Some(bucket) = self.places().get(at as usize) else { return };
        let own = u64::from(number) << 32 | u64::from(address);
        let find = |is: &dyn Fn(u64) -> bool| {
            bucket.places.iter().find(|place| is(place.word.load(Ordering::Relaxed)))
        };
        let (place, word) = if has {
            // In place of who had it before, of the same kind.
            let same = |word| (word ^ own) & (u64::from(IS_WAY) << 32 | u64::from(u32::MAX)) == 0;
            (find(&same).or_else(|| find(&|word| word == 0)), own)
        } else {
            (find(&|word| word == own), 0)
        };
        place.into_iter().for_each(|place| place.word.store(word, Ordering::SeqCst));
    }

    /// Whether a pod has joined, or another node can be reached.
    pub(crate) fn is_open(&self, end: End) -> bool {
        let is_set = |word: &AtomicU32| word.load(Ordering::Relaxed) != 0;
        match end {
            End::Door(number) => {
                self.doors().get(usize::from(number)).is_some_and(|door| is_set(&door.node_side))
            }
            End::Way(number) => {
                let way = self.ways().get(number as usize);
                is_set(&self.globals().uplink) && way.is_some_and(|way| is_set(&way.vtep))
            }
        }
    }
}

fn put(to: &[AtomicU8], bytes: &[u8]) {
    to.iter().zip(bytes).for_each(|(to, byte)| to.store(*byte, Ordering::Relaxed));
}

fn is(what: &[AtomicU8], bytes: &[u8]) -> bool {
    what.iter().zip(bytes).all(|(what, byte)| what.load(Ordering::Relaxed) == *byte)
}
