//! Differences to the tables in force, and what they cost.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::quiescent;

fn changes(base: u64) -> proto::Changes {
    proto::Changes { base, revision: base + 1, ..Default::default() }
}

fn service_key(vip: &str, port: u32) -> proto::ServiceKey {
    proto::ServiceKey { tenant: 0, protocol: proto::Protocol::Tcp.into(), vip: bytes(vip), port }
}

fn web() -> proto::Service {
    service("web", "10.96.0.10", 80, &[backend("10.1.0.5", 8080)])
}

fn node_b() -> proto::RemoteNode {
    remote("node-b", "192.168.0.2", "10.2.0.0/24")
}

#[test]
fn changes_add_replace_and_remove_what_they_name_and_leave_the_rest() {
    let mut builder = builder();
    let db = service("db", "10.96.0.11", 5432, &[backend("10.2.0.7", 5432)]);
    builder.apply(&tables(1, vec![node_b()], vec![web(), db])).unwrap();
    let before = builder.snapshot();

    let mut first = changes(1);
    first.services = vec![
        service("web", "10.96.0.10", 80, &[backend("10.1.0.5", 8080), backend("10.2.0.9", 8080)]),
        service("new", "10.96.0.12", 53, &[]),
    ];
    first.removed_services = vec![service_key("10.96.0.11", 5432)];
    first.remotes = vec![remote("node-c", "192.168.0.3", "10.3.0.0/24")];
    first.removed_remotes = vec!["node-b".to_owned()];
    let applied = builder.change(&first).unwrap();
    assert_eq!((applied.services, applied.backends, applied.remotes), (2, 2, 1));
    // The new one has the slot of the one that went.
    let gone = before.service(&key("10.96.0.11", 5432)).unwrap();
    assert_eq!((&applied.new_services[..], applied.service_slots), (&[gone.slot()][..], 2));

    let after = builder.snapshot();
    assert_eq!((after.revision(), after.synced()), (2, true));
    assert_eq!(after.service(&key("10.96.0.10", 80)).unwrap().backends().len(), 2);
    assert!(
        after.service(&key("10.96.0.11", 5432)).is_none() && !after.is_vip(Tenant::DEFAULT, ip("10.96.0.11"))
    );
    assert!(after.service(&key("10.96.0.12", 53)).is_some());
    assert_eq!(after.route(Tenant::DEFAULT, ip("10.2.0.7")), None);
    assert!(matches!(after.route(Tenant::DEFAULT, ip("10.3.0.7")), Some(Target::Remote(_))));
    assert!(!after.has_backend(gone.backends()[0].id));
    assert!(before.service(&key("10.96.0.11", 5432)).is_some(), "a snapshot never changes");
}

