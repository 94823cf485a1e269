//! Which piece of a packet a fragment is.

use crate::ipv4::Ipv4;
use crate::ipv6::Ipv6;
use crate::parse::{L3, Parsed};

/// Where a fragment belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// What the fragments of one packet have in common: 16 bits of IPv4, 32 of IPv6. It tells packets apart together with
    /// both addresses and, with IPv4, the protocol (RFC 791; RFC 8200, section 4.5).
    pub identification: u32,
    /// Place of the first byte in the part of the packet that is fragmented.
    pub start: u32,
    /// Place behind its last byte.
    pub end: u32,
}

impl Piece {
    /// What an IP packet says about it; `None` if it has no fragment header, or is no IP packet.
    pub fn of(frame: &[u8], parsed: &Parsed) -> Option<Self> {
        let packet = frame.get(usize::from(parsed.l3_offset)..parsed.end())?;
        let (identification, start, len) = match parsed.l3 {
            L3::Ipv4 => {
                let ip = Ipv4::new(packet).ok()?;
                (ip.identification().into(), ip.fragment_offset(), ip.payload().len())
            }
            L3::Ipv6 => {
                let ip = Ipv6::new(packet).ok()?;
                let upper = ip.upper().ok()?;
                let header = upper.fragment?;
                (header.identification(), header.offset(), ip.payload().len() - upper.fragmented_at)
            }
            L3::Arp | L3::Other(_) => return None,
        };
        Some(Self { identification, start, end: start + len as u32 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parse::{Fragment, parse};
    use crate::testkit;
    use crate::testkit::generate::{self, Net, Piece as Generated};

    #[test]
    fn the_fragments_of_a_packet_follow_one_another() {
        let payload: Vec<u8> = (0..3000u32).map(|i| i as u8).collect();
        for (src, dst) in [("10.0.0.1:1000", "10.0.0.2:53"), ("[fd00::1]:1000", "[fd00::2]:53")] {
            let whole = testkit::udp(src.parse().unwrap(), dst.parse().unwrap(), &payload);
            let mut end = 0;
            for frame in testkit::fragments(&whole, 1400) {
                let piece = Piece::of(&frame, &parse(&frame).unwrap()).unwrap();
                assert_eq!((piece.identification, piece.start), (0x1234, end));
                end = piece.end;
            }
            assert_eq!(end, 3008);
        }
    }

    proptest! {
        #[test]
        fn every_fragment_says_where_it_belongs(packet in generate::packet()) {
            let frame = packet.frame();
            let parsed = parse(&frame).unwrap();
            let piece = Piece::of(&frame, &parsed);
            let (identification, v6) = match packet.net {
                Net::V4 { identification, .. } => (identification.into(), false),
                Net::V6 { .. } => (0x0102_0304, true),
            };
            let start = match packet.piece {
                Generated::Whole if v6 => {
                    prop_assert_eq!(piece, None);
                    return Ok(());
                }
                Generated::Whole => 0,
                Generated::Fragment(offset, _) => u32::from(offset) * 8,
            };
            let piece = piece.unwrap();
            prop_assert_eq!((piece.identification, piece.start), (identification, start));
            if parsed.fragment == Fragment::Later {
                prop_assert_eq!((piece.end - piece.start) as usize, parsed.l4_len());
            } else {
                prop_assert!((piece.end - piece.start) as usize >= parsed.l4_len());
            }
        }
    }
}
