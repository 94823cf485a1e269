//! Whole frames with right checksums, for tests: allocates, and panics on what does not fit into a packet.
//!
//! Frames go from [`MAC_A`] to [`MAC_B`] with a TTL of 64; [`with_macs`], [`tagged`], [`padded`] and
//! [`fragments4`] make others of them, and after any other change [`fill_checksums`] makes them right again.

#[cfg(any(test, feature = "proptest"))]
pub mod generate;
#[cfg(any(test, feature = "proptest"))]
pub mod oracle;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use zerocopy::IntoBytes;

use crate::arp::{ArpHeader, ArpOperation};
use crate::buf::{PacketBuf, TestBuf};
use crate::checksum::Sum;
use crate::eth::{EthAddr, EthHeader, EtherType};
use crate::geneve::{self, GeneveHeader};
use crate::icmp::{IcmpHeader, IcmpType};
use crate::icmpv6::{Icmpv6Header, Icmpv6Type};
use crate::ip::Protocol;
use crate::ipv4::{Ipv4, Ipv4Header, Ipv4Mut};
use crate::ipv6::{FragmentHeader, Ipv6, Ipv6Header};
use crate::neighbour;
use crate::sctp::{self, ChunkHeader, ChunkType, SctpHeader};
use crate::tcp::{TcpFlags, TcpHeader};
use crate::udp::UdpHeader;
use crate::vlan::{self, Tci};
use crate::vxlan::{self, VxlanHeader};

/// Sender of the frames made here.
pub const MAC_A: EthAddr = EthAddr([0x02, 0, 0, 0, 0, 0x0a]);
/// Receiver of the frames made here.
pub const MAC_B: EthAddr = EthAddr([0x02, 0, 0, 0, 0, 0x0b]);
/// Time to live or hop limit of the packets made here.
pub const TTL: u8 = 64;

/// An Ethernet frame.
pub fn eth(ether_type: EtherType, payload: &[u8]) -> Vec<u8> {
    [EthHeader::new(MAC_B, MAC_A, ether_type).as_bytes(), payload].concat()
}

/// An IPv4 packet, with don't-fragment, in a frame.
pub fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, protocol: Protocol, payload: &[u8]) -> Vec<u8> {
    let mut header = Ipv4Header::new(src, dst, protocol, TTL, payload.len() as u16);
    header.update_checksum();
    eth(EtherType::IPV4, &[header.as_bytes(), payload].concat())
}

/// An IPv6 packet in a frame; `payload` may begin with extension headers, the first of which is `next`.
pub fn ipv6(src: Ipv6Addr, dst: Ipv6Addr, next: Protocol, payload: &[u8]) -> Vec<u8> {
    let header = Ipv6Header::new(src, dst, next, TTL, payload.len() as u16);
    eth(EtherType::IPV6, &[header.as_bytes(), payload].concat())
}

/// A UDP datagram over IPv4.
pub fn udp4(src: SocketAddrV4, dst: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    checked(ipv4(*src.ip(), *dst.ip(), Protocol::UDP, &udp_message(src.port(), dst.port(), payload)))
}

/// A UDP datagram over IPv6.
pub fn udp6(src: SocketAddrV6, dst: SocketAddrV6, payload: &[u8]) -> Vec<u8> {
    checked(ipv6(*src.ip(), *dst.ip(), Protocol::UDP, &udp_message(src.port(), dst.port(), payload)))
}

/// A UDP datagram.
pub fn udp(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (SocketAddr::V4(src), SocketAddr::V4(dst)) => udp4(src, dst, payload),
        (SocketAddr::V6(src), SocketAddr::V6(dst)) => udp6(src, dst, payload),
        _ => panic!("{src} and {dst} are of different IP versions"),
    }
}

/// A TCP segment over IPv4 with sequence number 1000 and, if `flags` has ACK, acknowledgement number 2000.
pub fn tcp4(src: SocketAddrV4, dst: SocketAddrV4, flags: TcpFlags, payload: &[u8]) -> Vec<u8> {
    let segment = tcp_message(src.port(), dst.port(), flags, payload);
    checked(ipv4(*src.ip(), *dst.ip(), Protocol::TCP, &segment))
}

/// The same over IPv6.
pub fn tcp6(src: SocketAddrV6, dst: SocketAddrV6, flags: TcpFlags, payload: &[u8]) -> Vec<u8> {
    let segment = tcp_message(src.port(), dst.port(), flags, payload);
    checked(ipv6(*src.ip(), *dst.ip(), Protocol::TCP, &segment))
}

/// A TCP segment, as [`tcp4`].
pub fn tcp(src: SocketAddr, dst: SocketAddr, flags: TcpFlags, payload: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (SocketAddr::V4(src), SocketAddr::V4(dst)) => tcp4(src, dst, flags, payload),
        (SocketAddr::V6(src), SocketAddr::V6(dst)) => tcp6(src, dst, flags, payload),
        _ => panic!("{src} and {dst} are of different IP versions"),
    }
}

