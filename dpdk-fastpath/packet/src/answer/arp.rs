use zerocopy::IntoBytes;

use crate::arp::{Arp, ArpHeader, ArpOperation};
use crate::eth::EthAddr;
use crate::parse::{L3, Parsed};

use super::{NoAnswer, eth_mut};

/// Turns an ARP request into the reply that its target address is at `mac`. Whether that address is ours is
/// for the caller to know. Probes (RFC 5227) are answered too.
pub fn arp_reply(frame: &mut [u8], parsed: &Parsed, mac: EthAddr) -> Result<(), NoAnswer> {
    if parsed.l3 != L3::Arp {
        return Err(NoAnswer::NotAsked);
    }
    let packet = &mut frame[usize::from(parsed.l3_offset)..];
    let request = *Arp::new(packet)?;
    if request.operation() != ArpOperation::REQUEST {
        return Err(NoAnswer::NotAsked);
    }
    if !request.sender_mac().is_unicast() {
        return Err(NoAnswer::Group);
    }
    let reply = ArpHeader::new(
        ArpOperation::REPLY,
        (mac, request.target_ip()),
        (request.sender_mac(), request.sender_ip()),
    );
    packet[..ArpHeader::LEN].copy_from_slice(reply.as_bytes());
    let eth = eth_mut(frame);
    eth.set_dst(request.sender_mac());
    eth.set_src(mac);
    Ok(())
}
