//! From the underlay: ARP, neighbour discovery and ping for our own address, errors about our tunnel packets, and tunnel
//! packets from nodes that we know, with a tenant's network identifier, whose inner frame is for our Ethernet address.

use super::flow::Key;
use super::tables::Port;
use super::tunnel::inner_class;
use super::{End, Inside, Model, Origin, Step};
use crate::wire::dissect::{Net, Packet, Upper, dissect};
use crate::wire::quote::Quote;
use crate::wire::{ETH, Left, UDP, checksum, get16, is_group};

impl Model {
    pub(crate) fn admit_uplink(&mut self, port: u16, uplink: &Port, frame: &[u8]) -> Step<Inside> {
        let outer = dissect(frame).map_err(|why| self.drop(port, why))?;
        if outer.tagged {
            return Err(self.drop(port, "vlan-tag"));
        }
        if !is_group(outer.eth_dst) && outer.eth_dst != uplink.mac {
            return Err(self.drop(port, "not-our-mac"));
        }
        match outer.net {
            Net::Arp => return Err(self.arp_from_uplink(port, uplink, frame, &outer)),
            Net::Other(_) => return Err(self.drop(port, "ether-type")),
            Net::V4 | Net::V6 => {}
        }
        if outer.is_discovery() {
            return Err(self.discovery_from_uplink(port, uplink, frame, &outer));
        }
        if is_group(outer.eth_dst) {
            return Err(self.drop(port, "multicast"));
        }
        if !self.is_vtep(outer.dst) {
            return Err(self.drop(port, "underlay-not-for-us"));
        }
        if let Upper::Echo { .. } = outer.upper {
            return Err(self.ping_from_uplink(port, frame, &outer));
        }
        if let Upper::Icmp { kind } = outer.upper {
            return Err(self.error_from_uplink(port, frame, &outer, kind));
        }
        if outer.upper != Upper::Udp || outer.ports.1 != self.node().tunnels.port {
            return Err(self.drop(port, "underlay-not-for-us"));
        }
        self.admit_tunnel(port, frame, &outer)
    }

    fn ping_from_uplink(&mut self, port: u16, frame: &[u8], outer: &Packet) -> End {
        match super::answer::echo(&frame[..outer.end], outer) {
            Ok(reply) => self.answer(port, "echo-reply", reply),
            Err(Some(malformed)) => self.drop(port, malformed),
            Err(None) => self.drop(port, "underlay-not-for-us"),
        }
    }

    /// An error about a tunnel packet of ours to a node that we know. That a link takes less is learned (RFC 1191, RFC 8201).
    fn error_from_uplink(&mut self, port: u16, frame: &[u8], outer: &Packet, kind: u8) -> End {
        let to_node = |quote: &Quote| {
            let to_tunnel = quote.protocol == UDP && quote.dst.1 == self.node().tunnels.port;
            let is_node = self.tables.remotes.values().any(|remote| remote.vtep == quote.dst.0);
            to_tunnel && is_node && self.is_vtep(quote.src.0)
        };
        let Some(quote) = Quote::of(frame, outer).filter(to_node) else {
            return self.drop(port, "underlay-not-for-us");
        };
        let message = &frame[outer.upper_at..outer.end];
        if !checksum::is_right(outer.src, outer.dst, outer.protocol, message) {
            return self.drop(port, "icmp-checksum");
        }
        let mtu = match (outer.net, kind, message[1]) {
            (Net::V4, 3, 4) => get16(message, 6),
            // Longer than any packet.
            (Net::V6, 2, _) if get16(message, 4) != 0 => u16::MAX,
            (Net::V6, 2, _) => get16(message, 6),
            _ => return self.drop(port, "underlay-error"),
        };
        End::Narrow { vtep: quote.dst.0, mtu }
    }

    fn admit_tunnel(&mut self, port: u16, frame: &[u8], outer: &Packet) -> Step<Inside> {
        let read = self.read_tunnel(frame, outer).map_err(|why| self.drop(port, why))?;
        let tenants = [0].into_iter().chain(self.node().domains.iter().map(|domain| domain.tenant));
        let mut known = tenants.filter_map(|tenant| self.domain(tenant));
        let Some(domain) = known.find(|domain| domain.vni == read.vni) else {
            return Err(self.drop(port, "tunnel-wrong-vni"));
        };
        // Of the nodes that have pods of the tenant.
        let tenant = domain.tenant;
        let mut remotes = self.tables.remotes.iter();
        let from = remotes.find(|(_, remote)| {
            remote.vtep == outer.src && (tenant == 0 || remote.tenants.contains_key(&tenant))
        });
        let Some(remote) = from.map(|(name, _)| name.clone()) else {
            return Err(self.drop(port, "tunnel-unknown-source"));
        };
        self.verify_tunnel(frame, outer).map_err(|why| self.drop(port, why))?;
        self.decapsulated(port, (remote, tenant), read.frame, outer.class)
    }

    fn decapsulated(
        &mut self,
        port: u16,
        (remote, tenant): (String, u32),
        mut frame: Vec<u8>,
        outer: u8,
    ) -> Step<Inside> {
        let packet = dissect(&frame).map_err(|why| self.drop(port, why))?;
        let why = if is_group(packet.eth_dst) {
            "multicast"
        } else if packet.eth_dst != self.node().vtep_mac {
            "tunnel-not-our-mac"
        } else if packet.tagged {
            "vlan-tag"
        } else if packet.net == Net::Arp || packet.is_discovery() {
            "neighbour-ignored"
        } else if !matches!(packet.net, Net::V4 | Net::V6) {
            "ether-type"
        } else if super::route::is_group(packet.dst) {
            "multicast"
        } else {
            ""
        };
        if !why.is_empty() {
            return Err(self.drop(port, why));
        }
        let Some(class) = inner_class(self.node().tunnels, packet.class, outer) else {
            return Err(self.drop(port, "tunnel-congestion"));
        };
        frame.truncate(packet.end);
        if packet.net == Net::V4 {
            frame[ETH + 1] = class;
            checksum::fill_ipv4(&mut frame[ETH..]);
        } else {
            frame[ETH] = 0x60 | class >> 4;
            frame[ETH + 1] = frame[ETH + 1] & 0x0f | class << 4;
        }
        let packet = dissect(&frame).expect("only its traffic class has changed");
        Ok(Inside {
            port,
            origin: Origin::Tunnel(remote),
            frame,
            left: Left::default(),
            key: Key::of(&packet, tenant),
            packet,
        })
    }
}
