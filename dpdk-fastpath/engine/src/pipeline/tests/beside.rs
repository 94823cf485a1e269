use culvert_dpdk::tsc;
use culvert_packet::sctp::ChunkType;
use culvert_shortcut::Direction;

use super::overflow::{fill, from_endpoint, inner_or_frame, packets, successor};
use super::shortcut::{Joined, NODE_B, end, key, to_vip, v4};
use super::*;
use crate::flow::{NO_SERVICE, State};

const CLIENT: u16 = 1000;

/// A client, a service, and an endpoint of it on the same node or another.
struct Case {
    node: Node,
    ips: Ips,
    endpoint: IpAddr,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        let of = |ips: Ips| [(ips, ips.b), (ips, ips.on_b)];
        both().into_iter().flat_map(of).map(|(ips, endpoint)| Self::of(Node::new(), ips, endpoint))
    }

    fn of(mut node: Node, ips: Ips, endpoint: IpAddr) -> Self {
        node.program(&Self::services(&ips, endpoint));
        Self { node, ips, endpoint }
    }

    fn services(ips: &Ips, endpoint: IpAddr) -> [proto::Service; 2] {
        let protocols = [proto::Protocol::Tcp, proto::Protocol::Sctp];
        protocols.map(|protocol| service(protocol, ips.vip, &[(endpoint, 8080)]))
    }

    fn client(&self) -> SocketAddr {
        at(self.ips.a, CLIENT)
    }

    fn service(&self) -> SocketAddr {
        at(self.ips.vip, 80)
    }

    fn server(&self) -> SocketAddr {
        at(self.endpoint, 8080)
    }

    /// From where the endpoint sees a packet of the client that has been sent to one of the two.
    fn send(&mut self, packet: Vec<u8>) -> SocketAddr {
        let outcome = self.node.run(POD_A, &from_a(packet));
        assert!(matches!(outcome.verdict, Verdict::Send(_)), "{outcome:?}");
        let seen = read(&inner_or_frame(&outcome));
        assert_eq!(seen.dst, self.server());
        seen.src
    }

    fn send_tcp(&mut self, to: SocketAddr, flags: TcpFlags) -> SocketAddr {
        self.send(testkit::tcp(self.client(), to, flags, b""))
    }

    /// As whose the client sees what the endpoint sends to where it has seen the client.
    fn answer(&mut self, to: SocketAddr, flags: TcpFlags) -> SocketAddr {
        let packet = testkit::tcp(self.server(), to, flags, b"");
        let outcome = from_endpoint(&mut self.node, &self.ips, self.endpoint, packet);
        assert_eq!(outcome.verdict, Verdict::Send(POD_A));
        let seen = read(&outcome.frame);
        assert_eq!(seen.dst, self.client());
        seen.src
    }

    fn states(&self) -> Vec<State> {
        let v4 = self.node.flows.v4.iter().map(|hit| hit.state());
        v4.chain(self.node.flows.v6.iter().map(|hit| hit.state())).collect()
    }
}

const SYN: TcpFlags = TcpFlags::SYN;
const ACK: TcpFlags = TcpFlags::ACK;
const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);

#[test]
fn a_connection_of_its_own_gets_its_answers_although_one_through_a_service_had_the_same_ports() {
    for mut case in Case::all() {
        let (service, server, client) = (case.service(), case.server(), case.client());
        case.send_tcp(service, SYN);
        case.send_tcp(service, TcpFlags::RST);
        case.send_tcp(server, TcpFlags::FIN | ACK);
        assert_eq!(case.states(), [State::Reset], "what opens no connection ends none");
        assert_eq!(case.send_tcp(server, SYN), client);
        assert_eq!((case.node.flow_count(), case.node.counters.flows().expired), (0, 1));
        assert_eq!(case.answer(client, SYN_ACK), server);
    }
}

