//! UDP datagrams in Ethernet frames, written by etherparse.

use culvert_packet::eth::EthAddr;
use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, UdpHeader};

use crate::relay::Station;

/// A datagram, or what is to look like one.
#[derive(Debug, Clone)]
pub(crate) struct Datagram {
    pub(crate) eth: Ethernet2Header,
    pub(crate) ip: Ipv4Header,
    pub(crate) ports: (u16, u16),
    pub(crate) has_checksum: bool,
    pub(crate) payload: Vec<u8>,
}

impl Datagram {
    pub(crate) fn new(from: (EthAddr, Station), to: (EthAddr, Station), len: usize) -> Self {
        let ((source, src), (destination, dst)) = (from, to);
        let mut ip = Ipv4Header::new(0, 64, IpNumber::UDP, src.0.octets(), dst.0.octets()).unwrap();
        ip.identification = 7;
        Self {
            eth: Ethernet2Header {
                source: source.0,
                destination: destination.0,
                ether_type: EtherType::IPV4,
            },
            ip,
            ports: (src.1, dst.1),
            has_checksum: true,
            payload: (0..len).map(|n| n as u8).collect(),
        }
    }

    /// As it is after a hop, in another connection.
    pub(crate) fn after_a_hop(&self, from: (EthAddr, Station), to: (EthAddr, Station)) -> Self {
        let mut next = Self { payload: self.payload.clone(), ..Self::new(from, to, 0) };
        (next.ip.time_to_live, next.has_checksum) = (self.ip.time_to_live - 1, self.has_checksum);
        next
    }

    /// The IP packet, with lengths and checksums.
    pub(crate) fn packet(&self) -> Vec<u8> {
        let mut ip = self.ip.clone();
        ip.set_payload_len(UdpHeader::LEN + self.payload.len()).unwrap();
        ip.header_checksum = ip.calc_header_checksum();
        let mut packet = Vec::new();
        ip.write(&mut packet).unwrap();
        self.udp(&ip).write(&mut packet).unwrap();
        packet.extend(&self.payload);
        packet
    }

    fn udp(&self, ip: &Ipv4Header) -> UdpHeader {
        let (src, dst) = self.ports;
        let mut udp = UdpHeader::with_ipv4_checksum(src, dst, ip, &self.payload).unwrap();
        udp.checksum *= u16::from(self.has_checksum);
        udp
    }

    /// The same in its frame.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        self.eth.write(&mut frame).unwrap();
        frame.extend(self.packet());
        frame
    }

    /// With a payload that makes its checksum 0, which is sent as all ones.
    pub(crate) fn with_checksum_of_ones(mut self) -> Self {
        let all_ones = (0..=u16::MAX).find(|word| {
            self.payload = word.to_be_bytes().to_vec();
            self.udp(&self.ip).checksum == u16::MAX
        });
        assert!(all_ones.is_some());
        self
    }
}
