//! What the control thread writes: other nodes, and what holds for all.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, Ordering};

use culvert_packet::encap::Template4;
use culvert_packet::eth::EthAddr;

use crate::layout::Way;
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
        let vtep = tunnelled.map_or(0, |to| u32::from_ne_bytes(to.vtep.octets()));
        if let Some(Tunnelled { port, vni, mac, .. }) = tunnelled {
            let [_, a, b, c] = vni.to_be_bytes();
            put(&globals.vxlan, &[8, 0, 0, 0, a, b, c, 0]);
            put(&globals.vtep_mac, &mac.0);
            globals.udp_port.store(port.to_be(), Ordering::Relaxed);
        }
        globals.vtep.store(vtep, Ordering::Release);
    }

    /// Says how another node is reached: by these headers, with packets up to `mtu` bytes; `None`: not at all. `false` if there
    /// is no room for it.
    pub fn set_way(&self, number: u32, to: Option<(Ipv4Addr, &Template4, u16)>) -> bool {
        let Some(way) = self.ways().get(number as usize) else { return false };
        let same = |(vtep, template, mtu): (Ipv4Addr, &Template4, u16)| {
            way.vtep.load(Ordering::Relaxed) == u32::from_ne_bytes(vtep.octets())
                && way.mtu.load(Ordering::Relaxed) == mtu
                && is(&way.header, template.bytes())
                && way.class_mask.load(Ordering::Relaxed) == template.class_mask()
        };
        if to.is_some_and(same) {
            return true;
        }
        // What is half written must not be used.
        way.vtep.store(0, Ordering::SeqCst);
        if let Some((vtep, template, mtu)) = to {
            put(&way.header, template.bytes());
            way.class_mask.store(template.class_mask(), Ordering::Relaxed);
            way.mtu.store(mtu, Ordering::Relaxed);
            way.vtep.store(u32::from_ne_bytes(vtep.octets()), Ordering::Release);
        }
        true
    }

    pub(crate) fn has_way(&self, end: End) -> bool {
        let End::Way(number) = end else { return false };
        let is_there = |way: &Way| way.vtep.load(Ordering::Relaxed) != 0;
        self.globals().uplink.load(Ordering::Relaxed) != 0
            && self.ways().get(number as usize).is_some_and(is_there)
    }

    pub(crate) fn has_door(&self, end: End) -> bool {
        let End::Door(number) = end else { return false };
        self.doors().get(usize::from(number)).is_some_and(|door| door.node_side.load(Ordering::Relaxed) != 0)
    }
}

fn put(to: &[AtomicU8], bytes: &[u8]) {
    to.iter().zip(bytes).for_each(|(to, byte)| to.store(*byte, Ordering::Relaxed));
}

fn is(what: &[AtomicU8], bytes: &[u8]) -> bool {
    what.iter().zip(bytes).all(|(what, byte)| what.load(Ordering::Relaxed) == *byte)
}