#[test]
fn a_connection_of_its_own_beside_one_through_a_service_gets_another_port() {
    for mut case in Case::all() {
        let (service, server, client) = (case.service(), case.server(), case.client());
        assert_eq!(case.send_tcp(service, SYN), client);
        assert_eq!(case.answer(client, SYN_ACK), service);
        case.send_tcp(service, ACK);

        let own = case.send_tcp(server, SYN);
        assert!(own != client && own.ip() == client.ip() && own.port() >= 1024, "{own}");
        assert_eq!(case.answer(own, SYN_ACK), server);
        assert_eq!(case.send_tcp(server, ACK), own);
        // The other goes on, and nothing of this counts for its service.
        assert_eq!(case.send_tcp(service, ACK), client);
        assert_eq!(case.answer(client, ACK), service);
        let counts = case.node.counters.service(0);
        assert_eq!((counts.packets, counts.new_flows, case.node.counters.flows().created), (5, 1, 2));
        assert_eq!(case.states(), [State::Established; 2]);

        // Not even the end of the service ends it.
        case.node.program(&[]);
        assert_eq!(case.send_tcp(server, ACK), own);
        case.node.age();
        assert_eq!(case.states(), [State::Established]);
        assert_eq!(case.send_tcp(server, TcpFlags::FIN | ACK), own);
        assert_eq!(case.answer(own, TcpFlags::FIN | ACK), server);
        case.node.seconds += 250;
        case.node.age();
        assert_eq!(case.node.flow_count(), 0);
    }
}

#[test]
fn associations_to_an_endpoint_and_through_its_service_are_kept_apart() {
    for mut case in Case::all() {
        let (service, server, client) = (case.service(), case.server(), case.client());
        let [first, later] = packets(proto::Protocol::Sctp, client, service);
        assert_eq!((case.send(first), case.send(later)), (client, client));
        let [first, later] = packets(proto::Protocol::Sctp, client, server);
        let own = case.send(first);
        assert_ne!(own, client);
        assert_eq!(case.send(later), own);
        let ack = testkit::sctp(server, own, 1, &testkit::sctp_chunk(ChunkType::INIT_ACK, 0, b"ack"));
        let outcome = from_endpoint(&mut case.node, &case.ips, case.endpoint, ack);
        assert_eq!((read(&outcome.frame).src, read(&outcome.frame).dst), (server, client));
    }
}

#[test]
fn an_endpoint_that_goes_on_instead_of_answering_is_not_taken_for_the_service() {
    for mut case in Case::all() {
        let (service, server, client) = (case.service(), case.server(), case.client());
        // Of this one nothing is known.
        case.send_tcp(server, ACK);
        assert_eq!(case.send_tcp(service, SYN), client);
        // RFC 9293, section 3.10.7.4: a SYN in the midst of a connection is answered with an acknowledgment of that.
        assert_eq!(case.answer(client, ACK), server);
        assert_eq!(case.send_tcp(server, ACK), client);
        assert_eq!(case.answer(client, ACK), server);

        let other = case.send_tcp(service, SYN);
        assert_ne!(other, client);
        assert_eq!(case.answer(other, SYN_ACK), service);
        assert_eq!(case.send_tcp(service, ACK), other);
        assert_eq!(case.answer(other, ACK), service);
        assert_eq!(case.answer(client, TcpFlags::FIN | ACK), server);
        assert_eq!(case.states(), [State::Established]);
        assert_eq!((case.node.counters.flows().created, case.node.counters.flows().expired), (2, 1));
    }
}

#[test]
fn a_port_that_shows_to_be_in_use_is_not_taken_again() {
    for mut case in Case::all() {
        let (service, server) = (case.service(), case.server());
        let mut seen = vec![case.send_tcp(service, SYN)];
        for _ in 0..4 {
            let stray = testkit::tcp(server, seen[0], ACK, b"");
            let outcome = from_endpoint(&mut case.node, &case.ips, case.endpoint, stray);
            assert_eq!((read(&outcome.frame).src, read(&outcome.frame).dst), (server, seen[0]));
            let next = case.send_tcp(service, SYN);
            assert!(!seen.contains(&next), "{next} after {seen:?}");
            seen.insert(0, next);
        }
    }
}

