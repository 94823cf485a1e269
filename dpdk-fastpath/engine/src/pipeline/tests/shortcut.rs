use culvert_shortcut::{Direction, End, Memory, Pod, Remote, Slots};

use super::*;
use crate::flow::State;
use crate::pipeline::repeated::SEVERAL;

pub(super) const CLIENT: u16 = 1000;

/// A node whose pods A and B have joined the short cut, and the way to node B; and its slots, none of which is ever idle.
pub(super) struct Joined {
    pub(super) node: Node,
    pub(super) slots: Arc<Slots>,
}

impl Joined {
    pub(super) fn new() -> Self {
        Self::with(Node::new())
    }

    pub(super) fn with(node: Node) -> Self {
        let memory = Memory::own(1024).unwrap();
        memory.set_uplink(1, UPLINK_MAC, false);
        for (port, mac) in [(POD_A, POD_A_MAC), (POD_B, POD_B_MAC)] {
            memory.set_door(port.0, Some(&Pod { node_side: 10, tap: 11, mtu: 1450, mac }));
        }
        let slots = Arc::new(Slots::new(Arc::new(memory), 1 << 40));
        let mut joined = Self { node, slots };
        joined.node.pipeline.take_shortcut(Arc::clone(&joined.slots), true, 0);
        joined.follow();
        joined
    }

    /// Tells the short cut of the ways, as the control thread does.
    pub(super) fn follow(&self) {
        for (slot, way) in self.node.view.ways().iter().enumerate() {
            let way = Some(way).filter(|way| way.mtu > 0).zip(self.node.view.remote(slot as u32));
            let way = way.and_then(|(way, remote)| match remote.vtep {
                IpAddr::V4(vtep) => Some(Remote { vtep, template: &way.template, mtu: way.mtu, pods: None }),
                IpAddr::V6(_) => None,
            });
            self.slots.memory().set_way(slot as u32, way.as_ref());
        }
        self.slots.memory().set_serial(self.node.view.serial());
    }

    pub(super) fn serve(&mut self, backend: IpAddr) {
        let protocols = [proto::Protocol::Tcp, proto::Protocol::Udp];
        self.node.program(&protocols.map(|protocol| service(protocol, v4().vip, &[(backend, 8080)])));
        self.follow();
    }

    /// Lets pod A send so many datagrams to the Service.
    fn ask(&mut self, datagrams: u32) {
        let datagram = from_a(testkit::udp(at(v4().a, CLIENT), at(v4().vip, 80), b"x"));
        for _ in 0..datagrams {
            let outcome = self.node.run(POD_A, &datagram);
            assert!(matches!(outcome.verdict, Verdict::Send(_)), "{outcome:?}");
        }
    }

    pub(super) fn direction(&self, from: End, key: &FlowKey4) -> Option<Direction> {
        self.slots.direction(self.node.view.epoch(), from, key)
    }

    pub(super) fn review(&mut self) {
        let now = Tick::at(Duration::from_secs(self.node.seconds));
        self.node.pipeline.review_shortcut(&self.node.view, now, true);
    }

    pub(super) fn state(&self) -> Option<State> {
        self.node.flows.v4.iter().next().map(|hit| hit.state())
    }
}

pub(super) fn v4() -> Ips {
    both()[0]
}

pub(super) fn key(src: (IpAddr, u16), dst: (IpAddr, u16)) -> FlowKey4 {
    key_of(Protocol::TCP, src, dst)
}

fn key_of(protocol: Protocol, src: (IpAddr, u16), dst: (IpAddr, u16)) -> FlowKey4 {
    FlowKey4::between(Tenant::DEFAULT, protocol, src, dst).unwrap()
}

pub(super) fn end(port: PortIndex) -> End {
    End::Door(port.0)
}

/// The way to node B.
pub(super) const NODE_B: End = End::Way(0);

pub(super) fn to_vip(flags: TcpFlags) -> Vec<u8> {
    from_a(testkit::tcp(at(v4().a, CLIENT), at(v4().vip, 80), flags, b""))
}

