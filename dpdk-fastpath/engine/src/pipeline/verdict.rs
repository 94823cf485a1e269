//! What becomes of a packet.

use std::net::IpAddr;

use culvert_packet::eth::EthAddr;

use crate::counter::DropReason;
use crate::table::PortIndex;

/// What becomes of a packet. The packet stays with the caller, who sends or frees it. Small, so that stages hand it on in
/// a register and those of a burst take a few cache lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// To be sent through a port, as it now is.
    Send(PortIndex),
    /// To be freed. Counted already.
    Drop(DropReason),
    /// To be freed, after the control thread has been told what the underlay said:
    /// [`Pipeline::learned`](super::Pipeline::learned).
    Learned,
}

/// What the underlay said that the control thread makes use of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Learned {
    /// Who has an address.
    Neighbour(Neighbour),
    /// What the way to another node takes.
    PathMtu(PathMtu),
}

/// What a router of the underlay said about the way to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PathMtu {
    /// The node's tunnel endpoint.
    pub vtep: IpAddr,
    /// Largest IP packet that the router can send on towards it, in bytes. 0: the router did not say.
    pub mtu: u16,
}

/// A station of the underlay that has answered or asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Neighbour {
    /// Its address.
    pub ip: IpAddr,
    /// Its Ethernet address.
    pub mac: EthAddr,
    /// Whether it said so in answer to a question of ours.
    pub solicited: bool,
}

/// What is known of all packets of a burst at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// All are to be sent through this port, and fit for it as they are.
    Together(PortIndex),
    /// All are to be sent, through several ports, and fit for them as they are: nothing is to be made up for them there,
    /// such as a checksum.
    Ready,
    /// Nothing.
    Variously,
}

/// The ports that packets leave through, as far as they are one.
#[derive(Debug)]
pub(super) struct Exits {
    /// The bits that all ports' numbers have, and those that any has.
    all: u16,
    any: u16,
}

impl Exits {
    pub(super) const NONE: Self = Self { all: u16::MAX, any: 0 };

    /// A packet is sent through a port.
    #[inline(always)]
    pub(super) fn add(&mut self, PortIndex(port): PortIndex) {
        self.all &= port;
        self.any |= port;
    }

    /// Something else becomes of a packet.
    pub(super) fn add_other(&mut self) {
        *self = Self { all: 0, any: u16::MAX };
    }

    /// With these, too.
    pub(super) fn merge(&mut self, others: &Self) {
        self.all &= others.all;
        self.any |= others.any;
    }

    /// What they have in common.
    pub(super) fn common(&self) -> Leaving {
        match (self.all, self.any) {
            (all, any) if all == any => Leaving::Together(PortIndex(all)),
            // Or ports that have every bit between them: nothing is lost by looking at each packet then.
            (0, u16::MAX) => Leaving::Variously,
            _ => Leaving::Ready,
        }
    }
}