#[test]
fn who_refuses_a_connection_is_heard() {
    for mut case in Case::all() {
        let (service, client) = (case.service(), case.client());
        case.send_tcp(service, SYN);
        assert_eq!(case.answer(client, TcpFlags::RST | ACK), service);
        assert_eq!(case.states(), [State::Reset]);
    }
}

#[test]
fn without_room_a_connection_of_its_own_goes_as_it_is() {
    for ips in both() {
        let mut node = Node::with_flows(1);
        fill(&mut node, proto::Protocol::Tcp, &ips, ips.b);
        // One of the flood has the answers.
        let flow = at(ips.b, 1000);
        let direct = from_b(testkit::tcp(flow, at(ips.on_b, 9), SYN, b""));
        let outcome = node.run(POD_B, &direct);
        assert_eq!((outcome.verdict, read(&inner(&outcome)).src), (Verdict::Send(UPLINK), flow));
        assert_eq!(node.counters.flows().stateless, 0);
    }
}

#[test]
fn a_connection_of_its_own_keeps_its_other_port_with_the_process_that_takes_over() {
    for (ips, endpoint) in both().into_iter().flat_map(|ips| [(ips, ips.b), (ips, ips.on_b)]) {
        let node = Node::with_tables(FlowTables::shared(1000, 64, false).unwrap());
        let mut case = Case::of(node, ips, endpoint);
        let (service, server) = (case.service(), case.server());
        case.send_tcp(service, SYN);
        let own = case.send_tcp(server, SYN);
        let services = Case::services(&ips, endpoint);
        case.node = successor(&case.node, 1000, &services);
        assert_eq!(case.node.flow_count(), 2);
        assert_eq!(case.send_tcp(server, ACK), own);
        assert_eq!(case.answer(own, SYN_ACK), server);
        assert_eq!(case.answer(case.client(), SYN_ACK), service);
        let direct = case.node.flows.v4.iter().map(|hit| hit.record.service);
        let direct = direct.chain(case.node.flows.v6.iter().map(|hit| hit.record.service));
        assert_eq!(direct.filter(|service| *service == NO_SERVICE).count(), 1);
    }
}

#[test]
fn what_is_said_of_a_connection_beside_another_is_what_becomes_of_it() {
    for mut case in Case::all() {
        let (service, server, client) = (case.service(), case.server(), case.client());
        let last = |case: &Case| {
            let question = explain::question(proto::Protocol::Tcp, client, server);
            explain::explained(&case.node, &question).steps.pop().unwrap_or_default()
        };
        assert!(!last(&case).contains("answers"));
        case.send_tcp(service, SYN);
        let said = last(&case);
        assert!(said.contains(&service.to_string()) && said.contains("another source port"), "{said}");
        case.send_tcp(service, TcpFlags::RST);
        assert!(last(&case).ends_with("it is forgotten"));
        assert_eq!(case.send_tcp(server, SYN), client);
        assert!(!last(&case).contains("answers"));
    }
}

/// A node with the short cut, whose pod A has asked for a connection to a service with this endpoint.
fn asked(endpoint: IpAddr) -> Joined {
    let mut joined = Joined::new();
    joined.serve(endpoint);
    joined.node.run(POD_A, &to_vip(SYN));
    joined
}

impl Joined {
    /// What the client gets of what the endpoint sends to its own port, if that comes to a worker.
    fn answer(&mut self, endpoint: IpAddr, flags: TcpFlags) -> (SocketAddr, SocketAddr) {
        let packet = testkit::tcp(at(endpoint, 8080), at(v4().a, shortcut::CLIENT), flags, b"");
        let seen = read(&from_endpoint(&mut self.node, &v4(), endpoint, packet).frame);
        (seen.src, seen.dst)
    }

