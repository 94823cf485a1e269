//! Frames made from their fields.

use std::net::IpAddr;

use super::checksum::{checksum, fill_ipv4, transport};
use super::{ICMP, ICMPV6, Mac, TCP, UDP, put16};

/// What an IP header says besides addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ip {
    pub(crate) protocol: u8,
    pub(crate) hops: u8,
    pub(crate) class: u8,
}

impl Ip {
    /// With 64 hops.
    pub(crate) fn of(protocol: u8) -> Self {
        Self { protocol, hops: 64, class: 0 }
    }
}

/// An Ethernet frame that carries an IP packet.
pub(crate) fn frame(dst: Mac, src: Mac, packet: &[u8]) -> Vec<u8> {
    let ether_type = if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    [&dst[..], &src, &ether_type, packet].concat()
}

/// An IP packet without options and extension headers; IPv4 with don't-fragment and identification 0.
pub(crate) fn ip(src: IpAddr, dst: IpAddr, ip: Ip, message: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let total = (20 + message.len()) as u16;
            let mut packet = vec![0x45, ip.class];
            packet.extend(total.to_be_bytes());
            packet.extend([0, 0, 0x40, 0, ip.hops, ip.protocol, 0, 0]);
            packet.extend(src.octets());
            packet.extend(dst.octets());
            fill_ipv4(&mut packet);
            packet.extend(message);
            packet
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut packet = vec![0x60 | ip.class >> 4, ip.class << 4, 0, 0];
            packet.extend((message.len() as u16).to_be_bytes());
            packet.extend([ip.protocol, ip.hops]);
            packet.extend(src.octets());
            packet.extend(dst.octets());
            packet.extend(message);
            packet
        }
        _ => unreachable!("{src} and {dst} are of different IP versions"),
    }
}

/// A UDP datagram, its checksum 0.
pub(crate) fn udp(ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(8 + data.len());
    message.extend(ports.0.to_be_bytes());
    message.extend(ports.1.to_be_bytes());
    message.extend((8 + data.len() as u16).to_be_bytes());
    message.extend([0, 0]);
    message.extend(data);
    message
}

/// A TCP segment, its checksum 0.
pub(crate) fn tcp(
    ports: (u16, u16),
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
    window: u16,
    data: &[u8],
) -> Vec<u8> {
    let mut message = Vec::with_capacity(20 + data.len());
    message.extend(ports.0.to_be_bytes());
    message.extend(ports.1.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend(acknowledgement.to_be_bytes());
    message.extend([0x50, flags]);
    message.extend(window.to_be_bytes());
    message.extend([0; 4]);
    message.extend(data);
    message
}

/// An ICMP or ICMPv6 message, its checksum 0.
pub(crate) fn icmp(kind: u8, code: u8, rest: [u8; 4], data: &[u8]) -> Vec<u8> {
    [&[kind, code, 0, 0][..], &rest, data].concat()
}

/// The same message with its checksum.
pub(crate) fn checked(src: IpAddr, dst: IpAddr, protocol: u8, mut message: Vec<u8>) -> Vec<u8> {
    let at = match protocol {
        TCP => 16,
        UDP => 6,
        ICMP | ICMPV6 => 2,
        _ => return message,
    };
    let right = transport(src, dst, protocol, &message);
    put16(&mut message, at, right);
    message
}

/// An ARP packet for Ethernet and IPv4.
pub(crate) fn arp(operation: u8, sender: (Mac, [u8; 4]), target: (Mac, [u8; 4])) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, operation][..], &sender.0, &sender.1, &target.0, &target.1].concat()
}

/// The first fragment of a packet, of `len` bytes, with `more` to come. IPv4 without options.
pub(crate) fn fragment4(packet: &[u8], identification: u16, len: usize, more: bool) -> Vec<u8> {
    let data = &packet[20..];
    let part = &data[..len.min(data.len())];
    let mut out = [&packet[..20], part].concat();
    let total = out.len() as u16;
    put16(&mut out, 2, total);
    put16(&mut out, 4, identification);
    put16(&mut out, 6, if more { 0x2000 } else { 0 });
    fill_ipv4(&mut out);
    out
}

/// The same for IPv6.
pub(crate) fn fragment6(packet: &[u8], identification: u16, len: usize, more: bool) -> Vec<u8> {
    let data = &packet[40..];
    let part = &data[..len.min(data.len())];
    let mut out = packet[..40].to_vec();
    out[6] = 44;
    put16(&mut out, 4, (8 + part.len()) as u16);
    out.extend([packet[6], 0]);
    out.extend(u16::from(more).to_be_bytes());
    out.extend(u32::from(identification).to_be_bytes());
    out.extend(part);
    out
}

/// Eight bytes of extension header in front of what an IPv6 packet carries: `kind` of "next header and length 0" shape.
pub(crate) fn extend6(packet: &[u8], kind: u8) -> Vec<u8> {
    let mut out = packet[..40].to_vec();
    out[6] = kind;
    put16(&mut out, 4, (packet.len() - 40 + 8) as u16);
    // Padding: PadN of four bytes (RFC 8200, section 4.2).
    out.extend([packet[6], 0, 1, 4, 0, 0, 0, 0]);
    out.extend(&packet[40..]);
    out
}

/// An IPv4 packet with four bytes of options, "no operation".
pub(crate) fn extend4(packet: &[u8]) -> Vec<u8> {
    let mut out = [&packet[..20], &[1; 4], &packet[20..]].concat();
    out[0] = 0x46;
    let total = out.len() as u16;
    put16(&mut out, 2, total);
    fill_ipv4(&mut out);
    out
}

#[test]
fn what_is_made_is_what_etherparse_reads() {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
        for protocol in [TCP, UDP] {
            let message = match protocol {
                TCP => tcp((1, 2), 3, 4, super::SYN, 5, b"odd"),
                _ => udp((1, 2), b"odd"),
            };
            let packet =
                ip(src, dst, Ip { protocol, hops: 7, class: 0xb9 }, &checked(src, dst, protocol, message));
            let frame = frame([2; 6], [4; 6], &packet);
            let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
            match (sliced.net.unwrap(), sliced.transport.unwrap()) {
                (NetSlice::Ipv4(ip), transport) => {
                    let header = ip.header().to_header();
                    assert_eq!(header.header_checksum, header.calc_header_checksum());
                    assert_eq!(
                        (header.time_to_live, header.dscp.value() << 2 | header.ecn.value()),
                        (7, 0xb9)
                    );
                    match transport {
                        TransportSlice::Tcp(tcp) => assert_eq!(
                            tcp.calc_checksum_ipv4(header.source, header.destination),
                            Ok(tcp.checksum())
                        ),
                        TransportSlice::Udp(udp) => assert_eq!(
                            udp.to_header().calc_checksum_ipv4(&header, udp.payload()),
                            Ok(udp.checksum())
                        ),
                        other => panic!("{other:?}"),
                    }
                }
                (NetSlice::Ipv6(ip), transport) => {
                    let header = ip.header().to_header();
                    assert_eq!((header.hop_limit, header.traffic_class), (7, 0xb9));
                    match transport {
                        TransportSlice::Tcp(tcp) => assert_eq!(
                            tcp.calc_checksum_ipv6(header.source, header.destination),
                            Ok(tcp.checksum())
                        ),
                        TransportSlice::Udp(udp) => assert_eq!(
                            udp.to_header().calc_checksum_ipv6(&header, udp.payload()),
                            Ok(udp.checksum())
                        ),
                        other => panic!("{other:?}"),
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(checksum(&[0, 1, 0xff]), !0xff01_u16);
}
