//! Out: one hop less, to the pod's Ethernet address or in a tunnel. Nothing is fragmented; what does not fit or has no hop
//! left is reported to its sender as it came. What came out of a tunnel never goes into one.

use std::net::IpAddr;

use super::answer::Error;
use super::choice::Trial;
use super::flow::Key;
use super::route::Way;
use super::tunnel::wrap;
use super::{End, Inside, Model, Origin, Step};
use crate::wire::dissect::{Net, Upper};
use crate::wire::make::frame as ethernet;
use crate::wire::{ETH, Frame, checksum};

impl Model {
    /// Whether the packet may go there.
    pub(crate) fn clear(
        &mut self,
        inside: &Inside,
        way: &Way,
        dst: IpAddr,
        trial: &mut Trial<'_>,
    ) -> Step<()> {
        let mtu = match way {
            Way::Pod(index) => self.tables.ports[index].mtu,
            Way::Remote(_) if inside.origin != Origin::Pod => {
                return Err(self.drop(inside.port, "tunnel-not-local"));
            }
            Way::Remote(name) => {
                let vtep = self.tables.remotes[name].vtep;
                // IP, UDP, VXLAN and the inner Ethernet header.
                let headers = if vtep.is_ipv4() { 20 } else { 40 } + 8 + 8 + 14;
                let narrow = self.tables.path_mtus.iter().find(|(to, _)| *to == vtep).map(|(_, mtu)| *mtu);
                self.node().mtu.min(narrow.unwrap_or(u16::MAX)).saturating_sub(headers)
            }
            Way::Nobody | Way::Unknown => return Err(self.nowhere(inside, way, dst, trial)),
        };
        if inside.packet.hops <= 1 {
            return Err(self.report(inside, "ttl-exceeded", Error::Hops, trial));
        }
        if longest(inside) > usize::from(mtu) {
            return Err(self.report(inside, "too-big", Error::TooBig(mtu), trial));
        }
        Ok(())
    }

    /// Sends a frame that was made of the packet.
    pub(crate) fn transmit(
        &mut self,
        inside: &Inside,
        way: &Way,
        mut frame: Vec<u8>,
        trial: &mut Trial<'_>,
    ) -> End {
        if inside.packet.net == Net::V4 {
            frame[ETH + 8] -= 1;
            checksum::fill_ipv4(&mut frame[ETH..]);
        } else {
            frame[ETH + 7] -= 1;
        }
        match way {
            Way::Pod(index) => {
                let (to, from) = (self.tables.ports[index].mac, self.node().gateway_mac);
                End::Send(*index, Frame { bytes: ethernet(to, from, &frame[ETH..]), left: inside.left })
            }
            Way::Remote(name) => {
                let taken = (inside.packet.class, inside.packet.hops - 1);
                let spread = self.spread_by(inside, &frame);
                match self.encapsulate((name, inside.key.tenant), spread, &frame[ETH..], taken, trial) {
                    Ok(sent) => {
                        let (uplink, _) = self.tables.uplink().expect("it has been sent through one");
                        End::Send(uplink, Frame { bytes: sent, left: inside.left })
                    }
                    Err(why) => self.drop(inside.port, why),
                }
            }
            Way::Nobody | Way::Unknown => unreachable!("it was clear to go"),
        }
    }

    /// Puts an IP packet into the tunnel to a node; packets with the same `spread` take the same way there, class and hops are those that the outer header may take over.
    pub(crate) fn encapsulate(
        &mut self,
        (to, tenant): (&str, u32),
        spread: Key,
        packet: &[u8],
        class_and_hops: (u8, u8),
        trial: &mut Trial<'_>,
    ) -> Result<Vec<u8>, &'static str> {
        let (node, remote) = (self.node(), &self.tables.remotes[to]);
        let own = node.underlay.iter().find(|own| own.address.is_ipv4() == remote.vtep.is_ipv4());
        let (Some(own), Some((_, uplink))) = (own, self.tables.uplink()) else { return Err("no-uplink") };
        let on_link = super::route::holds((own.address, own.prefix), remote.vtep);
        let Some(hop) = (if on_link { Some(remote.vtep) } else { own.router }) else {
            return Err("no-uplink");
        };
        let Some((_, hop)) = self.tables.neighbours.iter().find(|(address, _)| *address == hop) else {
            return Err("next-hop-unresolved");
        };
        let Some(domain) = self.domain(tenant) else { return Err("no-uplink") };
        let inner = ethernet(remote.vtep_mac, node.vtep_mac, packet);
        let ends = (own.address, remote.vtep);
        let outer = |port| wrap(node.tunnels, ends, port, class_and_hops, domain.vni, &inner);
        let (hop, mac) = (*hop, uplink.mac);
        // The engine's choice: a dynamic port, and always the same for a flow.
        let chosen = trial.entropy().filter(|port| *port >= 0xc000).unwrap_or(0xc000);
        let port = *self.entropy.get(&spread).unwrap_or(&chosen);
        let packet = outer(port);
        self.entropy.insert(spread, port);
        Ok(ethernet(hop, mac, &packet))
    }
}

/// Length of the longest IP packet that will be of it on a wire.
fn longest(inside: &Inside) -> usize {
    let packet = &inside.packet;
    let transport = match packet.upper {
        Upper::Tcp { .. } => usize::from(inside.frame[packet.upper_at + 12] >> 4) * 4,
        _ => 8,
    };
    match usize::from(inside.left.segment) {
        0 => packet.len(),
        segment => packet.len().min(packet.upper_at - ETH + transport + segment),
    }
}
