use crate::checksum::{Delta, checksum};
use crate::icmp::IcmpType;
use crate::icmpv6::Icmpv6Type;
use crate::parse::{L3, L4, Parsed, verify_transport};

use super::{NoAnswer, TTL, eth, ipv4_mut, ipv6_mut, is_unicast, require_hosts, turn_around};

/// Turns an ICMP or ICMPv6 echo request to one of our addresses into the reply. Options, extension headers,
/// DSCP and data stay as they are.
pub fn echo_reply(frame: &mut [u8], parsed: &Parsed) -> Result<(), NoAnswer> {
    let (request, reply) = match (parsed.l4, parsed.l3) {
        (L4::Echo, L3::Ipv4) => (IcmpType::ECHO_REQUEST.0, IcmpType::ECHO_REPLY.0),
        (L4::Echo, L3::Ipv6) => (Icmpv6Type::ECHO_REQUEST.0, Icmpv6Type::ECHO_REPLY.0),
        _ => return Err(NoAnswer::NotAsked),
    };
    if parsed.icmp_type != request {
        return Err(NoAnswer::NotAsked);
    }
    if parsed.is_fragment() {
        return Err(NoAnswer::Fragment);
    }
    if !is_unicast(eth(frame)) {
        return Err(NoAnswer::Group);
    }
    require_hosts(frame, parsed)?;
    verify_transport(frame, parsed)?;

    turn_around(frame);
    if parsed.l3 == L3::Ipv4 {
        let mut ip = ipv4_mut(frame, parsed);
        let (src, dst) = (ip.src(), ip.dst());
        ip.set_src(dst);
        ip.set_dst(src);
        ip.set_ttl(TTL);
        ip.update_checksum_with_options();
    } else {
        let ip = ipv6_mut(frame, parsed);
        let (src, dst) = (ip.src(), ip.dst());
        ip.set_src(dst);
        ip.set_dst(src);
        ip.set_hop_limit(TTL);
    }
    // Swapped addresses leave the pseudo header's sum as it was.
    let message = &mut frame[usize::from(parsed.l4_offset)..parsed.end()];
    message[0] = reply;
    let field = u16::from_be_bytes([message[2], message[3]]);
    let delta = Delta::of_word(u16::from(request) << 8, u16::from(reply) << 8);
    message[2..4].copy_from_slice(&delta.apply(field).to_be_bytes());
    if message.iter().all(|byte| *byte == 0) {
        // The sum of zeros only is the other zero, which no difference comes out as.
        message[2..4].copy_from_slice(&checksum(&[]).to_be_bytes());
    }
    Ok(())
}
