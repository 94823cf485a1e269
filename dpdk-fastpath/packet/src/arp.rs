//! ARP for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use zerocopy::byteorder::network_endian::U16;

use crate::Malformed;
use crate::eth::{EthAddr, EtherType};
use crate::view::{Extent, view, wire};

const ETHERNET: u16 = 1;

/// What an ARP packet wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArpOperation(pub u16);

impl ArpOperation {
    /// Who has the target address?
    pub const REQUEST: Self = Self(1);
    /// The sender has the sender address.
    pub const REPLY: Self = Self(2);
}

wire! {
    /// An ARP packet for IPv4 over Ethernet.
    pub struct ArpHeader {
        hardware: U16,
        protocol: U16,
        hardware_len: u8,
        protocol_len: u8,
        operation: U16,
        sender_mac: EthAddr,
        sender_ip: [u8; 4],
        target_mac: EthAddr,
        target_ip: [u8; 4],
    }
}

impl ArpHeader {
    /// A packet in which `sender` and `target` are pairs of Ethernet and IPv4 address.
    pub const fn new(
        operation: ArpOperation,
        sender: (EthAddr, Ipv4Addr),
        target: (EthAddr, Ipv4Addr),
    ) -> Self {
        Self {
            hardware: U16::new(ETHERNET),
            protocol: U16::new(EtherType::IPV4.0),
            hardware_len: 6,
            protocol_len: 4,
            operation: U16::new(operation.0),
            sender_mac: sender.0,
            sender_ip: sender.1.octets(),
            target_mac: target.0,
            target_ip: target.1.octets(),
        }
    }

    /// Request, reply or something rarer.
    #[inline]
    pub const fn operation(&self) -> ArpOperation {
        ArpOperation(self.operation.get())
    }

    /// Ethernet address of the sender.
    #[inline]
    pub const fn sender_mac(&self) -> EthAddr {
        self.sender_mac
    }

    /// IPv4 address of the sender; unspecified in a probe (RFC 5227).
    #[inline]
    pub const fn sender_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.sender_ip)
    }

    /// Ethernet address of the target; means nothing in a request.
    #[inline]
    pub const fn target_mac(&self) -> EthAddr {
        self.target_mac
    }

    /// IPv4 address of the target.
    #[inline]
    pub const fn target_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.target_ip)
    }
}

#[inline]
pub(crate) fn check(header: &ArpHeader, _: usize) -> Result<Extent, Malformed> {
    let kind = (header.hardware.get(), header.protocol.get(), header.hardware_len, header.protocol_len);
    if kind != (ETHERNET, EtherType::IPV4.0, 6, 4) {
        return Err(Malformed::ArpType);
    }
    Ok(Extent { header: ArpHeader::LEN, total: ArpHeader::LEN })
}

view! {
    /// An ARP packet.
    Arp: ArpHeader, Malformed::ArpTruncated, check
}
