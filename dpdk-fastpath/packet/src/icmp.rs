//! ICMP for IPv4 (RFC 792).

use zerocopy::byteorder::network_endian::U16;

use crate::Malformed;
use crate::view::{Extent, views, wire};

/// What an ICMP message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpType(pub u8);

impl IcmpType {
    /// Answer to an echo request.
    pub const ECHO_REPLY: Self = Self(0);
    /// The quoted packet did not arrive.
    pub const UNREACHABLE: Self = Self(3);
    /// Send fewer packets; deprecated by RFC 6633.
    pub const SOURCE_QUENCH: Self = Self(4);
    /// There is a better gateway.
    pub const REDIRECT: Self = Self(5);
    /// Ping.
    pub const ECHO_REQUEST: Self = Self(8);
    /// The quoted packet ran out of hops or of time to be reassembled.
    pub const TIME_EXCEEDED: Self = Self(11);
    /// A field of the quoted packet makes no sense.
    pub const PARAMETER_PROBLEM: Self = Self(12);

    /// Whether the message reports an error, so that nothing may be reported about it (RFC 1122, section
    /// 3.2.2).
    #[inline]
    pub const fn is_error(self) -> bool {
        matches!(
            self,
            Self::UNREACHABLE
                | Self::SOURCE_QUENCH
                | Self::REDIRECT
                | Self::TIME_EXCEEDED
                | Self::PARAMETER_PROBLEM
        )
    }

    /// Whether the message has an identifier and a sequence number.
    #[inline]
    pub const fn is_echo(self) -> bool {
        matches!(self, Self::ECHO_REQUEST | Self::ECHO_REPLY)
    }
}

wire! {
    /// The eight bytes that every ICMP message has.
    pub struct IcmpHeader {
        kind: u8,
        code: u8,
        checksum: U16,
        first: U16,
        second: U16,
    }
}

impl IcmpHeader {
    /// An echo message without checksum.
    pub const fn echo(kind: IcmpType, identifier: u16, sequence: u16) -> Self {
        Self {
            kind: kind.0,
            code: 0,
            checksum: U16::ZERO,
            first: U16::new(identifier),
            second: U16::new(sequence),
        }
    }

    /// An error message without checksum; `mtu` is for "fragmentation needed" (RFC 1191), else 0.
    pub const fn error(kind: IcmpType, code: u8, mtu: u16) -> Self {
        Self { kind: kind.0, code, checksum: U16::ZERO, first: U16::ZERO, second: U16::new(mtu) }
    }

    /// What the message is.
    #[inline]
    pub const fn kind(&self) -> IcmpType {
        IcmpType(self.kind)
    }

    /// What it is, more exactly.
    #[inline]
    pub const fn code(&self) -> u8 {
        self.code
    }

    /// Checksum over the message.
    #[inline]
    pub const fn checksum(&self) -> u16 {
        self.checksum.get()
    }

    /// Identifier of an echo message.
    #[inline]
    pub const fn identifier(&self) -> u16 {
        self.first.get()
    }

    /// Sequence number of an echo message.
    #[inline]
    pub const fn sequence(&self) -> u16 {
        self.second.get()
    }

    /// Largest packet of the next hop, in bytes, in "fragmentation needed" (RFC 1191).
    #[inline]
    pub const fn mtu(&self) -> u16 {
        self.second.get()
    }

    /// Sets the checksum field.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        self.checksum = U16::new(checksum);
    }

    /// Sets the identifier of an echo message.
    #[inline]
    pub fn set_identifier(&mut self, identifier: u16) {
        self.first = U16::new(identifier);
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the shape that all views share")]
#[inline]
pub(crate) fn check(_: &IcmpHeader, len: usize) -> Result<Extent, Malformed> {
    Ok(Extent { header: IcmpHeader::LEN, total: len })
}

views! {
    /// An ICMP message. Its checksum is not checked on the way in.
    Icmp, IcmpMut: IcmpHeader, Malformed::IcmpTruncated, check
}