#[test]
fn a_connection_to_a_service_has_slots_from_its_first_packet_on() {
    let (mut joined, ips) = (Joined::new(), v4());
    joined.serve(ips.on_b);
    joined.node.run(POD_A, &to_vip(TcpFlags::SYN));
    let (original, reply) = (key((ips.a, CLIENT), (ips.vip, 80)), key((ips.on_b, 8080), (ips.a, CLIENT)));
    let direction = joined.direction(end(POD_A), &original).unwrap();
    assert_eq!((direction.becomes, direction.to), (reply.reversed(), NODE_B));
    assert!(direction.tunnel_port >= 0xc000);
    let direction = joined.direction(NODE_B, &reply).unwrap();
    assert_eq!((direction.becomes, direction.to), (original.reversed(), end(POD_A)));
    assert_eq!(joined.slots.given(), 2);
}

#[test]
fn a_connection_without_a_service_has_slots_in_either_way() {
    let ips = v4();
    for from_pod in [true, false] {
        let mut joined = Joined::new();
        let (a, b) = (at(ips.a, CLIENT), at(ips.on_b, 80));
        let outcome = match from_pod {
            true => joined.node.run(POD_A, &from_a(testkit::tcp(a, b, TcpFlags::SYN, b""))),
            false => joined.node.run_tunnelled(testkit::tcp(b, a, TcpFlags::ACK, b"x")),
        };
        assert!(matches!(outcome.verdict, Verdict::Send(_)), "{outcome:?}");
        let there = key((ips.a, CLIENT), (ips.on_b, 80));
        for (from, key, to) in [(end(POD_A), there, NODE_B), (NODE_B, there.reversed(), end(POD_A))] {
            let direction = joined.direction(from, &key).unwrap();
            assert_eq!((direction.becomes, direction.to), (key, to));
        }
    }
}

#[test]
fn who_looks_at_slots_sleeps_less_long_while_there_are_any() {
    let (mut joined, ips) = (Joined::new(), v4());
    joined.serve(ips.on_b);
    assert_eq!(joined.node.pipeline.longest_rest(), None);
    joined.node.run(POD_A, &to_vip(TcpFlags::SYN));
    assert_eq!(joined.node.pipeline.longest_rest(), Some(Duration::from_millis(10)));
    joined.node.pipeline.take_shortcut(Arc::clone(&joined.slots), false, 0);
    assert_eq!(joined.node.pipeline.longest_rest(), None, "another worker looks");
}

#[test]
fn pods_of_one_node_have_slots_for_each_other() {
    let (mut joined, ips) = (Joined::new(), v4());
    joined.serve(ips.b);
    joined.node.run(POD_A, &to_vip(TcpFlags::SYN));
    let there = joined.direction(end(POD_A), &key((ips.a, CLIENT), (ips.vip, 80))).unwrap();
    let back = joined.direction(end(POD_B), &key((ips.b, 8080), (ips.a, CLIENT))).unwrap();
    assert_eq!((there.to, back.to), (end(POD_B), end(POD_A)));
}

#[test]
fn what_the_kernel_cannot_forward_has_no_slot() {
    let [v4, v6] = both();
    let long = testkit::tcp(at(v4.a, CLIENT), at(v4.on_b, 80), TcpFlags::ACK, &[0; 2000]);
    let fragment = testkit::fragments(&long, 1450).remove(0);
    for (name, packet) in [
        ("IPv6", testkit::tcp(at(v6.a, CLIENT), at(v6.on_b, 80), TcpFlags::SYN, b"")),
        ("a datagram", testkit::udp(at(v4.a, CLIENT), at(v4.on_b, 80), b"x")),
        ("over IPv6", testkit::tcp(at(v4.a, CLIENT), at(v4.on_c, 80), TcpFlags::SYN, b"")),
        ("to nobody", testkit::tcp(at(v4.a, CLIENT), at(v4.nobody, 80), TcpFlags::SYN, b"")),
        ("to itself", testkit::tcp(at(v4.a, CLIENT), at(v4.a, 80), TcpFlags::SYN, b"")),
        ("the last one", testkit::tcp(at(v4.a, CLIENT), at(v4.on_b, 80), TcpFlags::FIN | TcpFlags::ACK, b"")),
        ("a fragment", fragment),
    ] {
        let mut joined = Joined::new();
        joined.node.run(POD_A, &from_a(packet));
        assert_eq!(joined.slots.given(), 0, "{name}");
    }
    let mut joined = Joined::new();
    joined.slots.memory().set_door(POD_A.0, None);
    joined.serve(v4.on_b);
    joined.node.run(POD_A, &to_vip(TcpFlags::SYN));
    assert_eq!(joined.slots.given(), 0, "a pod that has not joined");
}

