use std::net::Ipv6Addr;

use crate::buf::PacketBuf;
use crate::eth::EthAddr;
use crate::icmpv6::{Icmpv6Type, Neighbour, SOLICITED, SOURCE_LINK_LAYER};
use crate::malformed::Malformed;
use crate::neighbour::{ADVERTISEMENT_LEN, ALL_NODES, write_advertisement};
use crate::parse::{L3, L4, Parsed, verify_transport};

use super::{NoAnswer, eth, eth_mut, ipv6, is_host_v6};

/// Turns a neighbour solicitation into the advertisement that its target is at `mac`. Whether that address is
/// ours is for the caller to know. `flags` are [`ROUTER`](crate::icmpv6::ROUTER) and
/// [`OVERRIDE`](crate::icmpv6::OVERRIDE); [`SOLICITED`] is added unless a host that has no address yet asks
/// (duplicate address detection, RFC 4862): that answer goes to all nodes.
pub fn neighbour_advertisement(
    buf: &mut impl PacketBuf,
    parsed: &Parsed,
    mac: EthAddr,
    flags: u32,
) -> Result<(), NoAnswer> {
    let asked = solicitation(buf.data(), parsed)?;
    let l3_offset = usize::from(parsed.l3_offset);
    let len = l3_offset + ADVERTISEMENT_LEN;
    if let Some(missing) = len.checked_sub(buf.len()).filter(|missing| *missing > 0) {
        buf.append(missing).ok_or(NoAnswer::Room)?;
    }
    buf.truncate(len);
    let frame = buf.data_mut();
    let (to_mac, to, flags) = match asked.by {
        Some((mac, address)) => (mac, address, flags | SOLICITED),
        None => (EthAddr::of_ipv6_multicast(ALL_NODES), ALL_NODES, flags & !SOLICITED),
    };
    let header = eth_mut(frame);
    header.set_dst(to_mac);
    header.set_src(mac);
    write_advertisement(&mut frame[l3_offset..], mac, asked.target, to, flags);
    Ok(())
}

struct Solicitation {
    target: Ipv6Addr,
    /// Who asks; nobody during duplicate address detection.
    by: Option<(EthAddr, Ipv6Addr)>,
}

/// Checks what RFC 4861, section 7.1.1 demands of a solicitation.
fn solicitation(frame: &[u8], parsed: &Parsed) -> Result<Solicitation, NoAnswer> {
    let is_icmp = (parsed.l3, parsed.l4) == (L3::Ipv6, L4::Icmp);
    if !is_icmp || parsed.icmp_type != Icmpv6Type::NEIGHBOUR_SOLICITATION.0 {
        return Err(NoAnswer::NotAsked);
    }
    // RFC 6980, section 5.
    if parsed.is_fragment() {
        return Err(NoAnswer::Fragment);
    }
    if parsed.ttl != 255 {
        return Err(Malformed::NdInvalid.into());
    }
    verify_transport(frame, parsed)?;
    let message = Neighbour::new(&frame[usize::from(parsed.l4_offset)..parsed.end()])?;
    let from_mac = message.link_layer(SOURCE_LINK_LAYER)?;
    let target = message.target();
    let (src, dst) = (ipv6(frame, parsed).src(), ipv6(frame, parsed).dst());
    if src.is_unspecified() {
        let to_group = dst.octets()[..13] == [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff];
        if from_mac.is_some() || !to_group {
            return Err(Malformed::NdInvalid.into());
        }
        return Ok(Solicitation { target, by: None });
    }
    let mac = from_mac.unwrap_or(eth(frame).src());
    if !is_host_v6(src) || !mac.is_unicast() {
        return Err(NoAnswer::Group);
    }
    Ok(Solicitation { target, by: Some((mac, src)) })
}