    /// Lets none of these slots be there any more, as when nothing goes by them for long.
    fn forget(&self, keys: &[FlowKey4]) {
        keys.iter().for_each(|key| self.slots.forget(key, tsc::now()));
    }
}

/// The short cut carries connections from their first packet on; what it may not carry comes here.
#[test]
fn an_endpoint_that_goes_on_is_no_answer_for_the_short_cut_either() {
    let ips = v4();
    for (endpoint, from) in [(ips.b, end(POD_B)), (ips.on_b, NODE_B)] {
        let mut joined = asked(endpoint);
        let client = at(ips.a, shortcut::CLIENT);
        let answers = key((endpoint, 8080), (ips.a, shortcut::CLIENT));
        // Once more, from a client that waits.
        joined.node.run(POD_A, &to_vip(SYN));
        assert!(!joined.slots.pass(from, &answers, 40, ACK), "it would reach the client as the service's");
        assert_eq!(joined.answer(endpoint, ACK), (at(endpoint, 8080), client));

        let again = joined.node.run(POD_A, &to_vip(SYN));
        let other = read(&inner_or_frame(&again)).src;
        assert_ne!(other, client);
        let answers = key((endpoint, 8080), (ips.a, other.port()));
        assert!(joined.slots.pass(from, &answers, 40, SYN_ACK));
        assert!(joined.slots.pass(from, &answers, 40, ACK));
    }
}

#[test]
fn an_answer_that_the_short_cut_did_not_see_counts_all_the_same() {
    let ips = v4();
    for (endpoint, from) in [(ips.b, end(POD_B)), (ips.on_b, NODE_B)] {
        let mut joined = asked(endpoint);
        // As with IP options.
        for flags in [SYN_ACK, ACK] {
            assert_eq!(joined.answer(endpoint, flags).0, at(ips.vip, 80));
        }
        let answers = key((endpoint, 8080), (ips.a, shortcut::CLIENT));
        assert!(joined.slots.pass(from, &answers, 40, ACK));
    }
}

#[test]
fn what_went_by_slots_that_are_gone_was_an_answer() {
    let ips = v4();
    let mut joined = asked(ips.on_b);
    let answers = key((ips.on_b, 8080), (ips.a, shortcut::CLIENT));
    assert!(joined.slots.pass(NODE_B, &answers, 40, SYN_ACK));
    // Under another epoch, and before anybody has looked.
    joined.serve(ips.on_b);
    let mut remotes = remotes();
    remotes.remove(1);
    joined.node.program_all(local_node(), remotes, &Case::services(&ips, ips.on_b));
    assert_eq!(joined.answer(ips.on_b, ACK).0, at(ips.vip, 80));
}

#[test]
fn the_kernel_cannot_undo_that_a_flow_has_got_another_port() {
    let (mut joined, ips) = (Joined::new(), v4());
    joined.serve(ips.on_b);
    let original = key((ips.a, shortcut::CLIENT), (ips.vip, 80));
    let own = key((ips.a, shortcut::CLIENT), (ips.on_b, 8080));
    joined.open_from(shortcut::CLIENT, ips.vip, ips.on_b);
    joined.answer(ips.on_b, ACK);
    let moved = joined.flows()[0].1;
    assert_ne!(moved, own);
    // What has slots is not opened anew.
    assert_eq!(joined.direction(end(POD_A), &original).map(|direction| direction.becomes), Some(moved));
    joined.forget(&[original, moved.reversed(), own, own.reversed()]);

    joined.open_from(shortcut::CLIENT, ips.vip, ips.on_b);
    joined.review();
    assert_eq!(joined.flows(), [(original, moved, State::Unwatched)]);
    assert_eq!(joined.direction(end(POD_A), &original).map(|direction| direction.becomes), Some(moved));
    assert_eq!(joined.direction(NODE_B, &own.reversed()), None);
    let again = joined.node.run(POD_A, &to_vip(SYN));
    assert_eq!(read(&inner_or_frame(&again)).src.port(), moved.src_port());
}