#[test]
fn after_a_change_a_connection_is_decided_again_before_it_has_slots() {
    let (mut joined, ips) = (Joined::new(), v4());
    joined.serve(ips.on_b);
    joined.node.run(POD_A, &to_vip(TcpFlags::SYN));
    let original = key((ips.a, CLIENT), (ips.vip, 80));
    joined.serve(ips.b);
    assert_eq!(joined.direction(end(POD_A), &original), None, "of another epoch");
    let outcome = joined.node.run(POD_A, &to_vip(TcpFlags::ACK));
    assert_eq!(outcome.verdict, Verdict::Send(POD_A), "refused");
    assert_eq!(joined.direction(end(POD_A), &original), None);
    assert_eq!(joined.slots.given(), 0, "with its flow");
}

#[test]
fn a_connection_that_goes_on_has_slots_again_with_its_next_packet() {
    let (mut joined, ips) = (Joined::new(), v4());
    joined.serve(ips.on_b);
    joined.node.run(POD_A, &to_vip(TcpFlags::SYN));
    let both = [service(proto::Protocol::Tcp, ips.vip, &[(ips.on_b, 8080)])];
    let mut remotes = remotes();
    remotes.remove(1);
    joined.node.program_all(local_node(), remotes, &both);
    joined.follow();
    let original = key((ips.a, CLIENT), (ips.vip, 80));
    assert_eq!(joined.direction(end(POD_A), &original), None);
    joined.node.run(POD_A, &to_vip(TcpFlags::ACK));
    assert!(joined.direction(end(POD_A), &original).is_some());
}

#[test]
fn what_went_by_keeps_a_flow_alive_moves_its_state_and_is_counted() {
    use TcpFlags as F;
    let (mut joined, ips) = (Joined::new(), v4());
    joined.serve(ips.on_b);
    joined.node.run(POD_A, &to_vip(F::SYN));
    let (original, reply) = (key((ips.a, CLIENT), (ips.vip, 80)), key((ips.on_b, 8080), (ips.a, CLIENT)));
    assert_eq!(joined.state(), Some(State::Unwatched));
    for (from, key, flags, expected) in [
        (NODE_B, &reply, F::SYN | F::ACK, State::SynReceived),
        (end(POD_A), &original, F::ACK, State::Established),
        (NODE_B, &reply, F::ACK, State::Established),
    ] {
        assert!(joined.slots.pass(from, key, 1000, flags));
        joined.review();
        assert_eq!(joined.state(), Some(expected));
    }
    let before = joined.node.seconds;
    for _ in 0..3 {
        joined.node.seconds += 80_000;
        assert!(joined.slots.pass(end(POD_A), &original, 1000, F::ACK));
        joined.review();
        joined.node.age();
        assert_eq!(joined.state(), Some(State::Established));
    }
    assert_eq!(joined.node.seconds, before + 240_000);
    let (pod, uplink) = (joined.node.counters.port(POD_A), joined.node.counters.port(UPLINK));
    assert_eq!((pod.rx_packets, uplink.tx_packets), (1 + 4, 4));
    assert_eq!((pod.tx_packets, pod.tx_bytes), (2, 2 * 1014));
    assert_eq!((uplink.tx_bytes, uplink.rx_bytes), (4 * 1064, 2 * 1064));
    assert_eq!(joined.node.counters.service(0).packets, 1 + 6);
    assert_eq!(joined.node.counters.shortcut().bytes, 6000);
    for (from, key, expected) in
        [(end(POD_A), &original, State::FinFromClient), (NODE_B, &reply, State::TimeWait)]
    {
        assert!(joined.slots.pass(from, key, 1000, F::FIN | F::ACK));
        joined.review();
        assert_eq!(joined.state(), Some(expected));
    }
    assert_eq!(joined.slots.given(), 0, "it is over");
}

