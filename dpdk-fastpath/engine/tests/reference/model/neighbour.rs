//! ARP (RFC 826, 5227) and neighbour discovery (RFC 4861).
//!
//! Pods ask us for the router's address, and for nothing else; they do not speak for others. On the underlay we answer for
//! our own address, learn what others say of theirs, and notice somebody who says ours is his.

use std::net::{IpAddr, Ipv6Addr};

use super::tables::Port;
use super::{End, Model};
use crate::wire::dissect::{Packet, Upper, mac};
use crate::wire::make::{Ip, arp, checked, frame as ethernet, icmp, ip};
use crate::wire::{ETH, ICMPV6, Mac, checksum, get16, is_station};

const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The fields of an ARP packet.
struct Arp {
    operation: u16,
    sender: (Mac, [u8; 4]),
    target: [u8; 4],
}

impl Arp {
    fn read(frame: &[u8]) -> Self {
        let four = |at: usize| <[u8; 4]>::try_from(&frame[at..at + 4]).expect("four bytes");
        let at = ETH;
        Self {
            operation: get16(frame, at + 6),
            sender: (mac(frame, at + 8), four(at + 14)),
            target: four(at + 24),
        }
    }

    /// The reply that its target is at `mac`.
    fn reply(&self, mac: Mac) -> Vec<u8> {
        [&self.sender.0[..], &mac, &[8, 6], &arp(2, (mac, self.target), self.sender)].concat()
    }
}

/// The fields of a solicitation or an advertisement.
struct Message {
    flags: u8,
    target: Ipv6Addr,
    options: Vec<u8>,
}

impl Message {
    /// `None` unless it is a whole one: code 0, and the target is no group.
    fn read(frame: &[u8], packet: &Packet) -> Option<Self> {
        let message = &frame[packet.upper_at..packet.end];
        if packet.is_fragment() || message.len() < 24 || message[1] != 0 || message[8] == 0xff {
            return None;
        }
        let target = <[u8; 16]>::try_from(&message[8..24]).ok()?;
        Some(Self { flags: message[4], target: target.into(), options: message[24..].to_vec() })
    }

    /// The Ethernet address in the first option of a kind; an error if the options are not well formed.
    fn link_layer(&self, kind: u8) -> Result<Option<Mac>, &'static str> {
        let (mut found, mut rest) = (None, &self.options[..]);
        while !rest.is_empty() {
            let len = if rest.len() < 2 { 0 } else { usize::from(rest[1]) * 8 };
            if len == 0 || len > rest.len() {
                return Err("nd-invalid");
            }
            if rest[0] == kind && found.is_none() {
                found = Some(mac(rest, 2));
            }
            rest = &rest[len..];
        }
        Ok(found)
    }
}

impl Model {
    pub(crate) fn arp_from_pod(&mut self, port: u16, pod: &Port, frame: &[u8]) -> End {
        let asked = Arp::read(frame);
        if asked.sender.0 != pod.mac {
            return self.drop(port, "spoofed-mac");
        }
        // A probe has no sender address.
        if asked.sender.1 != [0; 4] && !pod.addresses.contains(&IpAddr::from(asked.sender.1)) {
            return self.drop(port, "spoofed-address");
        }
        if asked.operation != 1 || !self.is_gateway(pod.tenant, IpAddr::from(asked.target)) {
            return self.drop(port, "neighbour-ignored");
        }
        let reply = asked.reply(self.node().gateway_mac);
        self.answer(port, "arp-reply", reply)
    }

    pub(crate) fn arp_from_uplink(&mut self, port: u16, uplink: &Port, frame: &[u8], outer: &Packet) -> End {
        let heard = Arp::read(frame);
        let (sender, from) = (IpAddr::from(heard.sender.1), heard.sender.0);
        if self.is_vtep(sender) && from != uplink.mac {
            return self.drop(port, "address-conflict");
        }
        if heard.operation == 1 && self.is_vtep(heard.target.into()) {
            if !is_station(from) {
                return self.drop(port, "neighbour-ignored");
            }
            let reply = heard.reply(uplink.mac);
            return self.answer(port, "arp-reply", reply);
        }
        let announcement = heard.sender.1 == heard.target;
        let reply = heard.operation == 2;
        let plausible = is_station(from) && heard.sender.1 != [0; 4] && !self.is_vtep(sender);
        if !plausible || !reply && !announcement {
            return self.drop(port, "neighbour-ignored");
        }
        let solicited = reply && !announcement && outer.eth_dst == uplink.mac;
        End::Learned { ip: sender, mac: from, solicited }
    }

