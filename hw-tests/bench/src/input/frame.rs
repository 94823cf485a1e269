//! The bytes of the packets that the engine is measured on.
//!
//! Made here byte by byte, without the engine's own packet code, which is what they are to test.

use std::net::Ipv4Addr;

use super::checksum::internet_checksum;

/// An Ethernet address.
pub(crate) type Mac = [u8; 6];

/// Every pod's address.
pub(crate) const POD_MAC: Mac = [2, 0, 0, 0, 1, 0x01];
/// The router's, as pods see it.
pub(crate) const GATEWAY_MAC: Mac = [2, 0, 0, 0, 1, 0xfe];
/// This node's on the underlay.
pub(crate) const LOCAL_MAC: Mac = [2, 0, 0, 0, 0x64, 1];
/// The remote node's on the underlay.
pub(crate) const REMOTE_MAC: Mac = [2, 0, 0, 0, 0x64, 2];
/// This node's inside the tunnel.
pub(crate) const LOCAL_VTEP_MAC: Mac = [2, 0, 0, 0, 0xf1, 1];
/// The remote node's inside the tunnel.
pub(crate) const REMOTE_VTEP_MAC: Mac = [2, 0, 0, 0, 0xf1, 2];
/// The router's address.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);
/// This node's tunnel endpoint.
pub(crate) const LOCAL_VTEP: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 1);
/// The remote node's.
pub(crate) const REMOTE_VTEP: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 2);
/// A pod there, and the first of the service's endpoints.
pub(crate) const REMOTE_POD: Ipv4Addr = Ipv4Addr::new(10, 244, 2, 10);
/// Port that the remote pods serve.
pub(crate) const REMOTE_PORT: u16 = 8080;
/// Endpoints of the service: as many addresses from [`REMOTE_POD`] on.
pub(crate) const BACKENDS: u8 = 10;
/// The service.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The service's port.
pub(crate) const VIP_PORT: u16 = 80;
/// VXLAN network identifier.
pub(crate) const VNI: u32 = 1;
/// UDP destination port of VXLAN (RFC 7348).
pub(crate) const VXLAN_PORT: u16 = 4789;

/// Length of the outer headers: Ethernet, IPv4, UDP, VXLAN.
pub(crate) const OUTER: usize = 14 + 20 + 8 + 8;

const UDP: u8 = 17;
const TCP: u8 = 6;

/// Transport protocol of the flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Transport {
    /// Datagrams of 18 bytes.
    Udp,
    /// Segments without data.
    Tcp,
}

/// Control bits of a TCP segment; of no effect with UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flags {
    Syn = 0x02,
    SynAck = 0x12,
    Ack = 0x10,
}

/// One end of a flow.
pub(crate) type End = (Ipv4Addr, u16);

/// Flows of each pod's address: so many of its ports.
pub(crate) const PORTS: u32 = 50_000;

/// The pod's end of flow number `n`, `ports` of each address, from 10.244.1.2:10000 on.
pub(crate) fn client(n: u32, ports: u32) -> End {
    let (pod, port) = (n / ports, n % ports);
    (Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 1, 2)) + pod), 10_000 + port as u16)
}

/// What a pod sends: 60 bytes, 64 on the wire.
pub(crate) fn from_pod(transport: Transport, src: End, dst: End, flags: Flags) -> Vec<u8> {
    let mut frame = ethernet(GATEWAY_MAC, POD_MAC);
    frame.extend(ip_packet(transport, src, dst, flags));
    frame
}