/// However the packets of a connection are lumped together, and in whatever order the directions are looked at.
#[test]
fn a_whole_connection_that_went_by_at_once_is_as_one_that_was_followed() {
    use TcpFlags as F;
    let ips = v4();
    let (original, reply) = (key((ips.a, CLIENT), (ips.vip, 80)), key((ips.on_b, 8080), (ips.a, CLIENT)));
    let (client, server) = ((end(POD_A), &original), (NODE_B, &reply));
    let (ack, fin, answer) = (F::ACK, F::ACK | F::FIN, F::ACK | F::SYN);
    for (name, packets, expected) in [
        ("answered", &[(server, answer)][..], State::SynReceived),
        ("open", &[(client, ack), (server, answer)], State::Established),
        ("closed", &[(server, answer | F::FIN), (client, fin)], State::TimeWait),
        ("closed by the client", &[(client, fin), (server, answer)], State::FinFromClient),
        ("closed by the server", &[(server, answer | F::FIN), (client, ack)], State::FinFromServer),
        ("refused", &[(server, ack | F::RST)], State::Reset),
        ("broken off", &[(client, ack | F::RST), (server, answer)], State::Reset),
    ] {
        for reversed in [false, true] {
            let mut joined = Joined::new();
            joined.serve(ips.on_b);
            joined.node.run(POD_A, &to_vip(F::SYN));
            let mut packets = packets.to_vec();
            if reversed {
                packets.reverse();
            }
            for ((from, key), flags) in packets {
                assert!(joined.slots.pass(from, key, 60, flags), "{name}");
                joined.review();
            }
            let got = joined.state().unwrap();
            // What is looked at after a reset may have come before it.
            let after_reset = expected == State::Reset && !got.is_open() || got == expected;
            assert!(
                after_reset || name == "broken off" && reversed == (got == State::Reset),
                "{name}: {got:?}"
            );
        }
    }
}

#[test]
fn with_a_flow_its_slots_go() {
    let (mut joined, ips) = (Joined::new(), v4());
    joined.serve(ips.on_b);
    joined.node.run(POD_A, &to_vip(TcpFlags::SYN));
    assert_eq!(joined.slots.given(), 2);
    joined.node.seconds += 100_000;
    joined.node.age();
    assert_eq!((joined.state(), joined.slots.given()), (None, 0));
}

/// What a client sends to the Service by UDP, and what the endpoint on node B sends back.
fn question_and_answer() -> (FlowKey4, FlowKey4) {
    let (ips, udp) = (v4(), Protocol::UDP);
    (key_of(udp, (ips.a, CLIENT), (ips.vip, 80)), key_of(udp, (ips.on_b, 8080), (ips.a, CLIENT)))
}

#[test]
fn a_flow_of_udp_has_slots_once_there_were_several_datagrams_answered_or_not() {
    let (mut joined, ips) = (Joined::new(), v4());
    let (question, answer) = question_and_answer();
    joined.serve(ips.on_b);
    joined.ask(SEVERAL - 1);
    assert_eq!(joined.slots.given(), 0);
    joined.ask(1);
    let direction = joined.direction(end(POD_A), &question).unwrap();
    assert_eq!((direction.becomes, direction.to), (answer.reversed(), NODE_B));
    let direction = joined.direction(NODE_B, &answer).unwrap();
    assert_eq!((direction.becomes, direction.to), (question.reversed(), end(POD_A)));
    assert_eq!((joined.slots.given(), joined.state()), (2, Some(State::OneWay)));
}

#[test]
fn a_question_by_udp_and_its_answer_have_no_slots() {
    let (mut joined, ips) = (Joined::new(), v4());
    joined.serve(ips.on_b);
    for client in CLIENT..CLIENT + 1000 {
        // Asked for two things, each of them twice.
        for _ in 0..4 {
            joined.node.run(POD_A, &from_a(testkit::udp(at(ips.a, client), at(ips.vip, 80), b"what")));
            joined.node.run_tunnelled(testkit::udp(at(ips.on_b, 8080), at(ips.a, client), b"that"));
        }
    }
    assert_eq!(joined.slots.given(), 0);
}

