use std::collections::BTreeMap;

use super::*;

fn backend(last: u8) -> proto::Backend {
    proto::Backend { address: vec![10, 1, 0, last], port: 80, ..Default::default() }
}

fn web(balancing: proto::Balancing, backends: Vec<proto::Backend>) -> proto::Service {
    proto::Service {
        namespace: "default".to_owned(),
        name: "web".to_owned(),
        protocol: proto::Protocol::Tcp.into(),
        vip: vec![10, 96, 0, 1],
        port: 80,
        balancing: balancing.into(),
        backends,
        ..Default::default()
    }
}

fn ids(service: &proto::Service) -> Vec<BackendId> {
    (0..service.backends.len() as u32).map(|slot| BackendId { slot, generation: 0 }).collect()
}

fn built(service: &proto::Service) -> Service {
    Service::new(ServiceSpec::try_from(service).unwrap(), 0, &ids(service), None)
}

/// The last byte of an endpoint's address.
fn last(backend: &Backend) -> u8 {
    match backend.address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    }
}

#[test]
fn what_is_wrong_with_a_balancing_or_a_weight_is_told() {
    for (service, text) in [
        (
            proto::Service { balancing: 7, ..web(proto::Balancing::Maglev, vec![]) },
            "service default/web: balancing 7: must be 0 or 1 (Maglev), 2 (round robin) or 3 (least flow)",
        ),
        (
            web(proto::Balancing::Maglev, vec![proto::Backend { weight: 1001, ..backend(1) }]),
            "service default/web: backend weight 1001: must be 1-1000",
        ),
    ] {
        assert_eq!(ServiceSpec::try_from(&service).unwrap_err().to_string(), text);
    }
}

#[test]
fn a_service_is_listed_as_it_was_described() {
    for balancing in [proto::Balancing::Maglev, proto::Balancing::RoundRobin, proto::Balancing::LeastFlow] {
        let backends = vec![
            proto::Backend { weight: 1000, ..backend(1) },
            proto::Backend { weight: 1, away: true, ..backend(2) },
        ];
        let service =
            proto::Service { affinity_seconds: 9, affinity_shared: true, ..web(balancing, backends) };
        assert_eq!(proto::Service::from(&built(&service)), service);
    }
}

#[test]
fn endpoints_take_new_flows_by_their_state() {
    let plain = backend;
    let terminating = |last| proto::Backend { terminating: true, ..backend(last) };
    let draining = |last| proto::Backend { draining: true, ..backend(last) };
    let away = |last| proto::Backend { away: true, ..backend(last) };
    let ending_away = |last| proto::Backend { terminating: true, ..away(last) };
    for (backends, takers) in [
        (vec![plain(1), terminating(2), draining(3), away(4)], vec![1]),
        (vec![terminating(2), draining(3), away(4), ending_away(5)], vec![2]),
        (vec![draining(3), away(4), ending_away(5)], vec![]),
    ] {
        for balancing in [proto::Balancing::Maglev, proto::Balancing::RoundRobin] {
            let service = built(&web(balancing, backends.clone()));
            let taking: Vec<_> = service.backends().iter().filter(|b| b.takes_new).map(last).collect();
            assert_eq!(taking, takers);
            assert_eq!(service.pick(7).map(last), takers.first().copied());
            assert_eq!(service.in_turn(7).map(last).is_some(), service.takers().len() == 1);
        }
    }
}

#[test]
fn endpoints_are_found_by_what_a_client_used() {
    let at = |last, port| (IpAddr::from([10, 1, 0, last]), port);
    let service = built(&web(
        proto::Balancing::Maglev,
        vec![
            proto::Backend { terminating: true, ..backend(1) },
            backend(2),
            proto::Backend { port: 70, draining: true, ..backend(3) },
            backend(3),
        ],
    ));
    let found = |endpoint| service.taker(endpoint).map(last);
    assert_eq!(
        [found(at(1, 80)), found(at(2, 80)), found(at(2, 81)), found(at(3, 70))],
        [None, Some(2), None, None]
    );
    let found = |address: u8| service.taker_at(at(address, 0).0).map(|backend| (last(backend), backend.port));
    assert_eq!([found(1), found(2), found(3), found(4)], [None, Some((2, 80)), Some((3, 80)), None]);
}

