//! What is wrong in tables and ports, and what is said about it.

use super::*;

#[test]
fn what_is_wrong_is_refused_by_name_and_changes_nothing() {
    let good_remote = || remote("node-b", "192.168.0.2", "10.2.0.0/24");
    let good_service = || service("web", "10.96.0.10", 80, &[backend("10.1.0.5", 8080)]);
    let mut builder = builder();
    builder.apply(&tables(5, vec![good_remote()], vec![good_service()])).unwrap();
    let before = format!("{:?}", builder.snapshot());

    let with_local = |change: fn(&mut proto::LocalNode)| {
        let mut tables = tables(6, vec![], vec![]);
        change(tables.node.as_mut().unwrap());
        tables
    };
    let with_marking = |change: fn(&mut proto::Marking)| {
        let mut tables = tables(6, vec![], vec![]);
        change(tables.node.as_mut().unwrap().marking.get_or_insert_default());
        tables
    };
    let with_remote = |change: fn(&mut proto::RemoteNode)| {
        let mut node = good_remote();
        change(&mut node);
        tables(6, vec![remote("node-c", "192.168.0.3", "10.3.0.0/24"), node], vec![])
    };
    let with_service = |change: fn(&mut proto::Service)| {
        let mut web = good_service();
        change(&mut web);
        tables(6, vec![], vec![service("db", "10.96.0.11", 5432, &[]), web])
    };
    for (tables, reason) in [
        (tables(4, vec![], vec![]), "tables: revision 4: must not be below 5, which is in force"),
        (
            with_local(|node| node.gateways.push(vec![10, 0, 0, 9])),
            "local node node-a: gateway: two IPv4 addresses; at most one of each version",
        ),
        (
            with_local(|node| node.gateways = vec![vec![10, 1, 0, 5]]),
            "local node node-a: gateway 10.1.0.5: is already port a's",
        ),
        (
            with_local(|node| node.gateways = vec![vec![192, 168, 0, 1]]),
            "local node node-a: gateway 192.168.0.1: is already the underlay's",
        ),
        (with_local(|node| node.vni = 1 << 24), "local node node-a: vni 16777216: must be 0-16777215"),
        (
            with_local(|node| node.tunnel_port = 70_000),
            "local node node-a: tunnel_port 70000: must be 1-65535",
        ),
        (with_local(|node| node.tenants = vec![domain(0, 5)]), "tenant 0: tenant 0: must be 1-16777215"),
        (
            with_local(|node| node.tenants = vec![domain(1 << 24, 5)]),
            "tenant 16777216: tenant 16777216: must be 0-16777215",
        ),
        (
            with_local(|node| node.tenants = vec![domain(5, 4096)]),
            "tenant 5: vni 4096: is already tenant 0's",
        ),
        (
            with_local(|node| node.tenants = vec![domain(5, 6), domain(5, 7)]),
            "tenant 5: there are two of that name",
        ),
        (
            with_local(|node| node.tenants = vec![domain(6, 7), domain(5, 7)]),
            "tenant 6: vni 7: is already tenant 5's",
        ),
        (
            with_remote(|node| node.tenants = vec![ranges(5, "10.9.0.0/24"), ranges(5, "10.8.0.0/24")]),
            "remote node-b: tenant 5: is there twice",
        ),
        (
            with_remote(|node| node.tenants = vec![ranges(0, "10.9.0.0/24")]),
            "remote node-b: tenant 0: must be 1-16777215",
        ),
        (with_local(|node| node.encapsulation = 3), "local node node-a: encapsulation 3: not known here"),
        (with_marking(|marking| marking.dscp_model = 4), "local node node-a: dscp_model 4: not known here"),
        (with_marking(|marking| marking.dscp = 64), "local node node-a: dscp 64: must be 0-63"),
        (with_marking(|marking| marking.ecn = -1), "local node node-a: ecn -1: not known here"),
        (with_marking(|marking| marking.ttl = 256), "local node node-a: ttl 256: must be 1-255"),
        (with_local(|node| node.underlay_mtu = 100), "local node node-a: mtu 100: must be 1280-65535"),
        (
            with_local(|node| node.gateway_mac[0] = 1),
            "local node node-a: gateway_mac: mac 01:00:00:00:01:01: is a multicast address; the first octet must be even",
        ),
        (
            with_local(|node| node.underlay[0].prefix_len = 33),
            "local node node-a: underlay address 192.168.0.1/33: longer than the address",
        ),
        (
            with_local(|node| node.underlay[0].router = vec![0; 16]),
            "local node node-a: underlay router ::: must be of the same IP version as 192.168.0.1",
        ),
        (with_remote(|node| node.name.clear()), "remote : name is empty"),
        (with_remote(|node| node.vtep = vec![1, 2, 3]), "remote node-b: vtep of 3 bytes: must be 4 or 16"),
        (
            with_remote(|node| node.vtep = vec![224, 0, 0, 1]),
            "remote node-b: vtep 224.0.0.1: must be a unicast address that can be routed",
        ),
        (
            with_remote(|node| node.vtep = vec![192, 168, 0, 3]),
            "remote node-b: vtep 192.168.0.3: is already remote node-c's",
        ),
        (
            with_remote(|node| node.pod_cidrs = vec![prefix("10.3.0.0/24")]),
            "remote node-b: podCIDR 10.3.0.0: is already remote node-c's",
        ),
        (with_remote(|node| node.name = "node-c".to_owned()), "remote node-c: there are two of that name"),
        (with_service(|web| web.vip.push(0)), "service default/web:http: vip of 5 bytes: must be 4 or 16"),
        (with_service(|web| web.port = 0), "service default/web:http: port 0: must be 1-65535"),
        (
            with_service(|web| web.protocol = 9),
            "service default/web:http: protocol 9: must be 1 (TCP), 2 (UDP), 3 (SCTP) or 4 (ICMP)",
        ),
        (
            with_service(|web| web.tenant = u32::MAX),
            "service default/web:http: tenant 4294967295: must be 0-16777215",
        ),
        (with_service(|web| web.namespace.clear()), "service /web:http: namespace is empty"),
        (
            with_service(|web| web.backends.push(backend("fd00::1", 80))),
            "service default/web:http: backend fd00::1: must be of the same IP version as 10.96.0.10",
        ),
        (
            with_service(|web| web.backends.push(backend("10.1.0.5", 8080))),
            "service default/web:http: backend 10.1.0.5 port 8080: is there twice",
        ),
        (
            with_service(|web| (web.vip, web.port) = (vec![10, 96, 0, 11], 5432)),
            "service default/web:http: the same address, protocol and port as service default/db:http",
        ),
    ] {
        assert_eq!(builder.apply(&tables).unwrap_err().to_string(), reason);
        assert_eq!(format!("{:?}", builder.snapshot()), before, "half-applied: {reason}");
    }
}