#[test]
fn a_flow_of_udp_without_a_service_has_slots_once_there_were_several_datagrams() {
    let (mut joined, ips) = (Joined::new(), v4());
    for sent in 1..=SEVERAL {
        joined.node.run_tunnelled(testkit::udp(at(ips.on_b, 80), at(ips.a, CLIENT), b"x"));
        assert_eq!(joined.slots.given(), if sent < SEVERAL { 0 } else { 2 });
    }
    let there = key_of(Protocol::UDP, (ips.a, CLIENT), (ips.on_b, 80));
    for (from, key, to) in [(end(POD_A), there, NODE_B), (NODE_B, there.reversed(), end(POD_A))] {
        let direction = joined.direction(from, &key).unwrap();
        assert_eq!((direction.becomes, direction.to), (key, to));
    }
}

#[test]
fn datagrams_that_went_by_keep_a_flow_alive_answer_it_and_are_counted() {
    let (mut joined, ips) = (Joined::new(), v4());
    let (question, answer) = question_and_answer();
    joined.serve(ips.on_b);
    joined.ask(SEVERAL);
    for (from, key, expected) in [
        (end(POD_A), &question, State::OneWay),
        (NODE_B, &answer, State::TwoWay),
        (end(POD_A), &question, State::TwoWay),
    ] {
        // Less than a flow without answers may be silent.
        joined.node.seconds += 20;
        assert!(joined.slots.pass(from, key, 1000, TcpFlags(0)));
        joined.review();
        joined.node.age();
        assert_eq!(joined.state(), Some(expected));
    }
    assert_eq!(joined.node.counters.shortcut().packets, 3);
    joined.node.seconds += 200;
    joined.node.age();
    assert_eq!((joined.state(), joined.slots.given()), (None, 0), "it was silent");
}

#[test]
fn after_a_change_the_next_datagram_goes_to_the_endpoint_that_there_is_then_and_the_others_by_the_short_cut()
{
    let (mut joined, ips) = (Joined::new(), v4());
    let (question, _) = question_and_answer();
    joined.serve(ips.on_b);
    joined.ask(SEVERAL);
    assert_eq!(joined.direction(end(POD_A), &question).unwrap().to, NODE_B);
    joined.serve(ips.b);
    assert_eq!(joined.direction(end(POD_A), &question), None, "of another epoch");
    joined.ask(1);
    assert_eq!(joined.direction(end(POD_A), &question).unwrap().to, end(POD_B));
}

#[test]
fn what_goes_directly_to_the_endpoint_of_a_flow_by_the_same_ports_has_no_slots() {
    let (mut joined, ips) = (Joined::new(), v4());
    joined.serve(ips.on_b);
    joined.ask(1);
    for _ in 0..2 * SEVERAL {
        joined.node.run(POD_A, &from_a(testkit::udp(at(ips.a, CLIENT), at(ips.on_b, 8080), b"x")));
    }
    assert_eq!(joined.slots.given(), 0);
}

#[test]
fn a_flow_takes_another_port_than_a_connection_that_goes_directly_to_its_endpoint() {
    for (protocol, times) in [(Protocol::TCP, 1), (Protocol::UDP, 2 * SEVERAL)] {
        let (mut joined, ips) = (Joined::new(), v4());
        joined.serve(ips.on_b);
        let frame = |to| match protocol {
            Protocol::TCP => from_a(testkit::tcp(at(ips.a, CLIENT), to, TcpFlags::SYN, b"")),
            _ => from_a(testkit::udp(at(ips.a, CLIENT), to, b"x")),
        };
        for _ in 0..times {
            joined.node.run(POD_A, &frame(at(ips.on_b, 8080)));
        }
        let direct = key_of(protocol, (ips.on_b, 8080), (ips.a, CLIENT));
        assert!(joined.direction(NODE_B, &direct).is_some());
        let got = read(&inner(&joined.node.run(POD_A, &frame(at(ips.vip, 80)))));
        assert_eq!(got.dst, at(ips.on_b, 8080));
        assert_ne!(got.src.port(), CLIENT);
        assert_eq!(joined.direction(NODE_B, &direct).map(|answers| answers.becomes), Some(direct));
    }
}
