use super::*;
use crate::parse::{L4, parse, verify_transport};
use crate::testkit;

const FIRST: bool = true;
const WHOLE: bool = false;

/// A chunk with these bytes behind its header, padded.
fn chunk(kind: ChunkType, value: &[u8]) -> Vec<u8> {
    testkit::sctp_chunk(kind, 0, value)
}

#[test]
fn the_chunks_that_open_and_close_associations_are_found_among_others() {
    use {ChunkType as T, SctpChunks as C};
    const SACK: T = T(3);
    for (kinds, wanted) in [
        (&[][..], C::NONE),
        (&[T::INIT], C::INIT),
        (&[T::INIT_ACK], C::INIT_ACK),
        (&[T::COOKIE_ECHO, T::DATA], C::COOKIE_ECHO),
        (&[T::COOKIE_ACK, SACK, T::DATA], C::COOKIE_ACK),
        (&[SACK, T::SHUTDOWN], C::SHUTDOWN),
        (&[T::SHUTDOWN_ACK], C::SHUTDOWN_ACK),
        (&[T::SHUTDOWN_COMPLETE], C::SHUTDOWN_COMPLETE),
        (&[SACK, T(9), T::ABORT], C::ABORT),
        (&[T::SHUTDOWN, T::ABORT], C::SHUTDOWN | C::ABORT),
        // What is behind data is not looked at.
        (&[T::I_DATA, T::ABORT], C::NONE),
        (&[T::DATA, T::INIT], C::NONE),
        (&[T(200); 40], C::NONE),
    ] {
        let bytes: Vec<u8> = kinds.iter().flat_map(|&kind| chunk(kind, b"12345")).collect();
        assert_eq!(chunks(&bytes, WHOLE), Ok(wanted), "{kinds:?}");
        assert_eq!(chunks(&bytes, FIRST), Ok(wanted), "{kinds:?}");
    }
}

#[test]
fn chunks_that_readers_could_take_differently_are_refused() {
    use ChunkType as T;
    for kinds in [
        [T::INIT, T::DATA],
        [T(3), T::INIT],
        [T::INIT_ACK, T(3)],
        [T::SHUTDOWN_COMPLETE, T::SHUTDOWN_COMPLETE],
        [T(3), T::COOKIE_ECHO],
        [T(3), T::COOKIE_ACK],
    ] {
        let bytes = kinds.map(|kind| chunk(kind, b"1234")).concat();
        assert_eq!(chunks(&bytes, WHOLE), Err(Malformed::SctpChunk), "{kinds:?}");
    }
}

#[test]
fn a_chunk_ends_in_its_packet_but_not_always_in_its_fragment() {
    let bytes = [chunk(ChunkType(3), b"12345678"), chunk(ChunkType::SHUTDOWN, b"1234")].concat();
    for len in 1..bytes.len() {
        // The first chunk alone is a packet, too.
        assert_eq!(chunks(&bytes[..len], WHOLE).is_ok(), len == 12, "{len}");
        let found = if len < 16 { SctpChunks::NONE } else { SctpChunks::SHUTDOWN };
        assert_eq!(chunks(&bytes[..len], FIRST), Ok(found), "{len}");
    }
    for length in 0..4 {
        let bytes = [3, 0, 0, length, 0, 0, 0, 0];
        assert_eq!(chunks(&bytes, FIRST), Err(Malformed::SctpChunk));
    }
    // The padding of the last chunk may be missing.
    let last = [chunk(ChunkType::SHUTDOWN, b"1234"), vec![3, 0, 0, 5, 0]].concat();
    assert_eq!(chunks(&last, WHOLE), Ok(SctpChunks::SHUTDOWN));
}

#[test]
fn a_packet_is_read_over_both_ip_versions_and_its_checksum_is_checked() {
    for (src, dst) in [("10.0.0.1:1000", "10.0.0.2:80"), ("[fd00::1]:1000", "[fd00::2]:80")] {
        let init = chunk(ChunkType::INIT, &[1; 16]);
        let frame = testkit::sctp(src.parse().unwrap(), dst.parse().unwrap(), 0, &init);
        let parsed = parse(&frame).unwrap();
        assert_eq!((parsed.l4, parsed.src_port, parsed.dst_port), (L4::Sctp, 1000, 80));
        assert!(parsed.sctp_chunks.opens());
        assert_eq!(verify_transport(&frame, &parsed), Ok(()));
        let mut wrong = frame.clone();
        *wrong.last_mut().unwrap() ^= 1;
        assert_eq!(verify_transport(&wrong, &parsed), Err(Malformed::SctpChecksum));
        let short =
            testkit::ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), crate::ip::Protocol::SCTP, &[0; 11]);
        assert_eq!(parse(&short), Err(Malformed::SctpTruncated));
    }
}
