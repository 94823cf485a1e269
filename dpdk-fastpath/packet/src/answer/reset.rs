use zerocopy::{FromBytes, IntoBytes};

use crate::buf::PacketBuf;
use crate::checksum::Sum;
use crate::ip::Protocol;
use crate::ipv4::Ipv4Header;
use crate::ipv6::Ipv6Header;
use crate::parse::{L3, L4, Parsed};
use crate::tcp::{TcpFlags, TcpHeader};

use super::{NoAnswer, OTHER_FRAME, TTL, eth, ipv4, ipv6, is_unicast, require_hosts, turn_around};

/// Turns a TCP segment into the reset that its sender gets when there is no such connection (RFC 9293,
/// section 3.10.7.1).
///
/// The segment's checksum is not looked at, since it may have been left to a NIC: where it was not, see
/// [`verify_transport`](crate::parse::verify_transport).
pub fn tcp_reset(buf: &mut impl PacketBuf, parsed: &Parsed) -> Result<(), NoAnswer> {
    let frame = buf.data_mut();
    if parsed.l4 != L4::Tcp {
        return Err(NoAnswer::NotAsked);
    }
    if parsed.is_fragment() {
        return Err(NoAnswer::Fragment);
    }
    if parsed.tcp_flags.contains(TcpFlags::RST) {
        return Err(NoAnswer::Error);
    }
    if !is_unicast(eth(frame)) {
        return Err(NoAnswer::Group);
    }
    require_hosts(frame, parsed)?;

    let mut tcp = reset(frame, parsed);
    let l3_offset = usize::from(parsed.l3_offset);
    let end = if parsed.l3 == L3::Ipv4 {
        let segment_to = ipv4(frame, parsed);
        let (from, to) = (segment_to.dst(), segment_to.src());
        let pseudo = Sum::pseudo_v4(from, to, Protocol::TCP, TcpHeader::LEN as u32);
        tcp.set_checksum(pseudo.bytes(tcp.as_bytes()).checksum());
        let mut ip = Ipv4Header::new(from, to, Protocol::TCP, TTL, TcpHeader::LEN as u16);
        ip.update_checksum();
        put(frame, l3_offset, ip.as_bytes(), &tcp)
    } else {
        let segment_to = ipv6(frame, parsed);
        let (from, to) = (segment_to.dst(), segment_to.src());
        let pseudo = Sum::pseudo_v6(from, to, Protocol::TCP, TcpHeader::LEN as u32);
        tcp.set_checksum(pseudo.bytes(tcp.as_bytes()).checksum());
        let ip = Ipv6Header::new(from, to, Protocol::TCP, TTL, TcpHeader::LEN as u16);
        put(frame, l3_offset, ip.as_bytes(), &tcp)
    };
    turn_around(frame);
    buf.truncate(end);
    Ok(())
}

fn reset(frame: &[u8], parsed: &Parsed) -> TcpHeader {
    let (segment, _) =
        TcpHeader::ref_from_prefix(&frame[usize::from(parsed.l4_offset)..]).expect(OTHER_FRAME);
    let (from, to) = (segment.dst_port(), segment.src_port());
    if segment.flags().contains(TcpFlags::ACK) {
        return TcpHeader::new(from, to, segment.acknowledgement(), 0, TcpFlags::RST);
    }
    // SYN and FIN take a sequence number each.
    let controls = [TcpFlags::SYN, TcpFlags::FIN].map(|flag| u32::from(segment.flags().contains(flag)));
    let data_len = (parsed.l4_len() - segment.header_len()) as u32;
    let next = segment.sequence().wrapping_add(data_len).wrapping_add(controls[0] + controls[1]);
    TcpHeader::new(from, to, 0, next, TcpFlags::RST | TcpFlags::ACK)
}

/// Writes both headers, for which the segment had room, and returns where they end.
fn put(frame: &mut [u8], l3_offset: usize, ip: &[u8], tcp: &TcpHeader) -> usize {
    let l4_offset = l3_offset + ip.len();
    let end = l4_offset + TcpHeader::LEN;
    frame[l3_offset..l4_offset].copy_from_slice(ip);
    frame[l4_offset..end].copy_from_slice(tcp.as_bytes());
    end
}