    pub(crate) fn discovery_from_pod(&mut self, port: u16, pod: &Port, frame: &[u8], packet: &Packet) -> End {
        let IpAddr::V6(src) = packet.src else { unreachable!("discovery is IPv6") };
        let own = pod.addresses.contains(&packet.src);
        if !own && !src.is_unicast_link_local() && !src.is_unspecified() {
            return self.drop(port, "spoofed-address");
        }
        let asked = Message::read(frame, packet).filter(|_| packet.upper == Upper::Icmp { kind: 135 });
        let Some(asked) = asked.filter(|asked| self.is_gateway(pod.tenant, asked.target.into())) else {
            return self.drop(port, "neighbour-ignored");
        };
        let mac = self.node().gateway_mac;
        self.advertise(port, frame, packet, &asked, mac, ROUTER | OVERRIDE)
    }

    pub(crate) fn discovery_from_uplink(
        &mut self,
        port: u16,
        uplink: &Port,
        frame: &[u8],
        packet: &Packet,
    ) -> End {
        let message = Message::read(frame, packet);
        match (packet.upper, message) {
            (Upper::Icmp { kind: 135 }, Some(asked)) => {
                if !self.is_vtep(asked.target.into()) {
                    return self.drop(port, "neighbour-ignored");
                }
                self.advertise(port, frame, packet, &asked, uplink.mac, OVERRIDE)
            }
            (Upper::Icmp { kind: 136 }, message) => self.advertised(port, frame, packet, message),
            _ => self.drop(port, "neighbour-ignored"),
        }
    }

    /// Answers a solicitation that the checks of RFC 4861, section 7.1.1 let pass. During duplicate address detection
    /// everybody is told, else the one who asks.
    fn advertise(
        &mut self,
        port: u16,
        frame: &[u8],
        packet: &Packet,
        asked: &Message,
        own: Mac,
        flags: u8,
    ) -> End {
        if packet.hops != 255 {
            return self.drop(port, "nd-invalid");
        }
        if !icmp_is_right(frame, packet) {
            return self.drop(port, "icmp-checksum");
        }
        let by = match asked.link_layer(1) {
            Ok(by) => by,
            Err(why) => return self.drop(port, why),
        };
        let (IpAddr::V6(src), IpAddr::V6(dst)) = (packet.src, packet.dst) else {
            unreachable!("discovery is IPv6")
        };
        let (to_mac, to, flags) = if src.is_unspecified() {
            // To the solicited-node group.
            if by.is_some() || dst.octets()[..13] != [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff] {
                return self.drop(port, "nd-invalid");
            }
            ([0x33, 0x33, 0, 0, 0, 1], ALL_NODES, flags)
        } else {
            let mac = by.unwrap_or(packet.eth_src);
            if !is_station(mac) || src.is_loopback() || src.is_multicast() {
                return self.drop(port, "neighbour-ignored");
            }
            (mac, src, flags | SOLICITED)
        };
        let body = [&asked.target.octets()[..], &[2, 1], &own].concat();
        let (from, to) = (asked.target.into(), to.into());
        let message = checked(from, to, ICMPV6, icmp(136, 0, [flags, 0, 0, 0], &body));
        let header = Ip { protocol: ICMPV6, hops: 255, class: 0 };
        let answer = ethernet(to_mac, own, &ip(from, to, header, &message));
        self.answer(port, "neighbour-advertisement", answer)
    }

    /// Learns from an advertisement that the checks of RFC 4861, section 7.1.2 let pass.
    fn advertised(&mut self, port: u16, frame: &[u8], packet: &Packet, message: Option<Message>) -> End {
        if packet.is_fragment() || packet.hops != 255 {
            return self.drop(port, "nd-invalid");
        }
        if !icmp_is_right(frame, packet) {
            return self.drop(port, "icmp-checksum");
        }
        let Some(message) = message else { return self.drop(port, "nd-invalid") };
        let solicited = message.flags & SOLICITED != 0;
        if solicited && packet.dst.is_multicast() {
            return self.drop(port, "nd-invalid");
        }
        let mac = match message.link_layer(2) {
            Ok(mac) => mac.filter(|mac| is_station(*mac)),
            Err(why) => return self.drop(port, why),
        };
        let ip = IpAddr::V6(message.target);
        match mac {
            Some(_) if self.is_vtep(ip) => self.drop(port, "address-conflict"),
            Some(mac) => End::Learned { ip, mac, solicited },
            None => self.drop(port, "neighbour-ignored"),
        }
    }
}

fn icmp_is_right(frame: &[u8], packet: &Packet) -> bool {
    checksum::is_right(packet.src, packet.dst, ICMPV6, &frame[packet.upper_at..packet.end])
}
