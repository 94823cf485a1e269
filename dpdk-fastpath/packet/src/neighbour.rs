//! ARP and neighbour discovery messages that nobody asked for: questions and announcements, made from
//! nothing.
//!
//! Each function replaces what is in the buffer by a whole frame; `false`, and an empty buffer, if that has
//! no room for it.

use std::net::{Ipv4Addr, Ipv6Addr};

use zerocopy::IntoBytes;

use crate::arp::{ArpHeader, ArpOperation};
use crate::buf::PacketBuf;
use crate::checksum::Sum;
use crate::eth::{EthAddr, EthHeader, EtherType};
use crate::icmpv6::{NeighbourHeader, SOURCE_LINK_LAYER, TARGET_LINK_LAYER};
use crate::ip::Protocol;
use crate::ipv6::Ipv6Header;

/// The group of all nodes on a link.
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// An option that holds an Ethernet address.
const LINK_LAYER_LEN: usize = 8;
const MESSAGE_LEN: usize = NeighbourHeader::LEN + LINK_LAYER_LEN;
/// Length of a solicitation or advertisement with its IPv6 header.
pub(crate) const ADVERTISEMENT_LEN: usize = Ipv6Header::LEN + MESSAGE_LEN;
/// Neighbour discovery is for one link: whoever receives less knows that a router was between (RFC 4861,
/// section 7.1).
const HOP_LIMIT: u8 = 255;

/// Asks everybody who has `target` (RFC 826); `mac` and `ip` are ours.
pub fn arp_request(buf: &mut impl PacketBuf, mac: EthAddr, ip: Ipv4Addr, target: Ipv4Addr) -> bool {
    let arp = ArpHeader::new(ArpOperation::REQUEST, (mac, ip), (EthAddr::ZERO, target));
    write_arp(buf, mac, &arp)
}

/// Tells everybody that `ip` is at `mac`: an announcement as in RFC 5227, section 2.3.
pub fn gratuitous_arp(buf: &mut impl PacketBuf, mac: EthAddr, ip: Ipv4Addr) -> bool {
    arp_request(buf, mac, ip, ip)
}

fn write_arp(buf: &mut impl PacketBuf, mac: EthAddr, arp: &ArpHeader) -> bool {
    buf.truncate(0);
    let Some(frame) = buf.append(EthHeader::LEN + ArpHeader::LEN) else { return false };
    let eth = EthHeader::new(EthAddr::BROADCAST, mac, EtherType::ARP);
    frame[..EthHeader::LEN].copy_from_slice(eth.as_bytes());
    frame[EthHeader::LEN..].copy_from_slice(arp.as_bytes());
    true
}

/// Asks the solicited-node group of `target` who has it (RFC 4861, section 4.3); `mac` and `ip` are ours.
pub fn neighbour_solicitation(
    buf: &mut impl PacketBuf,
    mac: EthAddr,
    ip: Ipv6Addr,
    target: Ipv6Addr,
) -> bool {
    let group = solicited_node(target);
    let Some(packet) = start(buf, EthAddr::of_ipv6_multicast(group), mac) else { return false };
    write(packet, ip, group, NeighbourHeader::solicitation(target), (SOURCE_LINK_LAYER, mac));
    true
}

/// Tells all nodes that `ip` is at `mac` (RFC 4861, section 7.2.6); `flags` are
/// [`ROUTER`](crate::icmpv6::ROUTER) and [`OVERRIDE`](crate::icmpv6::OVERRIDE).
pub fn unsolicited_advertisement(buf: &mut impl PacketBuf, mac: EthAddr, ip: Ipv6Addr, flags: u32) -> bool {
    let Some(packet) = start(buf, EthAddr::of_ipv6_multicast(ALL_NODES), mac) else { return false };
    write_advertisement(packet, mac, ip, ALL_NODES, flags);
    true
}

/// The group that a node with this address listens to (RFC 4291, section 2.7.1).
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | high & 0xff, low)
}

/// Writes the IPv6 packet, [`ADVERTISEMENT_LEN`] bytes long, that tells `to` that `target` is at `mac`.
pub(crate) fn write_advertisement(
    packet: &mut [u8],
    mac: EthAddr,
    target: Ipv6Addr,
    to: Ipv6Addr,
    flags: u32,
) {
    write(packet, target, to, NeighbourHeader::advertisement(target, flags), (TARGET_LINK_LAYER, mac));
}

/// Replaces what is in the buffer by an Ethernet header and room for a packet, which is returned.
fn start(buf: &mut impl PacketBuf, dst: EthAddr, src: EthAddr) -> Option<&mut [u8]> {
    buf.truncate(0);
    let (eth, packet) = buf.append(EthHeader::LEN + ADVERTISEMENT_LEN)?.split_at_mut(EthHeader::LEN);
    eth.copy_from_slice(EthHeader::new(dst, src, EtherType::IPV6).as_bytes());
    Some(packet)
}

fn write(
    packet: &mut [u8],
    from: Ipv6Addr,
    to: Ipv6Addr,
    mut message: NeighbourHeader,
    link_layer: (u8, EthAddr),
) {
    let mut option = [0; LINK_LAYER_LEN];
    option[0] = link_layer.0;
    option[1] = 1;
    option[2..].copy_from_slice(&link_layer.1.0);
    let pseudo = Sum::pseudo_v6(from, to, Protocol::ICMPV6, MESSAGE_LEN as u32);
    message.set_checksum(pseudo.bytes(message.as_bytes()).bytes(&option).checksum());
    let ip = Ipv6Header::new(from, to, Protocol::ICMPV6, HOP_LIMIT, MESSAGE_LEN as u16);
    packet[..Ipv6Header::LEN].copy_from_slice(ip.as_bytes());
    packet[Ipv6Header::LEN..Ipv6Header::LEN + NeighbourHeader::LEN].copy_from_slice(message.as_bytes());
    packet[Ipv6Header::LEN + NeighbourHeader::LEN..ADVERTISEMENT_LEN].copy_from_slice(&option);
}
