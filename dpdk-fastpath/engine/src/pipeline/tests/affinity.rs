//! Clients that keep their endpoint.

use super::*;

const SECONDS: u32 = 60;

/// A service of pod B's ports 1 to `n`, whose clients keep their endpoint. In turn, so that who does not keep it gets
/// another.
fn sticky(protocol: proto::Protocol, ips: &Ips, n: u32) -> proto::Service {
    let backends: Vec<_> = (1..=n).map(|port| (ips.b, port)).collect();
    proto::Service {
        balancing: proto::Balancing::RoundRobin.into(),
        affinity_seconds: SECONDS,
        ..service(protocol, ips.vip, &backends)
    }
}

/// Where a new flow goes: address and port.
#[track_caller]
fn sent_to(node: &mut Node, protocol: proto::Protocol, ips: &Ips, port: u16) -> SocketAddr {
    let (src, dst) = (at(ips.a, port), at(ips.vip, 80));
    let frame = if protocol == proto::Protocol::Tcp { syn(src, dst) } else { testkit::udp(src, dst, b"x") };
    let outcome = node.run(POD_A, &from_a(frame));
    match outcome.verdict {
        Verdict::Send(UPLINK) => read(&inner(&outcome)).dst,
        verdict => {
            assert_eq!(verdict, Verdict::Send(POD_B));
            read(&outcome.frame).dst
        }
    }
}

#[test]
fn a_client_keeps_its_endpoint_from_flow_to_flow_until_the_timeout() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[sticky(proto::Protocol::Udp, &ips, 4)]);
        let first = sent_to(&mut node, proto::Protocol::Udp, &ips, 1000);
        for port in 1001..1010 {
            // Longer than the timeout in all.
            node.seconds += u64::from(SECONDS) - 2;
            assert_eq!(sent_to(&mut node, proto::Protocol::Udp, &ips, port), first);
        }
        node.seconds += u64::from(SECONDS) + 4;
        let second = sent_to(&mut node, proto::Protocol::Udp, &ips, 2000);
        assert_ne!(second, first);
        assert_eq!(sent_to(&mut node, proto::Protocol::Udp, &ips, 2001), second);
    }
}

#[test]
fn packets_of_an_open_flow_do_not_count_as_use() {
    let mut node = Node::new();
    let [ips, _] = both();
    node.program(&[sticky(proto::Protocol::Udp, &ips, 4)]);
    let first = sent_to(&mut node, proto::Protocol::Udp, &ips, 1000);
    for _ in 0..4 {
        node.seconds += 20;
        assert_eq!(sent_to(&mut node, proto::Protocol::Udp, &ips, 1000), first);
    }
    assert_ne!(sent_to(&mut node, proto::Protocol::Udp, &ips, 1001), first);
}

#[test]
fn endpoints_that_come_change_nothing_and_one_that_cannot_take_more_is_left() {
    for ips in both() {
        for leave in [
            |backend: &mut proto::Backend| backend.terminating = true,
            |backend: &mut proto::Backend| backend.draining = true,
            |backend: &mut proto::Backend| backend.away = true,
            |backend: &mut proto::Backend| backend.port = 99,
        ] {
            let mut node = Node::new();
            let udp = proto::Protocol::Udp;
            node.program(&[sticky(udp, &ips, 3)]);
            let first = sent_to(&mut node, udp, &ips, 1000);
            let mut more = sticky(udp, &ips, 40);
            node.program(std::slice::from_ref(&more));
            assert_eq!(sent_to(&mut node, udp, &ips, 1001), first);

            let place = more.backends.iter().position(|b| b.port == u32::from(first.port())).unwrap();
            let before = more.clone();
            leave(&mut more.backends[place]);
            node.program(&[more]);
            let second = sent_to(&mut node, udp, &ips, 1002);
            assert_ne!(second, first);
            // It comes back, and its client does not.
            node.program(&[before]);
            assert_eq!(sent_to(&mut node, udp, &ips, 1003), second);
        }
    }
}

#[test]
fn another_port_of_the_service_goes_to_the_same_pod_if_it_may() {
    let [ips, _] = both();
    for shared in [true, false] {
        // Local pod B and one elsewhere serve both ports, under numbers of their own.
        let ports = |base: u32| [(ips.b, base), (ips.on_b, base)];
        let web = |protocol, base| proto::Service {
            balancing: proto::Balancing::RoundRobin.into(),
            affinity_seconds: SECONDS,
            affinity_shared: shared,
            ..service(protocol, ips.vip, &ports(base))
        };
        let mut followed = 0;
        for turns in 0..4 {
            let mut node = Node::new();
            node.program(&[web(proto::Protocol::Tcp, 80), web(proto::Protocol::Udp, 53)]);
            // Somebody else has had the first turns.
            let slots: Vec<_> = node.view.services().map(crate::table::Service::slot).collect();
            for _ in 0..turns {
                node.pipeline.flows.turns.take(slots[0]);
            }
            let tcp = sent_to(&mut node, proto::Protocol::Tcp, &ips, 1000);
            let udp = sent_to(&mut node, proto::Protocol::Udp, &ips, 1000);
            assert_eq!((tcp.port(), udp.port()), (80, 53));
            followed += u32::from(tcp.ip() == udp.ip());
            // Once chosen, both stay.
            assert_eq!(sent_to(&mut node, proto::Protocol::Udp, &ips, 1001), udp);
            assert_eq!(sent_to(&mut node, proto::Protocol::Tcp, &ips, 1001), tcp);
        }
        assert_eq!(followed, if shared { 4 } else { 2 });
    }
}

#[test]
fn ports_that_other_pods_serve_are_kept_each_by_itself() {
    let [ips, _] = both();
    let shared = |service| proto::Service { affinity_shared: true, ..service };
    let tcp = shared(sticky(proto::Protocol::Tcp, &ips, 3));
    let mut udp = shared(sticky(proto::Protocol::Udp, &ips, 3));
    udp.backends.iter_mut().for_each(|backend| backend.address = octets(ips.on_b));
    let mut node = Node::new();
    node.program(&[tcp, udp]);
    let first: Vec<_> =
        [proto::Protocol::Tcp, proto::Protocol::Udp].map(|p| sent_to(&mut node, p, &ips, 1000)).into();
    for port in 1001..1010 {
        node.seconds += u64::from(SECONDS) - 2;
        let now: Vec<_> =
            [proto::Protocol::Tcp, proto::Protocol::Udp].map(|p| sent_to(&mut node, p, &ips, port)).into();
        assert_eq!(now, first);
    }
}

#[test]
fn workers_share_what_clients_use() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[sticky(proto::Protocol::Udp, &ips, 8)]);
        let (_, mut writers) = counters(1);
        let mut other = Pipeline::new(node.flows.worker(), writers.remove(0));
        let first = sent_to(&mut node, proto::Protocol::Udp, &ips, 1000);
        for port in 1001..1010 {
            std::mem::swap(&mut node.pipeline, &mut other);
            assert_eq!(sent_to(&mut node, proto::Protocol::Udp, &ips, port), first);
        }
    }
}