/// An SCTP packet with this verification tag and these [chunks](sctp_chunk).
pub fn sctp(src: SocketAddr, dst: SocketAddr, tag: u32, chunks: &[u8]) -> Vec<u8> {
    let packet = [SctpHeader::new(src.port(), dst.port(), tag).as_bytes(), chunks].concat();
    checked(match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ipv4(src, dst, Protocol::SCTP, &packet),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ipv6(src, dst, Protocol::SCTP, &packet),
        _ => panic!("{src} and {dst} are of different IP versions"),
    })
}

/// A chunk of an SCTP packet, with its padding.
pub fn sctp_chunk(kind: ChunkType, flags: u8, value: &[u8]) -> Vec<u8> {
    let mut chunk = [ChunkHeader::new(kind, flags, value.len() as u16).as_bytes(), value].concat();
    chunk.resize(chunk.len().next_multiple_of(4), 0);
    chunk
}

/// An echo request, by ICMP or ICMPv6.
pub fn echo_request(src: IpAddr, dst: IpAddr, identifier: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    checked(match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let header = IcmpHeader::echo(IcmpType::ECHO_REQUEST, identifier, sequence);
            ipv4(src, dst, Protocol::ICMP, &[header.as_bytes(), payload].concat())
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let header = Icmpv6Header::echo(Icmpv6Type::ECHO_REQUEST, identifier, sequence);
            ipv6(src, dst, Protocol::ICMPV6, &[header.as_bytes(), payload].concat())
        }
        _ => panic!("{src} and {dst} are of different IP versions"),
    })
}

/// The ICMP or ICMPv6 error of `reporter` to the sender of the packet in the untagged frame `about`, of which it quotes
/// `len` bytes at most. `mtu` is for "fragmentation needed" and "packet too big".
pub fn icmp_error(reporter: IpAddr, (kind, code): (u8, u8), mtu: u16, about: &[u8], len: usize) -> Vec<u8> {
    let packet = &about[EthHeader::LEN..];
    checked(match reporter {
        IpAddr::V4(reporter) => {
            let quoted = Ipv4::new(packet).expect("an IPv4 packet");
            let header = IcmpHeader::error(IcmpType(kind), code, mtu);
            let quote = &packet[..len.min(quoted.total_len().into())];
            ipv4(reporter, quoted.src(), Protocol::ICMP, &[header.as_bytes(), quote].concat())
        }
        IpAddr::V6(reporter) => {
            let quoted = Ipv6::new(packet).expect("an IPv6 packet");
            let header = Icmpv6Header::new(Icmpv6Type(kind), code, mtu.into());
            let quote = &packet[..len.min(Ipv6Header::LEN + quoted.payload().len())];
            ipv6(reporter, quoted.src(), Protocol::ICMPV6, &[header.as_bytes(), quote].concat())
        }
    })
}

/// An ARP request of [`MAC_A`] to everybody.
pub fn arp_request(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut buf = TestBuf::new(&[]);
    assert!(neighbour::arp_request(&mut buf, MAC_A, sender, target));
    buf.data().to_vec()
}

/// An ARP reply of [`MAC_A`] to [`MAC_B`].
pub fn arp_reply(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    eth(EtherType::ARP, ArpHeader::new(ArpOperation::REPLY, (MAC_A, sender), (MAC_B, target)).as_bytes())
}

/// A neighbour solicitation of [`MAC_A`] to the group of `target`.
pub fn neighbour_solicitation(src: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let mut buf = TestBuf::new(&[]);
    assert!(neighbour::neighbour_solicitation(&mut buf, MAC_A, src, target));
    buf.data().to_vec()
}

/// `inner`, a frame, in a VXLAN packet without UDP checksum.
pub fn vxlan(src: SocketAddr, dst: IpAddr, vni: u32, inner: &[u8]) -> Vec<u8> {
    unchecked_udp(src, SocketAddr::new(dst, vxlan::PORT), &[VxlanHeader::new(vni).as_bytes(), inner].concat())
}

/// `inner`, a frame, in a Geneve packet without UDP checksum; `options` are whole options, at most 252 bytes of them.
pub fn geneve(src: SocketAddr, dst: IpAddr, vni: u32, options: &[u8], inner: &[u8]) -> Vec<u8> {
    let mut header: [u8; GeneveHeader::LEN] = zerocopy::transmute!(GeneveHeader::new(vni));
    header[0] = (options.len() / 4) as u8;
    unchecked_udp(src, SocketAddr::new(dst, geneve::PORT), &[&header, options, inner].concat())
}

fn unchecked_udp(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let message = udp_message(src.port(), dst.port(), payload);
    match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ipv4(src, dst, Protocol::UDP, &message),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ipv6(src, dst, Protocol::UDP, &message),
        _ => panic!("{src} and {dst} are of different IP versions"),
    }
}

/// The same frame between other stations.
pub fn with_macs(mut frame: Vec<u8>, dst: EthAddr, src: EthAddr) -> Vec<u8> {
    frame[..6].copy_from_slice(&dst.0);
    frame[6..12].copy_from_slice(&src.0);
    frame
}

