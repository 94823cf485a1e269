//! What is said of a packet, held against what becomes of it.

use super::*;
use crate::balance::Moment;
use crate::explain::Present;

pub(super) fn question(protocol: proto::Protocol, src: SocketAddr, dst: SocketAddr) -> proto::ExplainRequest {
    proto::ExplainRequest {
        tenant: 0,
        protocol: protocol.into(),
        source: octets(src.ip()),
        source_port: src.port().into(),
        destination: octets(dst.ip()),
        destination_port: dst.port().into(),
    }
}

pub(super) fn explained(node: &Node, question: &proto::ExplainRequest) -> proto::Explanation {
    let elapsed = Duration::from_secs(node.seconds);
    let (tick, moment) = (Tick::at(elapsed), Moment::after(elapsed));
    Present { view: &node.view, flows: &node.flows, tick, moment }.explain(question).unwrap()
}

/// What is said of a datagram.
fn of_datagram(node: &Node, src: SocketAddr, dst: SocketAddr) -> proto::Explanation {
    explained(node, &question(proto::Protocol::Udp, src, dst))
}

/// Where a packet to the service goes, for real.
#[track_caller]
fn sent_to(node: &mut Node, src: SocketAddr, dst: SocketAddr) -> (Vec<u8>, u32) {
    let outcome = node.run(POD_A, &from_a(testkit::udp(src, dst, b"x")));
    assert_eq!(outcome.verdict, Verdict::Send(POD_B));
    let to = read(&outcome.frame).dst;
    (octets(to.ip()), to.port().into())
}

#[test]
fn the_endpoint_that_is_named_is_the_one_that_gets_the_packet() {
    for ips in both() {
        for (balancing, affinity_seconds) in [
            (proto::Balancing::Maglev, 0),
            (proto::Balancing::Maglev, 60),
            (proto::Balancing::LeastFlow, 0),
            (proto::Balancing::LeastFlow, 60),
            (proto::Balancing::RoundRobin, 0),
            (proto::Balancing::RoundRobin, 60),
        ] {
            let backends: Vec<_> = (1..=9).map(|port| (ips.b, port)).collect();
            let mut node = Node::new();
            node.program(&[proto::Service {
                balancing: balancing.into(),
                affinity_seconds,
                ..service(proto::Protocol::Udp, ips.vip, &backends)
            }]);
            for port in 1000..1030 {
                let (src, dst) = (at(ips.a, port), at(ips.vip, 80));
                let before = of_datagram(&node, src, dst);
                assert_eq!(before.service, "default/web:udp");
                let sent = sent_to(&mut node, src, dst);
                let known_before =
                    balancing != proto::Balancing::RoundRobin || (affinity_seconds > 0 && port > 1000);
                let named = (before.endpoint, before.endpoint_port);
                assert_eq!(
                    named,
                    if known_before { sent.clone() } else { (vec![], 0) },
                    "{:?}",
                    before.steps
                );
                // Now there is a flow.
                let after = of_datagram(&node, src, dst);
                assert_eq!((after.endpoint, after.endpoint_port), sent, "{:?}", after.steps);
            }
        }
    }
}

#[test]
fn what_is_for_no_endpoint_says_why() {
    let [ips, _] = both();
    let mut node = Node::new();
    node.program(&[service(proto::Protocol::Udp, ips.vip, &[])]);
    let client = at(ips.a, 1000);
    for (src, dst, last) in [
        (at(ips.elsewhere, 1), at(ips.vip, 80), "spoofed-address"),
        (client, at(ips.vip, 80), "service-no-endpoint"),
        (client, at(ips.vip, 81), "service-port"),
        (client, at(ips.gateway, 1), "the node's own"),
        (client, at(ips.b, 1), "on port b"),
        (client, at(ips.on_b, 1), "node node-b"),
        (client, at(ips.nobody, 1), "no-such-pod"),
        (client, at(ips.elsewhere, 1), "no-route"),
    ] {
        let said = of_datagram(&node, src, dst);
        assert!(said.steps.last().unwrap().contains(last), "{last}: {:?}", said.steps);
        assert!(said.endpoint.is_empty());
    }
}

#[test]
fn replies_and_flows_to_endpoints_that_are_gone_are_told() {
    let [ips, _] = both();
    let mut node = Node::new();
    node.program(&[service(proto::Protocol::Udp, ips.vip, &[(ips.b, 53)])]);
    let (client, vip) = (at(ips.a, 1000), at(ips.vip, 80));
    sent_to(&mut node, client, vip);
    let reply = of_datagram(&node, at(ips.b, 53), client);
    assert!(reply.steps[1].starts_with("it is a reply of a tracked flow"), "{:?}", reply.steps);
    node.program(&[service(proto::Protocol::Udp, ips.vip, &[(ips.b, 54)])]);
    let said = of_datagram(&node, client, vip);
    assert!(said.steps[2].starts_with("its endpoint is gone"), "{:?}", said.steps);
    assert_eq!(said.endpoint_port, 54);
}

#[test]
fn a_question_that_makes_no_sense_is_refused_by_name() {
    let node = Node::new();
    let present = Present {
        view: &node.view,
        flows: &node.flows,
        tick: Tick::at(Duration::ZERO),
        moment: Moment::after(Duration::ZERO),
    };
    let good = proto::ExplainRequest {
        protocol: 1,
        source: vec![10, 1, 0, 5],
        destination: vec![10, 96, 0, 1],
        ..Default::default()
    };
    let change = |change: fn(&mut proto::ExplainRequest)| {
        let mut question = good.clone();
        change(&mut question);
        present.explain(&question).unwrap_err().to_string()
    };
    assert_eq!(change(|q| q.protocol = 0), "protocol 0: must be 1 (TCP), 2 (UDP) or 3 (SCTP)");
    assert_eq!(change(|q| q.source = vec![1]), "source of 1 bytes: must be 4 or 16");
    assert_eq!(change(|q| q.destination_port = 65_536), "destination port 65536: must be 0-65535");
    assert_eq!(
        change(|q| q.destination = vec![1; 16]),
        "10.1.0.5 and 101:101:101:101:101:101:101:101: must be of the same IP version"
    );
    assert_eq!(change(|q| q.tenant = 1 << 24), "tenant 16777216: must be 0-16777215");
}
