use proptest::prelude::*;

use super::*;
use crate::table::octets;

fn service(n: u8, endpoint: u8) -> proto::Service {
    proto::Service {
        namespace: "default".to_owned(),
        name: format!("s{n}"),
        protocol: proto::Protocol::Tcp.into(),
        vip: vec![10, 96, 0, n],
        port: 80,
        backends: vec![proto::Backend {
            address: vec![10, 2, 0, endpoint],
            port: 8080,
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn remote(n: u8, mac: u8) -> proto::RemoteNode {
    proto::RemoteNode {
        name: format!("n{n}"),
        vtep: vec![192, 168, 0, n],
        vtep_mac: vec![2, 0, 0, 0, mac, n],
        pod_cidrs: vec![proto::Prefix { address: vec![10, 2, n, 0], prefix_len: 24 }],
        ..Default::default()
    }
}

fn tables(revision: u64, synced: bool) -> proto::Tables {
    proto::Tables {
        revision,
        synced,
        node: Some(proto::LocalNode {
            name: "node-a".to_owned(),
            gateways: vec![vec![10, 1, 0, 1]],
            gateway_mac: vec![2, 0, 0, 0, 0, 1],
            vtep_mac: vec![2, 0, 0, 0, 0, 2],
            vni: 4096,
            ..Default::default()
        }),
        remotes: vec![remote(1, 1), remote(2, 1)],
        services: vec![service(1, 1), service(2, 1)],
    }
}

/// What a builder has: services with endpoints, and remote nodes.
fn known(builder: &mut Builder) -> (u64, bool, Vec<proto::Service>, Vec<String>) {
    let snapshot = builder.snapshot();
    let mut services: Vec<proto::Service> = snapshot.services().map(Into::into).collect();
    services.sort_by(|a, b| a.vip.cmp(&b.vip));
    let mut remotes: Vec<_> = snapshot.remotes().map(|remote| format!("{remote:?}")).collect();
    remotes.sort();
    (snapshot.revision(), snapshot.synced(), services, remotes)
}

/// What the next process would know.
fn recalled(memory: &Memory) -> Result<Tables, RecallError> {
    let ledger = memory.tables.as_ref().expect("something was written");
    read_tables(ledger.as_fd().try_clone_to_owned().unwrap()).map(|(_, tables)| tables)
}

#[test]
fn ports_are_recalled_as_they_were_listed() {
    let mut memory = Memory::default();
    let port = proto::Port {
        name: "cvt-a".to_owned(),
        addresses: vec![octets("10.1.0.5".parse().unwrap())],
        ..Default::default()
    };
    memory.has_ports(vec![proto::Port::default(), port.clone()]);
    memory.has_ports(vec![port.clone()]);
    let descriptor = memory.ports.as_ref().unwrap().as_fd().try_clone_to_owned().unwrap();
    let mut inheritance = Inheritance::default();
    inheritance.items.insert(KEPT_PORTS.to_owned(), vec![descriptor]);
    let (next, recalled, refused) = Memory::recall(&Keep::nobody(), &mut inheritance);
    assert!(refused.is_none() && recalled.tables.is_none() && next.ports.is_some());
    assert_eq!(recalled.ports, [port]);
}

#[test]
fn neighbours_are_recalled_and_what_is_none_is_passed_over() {
    let mut memory = Memory::default();
    let known: [(IpAddr, Mac); 2] = [
        ("192.168.0.1".parse().unwrap(), "02:00:00:00:00:01".parse().unwrap()),
        ("fd00::1".parse().unwrap(), "02:00:00:00:00:02".parse().unwrap()),
    ];
    memory.has_neighbours(known.into_iter());
    let recalled = |memory: &Memory| {
        let descriptor = memory.neighbours.as_ref().unwrap().as_fd().try_clone_to_owned().unwrap();
        let mut inheritance = Inheritance::default();
        inheritance.items.insert(KEPT_NEIGHBOURS.to_owned(), vec![descriptor]);
        Memory::recall(&Keep::nobody(), &mut inheritance).1.neighbours
    };
    assert_eq!(recalled(&memory), known);
    let wrong = Neighbour { address: vec![1, 2, 3], mac: vec![2, 0, 0, 0, 0, 1] };
    let entry = Neighbours { all: vec![wrong] }.encode_to_vec();
    memory.neighbours.as_mut().unwrap().replace(&entry).unwrap();
    assert_eq!(recalled(&memory), []);
}

#[test]
fn tables_that_this_version_does_not_accept_are_refused_by_entry() {
    let mut memory = Memory::default();
    memory.replaced(&tables(1, true));
    memory.changed(&proto::Changes { base: 7, revision: 8, ..Default::default() });
    let error = crate::control::chain(&recalled(&memory).unwrap_err());
    assert!(error.starts_with("ledger of tables: entry 1: "), "{error}");
    let ledger = memory.tables.as_mut().unwrap();
    ledger.replace(&[7, 7]).unwrap();
    assert!(matches!(recalled(&memory), Err(RecallError::Kind { entry: 0, kind: Some(7) })));
    memory.tables.as_mut().unwrap().replace(&[TABLES, 0xff]).unwrap();
    assert!(matches!(recalled(&memory), Err(RecallError::Decode { entry: 0, .. })));
}

proptest! {
    /// Whatever the agent says, with joining after each change or never: the next process knows what this one does.
    #[test]
    fn the_next_process_knows_what_this_one_does(
        first in any::<bool>(),
        steps in prop::collection::vec((0_u8..4, 1_u8..5, 1_u8..5), 0..20),
        joins in any::<bool>(),
    ) {
        let (mut memory, mut builder) = (Memory::default(), Builder::new());
        let begin = tables(1, first);
        builder.apply(&begin).unwrap();
        memory.replaced(&begin);
        for (kind, n, m) in steps {
            let base = builder.snapshot().revision();
            let mut changes = proto::Changes { base, revision: base + 1, ..Default::default() };
            let key = || proto::ServiceKey { protocol: 1, vip: vec![10, 96, 0, n], port: 80, tenant: 0 };
            match kind {
                0 => changes.services.push(service(n, m)),
                1 => changes.removed_services.push(key()),
                2 => changes.remotes.push(remote(n, m)),
                _ => changes.removed_remotes.push(format!("n{n}")),
            }
            // What is not there cannot be removed.
            if builder.change(&changes).is_ok() {
                memory.changed(&changes);
                if joins && let Some(joined) = join(memory.tables.as_ref().unwrap()).unwrap() {
                    memory.tables.as_mut().unwrap().replace(&joined).unwrap();
                }
            }
        }
        let (mut next, _) = recalled(&memory).unwrap().unwrap();
        prop_assert_eq!(known(&mut next), known(&mut builder));
    }
}
