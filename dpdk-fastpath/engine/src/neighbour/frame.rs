//! What is sent.

use std::net::IpAddr;

use culvert_packet::PacketBuf;
use culvert_packet::eth::EthAddr;
use culvert_packet::icmpv6::OVERRIDE;
use culvert_packet::neighbour::{
    arp_request, gratuitous_arp, neighbour_solicitation, unsolicited_advertisement,
};

use super::Solicitation;

/// Writes a question of `mac` and `ip`, which are ours, into an empty buffer. False if the addresses are of different IP
/// versions or the buffer has no room.
///
/// A question to the neighbour itself differs from one to everybody in its Ethernet destination only: for ARP that is
/// RFC 1122, section 2.3.2.1, and RFC 6085 allows it for IPv6.
pub fn write_solicitation(
    buf: &mut impl PacketBuf,
    mac: EthAddr,
    ip: IpAddr,
    question: Solicitation,
) -> bool {
    let written = match (ip, question.target) {
        (IpAddr::V4(ip), IpAddr::V4(target)) => arp_request(buf, mac, ip, target),
        (IpAddr::V6(ip), IpAddr::V6(target)) => neighbour_solicitation(buf, mac, ip, target),
        _ => false,
    };
    if let (true, Some(to)) = (written, question.to) {
        buf.data_mut()[..6].copy_from_slice(&to.octets());
    }
    written
}

/// Writes into an empty buffer what tells everybody that `ip` is at `mac`. False if the buffer has no room.
pub fn write_announcement(buf: &mut impl PacketBuf, mac: EthAddr, ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => gratuitous_arp(buf, mac, ip),
        // Not a router: on the underlay this node forwards for nobody.
        IpAddr::V6(ip) => unsolicited_advertisement(buf, mac, ip, OVERRIDE),
    }
}

#[cfg(test)]
mod tests {
    use culvert_api::value::Mac;
    use culvert_packet::TestBuf;

    use super::*;

    const OURS: EthAddr = EthAddr([2, 0, 0, 0, 0, 1]);

    fn frame(ip: &str, target: &str, to: Option<Mac>) -> Option<Vec<u8>> {
        let mut buf = TestBuf::new(&[]);
        let question = Solicitation { target: target.parse().unwrap(), to };
        write_solicitation(&mut buf, OURS, ip.parse().unwrap(), question).then(|| buf.data().to_vec())
    }

    #[test]
    fn a_question_goes_to_everybody_or_to_the_neighbour_itself() {
        let them = Mac::try_from([2, 0, 0, 0, 0, 7]).unwrap();
        for (ip, target, group) in [
            ("10.0.0.1", "10.0.0.2", [0xff; 6]),
            ("fd00::1", "fd00::aa:bbcc", [0x33, 0x33, 0xff, 0xaa, 0xbb, 0xcc]),
        ] {
            let to_all = frame(ip, target, None).unwrap();
            let to_one = frame(ip, target, Some(them)).unwrap();
            assert_eq!(to_all[..6], group);
            assert_eq!(to_one[..6], them.octets());
            assert_eq!(to_all[6..], to_one[6..]);
            assert_eq!(to_all[6..12], OURS.0);
        }
    }

    #[test]
    fn a_question_across_ip_versions_cannot_be_written() {
        assert_eq!(frame("10.0.0.1", "fd00::2", None), None);
        assert_eq!(frame("fd00::1", "10.0.0.2", None), None);
    }

    #[test]
    fn an_announcement_goes_to_everybody() {
        let mut buf = TestBuf::new(&[]);
        assert!(write_announcement(&mut buf, OURS, "10.0.0.1".parse().unwrap()));
        assert_eq!(buf.data()[..6], [0xff; 6]);
        let mut buf = TestBuf::new(&[]);
        assert!(write_announcement(&mut buf, OURS, "fd00::1".parse().unwrap()));
        assert_eq!(buf.data()[..6], [0x33, 0x33, 0, 0, 0, 1]);
    }
}