/// The same frame with an 802.1Q tag.
pub fn tagged(frame: &[u8], tci: Tci) -> Vec<u8> {
    let mut buf = TestBuf::new(frame);
    assert!(vlan::push(&mut buf, tci), "no frame: {frame:02x?}");
    buf.data().to_vec()
}

/// The same frame, zeros behind it, as senders do to get to 60 bytes.
pub fn padded(mut frame: Vec<u8>, len: usize) -> Vec<u8> {
    frame.resize(frame.len().max(len), 0);
    frame
}

/// The untagged IPv4 packet in `frame` as fragments of at most `mtu` bytes each, first first.
pub fn fragments4(frame: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let whole = Ipv4::new(&frame[EthHeader::LEN..]).expect("an untagged IPv4 packet");
    let step = (mtu - Ipv4Header::LEN) & !7;
    let count = whole.payload().len().div_ceil(step);
    let fragment = |(i, part): (usize, &[u8])| {
        let mut frame = ipv4(whole.src(), whole.dst(), whole.protocol(), part);
        let mut packet = Ipv4Mut::new(&mut frame[EthHeader::LEN..]).expect("made just now");
        packet.set_identification(0x1234);
        packet.set_fragment(false, i + 1 < count, (i * step) as u32);
        packet.update_checksum();
        frame
    };
    whole.payload().chunks(step).enumerate().map(fragment).collect()
}

/// The untagged IPv4 or IPv6 packet in `frame` as fragments of at most `mtu` bytes each, first first.
pub fn fragments(frame: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let Ok(whole) = Ipv6::new(&frame[EthHeader::LEN..]) else { return fragments4(frame, mtu) };
    let step = (mtu - Ipv6Header::LEN - FragmentHeader::LEN) & !7;
    let count = whole.payload().len().div_ceil(step);
    let fragment = |(i, part): (usize, &[u8])| {
        let header = FragmentHeader::new(whole.next_header(), (i * step) as u32, i + 1 < count, 0x1234);
        ipv6(whole.src(), whole.dst(), Protocol::FRAGMENT, &[header.as_bytes(), part].concat())
    };
    whole.payload().chunks(step).enumerate().map(fragment).collect()
}

/// Computes the checksums of the IPv4 header and of TCP, UDP, SCTP, ICMP or ICMPv6 behind IP. Fragments get that of
/// IPv4 only.
pub fn fill_checksums(frame: &mut [u8]) {
    let l3_offset = EthHeader::LEN + if vlan::read(frame).is_some() { 4 } else { 0 };
    let ether_type = u16::from_be_bytes([frame[l3_offset - 2], frame[l3_offset - 1]]);
    let packet = &mut frame[l3_offset..];
    match EtherType(ether_type) {
        EtherType::IPV4 => {
            let mut ip = Ipv4Mut::new(packet).expect("an IPv4 packet");
            ip.update_checksum_with_options();
            if ip.more_fragments() || ip.fragment_offset() > 0 {
                return;
            }
            let (src, dst, protocol) = (ip.src(), ip.dst(), ip.protocol());
            fill_transport(ip.payload_mut(), protocol, |len| match protocol {
                Protocol::ICMP => Sum::ZERO,
                _ => Sum::pseudo_v4(src, dst, protocol, len),
            });
        }
        EtherType::IPV6 => {
            let ip = Ipv6::new(packet).expect("an IPv6 packet");
            let upper = ip.upper().expect("a chain of extension headers");
            let (src, dst, end) = (ip.src(), ip.dst(), Ipv6Header::LEN + ip.payload().len());
            if upper.fragment.is_none() {
                let message = &mut packet[Ipv6Header::LEN + upper.offset..end];
                fill_transport(message, upper.protocol, |len| Sum::pseudo_v6(src, dst, upper.protocol, len));
            }
        }
        _ => {}
    }
}

fn fill_transport(message: &mut [u8], protocol: Protocol, pseudo: impl Fn(u32) -> Sum) {
    let field = match protocol {
        Protocol::SCTP => {
            let checksum = sctp::checksum(message);
            return message[8..12].copy_from_slice(&checksum.to_le_bytes());
        }
        Protocol::TCP => 16,
        Protocol::UDP => 6,
        Protocol::ICMP | Protocol::ICMPV6 => 2,
        _ => return,
    };
    message[field..field + 2].fill(0);
    let sum = pseudo(message.len() as u32).bytes(message);
    let checksum = if protocol == Protocol::UDP { sum.udp_checksum() } else { sum.checksum() };
    message[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
}

fn checked(mut frame: Vec<u8>) -> Vec<u8> {
    fill_checksums(&mut frame);
    frame
}

fn udp_message(src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    [UdpHeader::new(src_port, dst_port, payload.len() as u16).as_bytes(), payload].concat()
}

fn tcp_message(src_port: u16, dst_port: u16, flags: TcpFlags, payload: &[u8]) -> Vec<u8> {
    let acknowledgement = if flags.contains(TcpFlags::ACK) { 2000 } else { 0 };
    let mut header = TcpHeader::new(src_port, dst_port, 1000, acknowledgement, flags);
    header.set_window(0xffff);
    [header.as_bytes(), payload].concat()
}
