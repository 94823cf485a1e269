//! What is different between the tables that the fast path has and those that it should have.

use std::collections::HashMap;
use std::hash::Hash;

use culvert_api::fastpath::{Changes, RemoteNode, Service, ServiceKey, Tables};

/// The changes, without revisions; `None` where only the whole tables will do: while something may still be missing, and
/// when this node itself changes.
pub(super) fn difference(given: &Tables, wanted: &Tables) -> Option<Changes> {
    if !given.synced || !wanted.synced || given.node != wanted.node {
        return None;
    }
    let (remotes, removed_remotes) = compare(&given.remotes, &wanted.remotes, |remote| &remote.name);
    let (services, removed_services) =
        compare(&given.services, &wanted.services, |s| (s.tenant, s.protocol, &s.vip, s.port));
    let key = |service: &Service| ServiceKey {
        tenant: service.tenant,
        protocol: service.protocol,
        vip: service.vip.clone(),
        port: service.port,
    };
    Some(Changes {
        remotes: remotes.into_iter().cloned().collect(),
        removed_remotes: removed_remotes.into_iter().map(|remote: &RemoteNode| remote.name.clone()).collect(),
        services: services.into_iter().cloned().collect(),
        removed_services: removed_services.into_iter().map(key).collect(),
        ..Changes::default()
    })
}

/// What is new or different in `wanted`, and what `wanted` lacks. No key is twice in a list; lists that are alike at both
/// ends take no longer than to compare them.
fn compare<'a, T: PartialEq, K: Eq + Hash>(
    given: &'a [T],
    wanted: &'a [T],
    key: impl Fn(&'a T) -> K,
) -> (Vec<&'a T>, Vec<&'a T>) {
    let same = given.iter().zip(wanted).take_while(|(a, b)| a == b).count();
    let (given, wanted) = (&given[same..], &wanted[same..]);
    let same = given.iter().rev().zip(wanted.iter().rev()).take_while(|(a, b)| a == b).count();
    let (given, wanted) = (&given[..given.len() - same], &wanted[..wanted.len() - same]);
    let mut gone: HashMap<K, &T> = given.iter().map(|item| (key(item), item)).collect();
    let put = wanted.iter().filter(|item| gone.remove(&key(item)) != Some(item)).collect();
    let gone = given.iter().filter(|item| gone.contains_key(&key(item))).collect();
    (put, gone)
}

#[cfg(test)]
mod tests {
    use culvert_api::fastpath::{Backend, LocalNode};

    use super::*;

    fn service(n: u8, backends: &[u8]) -> Service {
        Service {
            name: format!("s{n}"),
            vip: vec![10, 96, 0, n],
            port: 80,
            backends: backends
                .iter()
                .map(|b| Backend { address: vec![10, 1, 0, *b], port: 80, ..Backend::default() })
                .collect(),
            ..Service::default()
        }
    }

    fn remote(n: u8, vtep: u8) -> RemoteNode {
        RemoteNode { name: format!("node-{n}"), vtep: vec![192, 168, 0, vtep], ..RemoteNode::default() }
    }

    fn tables(remotes: &[RemoteNode], services: &[Service]) -> Tables {
        Tables {
            synced: true,
            node: Some(LocalNode::default()),
            remotes: remotes.to_vec(),
            services: services.to_vec(),
            ..Tables::default()
        }
    }

    fn names(changes: &Changes) -> (Vec<&str>, Vec<u8>, Vec<&str>, Vec<&str>) {
        (
            changes.services.iter().map(|s| s.name.as_str()).collect(),
            changes.removed_services.iter().map(|key| key.vip[3]).collect(),
            changes.remotes.iter().map(|r| r.name.as_str()).collect(),
            changes.removed_remotes.iter().map(String::as_str).collect(),
        )
    }

    #[test]
    fn what_is_new_different_and_gone_is_named_and_nothing_else() {
        let given = tables(
            &[remote(1, 1), remote(2, 2), remote(3, 3)],
            &[service(1, &[1]), service(2, &[2]), service(3, &[]), service(4, &[4])],
        );
        let wanted = tables(
            &[remote(1, 9), remote(3, 3), remote(4, 4)],
            &[service(1, &[1]), service(3, &[3]), service(4, &[4]), service(5, &[])],
        );
        let changes = difference(&given, &wanted).unwrap();
        let expected = (vec!["s3", "s5"], vec![2], vec!["node-1", "node-4"], vec!["node-2"]);
        assert_eq!(names(&changes), expected);
        assert_eq!(changes.services[0].backends, service(3, &[3]).backends);
        assert_eq!(difference(&given, &given), Some(Changes::default()));
    }

    #[test]
    fn another_order_is_no_change() {
        let (a, b) = (service(1, &[1]), service(2, &[2]));
        let given = tables(&[], &[a.clone(), b.clone()]);
        assert_eq!(difference(&given, &tables(&[], &[b, a])), Some(Changes::default()));
    }

    #[test]
    fn the_whole_tables_are_wanted_before_both_are_synced_and_when_this_node_changes() {
        let synced = tables(&[], &[service(1, &[])]);
        let unsynced = Tables { synced: false, ..synced.clone() };
        let moved = Tables { node: Some(LocalNode { vni: 7, ..LocalNode::default() }), ..synced.clone() };
        for (given, wanted) in [(&synced, &unsynced), (&unsynced, &synced), (&synced, &moved)] {
            assert_eq!(difference(given, wanted), None);
        }
    }
}
