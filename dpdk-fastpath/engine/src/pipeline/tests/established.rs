use super::*;
use crate::counter::DropReason as R;
use crate::flow::State;

fn terminating(mut service: proto::Service) -> proto::Service {
    service.backends.iter_mut().for_each(|backend| backend.terminating = true);
    service
}

fn tcp(ips: &Ips, flags: TcpFlags) -> Vec<u8> {
    from_a(testkit::tcp(at(ips.a, 1000), at(ips.vip, 80), flags, b""))
}

fn state(node: &Node) -> State {
    let states: Vec<_> = node
        .flows
        .v4
        .iter()
        .map(|hit| hit.state())
        .chain(node.flows.v6.iter().map(|hit| hit.state()))
        .collect();
    assert_eq!(states.len(), 1);
    states[0]
}

/// Opens a connection of pod A to the service, of which pod B is the endpoint.
fn connect(node: &mut Node, ips: &Ips) {
    node.run(POD_A, &tcp(ips, TcpFlags::SYN));
    let answer = testkit::tcp(at(ips.b, 8080), at(ips.a, 1000), TcpFlags::SYN | TcpFlags::ACK, b"");
    node.run(POD_B, &from_b(answer));
    node.run(POD_A, &tcp(ips, TcpFlags::ACK));
    assert_eq!(state(node), State::Established);
}

#[test]
fn connections_are_followed_from_syn_to_the_end() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(proto::Protocol::Tcp, ips.vip, &[(ips.b, 8080)])]);
        connect(&mut node, &ips);
        node.seconds += 80_000;
        node.age();
        assert_eq!(state(&node), State::Established);
        node.run(POD_A, &tcp(&ips, TcpFlags::FIN | TcpFlags::ACK));
        let last = testkit::tcp(at(ips.b, 8080), at(ips.a, 1000), TcpFlags::FIN | TcpFlags::ACK, b"");
        node.run(POD_B, &from_b(last));
        assert_eq!(state(&node), State::TimeWait);
        node.seconds += 250;
        node.age();
        assert_eq!(node.flow_count(), 0);
        assert_eq!((node.counters.flows().created, node.counters.flows().expired), (1, 1));
    }
}

#[test]
fn a_client_that_uses_its_port_again_opens_a_new_connection() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(proto::Protocol::Tcp, ips.vip, &[(ips.b, 8080)])]);
        connect(&mut node, &ips);
        let reset = testkit::tcp(at(ips.b, 8080), at(ips.a, 1000), TcpFlags::RST, b"");
        assert_eq!(node.run(POD_B, &from_b(reset)).verdict, Verdict::Send(POD_A));
        assert_eq!(state(&node), State::Reset);
        assert_eq!(node.run(POD_A, &tcp(&ips, TcpFlags::SYN)).verdict, Verdict::Send(POD_B));
        assert_eq!(state(&node), State::SynSent);
        assert_eq!((node.counters.flows().created, node.counters.flows().expired), (2, 1));
    }
}

#[test]
fn what_an_endpoint_that_is_gone_still_says_counts_for_no_service() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(proto::Protocol::Udp, ips.vip, &[(ips.b, 53)])]);
        node.run(POD_A, &from_a(testkit::udp(at(ips.a, 1000), at(ips.vip, 80), b"x")));
        // Another service gets the slot.
        node.program(&[service(proto::Protocol::Tcp, ips.vip, &[(ips.b, 8080)])]);
        node.counters.restart_service(0);
        let late = from_b(testkit::udp(at(ips.b, 53), at(ips.a, 1000), b"y"));
        assert_eq!(node.run(POD_B, &late).verdict, Verdict::Send(POD_A));
        assert_eq!(node.counters.service(0).packets, 0);
    }
}

#[test]
fn udp_to_an_endpoint_that_is_gone_is_decided_anew_at_its_next_packet() {
    for ips in both() {
        let mut node = Node::new();
        let to = |address| [service(proto::Protocol::Udp, ips.vip, &[(address, 53)])];
        let question = from_a(testkit::udp(at(ips.a, 1000), at(ips.vip, 80), b"x"));
        node.program(&to(ips.b));
        assert_eq!(node.run(POD_A, &question).verdict, Verdict::Send(POD_B));

        node.program(&to(ips.on_b));
        let got = read(&inner(&node.run(POD_A, &question)));
        assert_eq!(got.dst, at(ips.on_b, 53));
        assert_eq!(node.flow_count(), 1);

        node.program(&[service(proto::Protocol::Udp, ips.vip, &[])]);
        assert_eq!(icmp(&node.run(POD_A, &question).frame), kind(&ips, (3, 3), (1, 4)));
        node.program(&to(ips.b));
        assert_eq!(node.run(POD_A, &question).verdict, Verdict::Send(POD_B));
        // The service is gone altogether.
        node.program(&[]);
        assert_eq!(icmp(&node.run(POD_A, &question).frame), kind(&ips, (3, 0), (1, 0)));
        assert_eq!(node.flow_count(), 0);
        assert_eq!((node.counters.flows().created, node.counters.flows().expired), (3, 3));
    }
}

