//! ICMPv6 (RFC 4443) and neighbour discovery (RFC 4861).

use std::net::Ipv6Addr;

use zerocopy::byteorder::network_endian::{U16, U32};

use crate::Malformed;
use crate::eth::EthAddr;
use crate::view::{Extent, views, wire};

/// What an ICMPv6 message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icmpv6Type(pub u8);

impl Icmpv6Type {
    /// The quoted packet did not arrive.
    pub const UNREACHABLE: Self = Self(1);
    /// The quoted packet is larger than the next link takes.
    pub const PACKET_TOO_BIG: Self = Self(2);
    /// The quoted packet ran out of hops or of time to be reassembled.
    pub const TIME_EXCEEDED: Self = Self(3);
    /// A field of the quoted packet makes no sense.
    pub const PARAMETER_PROBLEM: Self = Self(4);
    /// Ping.
    pub const ECHO_REQUEST: Self = Self(128);
    /// Answer to an echo request.
    pub const ECHO_REPLY: Self = Self(129);
    /// Who has the target address?
    pub const NEIGHBOUR_SOLICITATION: Self = Self(135);
    /// The sender has the target address.
    pub const NEIGHBOUR_ADVERTISEMENT: Self = Self(136);
    /// There is a better way.
    pub const REDIRECT: Self = Self(137);

    /// Whether nothing may be reported about the message (RFC 4443, section 2.4 e).
    #[inline]
    pub const fn is_error(self) -> bool {
        self.0 < 128 || self.0 == Self::REDIRECT.0
    }

    /// Whether the message has an identifier and a sequence number.
    #[inline]
    pub const fn is_echo(self) -> bool {
        matches!(self, Self::ECHO_REQUEST | Self::ECHO_REPLY)
    }
}

wire! {
    /// The eight bytes that every ICMPv6 message of those in use has.
    pub struct Icmpv6Header {
        kind: u8,
        code: u8,
        checksum: U16,
        body: U32,
    }
}

impl Icmpv6Header {
    /// A message without checksum; `body` is what follows the checksum.
    pub const fn new(kind: Icmpv6Type, code: u8, body: u32) -> Self {
        Self { kind: kind.0, code, checksum: U16::ZERO, body: U32::new(body) }
    }

    /// An echo message without checksum.
    pub const fn echo(kind: Icmpv6Type, identifier: u16, sequence: u16) -> Self {
        Self::new(kind, 0, (identifier as u32) << 16 | sequence as u32)
    }

    /// What the message is.
    #[inline]
    pub const fn kind(&self) -> Icmpv6Type {
        Icmpv6Type(self.kind)
    }

    /// What it is, more exactly.
    #[inline]
    pub const fn code(&self) -> u8 {
        self.code
    }

    /// Checksum over pseudo header and message.
    #[inline]
    pub const fn checksum(&self) -> u16 {
        self.checksum.get()
    }

    /// Identifier of an echo message.
    #[inline]
    pub const fn identifier(&self) -> u16 {
        (self.body.get() >> 16) as u16
    }

    /// Sequence number of an echo message.
    #[inline]
    pub const fn sequence(&self) -> u16 {
        self.body.get() as u16
    }

    /// Largest packet of the next hop, in bytes, in "packet too big".
    #[inline]
    pub const fn mtu(&self) -> u32 {
        self.body.get()
    }

    /// Sets the checksum field.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        self.checksum = U16::new(checksum);
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the shape that all views share")]
#[inline]
pub(crate) fn check(_: &Icmpv6Header, len: usize) -> Result<Extent, Malformed> {
    Ok(Extent { header: Icmpv6Header::LEN, total: len })
}

views! {
    /// An ICMPv6 message. Its checksum is not checked on the way in: that takes the IPv6 header.
    Icmpv6, Icmpv6Mut: Icmpv6Header, Malformed::IcmpTruncated, check
}

wire! {
    /// A neighbour solicitation or advertisement, without its options (RFC 4861, sections 4.3 and 4.4).
    pub struct NeighbourHeader {
        kind: u8,
        code: u8,
        checksum: U16,
        flags: U32,
        target: [u8; 16],
    }
}

/// The advertisement comes from a router.
pub const ROUTER: u32 = 0x8000_0000;
/// The advertisement answers a solicitation.
pub const SOLICITED: u32 = 0x4000_0000;
/// The advertisement replaces what is known.
pub const OVERRIDE: u32 = 0x2000_0000;

impl NeighbourHeader {
    /// A solicitation for `target`, without checksum.
    pub const fn solicitation(target: Ipv6Addr) -> Self {
        Self::with(Icmpv6Type::NEIGHBOUR_SOLICITATION, 0, target)
    }

    /// An advertisement of `target`, without checksum; `flags` of [`ROUTER`], [`SOLICITED`] and [`OVERRIDE`].
    pub const fn advertisement(target: Ipv6Addr, flags: u32) -> Self {
        Self::with(Icmpv6Type::NEIGHBOUR_ADVERTISEMENT, flags, target)
    }

    const fn with(kind: Icmpv6Type, flags: u32, target: Ipv6Addr) -> Self {
        Self { kind: kind.0, code: 0, checksum: U16::ZERO, flags: U32::new(flags), target: target.octets() }
    }

    /// Solicitation or advertisement.
    #[inline]
    pub const fn kind(&self) -> Icmpv6Type {
        Icmpv6Type(self.kind)
    }

    /// [`ROUTER`], [`SOLICITED`] and [`OVERRIDE`] of an advertisement.
    #[inline]
    pub const fn flags(&self) -> u32 {
        self.flags.get()
    }

    /// The address that is asked for or advertised.
    #[inline]
    pub const fn target(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(self.target)
    }

    /// Sets the checksum field.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        self.checksum = U16::new(checksum);
    }
}

fn check_neighbour(header: &NeighbourHeader, len: usize) -> Result<Extent, Malformed> {
    let known =
        matches!(header.kind(), Icmpv6Type::NEIGHBOUR_SOLICITATION | Icmpv6Type::NEIGHBOUR_ADVERTISEMENT);
    if !known || header.code != 0 || header.target().is_multicast() {
        return Err(Malformed::NdInvalid);
    }
    Ok(Extent { header: len, total: len })
}

views! {
    /// A neighbour solicitation or advertisement whose target is no multicast address. Its checksum, and what
    /// RFC 4861, section 7.1 demands of the IPv6 header, is not checked on the way in.
    Neighbour, NeighbourMut: NeighbourHeader, Malformed::NdInvalid, check_neighbour
}

/// Option that holds the Ethernet address of a solicitation's sender.
pub const SOURCE_LINK_LAYER: u8 = 1;
/// Option that holds the Ethernet address of an advertisement's target.
pub const TARGET_LINK_LAYER: u8 = 2;

impl Neighbour<'_> {
    /// The Ethernet address in the first option of type `kind`; an error if an option has length 0 or ends
    /// past the message.
    pub fn link_layer(&self, kind: u8) -> Result<Option<EthAddr>, Malformed> {
        let mut rest = self.options;
        let mut found = None;
        while let Some((&[option, units], _)) = rest.split_first_chunk() {
            let length = usize::from(units) * 8;
            if length == 0 || length > rest.len() {
                return Err(Malformed::NdInvalid);
            }
            if let (true, None, &[_, _, a, b, c, d, e, f, ..]) = (option == kind, found, rest) {
                found = Some(EthAddr([a, b, c, d, e, f]));
            }
            rest = &rest[length..];
        }
        if rest.is_empty() { Ok(found) } else { Err(Malformed::NdInvalid) }
    }
}