#[test]
fn changes_that_make_no_sense_are_refused_by_name_and_change_nothing() {
    let mut builder = builder();
    assert_eq!(builder.change(&changes(0)).unwrap_err().to_string(), "changes: the local node is missing");
    let db = service("db", "10.96.0.11", 5432, &[]);
    builder.apply(&tables(5, vec![node_b()], vec![web(), db])).unwrap();
    let before = format!("{:?}", builder.snapshot());
    let with = |change: fn(&mut proto::Changes)| {
        // What is right in it must not be taken over either.
        let mut changes = proto::Changes {
            remotes: vec![remote("node-c", "192.168.0.3", "10.3.0.0/24")],
            services: vec![service("web", "10.96.0.10", 80, &[backend("10.1.0.6", 8080)])],
            ..changes(5)
        };
        change(&mut changes);
        changes
    };
    for (changes, reason) in [
        (with(|c| c.base = 4), "changes: base 4: revision 5 is in force; send the whole tables"),
        (with(|c| c.base = 6), "changes: base 6: revision 5 is in force; send the whole tables"),
        (with(|c| c.revision = 5), "changes: revision 5: must be above its base 5"),
        (
            with(|c| c.removed_services = vec![service_key("10.96.0.12", 80)]),
            "service 10.96.0.12 port 80/tcp: cannot be removed: it is not there",
        ),
        (
            with(|c| c.removed_services = vec![service_key("10.96.0.10", 80)]),
            "service 10.96.0.10 port 80/tcp: is named twice",
        ),
        (
            with(|c| {
                c.removed_services = vec![service_key("10.96.0.11", 5432), service_key("10.96.0.11", 5432)];
            }),
            "service 10.96.0.11 port 5432/tcp: is named twice",
        ),
        (
            with(|c| c.removed_services = vec![service_key("10.96.0.12", 0)]),
            "removed service: port 0: must be 1-65535",
        ),
        (
            with(|c| c.services.push(web())),
            "service default/web:http: the same address, protocol and port as service default/web:http",
        ),
        (with(|c| c.services[0].port = 0), "service default/web:http: port 0: must be 1-65535"),
        (
            with(|c| c.removed_remotes = vec!["node-d".to_owned()]),
            "remote node-d: cannot be removed: it is not there",
        ),
        (
            with(|c| c.removed_remotes = vec!["node-b".to_owned(), "node-b".to_owned()]),
            "remote node-b: is named twice",
        ),
        (
            with(|c| {
                c.remotes.push(node_b());
                c.removed_remotes = vec!["node-b".to_owned()];
            }),
            "remote node-b: is named twice",
        ),
        (
            with(|c| c.remotes[0].vtep = bytes("192.168.0.2")),
            "remote node-c: vtep 192.168.0.2: is already remote node-b's",
        ),
        (
            with(|c| c.remotes[0].pod_cidrs = vec![prefix("10.2.0.0/24")]),
            "remote node-c: podCIDR 10.2.0.0: is already remote node-b's",
        ),
    ] {
        assert_eq!(builder.change(&changes).unwrap_err().to_string(), reason);
        assert_eq!(format!("{:?}", builder.snapshot()), before, "half-applied: {reason}");
    }
    // What another node gives up in the same breath is free.
    let moves = with(|c| {
        c.remotes[0].vtep = bytes("192.168.0.2");
        c.remotes.push(remote("node-b", "192.168.0.4", "10.2.0.0/24"));
    });
    assert_eq!(builder.change(&moves).unwrap().remotes, 2);
    assert!(builder.snapshot().remote_of_vtep(ip("192.168.0.4")).is_some());
}

#[test]
fn before_the_tables_are_synced_changes_take_nothing_away() {
    let mut builder = builder();
    let partial = proto::Tables { synced: false, ..tables(1, vec![node_b()], vec![web()]) };
    builder.apply(&partial).unwrap();
    let removing = proto::Changes { removed_services: vec![service_key("10.96.0.10", 80)], ..changes(1) };
    assert_eq!(
        builder.change(&removing).unwrap_err().to_string(),
        "service 10.96.0.10 port 80/tcp: cannot be removed before the tables are marked as synced"
    );
    let removing = proto::Changes { removed_remotes: vec!["node-b".to_owned()], ..changes(1) };
    assert_eq!(
        builder.change(&removing).unwrap_err().to_string(),
        "remote node-b: cannot be removed before the tables are marked as synced"
    );
    let other = service("web", "10.96.0.10", 80, &[backend("10.2.0.9", 8080)]);
    let applied = builder.change(&proto::Changes { services: vec![other.clone()], ..changes(1) }).unwrap();
    assert_eq!(applied.backends, 2, "both: the one that is not named may be known to be there later");
    // A new agent knows less than the one before, whose tables were synced.
    builder.apply(&tables(3, vec![node_b()], vec![web()])).unwrap();
    builder.apply(&proto::Tables { synced: false, ..tables(4, vec![], vec![]) }).unwrap();
    let applied = builder.change(&proto::Changes { services: vec![other], ..changes(4) }).unwrap();
    assert_eq!((applied.backends, applied.remotes), (2, 1));
    assert!(builder.snapshot().synced());
}

