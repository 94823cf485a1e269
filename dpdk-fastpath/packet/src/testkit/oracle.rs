//! A second opinion on our packets: the etherparse crate.

use etherparse::checksum::Sum16BitWords;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

/// Panics unless etherparse accepts the frame and finds all its checksums right. UDP over IPv4 may do
/// without.
pub fn assert_checksums(frame: &[u8]) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap_or_else(|e| panic!("{e}: {frame:02x?}"));
    let pair = match packet.net.as_ref().expect("a network header") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "IPv4 checksum: {header:?}");
            Ok((header.source, header.destination))
        }
        NetSlice::Ipv6(ip) => Err((ip.header().source(), ip.header().destination())),
        NetSlice::Arp(_) => return,
    };
    if packet.is_ip_payload_fragmented() {
        return;
    }
    match packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let right = match pair {
                Ok((src, dst)) => tcp.calc_checksum_ipv4(src, dst).expect("fits a packet"),
                Err((src, dst)) => tcp.calc_checksum_ipv6(src, dst).expect("fits a packet"),
            };
            assert_eq!(tcp.checksum(), right, "TCP checksum");
        }
        Some(TransportSlice::Udp(udp)) => {
            let header = udp.to_header();
            let right = match pair {
                Ok(_) if udp.checksum() == 0 => 0,
                Ok((src, dst)) => {
                    header.calc_checksum_ipv4_raw(src, dst, udp.payload()).expect("fits a packet")
                }
                Err((src, dst)) => {
                    header.calc_checksum_ipv6_raw(src, dst, udp.payload()).expect("fits a packet")
                }
            };
            assert_eq!(udp.checksum(), right, "UDP checksum");
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            // Not by its header type, which forgets the unused bytes of an error.
            let sum = Sum16BitWords::new().add_slice(icmp.slice()).ones_complement();
            assert_eq!(sum, 0, "ICMP checksum {:#06x}", icmp.checksum());
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            let (src, dst) = pair.expect_err("ICMPv6 over IPv6");
            assert!(icmp.is_checksum_valid(src, dst), "ICMPv6 checksum");
        }
        Some(TransportSlice::Igmp(_)) | None => {}
    }
}
