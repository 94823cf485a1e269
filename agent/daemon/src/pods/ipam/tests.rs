use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

fn used(texts: &[&str]) -> BTreeMap<IpAddr, String> {
    texts.iter().map(|t| (ip(t), format!("default/{t}"))).collect()
}

fn fixed(texts: &[&str]) -> Wish {
    let fixed = texts.iter().map(|t| Fixed { address: ip(t).into(), source: "CNI_ARGS IP" }).collect();
    Wish { fixed, ..Wish::default() }
}

#[test]
fn a_pod_without_wishes_gets_the_first_free_address_of_each_range() {
    let cidrs = nets(&["10.1.0.0/24", "fd00::/64"]);
    let given = assign(&Wish::default(), &cidrs, &used(&["10.1.0.2"]), &[]).unwrap();
    assert_eq!(given, [ip("10.1.0.3"), ip("fd00::2")]);
}

#[test]
fn an_address_rests_until_all_others_had_their_turn() {
    let cidrs = nets(&["10.1.0.0/29"]);
    let mut last = Vec::new();
    let turns: Vec<IpAddr> = (0..7)
        .map(|_| {
            last = assign(&Wish::default(), &cidrs, &BTreeMap::new(), &last).unwrap();
            last[0]
        })
        .collect();
    let expected =
        ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6", "10.1.0.2", "10.1.0.3"].map(ip);
    assert_eq!(turns, expected, "neither network, gateway nor broadcast address");
}

#[test]
fn a_fixed_address_decides_for_its_family_and_a_preferred_one_if_it_is_free() {
    let cidrs = nets(&["10.1.0.0/24", "fd00::/64"]);
    let wish =
        Wish { preferred: vec![ip("10.1.0.50"), ip("fd00::50"), ip("10.9.0.1")], ..fixed(&["10.1.0.40"]) };
    assert_eq!(assign(&wish, &cidrs, &used(&[]), &[]).unwrap(), [ip("10.1.0.40"), ip("fd00::50")]);
    assert_eq!(assign(&wish, &cidrs, &used(&["fd00::50"]), &[]).unwrap(), [ip("10.1.0.40"), ip("fd00::2")]);
    let only_preferred = Wish { fixed: Vec::new(), ..wish };
    assert_eq!(assign(&only_preferred, &cidrs, &used(&[]), &[]).unwrap()[0], ip("10.1.0.50"));
}

#[test]
fn a_fixed_address_that_cannot_be_had_is_refused_with_the_reason() {
    let cidrs = nets(&["10.1.0.0/24", "fd00::/64"]);
    let taken = used(&["10.1.0.9"]);
    for (wish, text, temporary) in [
        (
            &["10.2.0.1"][..],
            "address 10.2.0.1 (CNI_ARGS IP): not in this node's pod ranges 10.1.0.0/24, fd00::/64",
            false,
        ),
        (&["10.1.0.0"], "address 10.1.0.0 (CNI_ARGS IP): is the network's own", false),
        (&["10.1.0.1"], "its gateway's", false),
        (&["10.1.0.255"], "broadcast", false),
        (&["fd00::1"], "its gateway's", false),
        (&["10.1.0.9"], "is in use by default/10.1.0.9", true),
        (&["10.1.0.2", "10.1.0.3"], "addresses 10.1.0.2 and 10.1.0.3 (CNI_ARGS IP): a pod has one", false),
    ] {
        let error = assign(&fixed(wish), &cidrs, &taken, &[]).unwrap_err();
        assert!(error.to_string().contains(text), "{wish:?}: {error}");
        assert_eq!(error.is_temporary(), temporary, "{wish:?}");
    }
}

#[test]
fn a_full_range_is_an_error_that_says_how_many_are_in_use() {
    let taken = used(&["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6", "192.0.2.1"]);
    let error = assign(&Wish::default(), &nets(&["10.1.0.0/29"]), &taken, &[]).unwrap_err();
    assert_eq!(error.to_string(), "pod range 10.1.0.0/29: all 5 addresses are in use");
    assert!(error.is_temporary());
}

proptest! {
    #[test]
    fn no_address_is_given_twice_or_from_outside_until_none_is_left(
        prefix in 27..=30u8,
        requests in prop::collection::vec(any::<Option<u8>>(), 0..40),
    ) {
        let cidr: IpNet = format!("10.1.0.0/{prefix}").parse().unwrap();
        let room = (1usize << (32 - prefix)) - 3;
        let mut used = BTreeMap::new();
        let mut last = Vec::new();
        for preferred in requests {
            let preferred = preferred.map(|host| IpAddr::from([10, 1, 0, host])).into_iter().collect();
            let wish = Wish { fixed: Vec::new(), preferred };
            match assign(&wish, &[cidr], &used, &last) {
                Ok(given) => {
                    prop_assert!(cidr.contains(&given[0]));
                    prop_assert!(given[0] != cidr.network() && given[0] != cidr.broadcast());
                    prop_assert!(given[0] != NodeAddresses::gateway(&cidr));
                    prop_assert!(used.insert(given[0], String::new()).is_none(), "{} twice", given[0]);
                    last = given;
                }
                Err(e) => {
                    prop_assert!(matches!(e, IpamError::Exhausted { .. }), "{e}");
                    prop_assert_eq!(used.len(), room);
                }
            }
        }
        let all: BTreeSet<_> = used.keys().collect();
        prop_assert!(all.len() <= room);
    }
}