#[test]
fn a_flow_gives_way_to_what_the_kernel_has_opened_if_the_endpoint_has_answered_that() {
    let (mut joined, ips) = (asked(v4().on_b), v4());
    let original = key((ips.a, shortcut::CLIENT), (ips.vip, 80));
    let own = key((ips.a, shortcut::CLIENT), (ips.on_b, 8080));
    joined.answer(ips.on_b, ACK);
    let moved = joined.flows()[0].1;
    // Nobody has gone on with it, and the port is used again, for a connection that is there before it is heard of.
    joined.forget(&[original, moved.reversed(), own, own.reversed()]);
    joined.open_from(shortcut::CLIENT, ips.vip, ips.on_b);
    assert!(joined.slots.pass(NODE_B, &own.reversed(), 40, SYN_ACK));
    joined.review();
    assert_eq!(joined.flows().iter().map(|flow| flow.1).collect::<Vec<_>>(), [own]);
    assert_eq!(joined.direction(end(POD_A), &original).map(|direction| direction.becomes), Some(own));
}

#[test]
fn an_answer_by_a_slot_that_the_kernel_has_given_counts_before_it_is_looked_at() {
    let (mut joined, ips) = (Joined::new(), v4());
    joined.serve(ips.on_b);
    let own = key((ips.a, shortcut::CLIENT), (ips.on_b, 8080));
    let original = key((ips.a, shortcut::CLIENT), (ips.vip, 80));
    let reply = Direction {
        from: NODE_B,
        key: own.reversed(),
        becomes: original.reversed(),
        to: end(POD_A),
        tunnel_port: 0,
    };
    // For what the client sends it has found no room.
    assert!(joined.slots.enter_awaited(joined.node.view.epoch(), &reply, tsc::now(), || {}));
    joined.node.run(POD_A, &to_vip(SYN));
    assert!(joined.slots.pass(NODE_B, &own.reversed(), 40, SYN_ACK));
    assert_eq!(joined.answer(ips.on_b, ACK).0, at(ips.vip, 80));
}

#[test]
fn what_the_kernel_opens_by_the_other_port_of_a_connection_does_not_end_it() {
    let (mut joined, ips) = (asked(v4().on_b), v4());
    let (server, client) = (at(ips.on_b, 8080), at(ips.a, shortcut::CLIENT));
    let direct = |flags| from_a(testkit::tcp(client, server, flags, b""));
    let own = read(&inner_or_frame(&joined.node.run(POD_A, &direct(SYN)))).src;
    let answers = key((ips.on_b, 8080), (ips.a, own.port()));
    joined.node.run_tunnelled(testkit::tcp(server, own, SYN_ACK, b""));
    joined.node.run(POD_A, &direct(ACK));
    joined.forget(&[key((ips.a, shortcut::CLIENT), (ips.on_b, 8080)), answers]);

    // Its client has a port of this number as well.
    joined.open_from(own.port(), ips.vip, ips.on_b);
    joined.review();
    let through = joined.flows().into_iter().filter(|(original, ..)| original.src_port() == own.port());
    assert_eq!(through.count(), 0, "it has to be asked for once more");
    assert_eq!(joined.direction(end(POD_A), &key((ips.a, own.port()), (ips.vip, 80))), None);
    let kept = joined.direction(NODE_B, &answers).map(|direction| direction.becomes.destination());
    assert_eq!(kept, Some((ips.a, shortcut::CLIENT)));
    let outcome = joined.node.run(POD_A, &direct(ACK));
    assert_eq!(read(&inner_or_frame(&outcome)).src, own);
    let syn = from_a(testkit::tcp(at(ips.a, own.port()), at(ips.vip, 80), SYN, b""));
    let other = read(&inner_or_frame(&joined.node.run(POD_A, &syn))).src;
    assert_ne!(other, own);
}