/// What the remote node sends through the tunnel. `n` spreads the outer source port.
pub(crate) fn from_tunnel(transport: Transport, src: End, dst: End, flags: Flags, n: u32) -> Vec<u8> {
    let mut inner = ethernet(LOCAL_VTEP_MAC, REMOTE_VTEP_MAC);
    inner.extend(ip_packet(transport, src, dst, flags));
    let source_port = 49_152 + (n.wrapping_mul(2_654_435_761) & 0x3fff) as u16;
    let mut udp = Vec::with_capacity(16 + inner.len());
    udp.extend(source_port.to_be_bytes());
    udp.extend(VXLAN_PORT.to_be_bytes());
    udp.extend((16 + inner.len() as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend([0x08, 0, 0, 0]);
    udp.extend((VNI << 8).to_be_bytes());
    udp.extend(inner);
    let mut frame = ethernet(LOCAL_MAC, REMOTE_MAC);
    frame.extend(ipv4(REMOTE_VTEP, LOCAL_VTEP, UDP, &udp));
    frame
}

fn ethernet(dst: Mac, src: Mac) -> Vec<u8> {
    [&dst[..], &src, &[0x08, 0x00]].concat()
}

fn ip_packet(transport: Transport, src: End, dst: End, flags: Flags) -> Vec<u8> {
    let (protocol, mut message, checksum_at) = match transport {
        Transport::Udp => (UDP, udp(src.1, dst.1), 6),
        Transport::Tcp => (TCP, tcp(src.1, dst.1, flags), 16),
    };
    let checksum = match (transport, transport_checksum(src.0, dst.0, protocol, &message)) {
        (Transport::Udp, 0) => 0xffff,
        (_, checksum) => checksum,
    };
    message[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
    ipv4(src.0, dst.0, protocol, &message)
}

fn udp(src: u16, dst: u16) -> Vec<u8> {
    let mut message = vec![0; 8 + 18];
    message[0..2].copy_from_slice(&src.to_be_bytes());
    message[2..4].copy_from_slice(&dst.to_be_bytes());
    message[5] = 8 + 18;
    message
}

fn tcp(src: u16, dst: u16, flags: Flags) -> Vec<u8> {
    let mut message = vec![0; 20 + 6];
    message[0..2].copy_from_slice(&src.to_be_bytes());
    message[2..4].copy_from_slice(&dst.to_be_bytes());
    message[4..8].copy_from_slice(&1000_u32.to_be_bytes());
    message[11] = u8::from(flags != Flags::Syn);
    message[12] = 0x50;
    message[13] = flags as u8;
    message[14..16].copy_from_slice(&65_535_u16.to_be_bytes());
    message
}

fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 20];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    packet[6] = 0x40;
    packet[8] = 64;
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&src.octets());
    packet[16..20].copy_from_slice(&dst.octets());
    let checksum = internet_checksum(&[&packet]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// The checksum of a TCP or UDP message whose checksum field is 0.
pub(crate) fn transport_checksum(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, message: &[u8]) -> u16 {
    let length = (message.len() as u16).to_be_bytes();
    internet_checksum(&[&src.octets(), &dst.octets(), &[0, protocol], &length, message])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Expected bytes: made by another program from the same description.
    #[test]
    fn frames_are_those_that_other_programs_were_measured_on() {
        let src = client(50_001, PORTS);
        assert_eq!(src, (Ipv4Addr::new(10, 244, 1, 3), 10_001));
        for (made, expected) in [
            (
                from_pod(Transport::Udp, src, (REMOTE_POD, REMOTE_PORT), Flags::Ack),
                include_str!("expected/w1_udp_50001"),
            ),
            (
                from_pod(Transport::Tcp, src, (VIP, VIP_PORT), Flags::Ack),
                include_str!("expected/w3_tcp_50001"),
            ),
            (
                from_pod(Transport::Tcp, src, (VIP, VIP_PORT), Flags::Syn),
                include_str!("expected/syn_tcp_50001"),
            ),
            (
                from_tunnel(Transport::Udp, (REMOTE_POD, REMOTE_PORT), src, Flags::Ack, 50_001),
                include_str!("expected/w2_udp_50001"),
            ),
        ] {
            assert_eq!(hex(&made), expected.trim());
        }
    }
}
