//! TCP segments in Ethernet frames, read and written by etherparse.

use std::net::Ipv4Addr;

use culvert_packet::eth::EthAddr;
use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, NetHeaders, PacketHeaders, TcpHeader, TransportHeader,
};

/// A TCP segment, or what is to look like one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Segment {
    pub(crate) eth: Ethernet2Header,
    pub(crate) ip: Ipv4Header,
    pub(crate) tcp: TcpHeader,
    pub(crate) payload: Vec<u8>,
}

impl Segment {
    /// One in the midst of a connection.
    pub(crate) fn new(
        (from, source): (EthAddr, (Ipv4Addr, u16)),
        (to, destination): (EthAddr, (Ipv4Addr, u16)),
        len: usize,
    ) -> Self {
        let mut tcp = TcpHeader::new(source.1, destination.1, 1000, 512);
        (tcp.ack, tcp.acknowledgment_number) = (true, 2000);
        let (source, destination) = (source.0.octets(), destination.0.octets());
        Self {
            eth: Ethernet2Header { source: from.0, destination: to.0, ether_type: EtherType::IPV4 },
            ip: Ipv4Header::new(0, 64, IpNumber::TCP, source, destination).unwrap(),
            tcp,
            payload: (0..len).map(|n| n as u8).collect(),
        }
    }

    /// `None` if it is none.
    pub(crate) fn parse(frame: &[u8]) -> Option<Self> {
        let headers = PacketHeaders::from_ethernet_slice(frame).ok()?;
        let eth = headers.link?.ethernet2()?;
        let (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Tcp(tcp))) =
            (headers.net, headers.transport)
        else {
            return None;
        };
        Some(Self { eth, ip, tcp, payload: headers.payload.slice().to_vec() })
    }

    /// The frame, with lengths and checksums.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        self.eth.write(&mut frame).unwrap();
        frame.extend(self.packet());
        frame
    }

    /// The IP packet, with lengths and checksums.
    pub(crate) fn packet(&self) -> Vec<u8> {
        let Self { mut ip, mut tcp, .. } = self.clone();
        ip.set_payload_len(tcp.header_len() + self.payload.len()).unwrap();
        tcp.checksum = tcp.calc_checksum_ipv4(&ip, &self.payload).unwrap();
        let mut packet = Vec::new();
        ip.write(&mut packet).unwrap();
        tcp.write(&mut packet).unwrap();
        packet.extend(&self.payload);
        packet
    }

    /// Whether it opens a connection.
    pub(crate) fn opens(&self) -> bool {
        self.tcp.syn && !self.tcp.ack
    }
}