#[test]
fn tcp_to_an_endpoint_that_is_gone_is_reset() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(proto::Protocol::Tcp, ips.vip, &[(ips.b, 8080)])]);
        connect(&mut node, &ips);
        node.program(&[service(proto::Protocol::Tcp, ips.vip, &[(ips.on_b, 8080)])]);
        let outcome = node.run(POD_A, &tcp(&ips, TcpFlags::ACK));
        assert_eq!(outcome.verdict, Verdict::Send(POD_A));
        let reset = read(&outcome.frame);
        assert_eq!((reset.src, reset.dst), (at(ips.vip, 80), at(ips.a, 1000)));
        assert_eq!(reset.parsed.tcp_flags, TcpFlags::RST);
        assert_eq!((node.dropped(R::FLOW_ENDPOINT_GONE), node.flow_count()), (1, 0));
        // The next connection goes to the endpoint that is there.
        assert_eq!(read(&inner(&node.run(POD_A, &tcp(&ips, TcpFlags::SYN)))).dst, at(ips.on_b, 8080));
    }
}

#[test]
fn a_connection_not_yet_answered_goes_to_another_endpoint_when_its_own_is_gone() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(proto::Protocol::Tcp, ips.vip, &[(ips.b, 8080)])]);
        node.run(POD_A, &tcp(&ips, TcpFlags::SYN));
        node.program(&[service(proto::Protocol::Tcp, ips.vip, &[(ips.on_b, 8080)])]);
        assert_eq!(read(&inner(&node.run(POD_A, &tcp(&ips, TcpFlags::SYN)))).dst, at(ips.on_b, 8080));
        assert_eq!(node.dropped(R::FLOW_ENDPOINT_GONE), 0);
    }
}

#[test]
fn flows_whose_endpoint_is_gone_do_not_wait_for_their_timeout() {
    let mut node = Node::new();
    let [ips, _] = both();
    node.program(&[service(proto::Protocol::Tcp, ips.vip, &[(ips.b, 8080)])]);
    connect(&mut node, &ips);
    node.program(&[service(proto::Protocol::Tcp, ips.vip, &[(ips.on_b, 8080)])]);
    node.age();
    assert_eq!(node.flow_count(), 0);
    let outcome = node.run(POD_A, &tcp(&ips, TcpFlags::ACK));
    assert_eq!(read(&outcome.frame).parsed.tcp_flags, TcpFlags::RST);
}

#[test]
fn a_terminating_endpoint_keeps_its_connections_and_gets_no_new_ones() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(proto::Protocol::Tcp, ips.vip, &[(ips.b, 8080)])]);
        connect(&mut node, &ips);
        let mut web = terminating(service(proto::Protocol::Tcp, ips.vip, &[(ips.b, 8080)]));
        web.backends.extend(service(proto::Protocol::Tcp, ips.vip, &[(ips.on_b, 8080)]).backends);
        node.program(&[web]);
        assert_eq!(node.run(POD_A, &tcp(&ips, TcpFlags::ACK)).verdict, Verdict::Send(POD_B));
        for port in 2000..2050 {
            let outcome = node.run(POD_A, &from_a(syn(at(ips.a, port), at(ips.vip, 80))));
            assert_eq!(outcome.verdict, Verdict::Send(UPLINK));
        }
    }
}

#[test]
fn an_established_flow_follows_its_endpoint_to_where_it_is_now() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(proto::Protocol::Udp, ips.vip, &[(ips.b, 53)])]);
        let question = from_a(testkit::udp(at(ips.a, 1000), at(ips.vip, 80), b"x"));
        assert_eq!(node.run(POD_A, &question).verdict, Verdict::Send(POD_B));
        // The pod's port gets another number.
        let port = node.builder.detach(POD_B).unwrap();
        node.publish();
        assert_eq!(icmp(&node.run(POD_A, &question).frame), kind(&ips, (3, 1), (1, 3)));
        node.builder.attach(PortIndex(9), port).unwrap();
        node.publish();
        assert_eq!(node.run(POD_A, &question).verdict, Verdict::Send(PortIndex(9)));
        let answer = from_b(testkit::udp(at(ips.b, 53), at(ips.a, 1000), b"y"));
        assert_eq!(read(&node.run(PortIndex(9), &answer).frame).src, at(ips.vip, 80));
    }
}

#[test]
fn replies_to_a_pod_that_is_gone_go_nowhere() {
    let mut node = Node::new();
    let [ips, _] = both();
    node.program(&[service(proto::Protocol::Udp, ips.vip, &[(ips.b, 53)])]);
    node.run(POD_A, &from_a(testkit::udp(at(ips.a, 1000), at(ips.vip, 80), b"x")));
    node.builder.detach(POD_A);
    node.publish();
    let outcome = node.run(POD_B, &from_b(testkit::udp(at(ips.b, 53), at(ips.a, 1000), b"y")));
    assert_eq!(icmp(&outcome.frame), (3, 1));
}

#[test]
fn requests_count_only_from_the_clients_own_port() {
    for ips in both() {
        let mut node = Node::new();
        node.program(&[service(proto::Protocol::Udp, ips.vip, &[(ips.b, 53)])]);
        let question = testkit::udp(at(ips.a, 1000), at(ips.vip, 80), b"x");
        node.run(POD_A, &from_a(question.clone()));
        let outcome = node.run_tunnelled(question);
        assert_eq!(outcome.verdict, Verdict::Drop(R::TUNNEL_NOT_LOCAL));
    }
}

#[test]
fn errors_about_a_flows_packets_are_not_counted_as_its_traffic() {
    let mut node = Node::new();
    let [ips, _] = both();
    node.program(&[service(proto::Protocol::Udp, ips.vip, &[(ips.b, 53)])]);
    node.run(POD_A, &from_a(testkit::udp(at(ips.a, 1000), at(ips.vip, 80), b"x")));
    let long = from_a(testkit::udp(at(ips.a, 1000), at(ips.vip, 80), &[7; 1440]));
    assert_eq!(icmp(&node.run(POD_A, &long).frame), (3, 4));
    assert_eq!(node.counters.service(0).packets, 1);
}