#[test]
fn a_change_of_one_service_shares_all_others_with_the_snapshot_before() {
    let mut builder = builder();
    let many: Vec<_> = (0..2000_u32)
        .map(|n| {
            let (a, b) = (n / 250, n % 250);
            service(&format!("s{n}"), &format!("10.96.{a}.{b}"), 80, &[backend(&format!("10.2.{a}.{b}"), 80)])
        })
        .collect();
    builder.apply(&tables(1, vec![], many.clone())).unwrap();
    let before = builder.snapshot();
    let changed = proto::Service { backends: vec![], ..many[700].clone() };
    builder.change(&proto::Changes { services: vec![changed], ..changes(1) }).unwrap();
    let after = builder.snapshot();
    let same = |slot| {
        let address = |snapshot: &Snapshot| snapshot.service_in(slot).map(std::ptr::from_ref);
        address(&before) == address(&after)
    };
    let others = (0..2000).filter(|&slot| same(slot)).count();
    assert_eq!(others, 1999);
    assert!(Arc::ptr_eq(&before.ports, &after.ports) && Arc::ptr_eq(&before.routes, &after.routes));
}

#[test]
fn ten_thousand_changes_leave_nothing_behind() {
    const SERVICES: u32 = 50;
    let at = |n: u32, endpoint: u32| {
        let endpoint = backend(&format!("10.2.{}.{}", endpoint / 200, endpoint % 200 + 1), 80);
        service("s", &format!("10.96.0.{}", n + 1), 80, &[endpoint, backend("10.1.0.5", 80)])
    };
    let mut builder = builder();
    builder.apply(&tables(1, vec![], (0..SERVICES).map(|n| at(n, 0)).collect())).unwrap();
    let (mut publisher, mut readers) = quiescent::channel(builder.snapshot(), 1);
    let mut ever = Vec::new();
    for n in 1..=10_000_u32 {
        let mut step = changes(n.into());
        let vip = format!("10.96.0.{}", n % SERVICES + 1);
        // Every third time one goes, to come back with the next.
        match builder.snapshot.service(&key(&vip, 80)) {
            Some(_) if n % 3 == 0 => step.removed_services = vec![service_key(&vip, 80)],
            _ => step.services = vec![at(n % SERVICES, n)],
        }
        builder.change(&step).unwrap();
        publisher.publish(builder.snapshot());
        let snapshot = readers[0].pin();
        ever.extend(snapshot.services.by_slot.iter().flatten().map(Arc::downgrade));
        assert_eq!(publisher.reclaim(), 0);
        let all = publisher.current().services().count();
        ever.sort_unstable_by_key(std::sync::Weak::as_ptr);
        ever.dedup_by_key(|service| service.as_ptr());
        ever.retain(|service| service.strong_count() > 0);
        assert_eq!(ever.len(), all, "after {n} changes services of old snapshots are still there");
    }
    let slots = publisher.current().services.generations.iter().filter(|&&generation| generation > 0).count();
    assert!(slots <= 2 * SERVICES as usize + 2, "{slots} slots for {SERVICES} services of two endpoints");
}

/// What a service of a test is like: its endpoints, and what each is like.
type Model = BTreeMap<u8, BTreeMap<u8, (bool, u32)>>;

fn proto_service(n: u8, backends: &BTreeMap<u8, (bool, u32)>) -> proto::Service {
    let backends: Vec<_> = backends
        .iter()
        .map(|(b, &(terminating, weight))| proto::Backend {
            terminating,
            weight,
            ..backend(&format!("10.2.0.{b}"), 80)
        })
        .collect();
    service(&format!("s{n}"), &format!("10.96.0.{}", n + 1), 80, &backends)
}

fn whole(revision: u64, services: &Model, remotes: &BTreeMap<u8, u8>) -> proto::Tables {
    let services = services.iter().map(|(n, backends)| proto_service(*n, backends)).collect();
    tables(revision, remotes.iter().map(proto_remote).collect(), services)
}

fn proto_remote((n, net): (&u8, &u8)) -> proto::RemoteNode {
    remote(&format!("node-{n}"), &format!("192.168.0.{}", n + 2), &format!("10.{}.{n}.0/24", 50 + net))
}

