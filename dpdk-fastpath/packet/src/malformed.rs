//! Why bytes are no legal packet.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why bytes are no legal packet: one flat list, so that a counter per reason is an array index.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Malformed {
            $($(#[$doc])* $variant,)*
        }

        impl Malformed {
            /// Every reason, in the order of its discriminant: `ALL[reason as usize] == reason`.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The reason as counters name it: `ipv4-checksum`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

reasons! {
    /// Shorter than an Ethernet header.
    EthTruncated = "eth-truncated",
    /// Shorter than the 802.1Q tag that its EtherType announces.
    VlanTruncated = "vlan-truncated",
    /// Shorter than an ARP packet for Ethernet and IPv4 (RFC 826).
    ArpTruncated = "arp-truncated",
    /// ARP for another hardware than Ethernet or another protocol than IPv4.
    ArpType = "arp-type",
    /// Shorter than an IPv4 header.
    Ipv4Truncated = "ipv4-truncated",
    /// EtherType IPv4, but another version in the header.
    Ipv4BadVersion = "ipv4-bad-version",
    /// IHL below five words or past the end of the packet.
    Ipv4HeaderLength = "ipv4-header-length",
    /// Total length below the header's or past the end of the frame.
    Ipv4TotalLength = "ipv4-total-length",
    /// Wrong header checksum.
    Ipv4Checksum = "ipv4-checksum",
    /// A fragment that ends past 65535 bytes, or one with successors whose length is no multiple of eight.
    Ipv4Fragment = "ipv4-fragment",
    /// Shorter than an IPv6 header.
    Ipv6Truncated = "ipv6-truncated",
    /// EtherType IPv6, but another version in the header.
    Ipv6BadVersion = "ipv6-bad-version",
    /// Payload length past the end of the frame.
    Ipv6PayloadLength = "ipv6-payload-length",
    /// An extension header past the end of the packet.
    Ipv6ExtensionTruncated = "ipv6-extension-truncated",
    /// More extension headers than [`MAX_EXTENSIONS`](crate::ipv6::MAX_EXTENSIONS), or hop-by-hop options
    /// anywhere but first, or a second fragment header (RFC 8200, section 4.1).
    Ipv6ExtensionChain = "ipv6-extension-chain",
    /// As [`Ipv4Fragment`](Self::Ipv4Fragment) (RFC 8200, section 4.5).
    Ipv6Fragment = "ipv6-fragment",
    /// Shorter than an ICMP or ICMPv6 header.
    IcmpTruncated = "icmp-truncated",
    /// Wrong ICMP or ICMPv6 checksum.
    IcmpChecksum = "icmp-checksum",
    /// Shorter than its message type needs, or a neighbour discovery message that fails the checks of RFC
    /// 4861, section 7.1.
    NdInvalid = "nd-invalid",
    /// Shorter than a TCP header.
    TcpTruncated = "tcp-truncated",
    /// Data offset below five words or past the end of the segment.
    TcpOffset = "tcp-offset",
    /// A fragment that would overwrite the TCP header of the first (RFC 1858, RFC 3128).
    TcpTinyFragment = "tcp-tiny-fragment",
    /// Wrong TCP checksum.
    TcpChecksum = "tcp-checksum",
    /// Shorter than a UDP header.
    UdpTruncated = "udp-truncated",
    /// UDP length below eight or past the end of the packet.
    UdpLength = "udp-length",
    /// Wrong UDP checksum, or none over IPv6 where one is mandatory.
    UdpChecksum = "udp-checksum",
    /// Shorter than the common header of SCTP.
    SctpTruncated = "sctp-truncated",
    /// A chunk past the end of the packet or shorter than its header, or one that must not be where it is among others
    /// (RFC 9260, sections 3 and 6.10).
    SctpChunk = "sctp-chunk",
    /// Wrong SCTP checksum.
    SctpChecksum = "sctp-checksum",
    /// Shorter than a VXLAN header and an Ethernet header in it.
    VxlanTruncated = "vxlan-truncated",
    /// The I flag is not set: no valid VNI (RFC 7348, section 5).
    VxlanFlags = "vxlan-flags",
    /// A fragment of a tunnel packet: tunnel endpoints must not make them (RFC 7348, section 4.3) or should not (RFC
    /// 8926, section 4.3).
    TunnelFragment = "tunnel-fragment",
    /// Shorter than a Geneve header, its options and an Ethernet header behind them.
    GeneveTruncated = "geneve-truncated",
    /// A version of Geneve other than 0.
    GeneveVersion = "geneve-version",
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_has_its_own_kebab_case_name_and_its_place_in_all() {
        let names: HashSet<_> = Malformed::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), Malformed::ALL.len());
        for (i, reason) in Malformed::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
            assert!(
                reason.name().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                "{reason}"
            );
        }
    }
}