#[test]
fn clients_are_those_of_a_port_of_a_named_service_whatever_its_address() {
    let sticky = |change: fn(&mut proto::Service)| {
        let mut service = web(proto::Balancing::Maglev, vec![]);
        (service.affinity_seconds, service.affinity_shared) = (7, true);
        change(&mut service);
        built(&service).affinity().copied()
    };
    let one = sticky(|_| ()).unwrap();
    assert_eq!(sticky(|service| service.vip[3] = 9), Some(one));
    let other_port = sticky(|service| service.port_name = "other".to_owned()).unwrap();
    assert_eq!(one.service, other_port.service);
    assert_ne!(one.port, other_port.port);
    for change in [
        |service: &mut proto::Service| service.name = "x".to_owned(),
        |service: &mut proto::Service| service.tenant = 3,
    ] {
        let other = sticky(change).unwrap();
        assert!(other.port != one.port && other.service != one.service);
    }
    assert_eq!(sticky(|service| service.affinity_shared = false).unwrap().service, None);
    assert_eq!(sticky(|service| service.affinity_seconds = 0), None);
}

#[test]
fn turns_go_round_by_weight_and_only_to_those_that_take_new_flows() {
    let backends = vec![
        proto::Backend { weight: 20, ..backend(1) },
        proto::Backend { weight: 10, ..backend(2) },
        proto::Backend { terminating: true, ..backend(3) },
        proto::Backend { weight: 30, ..backend(4) },
    ];
    let service = built(&web(proto::Balancing::RoundRobin, backends.clone()));
    let mut turns = BTreeMap::new();
    for turn in 100..160 {
        *turns.entry(last(service.in_turn(turn).unwrap())).or_insert(0) += 1;
    }
    assert_eq!(turns, [(1, 20), (2, 10), (4, 30)].into());
    assert!(built(&web(proto::Balancing::LeastFlow, backends)).in_turn(1).is_none());
}

#[test]
fn an_endpoint_that_stops_taking_new_flows_moves_its_own_and_few_others() {
    const HASHES: u64 = 50_000;
    const N: u8 = 40;
    let all = web(proto::Balancing::Maglev, (1..=N).map(backend).collect());
    let before = built(&all);
    for leave in [
        |backend: &mut proto::Backend| backend.terminating = true,
        |backend: &mut proto::Backend| backend.draining = true,
        |backend: &mut proto::Backend| backend.away = true,
    ] {
        let mut fewer = all.clone();
        leave(&mut fewer.backends[7]);
        let spec = ServiceSpec::try_from(&fewer).unwrap();
        let after = Service::new(spec, 0, &ids(&fewer), Some(&before));
        let back = Service::new(ServiceSpec::try_from(&all).unwrap(), 0, &ids(&all), Some(&after));
        let (mut own, mut others) = (0, 0);
        for hash in (0..HASHES).map(|n| n * (u64::MAX / HASHES)) {
            let (was, is) = (last(before.pick(hash).unwrap()), last(after.pick(hash).unwrap()));
            assert_ne!(is, 8);
            own += u64::from(was == 8);
            others += u64::from(was != 8 && was != is);
            assert_eq!(last(back.pick(hash).unwrap()), was, "it takes new flows again");
        }
        assert!(own.abs_diff(HASHES / u64::from(N)) < HASHES / 500, "{own}");
        assert!(others < HASHES / 50, "{others}");
    }
}

#[test]
fn hashes_choose_by_weight() {
    const HASHES: u64 = 200_000;
    let weights = [1, 2, 3, 4, 10];
    let weighted = |(last, &weight)| proto::Backend { weight, ..backend(last) };
    let service = built(&web(proto::Balancing::Maglev, (1..).zip(&weights).map(weighted).collect()));
    let mut chosen = [0_u32; 5];
    for client in 0..HASHES as u32 {
        // Hashes of real flows, always the same ones.
        let client = (std::net::Ipv4Addr::from(0x0a02_0000 + client / 64), (client % 64) as u16 + 40_000);
        let key = FlowKey4::new(Tenant::DEFAULT, Protocol::TCP, client, ([10, 96, 0, 1].into(), 80));
        chosen[usize::from(last(service.pick(key.hash64()).unwrap())) - 1] += 1;
    }
    // Chi-square with four degrees of freedom, of a table that is exact to one entry of 1021: 18.5 is exceeded once in a
    // thousand sets of flows; this set is fixed.
    let chi: f64 = std::iter::zip(chosen, weights)
        .map(|(count, weight)| {
            let due = HASHES as f64 * f64::from(weight) / 20.0;
            (f64::from(count) - due).powi(2) / due
        })
        .sum();
    assert!(chi < 40.0, "{chosen:?}: {chi}");
}
