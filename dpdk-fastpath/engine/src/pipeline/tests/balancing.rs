//! Who gets new flows.

use std::collections::BTreeMap;

use super::*;

/// A client's packet, by its source port.
fn question(ips: &Ips, port: u16) -> Vec<u8> {
    from_a(testkit::udp(at(ips.a, port), at(ips.vip, 80), b"x"))
}

/// A service of pod B's ports 1 to `n`.
fn balanced(balancing: proto::Balancing, protocol: proto::Protocol, ips: &Ips, n: u32) -> proto::Service {
    let backends: Vec<_> = (1..=n).map(|port| (ips.b, port)).collect();
    proto::Service { balancing: balancing.into(), ..service(protocol, ips.vip, &backends) }
}

/// The port of pod B that a client's packet goes to.
#[track_caller]
fn sent_to(node: &mut Node, frame: &[u8]) -> u16 {
    let outcome = node.run(POD_A, frame);
    assert_eq!(outcome.verdict, Verdict::Send(POD_B));
    read(&outcome.frame).dst.port()
}

/// Open flows of the service's endpoints, as anybody sees them.
fn loads(node: &Node) -> Vec<u32> {
    let service = node.view.services().next().unwrap();
    service.backends().iter().map(|backend| node.flows.loads.of(backend.id)).collect()
}

#[test]
fn round_robin_gives_each_endpoint_its_turn() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[balanced(proto::Balancing::RoundRobin, proto::Protocol::Udp, &ips, 3)]);
        let round = |node: &mut Node, from: u16| -> Vec<_> {
            (from..from + 3).map(|port| sent_to(node, &question(&ips, port))).collect()
        };
        let first = round(&mut node, 1000);
        assert!((1..=3).all(|port| first.contains(&port)), "{first:?}");
        assert_eq!(round(&mut node, 2000), first);
        // Flows that there are stay where they are, and take no turn.
        assert_eq!(round(&mut node, 1000), first);
        assert_eq!(round(&mut node, 3000), first);
    }
}

#[test]
fn flows_that_find_no_room_go_by_their_hash_whatever_the_balancing() {
    for balancing in [proto::Balancing::RoundRobin, proto::Balancing::LeastFlow] {
        let mut node = Node::with_flows(1);
        let [ips, _] = both();
        node.program(&[balanced(balancing, proto::Protocol::Udp, &ips, 5)]);
        for port in 0..node.flows.capacity() as u16 {
            node.run(POD_A, &question(&ips, 1000 + port));
        }
        let mut seen = std::collections::HashSet::new();
        for port in 40_000..40_200 {
            let first = sent_to(&mut node, &question(&ips, port));
            assert_eq!(sent_to(&mut node, &question(&ips, port)), first);
            seen.insert(first);
        }
        assert_eq!((node.counters.flows().stateless, seen.len()), (400, 5));
    }
}

#[test]
fn open_flows_are_counted_from_their_first_packet_to_their_end() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[balanced(proto::Balancing::Maglev, proto::Protocol::Tcp, &ips, 1)]);
        let client = |port, flags| from_a(testkit::tcp(at(ips.a, port), at(ips.vip, 80), flags, b""));
        let server = |port, flags| from_b(testkit::tcp(at(ips.b, 1), at(ips.a, port), flags, b""));
        let (syn, ack, fin, rst) = (TcpFlags::SYN, TcpFlags::ACK, TcpFlags::FIN, TcpFlags::RST);
        for port in 1000..1003 {
            node.run(POD_A, &client(port, syn));
            node.run(POD_B, &server(port, syn | ack));
            node.run(POD_A, &client(port, ack));
        }
        assert_eq!(loads(&node), [3]);
        // Both sides close; one resets; and a reset that was none.
        node.run(POD_A, &client(1000, fin | ack));
        assert_eq!(loads(&node), [3]);
        node.run(POD_B, &server(1000, fin | ack));
        assert_eq!(loads(&node), [2]);
        node.run(POD_B, &server(1001, rst));
        assert_eq!(loads(&node), [1]);
        node.run(POD_A, &client(1001, ack));
        assert_eq!(loads(&node), [2]);
        // Reopened from the same port.
        node.run(POD_A, &client(1000, syn));
        assert_eq!(loads(&node), [3]);
        // What is forgotten is not counted twice.
        node.run(POD_B, &server(1001, rst));
        node.seconds += 100_000;
        node.age();
        assert_eq!((loads(&node), node.flow_count()), (vec![0], 0));
    }
}

