use zerocopy::{FromBytes, IntoBytes};

use crate::buf::PacketBuf;
use crate::ip::Protocol;
use crate::ipv4::Ipv4Header;
use crate::ipv6::Ipv6Header;
use crate::parse::{L3, L4, Parsed};
use crate::sctp::{self, ChunkHeader, ChunkType, SctpChunks, SctpHeader};

use super::{NoAnswer, OTHER_FRAME, TTL, eth, ipv4, ipv6, is_unicast, require_hosts, turn_around};

/// Length of an SCTP packet with one chunk that has no value.
const ANSWER_LEN: usize = SctpHeader::LEN + ChunkHeader::LEN;

/// Turns an SCTP packet into what its sender gets when there is no such association: an ABORT, or in answer to SHUTDOWN ACK
/// a SHUTDOWN COMPLETE (RFC 9260, section 8.4).
///
/// The packet's checksum is not looked at, since it may have been left to a NIC: where it was not, see
/// [`verify_transport`](crate::parse::verify_transport).
pub fn sctp_abort(buf: &mut impl PacketBuf, parsed: &Parsed) -> Result<(), NoAnswer> {
    let frame = buf.data_mut();
    if parsed.l4 != L4::Sctp {
        return Err(NoAnswer::NotAsked);
    }
    if parsed.is_fragment() {
        return Err(NoAnswer::Fragment);
    }
    let chunks = parsed.sctp_chunks;
    if [SctpChunks::ABORT, SctpChunks::SHUTDOWN_COMPLETE, SctpChunks::COOKIE_ACK]
        .iter()
        .any(|last| chunks.contains(*last))
    {
        return Err(NoAnswer::Error);
    }
    if !is_unicast(eth(frame)) {
        return Err(NoAnswer::Group);
    }
    require_hosts(frame, parsed)?;

    let l3_offset = usize::from(parsed.l3_offset);
    let packet = &frame[usize::from(parsed.l4_offset)..parsed.end()];
    // Made before anything is overwritten.
    let answer = answer(packet, chunks).ok_or(NoAnswer::NotAsked)?;
    // A packet with a chunk is as long as the answer, and its IP header as long as the answer's.
    let end = if parsed.l3 == L3::Ipv4 {
        let header = ipv4(frame, parsed);
        let mut ip = Ipv4Header::new(header.dst(), header.src(), Protocol::SCTP, TTL, ANSWER_LEN as u16);
        ip.update_checksum();
        put(frame, l3_offset, ip.as_bytes(), &answer)
    } else {
        let header = ipv6(frame, parsed);
        let ip = Ipv6Header::new(header.dst(), header.src(), Protocol::SCTP, TTL, ANSWER_LEN as u16);
        put(frame, l3_offset, ip.as_bytes(), &answer)
    };
    turn_around(frame);
    buf.truncate(end);
    Ok(())
}

/// The answer to a packet; `None` to one without chunks.
fn answer(packet: &[u8], chunks: SctpChunks) -> Option<[u8; ANSWER_LEN]> {
    let (header, rest) = SctpHeader::ref_from_prefix(packet).expect(OTHER_FRAME);
    let (_, value) = rest.split_at_checked(ChunkHeader::LEN)?;
    // Who sends INIT says by what tag to answer; of all others only the tag is known that they expect us to have.
    let (tag, flags) = match value.first_chunk() {
        Some(tag) if chunks.contains(SctpChunks::INIT) => (u32::from_be_bytes(*tag), 0),
        _ => (header.verification_tag(), ChunkHeader::TAG_REFLECTED),
    };
    let kind = match chunks.contains(SctpChunks::SHUTDOWN_ACK) {
        true => ChunkType::SHUTDOWN_COMPLETE,
        false => ChunkType::ABORT,
    };
    let mut answer = [0; ANSWER_LEN];
    let mut header = SctpHeader::new(header.dst_port(), header.src_port(), tag);
    answer[SctpHeader::LEN..].copy_from_slice(ChunkHeader::new(kind, flags, 0).as_bytes());
    answer[..SctpHeader::LEN].copy_from_slice(header.as_bytes());
    header.set_checksum(sctp::checksum(&answer));
    answer[..SctpHeader::LEN].copy_from_slice(header.as_bytes());
    Some(answer)
}

/// Writes both headers, for which the packet had room, and returns where they end.
fn put(frame: &mut [u8], l3_offset: usize, ip: &[u8], answer: &[u8]) -> usize {
    let l4_offset = l3_offset + ip.len();
    let end = l4_offset + answer.len();
    frame[l3_offset..l4_offset].copy_from_slice(ip);
    frame[l4_offset..end].copy_from_slice(answer);
    end
}
