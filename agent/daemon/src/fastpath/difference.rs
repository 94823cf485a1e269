//! What is different between the tables that the fast path has and those that it should have.

use culvert_api::fastpath::{Changes, RemoteNode, Service};

use crate::tables::TableSet;

/// The changes, without revisions; `None` where only the whole tables will do: while something may still be missing, and
/// when this node itself changes.
pub(super) fn difference(given: &TableSet, wanted: &TableSet) -> Option<Changes> {
    if !given.synced || !wanted.synced || given.node != wanted.node {
        return None;
    }
    let mut changes = Changes::default();
    for remote in given.remotes.differences(&wanted.remotes) {
        match remote.new {
            Some(new) => changes.remotes.push(RemoteNode::clone(new)),
            None => changes.removed_remotes.push(remote.key.clone()),
        }
    }
    for service in given.services.differences(&wanted.services) {
        match service.new {
            Some(new) => changes.services.push(Service::clone(new)),
            None => changes.removed_services.push(service.key.key()),
        }
    }
    Some(changes)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use culvert_api::fastpath::{Backend, LocalNode, Protocol};

    use super::*;
    use crate::tables::Frontend;

    fn service(n: u8, backends: &[u8]) -> Service {
        Service {
            name: format!("s{n}"),
            protocol: Protocol::Tcp.into(),
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

    fn tables(remotes: &[RemoteNode], services: &[Service]) -> TableSet {
        let frontend = |service: &Service| Frontend {
            tenant: 0,
            vip: IpAddr::from(<[u8; 4]>::try_from(&service.vip[..]).unwrap()),
            protocol: service.protocol,
            port: 80,
        };
        TableSet {
            synced: true,
            node: Some(Arc::default()),
            remotes: remotes.iter().map(|remote| (remote.name.clone(), remote.clone())).collect(),
            services: services.iter().map(|service| (frontend(service), service.clone())).collect(),
        }
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
        let removed = tables(&[], &[service(2, &[])]);
        let expected = Changes {
            remotes: vec![remote(1, 9), remote(4, 4)],
            removed_remotes: vec!["node-2".to_owned()],
            services: vec![service(3, &[3]), service(5, &[])],
            removed_services: removed.services.keys().map(Frontend::key).collect(),
            ..Changes::default()
        };
        assert_eq!(expected.removed_services[0].vip, [10, 96, 0, 2]);
        assert_eq!(difference(&given, &wanted), Some(expected));
        assert_eq!(difference(&given, &given), Some(Changes::default()));
    }

    #[test]
    fn the_whole_tables_are_wanted_before_both_are_synced_and_when_this_node_changes() {
        let synced = tables(&[], &[service(1, &[])]);
        let unsynced = TableSet { synced: false, ..synced.clone() };
        let other = LocalNode { vni: 7, ..LocalNode::default() };
        let moved = TableSet { node: Some(Arc::new(other)), ..synced.clone() };
        for (given, wanted) in [(&synced, &unsynced), (&unsynced, &synced), (&synced, &moved)] {
            assert_eq!(difference(given, wanted), None);
        }
    }
}