#[test]
fn flows_of_an_endpoint_that_went_are_none_of_its_successors() {
    let mut node = Node::new();
    let [ips, _] = both();
    let mut web = balanced(proto::Balancing::LeastFlow, proto::Protocol::Tcp, &ips, 2);
    node.program(std::slice::from_ref(&web));
    for port in 1000..1020 {
        sent_to(&mut node, &from_a(syn(at(ips.a, port), at(ips.vip, 80))));
    }
    assert_eq!(loads(&node), [10, 10]);
    // The slots are taken by others at once.
    node.program(&[]);
    web.backends.iter_mut().for_each(|backend| backend.port += 8);
    node.program(std::slice::from_ref(&web));
    assert_eq!(loads(&node), [0, 0]);
    // Some begin anew, whose old flows end at that.
    for port in 1000..1010 {
        assert!(sent_to(&mut node, &from_a(syn(at(ips.a, port), at(ips.vip, 80)))) > 8);
    }
    assert_eq!(loads(&node), [5, 5]);
    // The others end in their time.
    node.age();
    assert_eq!((loads(&node), node.flow_count()), (vec![5, 5], 10));
}

#[test]
fn least_flow_levels_the_endpoints_and_their_weights() {
    for n in [4_u32, 100] {
        for ips in both() {
            let mut node = Node::new();
            let mut web = balanced(proto::Balancing::LeastFlow, proto::Protocol::Udp, &ips, n);
            web.backends[0].weight = 3;
            node.program(&[web]);
            for port in 0..30 * (n as u16 + 2) {
                node.run(POD_A, &question(&ips, 1000 + port));
            }
            let loads = loads(&node);
            // All are looked at, or some: then a few more or less.
            let slack = if n == 4 { 1 } else { 8 };
            assert!(loads[0].abs_diff(90) <= 3 * slack, "{loads:?}");
            assert!(loads[1..].iter().all(|flows| flows.abs_diff(30) <= slack), "{loads:?}");
        }
    }
}

#[test]
fn workers_count_each_others_flows() {
    let mut node = Node::new();
    let [ips, _] = both();
    node.program(&[balanced(proto::Balancing::LeastFlow, proto::Protocol::Tcp, &ips, 4)]);
    let (_, mut writers) = counters(1);
    let mut other = Pipeline::new(node.flows.worker(), writers.remove(0));
    let mut ports = BTreeMap::<u16, Vec<u16>>::new();
    for port in 1000..1040 {
        std::mem::swap(&mut node.pipeline, &mut other);
        let to = sent_to(&mut node, &from_a(syn(at(ips.a, port), at(ips.vip, 80))));
        ports.entry(to).or_default().push(port);
    }
    assert_eq!(loads(&node), [10; 4]);
    // One worker sees the end of all of an endpoint's flows, half of which the other opened.
    for port in &ports[&3] {
        let reset = testkit::tcp(at(ips.a, *port), at(ips.vip, 80), TcpFlags::RST, b"");
        node.run(POD_A, &from_a(reset));
    }
    assert_eq!(loads(&node), [10, 10, 0, 10]);
    std::mem::swap(&mut node.pipeline, &mut other);
    for port in 2000..2010 {
        assert_eq!(sent_to(&mut node, &from_a(syn(at(ips.a, port), at(ips.vip, 80)))), 3);
    }
}

#[test]
fn least_flow_sees_what_ends() {
    let mut node = Node::new();
    let [ips, _] = both();
    node.program(&[balanced(proto::Balancing::LeastFlow, proto::Protocol::Tcp, &ips, 2)]);
    let mut ports = BTreeMap::<u16, Vec<u16>>::new();
    for port in 1000..1010 {
        let to = sent_to(&mut node, &from_a(syn(at(ips.a, port), at(ips.vip, 80))));
        ports.entry(to).or_default().push(port);
    }
    assert_eq!(ports.values().map(Vec::len).collect::<Vec<_>>(), [5, 5]);
    for port in &ports[&1][..3] {
        let reset = testkit::tcp(at(ips.a, *port), at(ips.vip, 80), TcpFlags::RST, b"");
        node.run(POD_A, &from_a(reset));
    }
    assert_eq!(loads(&node), [2, 5]);
    for port in 2000..2003 {
        assert_eq!(sent_to(&mut node, &from_a(syn(at(ips.a, port), at(ips.vip, 80)))), 1);
    }
}
