use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn client(n: u64) -> Client {
    Client::new(0x1234_5678_9abc_def0, n.wrapping_add(1).wrapping_mul(0xbf58_476d_1ce4_e5b9))
}

fn endpoint(n: u8) -> Endpoint {
    let address = if n.is_multiple_of(2) { IpAddr::from([10, 1, 0, n]) } else { "fd00::7".parse().unwrap() };
    (address, u16::from(n))
}

fn at(seconds: u64) -> Moment {
    let mut calendar = Calendar::default();
    let mut at = |seconds| calendar.at(Tick::at(Duration::from_secs(seconds)));
    // Twice a day is enough.
    for earlier in (0..seconds).step_by(43_200) {
        at(earlier);
    }
    at(seconds)
}

#[test]
fn a_client_keeps_its_endpoint_until_the_timeout_has_passed_since_its_last_use() {
    let affinity = Affinity::new(1000).unwrap();
    assert_eq!(affinity.find(client(1), at(100), 10), None);
    for n in [2, 3] {
        let me = client(n.into());
        assert_eq!(affinity.keep(me, endpoint(n), at(100), 10, |_| false).endpoint, endpoint(n));
        assert_eq!(affinity.find(me, at(110), 10), Some(endpoint(n)));
        assert_eq!(affinity.expires(me, at(106), 10), Some(4));
        affinity.keep(me, endpoint(n), at(110), 10, |_| false);
        assert_eq!(affinity.find(me, at(120), 10), Some(endpoint(n)));
        assert_eq!(affinity.find(me, at(124), 10), None);
        assert_eq!(affinity.expires(me, at(124), 10), None);
    }
}

#[test]
fn time_does_not_turn_round() {
    let affinity = Affinity::new(1000).unwrap();
    affinity.keep(client(1), endpoint(1), at(100), 86_400, |_| false);
    assert_eq!(affinity.find(client(1), at(100 + 86_400), 86_400), Some(endpoint(1)));
    for later in [100 + 86_404, 100 + 0x2_0000, 100 + 0x2_0000 + 86_400, 100 + 10 * 0x2_0000] {
        assert_eq!(affinity.find(client(1), at(later), 86_400), None, "{later}");
    }
}

#[test]
fn of_two_workers_the_second_finds_what_the_first_chose() {
    let affinity = Affinity::new(1000).unwrap();
    let keep = |n, fits: bool| affinity.keep(client(1), endpoint(n), at(100), 10, |_| fits).endpoint;
    assert_eq!(keep(2, true), endpoint(2));
    assert_eq!(keep(4, true), endpoint(2));
    assert_eq!(keep(6, false), endpoint(6), "the one before cannot be used any more");
    let later = affinity.keep(client(1), endpoint(8), at(200), 10, |_| true);
    assert_eq!(later.endpoint, endpoint(8), "that was too long ago");
}

#[test]
fn a_full_bucket_forgets_who_has_been_silent_for_longest() {
    let affinity = Affinity::new(1).unwrap();
    assert_eq!(affinity.capacity(), WAYS);
    for n in 0..4_u8 {
        let kept = affinity.keep(client(n.into()), endpoint(n), at(100 + u64::from(n) * 10), 1000, |_| false);
        assert!(!kept.evicted);
    }
    affinity.keep(client(0), endpoint(0), at(200), 1000, |_| false);
    assert!(affinity.keep(client(9), endpoint(9), at(210), 1000, |_| false).evicted);
    let known: Vec<_> = (0..10).filter(|&n| affinity.find(client(n), at(210), 1000).is_some()).collect();
    assert_eq!(known, [0, 2, 3, 9]);
    // What is a day old is no loss.
    assert!(!affinity.keep(client(10), endpoint(1), at(200_000), 1000, |_| false).evicted);
}

#[test]
fn as_many_clients_as_there_is_room_for_are_nearly_all_kept() {
    let affinity = Affinity::new(65_536).unwrap();
    let evicted = |n| affinity.keep(client(n), endpoint(2), at(100), 10_800, |_| false).evicted;
    let lost = (0..65_536).filter(|&n| evicted(n)).count();
    assert!(lost < 65_536 / 100, "{lost}");
}

#[test]
fn workers_agree_under_contention() {
    const CLIENTS: u64 = 64;
    // Far more room than clients: nothing is forgotten.
    let affinity = Affinity::new(1 << 16).unwrap();
    let chosen: Vec<Vec<Endpoint>> = std::thread::scope(|scope| {
        let worker = |n: u8| {
            let affinity = &affinity;
            let keep = move |c| affinity.keep(client(c), endpoint(2 * n), at(100), 1000, |_| true);
            scope.spawn(move || (0..CLIENTS).map(|c| keep(c).endpoint).collect())
        };
        let workers: Vec<_> = (1..=4).map(worker).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    for c in 0..CLIENTS {
        let held = affinity.find(client(c), at(100), 1000).unwrap();
        assert!(chosen.iter().all(|of| of[c as usize] == held), "client {c}");
    }
}

proptest! {
    #[test]
    fn it_remembers_as_a_map_does(
        uses in prop::collection::vec((0_u64..40, 0_u8..8, 0_u64..30, any::<bool>()), 1..200),
    ) {
        const SECONDS: u32 = 20;
        // Far more room than clients: nothing is forgotten.
        let affinity = Affinity::new(1 << 16).unwrap();
        let mut model: HashMap<u64, (Endpoint, u64)> = HashMap::new();
        let mut now = 2;
        for (n, to, step, fits) in uses {
            now += step;
            let known = model.get(&n).filter(|(_, used)| (now / 2 - used / 2) * 2 < u64::from(SECONDS) + 2);
            let known = known.map(|(endpoint, _)| *endpoint);
            prop_assert_eq!(affinity.find(client(n), at(now), SECONDS), known);
            let kept = affinity.keep(client(n), endpoint(to), at(now), SECONDS, |_| fits);
            let expected = known.filter(|_| fits).unwrap_or(endpoint(to));
            prop_assert_eq!(kept, Kept { endpoint: expected, evicted: false });
            model.insert(n, (expected, now));
        }
    }
}