#[test]
fn the_first_tables_need_a_local_node_and_later_ones_may_keep_it() {
    let mut builder = builder();
    let without = proto::Tables { node: None, ..tables(1, vec![], vec![]) };
    assert_eq!(builder.apply(&without).unwrap_err().to_string(), "tables: the local node is missing");
    builder.apply(&tables(1, vec![], vec![])).unwrap();
    builder.apply(&without).unwrap();
    assert_eq!(builder.snapshot().local().unwrap().name, "node-a");
}

#[test]
fn ports_are_refused_by_name() {
    let request = proto::AttachPortRequest {
        name: "pod0".to_owned(),
        addresses: vec![bytes("10.1.0.9")],
        mac: vec![2, 0, 0, 0, 0, 9],
        mtu: 1450,
        ..Default::default()
    };
    for (request, reason) in [
        (
            proto::AttachPortRequest { name: "sixteen-letters-".to_owned(), ..request.clone() },
            "port sixteen-letters-: length of the name 16: must be 1-15",
        ),
        (
            proto::AttachPortRequest { mac: vec![2], ..request.clone() },
            "port pod0: mac: mac of 1 bytes: must be 6",
        ),
        (proto::AttachPortRequest { mtu: 100, ..request.clone() }, "port pod0: mtu 100: must be 1280-65535"),
        (proto::AttachPortRequest { addresses: vec![], ..request.clone() }, "port pod0: addresses is empty"),
        (
            proto::AttachPortRequest { addresses: vec![vec![127, 0, 0, 1]], ..request.clone() },
            "port pod0: address 127.0.0.1: must be a unicast address that can be routed",
        ),
        (
            proto::AttachPortRequest { socket: "/run/a".to_owned(), ..request.clone() },
            "port pod0: socket \"/run/a\": goes only with memif and vhost-user",
        ),
        (
            proto::AttachPortRequest { device: proto::PortDevice::Memif.into(), ..request.clone() },
            "port pod0: socket \"\": must be an absolute path of at most 107 bytes without , = [ ]",
        ),
        (
            proto::AttachPortRequest {
                device: proto::PortDevice::VhostUser.into(),
                socket: "/run/a,client=0".to_owned(),
                ..request.clone()
            },
            "port pod0: socket \"/run/a,client=0\": must be an absolute path of at most 107 bytes without , = [ ]",
        ),
        (proto::AttachPortRequest { device: 9, ..request.clone() }, "port pod0: device 9: not known here"),
        (
            proto::AttachPortRequest { kind: proto::PortKind::Uplink.into(), ..request.clone() },
            "port pod0: kind 1: must be 0 or 2 (a pod's port) or 3 (the host's)",
        ),
        (
            proto::AttachPortRequest { kind: proto::PortKind::Host.into(), tenant: 7, ..request.clone() },
            "port pod0: the host's port belongs to tenant 0, and is an interface of the kernel",
        ),
        (
            proto::AttachPortRequest {
                kind: proto::PortKind::Host.into(),
                device: proto::PortDevice::Memif.into(),
                socket: "/run/a".to_owned(),
                ..request.clone()
            },
            "port pod0: the host's port belongs to tenant 0, and is an interface of the kernel",
        ),
    ] {
        assert_eq!(Port::try_from(&request).unwrap_err().to_string(), reason);
    }
    let mut builder = builder();
    builder.apply(&tables(1, vec![], vec![])).unwrap();
    let host = |name, address| Port { kind: PortKind::Host, ..pod(name, address) };
    builder.attach(PortIndex(3), host("culvert0", "10.1.0.2")).unwrap();
    builder.attach(PortIndex(3), host("culvert0", "10.1.0.3")).unwrap();
    for (index, port, reason) in [
        (
            4,
            host("culvert1", "10.1.0.4"),
            "port culvert1: port culvert0 is the host's, of which there is one: detach it first",
        ),
        (2, pod("b", "10.1.0.5"), "port b: address 10.1.0.5: is already port a's"),
        (2, pod("a", "10.1.0.6"), "port a: there are two of that name"),
        (2, pod("b", "10.1.0.1"), "port b: gateway 10.1.0.1: is already port b's"),
        (2, Port::uplink("u", EthAddr([2; 6]), Mtu::MIN), "port u: there are two of that name"),
        (MAX_PORTS as u16, pod("b", "10.1.0.6"), "port b: 4097 ports: at most 4096"),
    ] {
        assert_eq!(builder.attach(PortIndex(index), port).unwrap_err().to_string(), reason);
    }
    builder.attach(PortIndex(1), pod("a", "10.1.0.6")).unwrap();
    assert_eq!(builder.snapshot().pod(Tenant::DEFAULT, ip("10.1.0.5")), None);
    let other_tenant = Port { tenant: Tenant::new(7).unwrap(), ..pod("b", "10.1.0.6") };
    builder.attach(PortIndex(2), other_tenant).unwrap();
    assert_eq!(builder.snapshot().pod(Tenant::new(7).unwrap(), ip("10.1.0.6")), Some(PortIndex(2)));
    assert_eq!(builder.detach(PortIndex(2)).unwrap().name, "b");
    assert_eq!(builder.detach(PortIndex(2)), None);
    assert_eq!(builder.detach(PortIndex(99)), None);
}
