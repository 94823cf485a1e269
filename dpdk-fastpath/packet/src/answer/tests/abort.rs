use super::*;
use crate::sctp::{ChunkHeader, ChunkType, SctpHeader};

const TAG: u32 = 0x1122_3344;

fn packet(pair: (&str, &str), chunks: &[(ChunkType, &[u8])]) -> Vec<u8> {
    let chunks: Vec<u8> =
        chunks.iter().flat_map(|(kind, value)| testkit::sctp_chunk(*kind, 0, value)).collect();
    testkit::sctp(addr(pair.0), addr(pair.1), TAG, &chunks)
}

const PAIRS: [(&str, &str); 2] = [("10.0.0.1:1000", "10.0.0.2:80"), ("[fd00::1]:1000", "[fd00::2]:80")];

fn abort(frame: &[u8]) -> Result<Vec<u8>, NoAnswer> {
    answered(frame, sctp_abort)
}

#[test]
fn the_tag_and_the_chunk_are_those_of_rfc_9260() {
    use ChunkType as T;
    const REFLECTED: u8 = ChunkHeader::TAG_REFLECTED;
    for pair in PAIRS {
        for (kind, value, wanted) in [
            (T::INIT, &[9, 8, 7, 6, 0, 0, 0, 0][..], (0x0908_0706, T::ABORT, 0)),
            (T::DATA, b"abc", (TAG, T::ABORT, REFLECTED)),
            (T::COOKIE_ECHO, b"abc", (TAG, T::ABORT, REFLECTED)),
            (T::SHUTDOWN_ACK, b"", (TAG, T::SHUTDOWN_COMPLETE, REFLECTED)),
            (T::INIT, b"", (TAG, T::ABORT, REFLECTED)),
        ] {
            let answer = abort(&packet(pair, &[(kind, value)])).unwrap();
            let parsed = parse(&answer).unwrap();
            assert_eq!(verify_transport(&answer, &parsed), Ok(()));
            assert_eq!((parsed.src_port, parsed.dst_port, parsed.l4_len()), (80, 1000, 16));
            let message = &answer[usize::from(parsed.l4_offset)..];
            let (header, rest) = SctpHeader::ref_from_prefix(message).unwrap();
            let (chunk, _) = ChunkHeader::ref_from_prefix(rest).unwrap();
            assert_eq!((header.verification_tag(), chunk.kind(), chunk.flags()), wanted, "{kind:?}");
            assert_eq!((macs(&answer), answer.len()), ((MAC_A, MAC_B), parsed.end()));
        }
    }
}

#[test]
fn what_ends_an_association_anyway_gets_no_answer() {
    use ChunkType as T;
    for pair in PAIRS {
        for kind in [T::ABORT, T::SHUTDOWN_COMPLETE, T::COOKIE_ACK] {
            assert_eq!(abort(&packet(pair, &[(kind, b"")])), Err(NoAnswer::Error));
        }
        assert_eq!(abort(&packet(pair, &[])), Err(NoAnswer::NotAsked));
        assert_eq!(abort(&abort(&packet(pair, &[(T::DATA, b"x")])).unwrap()), Err(NoAnswer::Error));
    }
}

proptest! {
    #[test]
    fn every_packet_of_a_host_gets_a_short_and_right_one(packet in generate::packet()) {
        let frame = packet.frame();
        let parsed = parse(&frame).unwrap();
        let verdict = abort(&frame);
        if parsed.l4 != L4::Sctp {
            prop_assert_eq!(verdict, Err(NoAnswer::NotAsked));
        } else if parsed.is_fragment() {
            prop_assert_eq!(verdict, Err(NoAnswer::Fragment));
        } else if let Ok(answer) = verdict {
            let read = parse(&answer).unwrap();
            prop_assert_eq!(verify_transport(&answer, &read), Ok(()));
            prop_assert_eq!((read.src_port, read.dst_port), (parsed.dst_port, parsed.src_port));
            prop_assert_eq!((read.l4, read.l4_len(), read.vlan), (L4::Sctp, 16, packet.vlan));
            prop_assert_eq!(macs(&answer), (packet.eth_src, packet.eth_dst));
        }
    }
}
