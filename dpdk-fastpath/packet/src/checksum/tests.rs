use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[test]
fn the_example_of_rfc_1071_adds_up() {
    let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(Sum::ZERO.bytes(&bytes).fold(), 0xddf2);
    assert_eq!(checksum(&bytes), 0x220d);
}

#[test]
fn the_example_of_rfc_1624_gives_zero_and_not_minus_zero() {
    // Section 4: the equations of RFC 1141 get 0xffff here.
    assert_eq!(Delta::of_word(0x5555, 0x3285).apply(0xdd2f), 0x0000);
}

#[test]
fn a_udp_checksum_is_never_zero_but_stays_so_when_there_was_none() {
    assert_eq!(Sum::ZERO.word(0xffff).udp_checksum(), 0xffff);
    assert_eq!(Delta::of_word(0x5555, 0x3285).apply_udp(0xdd2f), 0xffff);
    assert_eq!(Delta::of_word(0x5555, 0x3285).apply_udp(0), 0);
}

#[test]
fn sums_of_more_than_any_packet_do_not_overflow() {
    let bytes = vec![0xff; 1 << 20];
    assert_eq!(Sum::ZERO.bytes(&bytes).fold(), 0xffff);
    assert_eq!(Sum(u64::MAX).fold(), 0xffff);
}

#[test]
fn one_hop_less_is_the_delta_of_the_word_it_is_in() {
    for ttl in 1..=255u16 {
        let (old, new) = (ttl << 8 | 6, (ttl - 1) << 8 | 6);
        let header = [0x45, 0, 0, 0, 0, 0, 0, 0];
        let full = |word| Sum::ZERO.bytes(&header).word(word).checksum();
        assert_eq!(Delta::TTL.apply(full(old)), full(new), "ttl {ttl}");
    }
}

proptest! {
    #[test]
    fn a_sum_does_not_depend_on_where_it_is_split(bytes in vec(any::<u8>(), 0..200), at in 0usize..100) {
        let at = (at * 2).min(bytes.len() & !1);
        let (a, b) = bytes.split_at(at);
        prop_assert_eq!(Sum::ZERO.bytes(&bytes).fold(), Sum::ZERO.bytes(a).bytes(b).fold());
    }

    #[test]
    fn a_sum_is_that_of_its_words(words in vec(any::<u16>(), 0..100)) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        let mut sum = 0u64;
        for word in words {
            sum += u64::from(word);
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        prop_assert_eq!(u64::from(Sum::ZERO.bytes(&bytes).fold()), sum);
    }

    #[test]
    fn a_delta_gives_the_same_field_as_the_full_sum(
        mut words in vec(any::<u16>(), 1..40),
        changes in vec((any::<prop::sample::Index>(), any::<u16>()), 0..8),
    ) {
        // As in every header that has a checksum, some word is not zero.
        words.push(0x4500);
        let full = |words: &[u16]| words.iter().fold(Sum::ZERO, |sum, word| sum.word(*word));
        let (before, before_udp) = (full(&words).checksum(), full(&words).udp_checksum());
        let mut delta = Delta::NONE;
        let last = words.len() - 1;
        for (index, new) in changes {
            let word = &mut words[index.index(last)];
            delta = delta.and(Delta::of_word(*word, new));
            *word = new;
        }
        prop_assert_eq!(delta.apply(before), full(&words).checksum());
        prop_assert_eq!(delta.apply_udp(before_udp), full(&words).udp_checksum());
    }

    #[test]
    fn address_deltas_are_those_of_their_words(old: u128, new: u128) {
        let (old6, new6) = (Ipv6Addr::from_bits(old), Ipv6Addr::from_bits(new));
        let words = old6.segments().into_iter().zip(new6.segments());
        let by_word = words.fold(Delta::NONE, |delta, (old, new)| delta.and(Delta::of_word(old, new)));
        prop_assert_eq!(Delta::of_v6(old6, new6).apply(0x1234), by_word.apply(0x1234));
        let (old4, new4) = (Ipv4Addr::from_bits(old as u32), Ipv4Addr::from_bits(new as u32));
        let by_word = Delta::of_word((old >> 16) as u16, (new >> 16) as u16)
            .and(Delta::of_word(old as u16, new as u16));
        prop_assert_eq!(Delta::of_v4(old4, new4).apply(0x1234), by_word.apply(0x1234));
    }
}
