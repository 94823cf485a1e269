//! The Internet checksum, word by word (RFC 1071).

use std::net::IpAddr;

use super::{ICMP, UDP, get16, put16};

/// What 16-bit words add up to with end-around carry; 0 only if all are 0. An odd last byte counts as if a zero followed.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    sum as u16
}

/// The checksum of bytes whose checksum field is 0.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    !sum(bytes)
}

/// The pseudo header of TCP, UDP and ICMPv6; none for ICMP.
fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let tail = [&(len as u32).to_be_bytes()[..], &[0, 0, 0, protocol]].concat();
    match (src, dst) {
        _ if protocol == ICMP => Vec::new(),
        (IpAddr::V4(src), IpAddr::V4(dst)) => [&src.octets()[..], &dst.octets(), &tail].concat(),
        (IpAddr::V6(src), IpAddr::V6(dst)) => [&src.octets()[..], &dst.octets(), &tail].concat(),
        _ => unreachable!("{src} and {dst} are of different IP versions"),
    }
}

/// Where a transport header has its checksum, if it has one of this kind.
pub(crate) fn field(protocol: u8) -> Option<usize> {
    match protocol {
        super::TCP => Some(16),
        UDP => Some(6),
        ICMP | super::ICMPV6 => Some(2),
        _ => None,
    }
}

/// What the checksum field of a transport message should be, whatever it is now. UDP sends 0 as 0xffff (RFC 768).
pub(crate) fn transport(src: IpAddr, dst: IpAddr, protocol: u8, message: &[u8]) -> u16 {
    let Some(field) = field(protocol) else { return 0 };
    let mut message = message.to_vec();
    put16(&mut message, field, 0);
    match checksum(&[pseudo(src, dst, protocol, message.len()), message].concat()) {
        0 if protocol == UDP => 0xffff,
        checksum => checksum,
    }
}

/// What stands in the checksum field of a message whose checksum is still to be computed.
pub(crate) fn partial(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> u16 {
    sum(&pseudo(src, dst, protocol, len))
}

/// Whether the message with its pseudo header adds up as it should.
pub(crate) fn is_right(src: IpAddr, dst: IpAddr, protocol: u8, message: &[u8]) -> bool {
    sum(&[pseudo(src, dst, protocol, message.len()), message.to_vec()].concat()) == 0xffff
}

/// The checksum field after a change of what it covers: right if it was right, and else wrong by as much as before. `before`
/// and `after` are what it should have been and should be. Ones-complement numbers are residues modulo 0xffff.
pub(crate) fn carried(field: u16, before: u16, after: u16, protocol: u8) -> u16 {
    if field == before { after } else { shifted(field, before, after, protocol) }
}

/// The same where only what changes is known, so that neither zero of the two is told from the other.
pub(crate) fn shifted(field: u16, before: u16, after: u16, protocol: u8) -> u16 {
    if protocol == UDP && field == 0 {
        return 0;
    }
    let error = u32::from(field) + (0xffff - u32::from(before));
    let carried = ((u32::from(after) + error) % 0xffff) as u16;
    if protocol == UDP && carried == 0 { 0xffff } else { carried }
}

/// Makes the checksum of an IPv4 header right.
pub(crate) fn fill_ipv4(packet: &mut [u8]) {
    let header = usize::from(packet[0] & 0xf) * 4;
    put16(packet, 10, 0);
    let checksum = checksum(&packet[..header]);
    put16(packet, 10, checksum);
}

/// Whether an IPv4 header adds up as it should.
pub(crate) fn ipv4_is_right(header: &[u8]) -> bool {
    sum(header) == 0xffff
}

#[test]
fn an_error_is_carried_over_a_change() {
    let (src, dst): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
    let mut message = [0, 80, 0, 81, 0, 10, 0, 0, 1, 2];
    let right = transport(src, dst, UDP, &message);
    put16(&mut message, 6, right);
    assert!(is_right(src, dst, UDP, &message));
    message[0] = 9;
    let after = transport(src, dst, UDP, &message);
    assert_eq!(carried(right, right, after, UDP), after);
    assert_eq!(carried(0, right, after, UDP), 0);
    assert_eq!(carried(right.wrapping_add(5), right, after, UDP), after.wrapping_add(5));
    assert_eq!(get16(&message, 6), right);
}
