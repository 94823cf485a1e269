use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::testkit::generate::layout::slow_crc32c as slow;

#[test]
fn known_messages_have_their_known_crcs() {
    // RFC 3720, appendix B.4.
    for (message, crc) in [
        (vec![0; 32], 0x8a91_36aa),
        (vec![0xff; 32], 0x62a8_ab43),
        ((0..32).collect(), 0x46dd_794e),
        ((0..32).rev().collect(), 0x113f_db5c),
        (b"123456789".to_vec(), 0xe306_9283),
        (vec![], 0),
    ] {
        assert_eq!((crc32c(&[&message]), slow(&message)), (crc, crc), "{message:?}");
    }
}

proptest! {
    #[test]
    fn a_crc_is_that_of_the_polynomial_however_the_message_is_cut(bytes in vec(any::<u8>(), 0..300), cut: usize) {
        let (a, b) = bytes.split_at(cut % (bytes.len() + 1));
        prop_assert_eq!(crc32c(&[a, b]), slow(&bytes));
    }

    #[test]
    fn a_changed_message_has_the_crc_that_the_delta_says(
        bytes in prop_oneof![vec(any::<u8>(), 4..600), vec(any::<u8>(), 4..65_540)],
        at: usize,
        new: [u8; 4],
        wrong: u32,
    ) {
        let at = at % (bytes.len() - 3);
        let old = *bytes[at..].first_chunk().unwrap();
        let mut changed = bytes.clone();
        changed[at..at + 4].copy_from_slice(&new);
        let delta = delta(old, new, (bytes.len() - at - 4) as u16);
        prop_assert_eq!(crc32c(&[&bytes]) ^ delta, crc32c(&[&changed]));
        // What was wrong stays wrong by as much.
        prop_assert_eq!(crc32c(&[&bytes]) ^ wrong ^ delta, crc32c(&[&changed]) ^ wrong);
    }
}
