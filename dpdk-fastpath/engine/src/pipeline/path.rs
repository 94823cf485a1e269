//! What the underlay says about packets of ours.
//!
//! In: an ICMP error to this node's tunnel endpoint. Out: if it is about a tunnel packet to another node, which was too big
//! for a link on the way: what that link takes, for the control thread. All others are dropped by reason: that a node is not
//! reached, its own silence tells better than what anybody on the underlay may say.

use std::net::IpAddr;

use culvert_packet::Parsed;
use culvert_packet::flow::Tenant;
use culvert_packet::icmp::{Icmp, IcmpType};
use culvert_packet::icmpv6::{Icmpv6, Icmpv6Type};
use culvert_packet::ip::Protocol;
use culvert_packet::parse::{L3, verify_transport};
use culvert_packet::quote::Quote;

use super::stage::Stage;
use super::verdict::{Learned, PathMtu, Verdict};
use crate::counter::DropReason;

/// "Fragmentation needed" among the codes of "destination unreachable" (RFC 792).
const FRAGMENTATION_NEEDED: u8 = 4;

impl Stage<'_> {
    /// Ends an ICMP message that is no echo.
    pub(super) fn error_from_underlay(&mut self, frame: &[u8], parsed: &Parsed) -> Verdict {
        let Some(vtep) = self.quoted_vtep(frame, parsed) else {
            return self.drop(DropReason::UNDERLAY_NOT_FOR_US);
        };
        if let Err(malformed) = verify_transport(frame, parsed) {
            return self.drop(malformed);
        }
        match mtu(frame, parsed) {
            Some(mtu) => self.learn(Learned::PathMtu(PathMtu { vtep, mtu })),
            None => self.drop(DropReason::UNDERLAY_ERROR),
        }
    }

    /// Where the tunnel packet that an error quotes was going, if it is one of ours to a node that we know.
    fn quoted_vtep(&self, frame: &[u8], parsed: &Parsed) -> Option<IpAddr> {
        let quote = Quote::of(frame, parsed)?;
        let (protocol, src, dst, port) = match quote.key4(frame, Tenant::DEFAULT) {
            Some(key) => (key.protocol(), key.src().into(), key.dst().into(), key.dst_port()),
            None => {
                let key = quote.key6(frame, Tenant::DEFAULT)?;
                (key.protocol(), key.src().into(), key.dst().into(), key.dst_port())
            }
        };
        let ours = protocol == Protocol::UDP && port == self.local.tunnels.port && self.local.is_vtep(src);
        (ours && self.view.remote_of_vtep(dst).is_some()).then_some(dst)
    }
}

/// What a router takes that had no room for a packet; `None` for another error.
fn mtu(frame: &[u8], parsed: &Parsed) -> Option<u16> {
    let message = frame.get(usize::from(parsed.l4_offset)..)?;
    if parsed.l3 == L3::Ipv4 {
        let icmp = Icmp::new(message).ok()?;
        let too_big = icmp.kind() == IcmpType::UNREACHABLE && icmp.code() == FRAGMENTATION_NEEDED;
        return too_big.then(|| icmp.mtu());
    }
    let icmp = Icmpv6::new(message).ok()?;
    // More than a packet can be long says nothing.
    (icmp.kind() == Icmpv6Type::PACKET_TOO_BIG).then(|| icmp.mtu().try_into().unwrap_or(u16::MAX))
}
