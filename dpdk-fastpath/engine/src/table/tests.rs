use std::net::{IpAddr, Ipv4Addr};

use culvert_api::fastpath as proto;
use culvert_api::value::Mtu;
use culvert_packet::eth::EthAddr;
use culvert_packet::flow::Tenant;
use culvert_packet::ip::Protocol;
use proptest::prelude::*;

use super::*;

mod changes;
mod refusals;

const UPLINK: PortIndex = PortIndex(0);

fn bytes(address: &str) -> Vec<u8> {
    match address.parse().unwrap() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn prefix(text: &str) -> proto::Prefix {
    let (address, len) = text.split_once('/').unwrap();
    proto::Prefix { address: bytes(address), prefix_len: len.parse().unwrap() }
}

fn local() -> proto::LocalNode {
    proto::LocalNode {
        name: "node-a".to_owned(),
        gateways: vec![bytes("10.1.0.1"), bytes("fd00:1::1")],
        gateway_mac: vec![2, 0, 0, 0, 1, 1],
        underlay: vec![proto::UnderlayAddress {
            address: bytes("192.168.0.1"),
            prefix_len: 24,
            router: bytes("192.168.0.254"),
        }],
        vtep_mac: vec![2, 0x63, 192, 168, 0, 1],
        vni: 4096,
        pod_cidrs: vec![prefix("10.1.0.0/24"), prefix("fd00:1::/64")],
        ..Default::default()
    }
}

fn remote(name: &str, vtep: &str, cidr: &str) -> proto::RemoteNode {
    proto::RemoteNode {
        name: name.to_owned(),
        vtep: bytes(vtep),
        vtep_mac: vec![2, 0x63, 192, 168, 0, 2],
        pod_cidrs: vec![prefix(cidr)],
        ..proto::RemoteNode::default()
    }
}

fn domain(id: u32, vni: u32) -> proto::Tenant {
    proto::Tenant { id, vni, gateways: vec![bytes("10.9.0.1")], ..proto::Tenant::default() }
}

fn ranges(tenant: u32, cidr: &str) -> proto::TenantRanges {
    proto::TenantRanges { tenant, pod_cidrs: vec![prefix(cidr)] }
}

fn backend(address: &str, port: u32) -> proto::Backend {
    proto::Backend { address: bytes(address), port, ..Default::default() }
}

fn service(name: &str, vip: &str, port: u32, backends: &[proto::Backend]) -> proto::Service {
    proto::Service {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        port_name: "http".to_owned(),
        protocol: proto::Protocol::Tcp.into(),
        vip: bytes(vip),
        port,
        backends: backends.to_vec(),
        ..Default::default()
    }
}

fn tables(revision: u64, remotes: Vec<proto::RemoteNode>, services: Vec<proto::Service>) -> proto::Tables {
    proto::Tables { revision, synced: true, node: Some(local()), remotes, services }
}

fn pod(name: &str, address: &str) -> Port {
    let request = proto::AttachPortRequest {
        name: name.to_owned(),
        addresses: vec![bytes(address)],
        mac: vec![2, 0, 0, 0, 0, 9],
        mtu: 1450,
        ..Default::default()
    };
    Port::try_from(&request).unwrap()
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.attach(UPLINK, Port::uplink("up", EthAddr([2, 0, 0, 0, 0, 1]), Mtu::MAX)).unwrap();
    builder.attach(PortIndex(1), pod("a", "10.1.0.5")).unwrap();
    builder
}

fn key(vip: &str, port: u16) -> ServiceKey {
    ServiceKey { tenant: Tenant::DEFAULT, vip: vip.parse().unwrap(), protocol: Protocol::TCP, port }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_snapshot_answers_for_pods_routes_remotes_and_services() {
    let mut builder = builder();
    let web = service("web", "10.96.0.10", 80, &[backend("10.1.0.5", 8080), backend("10.2.0.7", 8080)]);
    let applied = builder
        .apply(&tables(1, vec![remote("node-b", "192.168.0.2", "10.2.0.0/24")], vec![web.clone()]))
        .unwrap();
    assert_eq!((applied.services, applied.backends, applied.remotes), (1, 2, 1));
    assert_eq!((applied.new_services, applied.service_slots), (vec![0], 1));

    let snapshot = builder.snapshot();
    assert_eq!((snapshot.revision(), snapshot.synced()), (1, true));
    assert_eq!(snapshot.uplink(), Some(UPLINK));
    assert_eq!(snapshot.ports().map(|(index, _)| index).collect::<Vec<_>>(), [UPLINK, PortIndex(1)]);
    assert_eq!(snapshot.pod(Tenant::DEFAULT, ip("10.1.0.5")), Some(PortIndex(1)));
    assert_eq!(snapshot.pod(Tenant::new(1).unwrap(), ip("10.1.0.5")), None);
    assert_eq!(snapshot.route(Tenant::DEFAULT, ip("10.1.0.77")), Some(Target::Local));
    let Some(Target::Remote(slot)) = snapshot.route(Tenant::DEFAULT, ip("10.2.0.7")) else {
        panic!("no route")
    };
    assert_eq!(snapshot.remote(slot).unwrap().name, "node-b");
    assert_eq!(snapshot.remote_of_vtep(ip("192.168.0.2")), Some(slot));
    assert_eq!(snapshot.route(Tenant::new(1).unwrap(), ip("10.2.0.7")), None);
    assert!(snapshot.is_vip(Tenant::DEFAULT, ip("10.96.0.10")));
    let found = snapshot.service(&key("10.96.0.10", 80)).unwrap();
    assert_eq!(found.full_name(), "default/web:http");
    let mut web = web;
    web.backends.iter_mut().for_each(|backend| backend.weight = 1);
    web.set_balancing(proto::Balancing::Maglev);
    assert_eq!(proto::Service::from(found), web);
}

#[test]
fn remotes_are_reached_once_their_next_hop_is_resolved() {
    let mut builder = builder();
    let remotes = vec![
        remote("on-link", "192.168.0.2", "10.2.0.0/24"),
        remote("routed", "172.16.0.1", "10.3.0.0/24"),
        remote("v6", "2001:db8::1", "10.4.0.0/24"),
    ];
    builder.apply(&tables(1, remotes, vec![])).unwrap();
    assert_eq!(builder.next_hops(), [ip("192.168.0.2"), ip("192.168.0.254")]);
    let template = |builder: &mut Builder, name| {
        let snapshot = builder.snapshot();
        let remote = snapshot.remotes().find(|remote| remote.name == name).unwrap();
        remote.template.as_ref().map(|_| remote.mtu).map_err(|why| *why)
    };
    assert_eq!(template(&mut builder, "on-link"), Err(Unreachable::Unresolved));
    assert_eq!(template(&mut builder, "v6"), Err(Unreachable::NoWay));

    let epoch = builder.snapshot().epoch();
    let router = (ip("192.168.0.254"), EthAddr([2, 0, 0, 0, 0, 0xfe]));
    assert!(builder.set_neighbours([router]));
    assert!(!builder.set_neighbours([router]));
    assert_eq!(template(&mut builder, "routed"), Ok(1450));
    assert_eq!(template(&mut builder, "on-link"), Err(Unreachable::Unresolved));
    assert_eq!(builder.snapshot().epoch(), epoch, "outer headers are no decision of a flow");
    builder.detach(UPLINK);
    assert_eq!(template(&mut builder, "routed"), Err(Unreachable::NoWay));
}

#[test]
fn unsynced_tables_add_and_change_but_never_remove() {
    let mut builder = builder();
    let two = [backend("10.1.0.5", 80), backend("10.2.0.5", 80)];
    let remotes = vec![remote("node-b", "192.168.0.2", "10.2.0.0/24")];
    let services = vec![service("web", "10.96.0.10", 80, &two), service("db", "10.96.0.11", 80, &two)];
    builder.apply(&tables(1, remotes, services)).unwrap();

    let closing = proto::Backend { terminating: true, ..backend("10.2.0.5", 80) };
    let partial = proto::Tables {
        synced: false,
        node: None,
        ..tables(2, vec![], vec![service("web", "10.96.0.10", 80, &[closing, backend("10.3.0.5", 80)])])
    };
    let applied = builder.apply(&partial).unwrap();
    assert_eq!((applied.services, applied.backends, applied.remotes), (2, 5, 1));
    let snapshot = builder.snapshot();
    assert!(snapshot.synced());
    let web = snapshot.service(&key("10.96.0.10", 80)).unwrap();
    let backends: Vec<_> = web.backends().iter().map(|b| (b.address.to_string(), b.terminating)).collect();
    assert_eq!(
        backends,
        [("10.1.0.5".to_owned(), false), ("10.2.0.5".to_owned(), true), ("10.3.0.5".to_owned(), false)]
    );

    let applied = builder.apply(&tables(3, vec![], vec![])).unwrap();
    assert_eq!((applied.services, applied.backends, applied.remotes), (0, 0, 0));
    let snapshot = builder.snapshot();
    assert!(!snapshot.is_vip(Tenant::DEFAULT, ip("10.96.0.10")));
    assert_eq!(snapshot.route(Tenant::DEFAULT, ip("10.2.0.5")), None);
    assert_eq!(snapshot.remote_of_vtep(ip("192.168.0.2")), None);
}

#[test]
fn an_endpoint_that_stays_keeps_its_id_and_one_that_comes_back_gets_another() {
    let mut builder = builder();
    let (a, b) = (backend("10.1.0.5", 80), backend("10.2.0.5", 80));
    let mut apply = |revision, backends: &[proto::Backend]| {
        builder.apply(&tables(revision, vec![], vec![service("web", "10.96.0.10", 80, backends)])).unwrap();
        builder.snapshot()
    };
    let ids = |snapshot: &Snapshot| {
        let web = snapshot.service(&key("10.96.0.10", 80)).unwrap();
        web.backends().iter().map(|backend| backend.id).collect::<Vec<_>>()
    };
    let first = apply(1, &[a.clone(), b.clone()]);
    let second = apply(2, std::slice::from_ref(&a));
    assert_eq!(ids(&first)[0], ids(&second)[0]);
    assert!(second.has_backend(ids(&first)[0]) && !second.has_backend(ids(&first)[1]));
    assert!(first.has_backend(ids(&first)[1]), "a snapshot never changes");
    assert_ne!(first.epoch(), second.epoch());

    let third = apply(3, &[a.clone(), b]);
    assert_eq!(ids(&third)[0], ids(&first)[0]);
    assert_ne!(ids(&third)[1], ids(&first)[1]);
    assert_eq!(second.epoch(), third.epoch(), "an endpoint more spoils no earlier decision");

    let closing = proto::Backend { terminating: true, ..a };
    let fourth = apply(4, &[closing]);
    assert_eq!(ids(&fourth)[0], ids(&first)[0]);
}

#[test]
fn an_endpoint_that_is_not_ready_keeps_connections_and_loses_datagrams() {
    for (protocol, keeps) in [(proto::Protocol::Tcp, true), (proto::Protocol::Udp, false)] {
        let mut builder = builder();
        let mut apply = |revision, draining| {
            let backend = proto::Backend { draining, ..backend("10.1.0.5", 80) };
            let mut web = service("web", "10.96.0.10", 80, &[backend]);
            web.protocol = protocol.into();
            builder.apply(&tables(revision, vec![], vec![web])).unwrap();
            let snapshot = builder.snapshot();
            let id = snapshot.services().next().unwrap().backends()[0].id;
            (snapshot, id)
        };
        let (first, id) = apply(1, false);
        let (drained, drained_id) = apply(2, true);
        assert_eq!(drained.has_backend(id), keeps);
        assert_eq!(first.epoch() == drained.epoch(), keeps);
        assert!(drained.has_backend(drained_id));
        let (again, again_id) = apply(3, false);
        assert_eq!((again_id, again.epoch()), (drained_id, drained.epoch()));
        assert_eq!(again.has_backend(id), keeps);
    }
}

#[test]
fn a_terminating_endpoint_gets_new_flows_only_if_no_other_is_left_and_one_not_ready_never() {
    let mut builder = builder();
    let closing = proto::Backend { terminating: true, ..backend("10.1.0.5", 80) };
    let mut picks = |revision, backends: &[proto::Backend]| {
        builder.apply(&tables(revision, vec![], vec![service("web", "10.96.0.10", 80, backends)])).unwrap();
        let snapshot = builder.snapshot();
        let web = snapshot.service(&key("10.96.0.10", 80)).unwrap();
        let picked = (0..100_u64).map(|i| web.pick(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).map(|b| b.address));
        let mut picked: Vec<_> = picked.collect();
        picked.sort_unstable();
        picked.dedup();
        picked
    };
    assert_eq!(picks(1, &[closing.clone(), backend("10.2.0.5", 80)]), [Some(ip("10.2.0.5"))]);
    assert_eq!(picks(2, &[closing]), [Some(ip("10.1.0.5"))]);
    assert_eq!(picks(3, &[]), [None]);
    let draining = |address| proto::Backend { draining: true, ..backend(address, 80) };
    assert_eq!(picks(4, &[draining("10.1.0.5"), backend("10.2.0.5", 80)]), [Some(ip("10.2.0.5"))]);
    let ending = proto::Backend { terminating: true, ..backend("10.2.0.5", 80) };
    assert_eq!(picks(5, &[draining("10.1.0.5"), ending]), [Some(ip("10.2.0.5"))]);
    assert_eq!(picks(6, &[draining("10.1.0.5")]), [None]);
}

#[test]
fn services_keep_their_slots_and_report_which_are_new() {
    let mut builder = builder();
    let one = |name: &str, vip: &str| service(name, vip, 80, &[]);
    let applied =
        builder.apply(&tables(1, vec![], vec![one("a", "10.96.0.1"), one("b", "10.96.0.2")])).unwrap();
    assert_eq!(applied.new_services, [0, 1]);
    let slot = |builder: &mut Builder, vip| builder.snapshot().service(&key(vip, 80)).unwrap().slot();
    let b = slot(&mut builder, "10.96.0.2");
    let applied =
        builder.apply(&tables(2, vec![], vec![one("b", "10.96.0.2"), one("c", "10.96.0.3")])).unwrap();
    assert_eq!(applied.new_services, [1 - b]);
    assert_eq!((slot(&mut builder, "10.96.0.2"), slot(&mut builder, "10.96.0.3")), (b, 1 - b));
    // The address now belongs to another Service: its counters are not those of the first.
    let applied =
        builder.apply(&tables(3, vec![], vec![one("d", "10.96.0.2"), one("c", "10.96.0.3")])).unwrap();
    assert_eq!((applied.new_services, applied.service_slots), (vec![b], 2));
}

#[test]
fn what_has_not_changed_is_shared_between_snapshots() {
    let mut builder = builder();
    let services = || vec![service("web", "10.96.0.10", 80, &[backend("10.1.0.5", 8080)])];
    builder.apply(&tables(1, vec![], services())).unwrap();
    let first = builder.snapshot();
    builder.apply(&tables(2, vec![], services())).unwrap();
    let second = builder.snapshot();
    assert_eq!((second.revision(), second.epoch()), (2, first.epoch()));
    assert!(first.services.by_slot.is_shared_with(&second.services.by_slot));
    assert!(std::sync::Arc::ptr_eq(&first.ports, &second.ports));
}

proptest! {
    /// Whatever sequence of tables: a snapshot finds exactly the services of the last one, under distinct slots and
    /// with backends under distinct ids.
    #[test]
    fn a_snapshot_holds_what_the_last_tables_say(
        steps in prop::collection::vec(
            prop::collection::btree_map(0_u8..6, prop::collection::btree_set(1_u8..6, 0..5), 0..6), 1..12),
    ) {
        let mut builder = builder();
        for (revision, step) in steps.iter().enumerate() {
            let service = |(&n, backends): (&u8, &std::collections::BTreeSet<u8>)| {
                let backends: Vec<_> = backends.iter().map(|b| backend(&format!("10.2.0.{b}"), 80)).collect();
                service(&format!("s{n}"), &format!("10.96.0.{}", n + 1), 80, &backends)
            };
            builder.apply(&tables(revision as u64, vec![], step.iter().map(service).collect())).unwrap();
            let snapshot = builder.snapshot();
            prop_assert_eq!(snapshot.services().count(), step.len());
            let mut ids = std::collections::HashSet::new();
            for (n, backends) in step {
                let vip = Ipv4Addr::new(10, 96, 0, n + 1);
                let found = snapshot.service(&key(&vip.to_string(), 80)).unwrap();
                let addresses: Vec<_> = found.backends().iter().map(|b| b.address).collect();
                let expected: Vec<_> = backends.iter().map(|b| IpAddr::from([10, 2, 0, *b])).collect();
                prop_assert_eq!(addresses, expected);
                prop_assert_eq!(snapshot.service_in(found.slot()).unwrap().key(), found.key());
                prop_assert!(found.backends().iter().all(|b| snapshot.has_backend(b.id) && ids.insert(b.id.slot)));
            }
        }
    }
}

#[test]
fn a_nodes_tenants_have_slots_of_their_own_that_are_used_again() {
    let red = Tenant::new(5).unwrap();
    let mut builder = builder();
    let node_b = || remote("node-b", "192.168.0.2", "10.2.0.0/24");
    let with = |tenants: &[u32]| proto::RemoteNode {
        tenants: tenants.iter().map(|&tenant| ranges(tenant, "10.2.0.0/24")).collect(),
        ..node_b()
    };
    let vtep = ip("192.168.0.2");
    let tables = |revision, remotes: Vec<proto::RemoteNode>| {
        let mut tables = tables(revision, remotes, vec![]);
        tables.node.as_mut().unwrap().tenants = vec![domain(5, 15), domain(6, 16)];
        tables
    };
    builder.apply(&tables(1, vec![with(&[5, 6])])).unwrap();
    let snapshot = builder.snapshot();
    let (own, of_red) =
        (snapshot.remote_of_vtep(vtep).unwrap(), snapshot.remote_of_tenant(red, vtep).unwrap());
    assert_ne!(own, of_red);
    assert_eq!(snapshot.route(Tenant::DEFAULT, ip("10.2.0.7")), Some(Target::Remote(own)));
    assert_eq!(snapshot.route(red, ip("10.2.0.7")), Some(Target::Remote(of_red)));
    assert_eq!(snapshot.route(red, ip("10.1.0.5")), None, "the cluster's own range here");
    assert_eq!((snapshot.remotes().count(), snapshot.remote(of_red).unwrap().tenant), (3, red));

    // It stays where it is while others come and go.
    builder.apply(&tables(2, vec![with(&[5]), remote("node-c", "192.168.0.3", "10.3.0.0/24")])).unwrap();
    let snapshot = builder.snapshot();
    assert_eq!(snapshot.remote_of_tenant(red, vtep), Some(of_red));
    assert_eq!(snapshot.remote_of_tenant(Tenant::new(6).unwrap(), vtep), None);
    assert_eq!(snapshot.remotes().count(), 3);
    builder.apply(&tables(3, vec![])).unwrap();
    builder.apply(&tables(4, vec![with(&[5, 6])])).unwrap();
    let slots: Vec<_> = builder.snapshot().remotes().map(|remote| remote.tenant.get()).collect();
    assert_eq!(slots.len(), 3);
    assert!((0..3).all(|slot| builder.snapshot().remote(slot).is_some()), "slots are used again");
}

#[test]
fn a_tenants_router_is_no_pod_of_that_tenant() {
    let mut builder = builder();
    let mut first = tables(1, vec![], vec![]);
    first.node.as_mut().unwrap().tenants = vec![domain(5, 6)];
    builder.apply(&first).unwrap();
    let with = |tenant| Port { tenant: Tenant::new(tenant).unwrap(), ..pod("t", "10.9.0.1") };
    let refused = builder.attach(PortIndex(2), with(5)).unwrap_err().to_string();
    assert_eq!(refused, "port t: gateway 10.9.0.1: is already port t's");
    builder.attach(PortIndex(2), with(7)).unwrap();
}
