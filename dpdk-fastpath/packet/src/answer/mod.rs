//! Answers made of the packet that asks for them, in its own buffer.
//!
//! Each function gets the frame as it came from the wire and its [`Parsed`], and leaves the answer in the
//! buffer, ready to go out where the frame came in: to the Ethernet address it came from, with the same VLAN
//! tag. When there must not be an answer, nothing has changed and the reason is returned.

mod abort;
mod arp;
mod echo;
mod error;
mod neighbour;
mod reset;
#[cfg(test)]
mod tests;

pub use abort::sctp_abort;
pub use arp::arp_reply;
pub use echo::echo_reply;
pub use error::{IcmpError, icmp_error};
pub use neighbour::neighbour_advertisement;
pub use reset::tcp_reset;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use zerocopy::FromBytes;

use crate::eth::EthHeader;
use crate::ipv4::{Ipv4Header, Ipv4Mut};
use crate::ipv6::Ipv6Header;
use crate::malformed::Malformed;
use crate::parse::{L3, Parsed};

/// Why a packet gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoAnswer {
    /// It is not a packet that this function answers.
    NotAsked,
    /// It is itself an error message or a reset, and answers to these could go on for ever.
    Error,
    /// It was sent to a group, or from an address that is not one station's.
    Group,
    /// It is a fragment, and this answer needs the whole packet or the first.
    Fragment,
    /// The buffer has too little room.
    Room,
    /// The part of it that the answer depends on is malformed.
    Malformed(Malformed),
}

impl NoAnswer {
    /// The reason as counters name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAsked => "answer-not-asked",
            Self::Error => "answer-to-error",
            Self::Group => "answer-to-group",
            Self::Fragment => "answer-to-fragment",
            Self::Room => "answer-no-room",
            Self::Malformed(reason) => reason.name(),
        }
    }
}

impl From<Malformed> for NoAnswer {
    fn from(reason: Malformed) -> Self {
        Self::Malformed(reason)
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for NoAnswer {}

/// Time to live of what we send ourselves (RFC 1700, and what Linux does).
pub const TTL: u8 = 64;

const OTHER_FRAME: &str = "a frame comes with the Parsed that was made from it";

fn eth(frame: &[u8]) -> &EthHeader {
    EthHeader::ref_from_prefix(frame).expect(OTHER_FRAME).0
}

fn eth_mut(frame: &mut [u8]) -> &mut EthHeader {
    EthHeader::mut_from_prefix(frame).expect(OTHER_FRAME).0
}

fn ipv4<'a>(frame: &'a [u8], parsed: &Parsed) -> &'a Ipv4Header {
    Ipv4Header::ref_from_prefix(&frame[usize::from(parsed.l3_offset)..]).expect(OTHER_FRAME).0
}

fn ipv4_mut<'a>(frame: &'a mut [u8], parsed: &Parsed) -> Ipv4Mut<'a> {
    Ipv4Mut::new(&mut frame[usize::from(parsed.l3_offset)..]).expect(OTHER_FRAME)
}

fn ipv6<'a>(frame: &'a [u8], parsed: &Parsed) -> &'a Ipv6Header {
    Ipv6Header::ref_from_prefix(&frame[usize::from(parsed.l3_offset)..]).expect(OTHER_FRAME).0
}

fn ipv6_mut<'a>(frame: &'a mut [u8], parsed: &Parsed) -> &'a mut Ipv6Header {
    Ipv6Header::mut_from_prefix(&mut frame[usize::from(parsed.l3_offset)..]).expect(OTHER_FRAME).0
}

/// Sends a frame back to where it came from.
fn turn_around(frame: &mut [u8]) {
    let header = eth_mut(frame);
    let (dst, src) = (header.dst(), header.src());
    header.set_dst(src);
    header.set_src(dst);
}

/// Whether the frame went from one station to one station.
fn is_unicast(header: &EthHeader) -> bool {
    header.src().is_unicast() && header.dst().is_unicast()
}

/// Refuses packets to or from what is not a single host (RFC 1122, section 3.2.2; RFC 4443, section 2.4 e). A
/// subnet's broadcast address is for the caller to know; such packets come in broadcast frames.
fn require_hosts(frame: &[u8], parsed: &Parsed) -> Result<(), NoAnswer> {
    let hosts = match parsed.l3 {
        L3::Ipv4 => {
            let header = ipv4(frame, parsed);
            is_host_v4(header.src()) && is_host_v4(header.dst())
        }
        L3::Ipv6 => {
            let header = ipv6(frame, parsed);
            is_host_v6(header.src()) && is_host_v6(header.dst())
        }
        L3::Arp | L3::Other(_) => return Err(NoAnswer::NotAsked),
    };
    if hosts { Ok(()) } else { Err(NoAnswer::Group) }
}

fn is_host_v4(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    // 0/8, 127/8, and from 224/4 on groups and reserved, the limited broadcast address among them.
    first != 0 && first != 127 && first < 224
}

fn is_host_v6(address: Ipv6Addr) -> bool {
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
}