/// What packets would be told: everything that a snapshot decides by, without the numbers of slots.
fn decisions(snapshot: &Snapshot) -> Vec<String> {
    let mut said = Vec::new();
    for n in 0..6_u8 {
        let vip = Ipv4Addr::new(10, 96, 0, n + 1);
        said.push(format!("{n} vip {}", snapshot.is_vip(Tenant::DEFAULT, vip.into())));
        let Some(service) = snapshot.service(&key(&vip.to_string(), 80)) else { continue };
        said.push(service.full_name());
        for backend in service.backends() {
            assert!(snapshot.has_backend(backend.id));
            said.push(format!("{} {} {}", backend.address, backend.terminating, backend.weight));
        }
        for i in 0..40_u64 {
            let picked = service.pick(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            said.push(format!("{:?}", picked.map(|backend| backend.address)));
        }
    }
    for n in 0..5_u8 {
        let named = |slot: u32| snapshot.remote(slot).map(|remote| (remote.name.clone(), remote.vtep));
        let vtep = Ipv4Addr::new(192, 168, 0, n + 2);
        said.push(format!("{:?}", snapshot.remote_of_vtep(vtep.into()).and_then(named)));
        for net in 0..3_u8 {
            let route = snapshot.route(Tenant::DEFAULT, Ipv4Addr::new(10, 50 + net, n, 7).into());
            let route =
                route.map(|target| if let Target::Remote(slot) = target { named(slot) } else { None });
            said.push(format!("{route:?}"));
        }
    }
    said
}

fn model() -> impl Strategy<Value = (Model, BTreeMap<u8, u8>)> {
    let backends = prop::collection::btree_map(1_u8..5, (any::<bool>(), 1_u32..3), 0..4);
    (
        prop::collection::btree_map(0_u8..6, backends, 0..6),
        prop::collection::btree_map(0_u8..5, 0_u8..3, 0..4),
    )
}

proptest! {
    /// Any sequence of changes says what the whole tables would say, and refusals in between change nothing; flows of
    /// endpoints that stayed keep them, and those of endpoints that went do not.
    #[test]
    fn changes_amount_to_the_whole_tables(
        steps in prop::collection::vec((model(), any::<bool>()), 1..10),
    ) {
        let (mut builder, mut twin) = (builder(), builder());
        let mut now = (Model::new(), BTreeMap::new());
        for builder in [&mut builder, &mut twin] {
            builder.apply(&whole(1, &now.0, &now.1)).unwrap();
        }
        for (base, (next, refusal)) in (1..).zip(steps) {
            let before = builder.snapshot();
            let mut changes = changes(base);
            for (n, backends) in next.0.iter().filter(|(n, backends)| now.0.get(n) != Some(backends)) {
                changes.services.push(proto_service(*n, backends));
            }
            for n in now.0.keys().filter(|n| !next.0.contains_key(n)) {
                changes.removed_services.push(service_key(&format!("10.96.0.{}", n + 1), 80));
            }
            changes.remotes = next.1.iter().filter(|(n, net)| now.1.get(n) != Some(net)).map(proto_remote).collect();
            let gone = now.1.keys().filter(|n| !next.1.contains_key(n));
            changes.removed_remotes = gone.map(|n| format!("node-{n}")).collect();
            if refusal {
                let mut refused = changes.clone();
                refused.removed_services.push(service_key("10.97.0.1", 80));
                builder.change(&refused).unwrap_err();
                prop_assert_eq!(format!("{:?}", builder.snapshot()), format!("{before:?}"));
            }
            let applied = builder.change(&changes).unwrap();
            let snapshot = builder.snapshot();
            let counts = (next.0.len(), next.0.values().map(BTreeMap::len).sum::<usize>(), next.1.len());
            prop_assert_eq!((applied.services, applied.backends, applied.remotes), counts);

            twin.apply(&whole(base + 1, &next.0, &next.1)).unwrap();
            prop_assert_eq!(decisions(&snapshot), decisions(&twin.snapshot()));

            for service in before.services() {
                let vip = service.key().vip;
                let IpAddr::V4(v4) = vip else { unreachable!("all are IPv4") };
                let stays = next.0.get(&(v4.octets()[3] - 1));
                for backend in service.backends() {
                    let IpAddr::V4(v4) = backend.address else { unreachable!("all are IPv4") };
                    let stays = stays.is_some_and(|backends| backends.contains_key(&v4.octets()[3]));
                    prop_assert_eq!(snapshot.has_backend(backend.id), stays);
                    prop_assert!(stays || snapshot.epoch() != before.epoch());
                }
            }
            now = next;
        }
    }
}
