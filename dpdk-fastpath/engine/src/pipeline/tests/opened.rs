use std::net::Ipv4Addr;

use culvert_dpdk::tsc;
use culvert_shortcut::{Choice, Direction, Served};

use super::shortcut::{CLIENT, Joined, NODE_B, end, key, to_vip, v4};
use super::*;
use crate::flow::State;

/// The service on port 80 of the virtual address.
fn served() -> Served {
    let IpAddr::V4(vip) = v4().vip else { unreachable!("it is one") };
    (vip, 80)
}

/// The virtual address of another service.
fn other_vip() -> IpAddr {
    ip("10.96.0.11")
}

fn tcp(vip: IpAddr, backends: &[(IpAddr, u32)]) -> proto::Service {
    service(proto::Protocol::Tcp, vip, backends)
}

impl Joined {
    /// Replaces the services.
    fn serve_all(&mut self, services: &[proto::Service]) {
        self.node.program(services);
        self.follow();
    }

    fn choice(&self, hash: u64) -> Option<Choice> {
        self.slots.choice_of_kernel(self.node.view.serial(), served(), hash)
    }

    /// Opens a connection of pod A to the service on this virtual address, to the endpoint on node B, as the kernel does.
    fn open(&self, vip: IpAddr, endpoint: IpAddr) {
        self.open_from(CLIENT, vip, endpoint);
    }

    /// The same from any port.
    pub(super) fn open_from(&self, port: u16, vip: IpAddr, endpoint: IpAddr) {
        let original = key((v4().a, port), (vip, 80));
        let becomes = key((v4().a, port), (endpoint, 8080));
        let request = Direction { from: end(POD_A), key: original, becomes, to: NODE_B, tunnel_port: 0xc001 };
        let reply = Direction {
            from: NODE_B,
            key: becomes.reversed(),
            becomes: original.reversed(),
            to: end(POD_A),
            tunnel_port: 0xc001,
        };
        assert!(self.slots.open_as_kernel(self.node.view.epoch(), [&request, &reply], tsc::now()));
    }

    pub(super) fn flows(&self) -> Vec<(FlowKey4, FlowKey4, State)> {
        let flow =
            |hit: crate::flow::Hit<FlowKey4>| (hit.record.original, hit.record.translated, hit.state());
        self.node.flows.v4.iter().map(flow).collect()
    }

    fn open_flows(&self) -> u32 {
        let view = &self.node.view;
        let backends = view.services().flat_map(crate::table::Service::backends);
        backends.map(|backend| self.node.flows.loads.of(backend.id)).sum()
    }
}

/// An answer of the endpoint on node B.
fn answer(flags: TcpFlags) -> Vec<u8> {
    testkit::tcp(at(v4().on_b, 8080), at(v4().a, CLIENT), flags, b"")
}

#[test]
fn the_kernel_is_told_to_choose_as_workers_do_after_the_first_connection() {
    let (mut joined, ips) = (Joined::new(), v4());
    let more = [(ips.on_b, 8080), (ips.b, 8080), (ips.on_c, 8080), (ip("10.2.0.8"), 81)];
    joined.serve_all(&[tcp(ips.vip, &more)]);
    assert_eq!(joined.choice(0), None);
    joined.node.run(POD_A, &to_vip(TcpFlags::SYN));
    let service = joined.node.view.services().next().unwrap();
    for n in 0..10_000 {
        let hash = u64::wrapping_mul(n, 0x9e37_79b9_7f4a_7c15);
        let backend = service.pick(hash).unwrap();
        let to = match backend.address {
            address if address == ips.b => Some(end(POD_B)),
            // Which is reached over IPv6.
            address if address == ips.on_c => None,
            _ => Some(NODE_B),
        };
        let choice = joined.choice(hash).unwrap();
        assert_eq!((IpAddr::V4(choice.address), choice.port, choice.to), (backend.address, backend.port, to));
    }
    joined.serve_all(&[tcp(ips.vip, &more[..1])]);
    assert_eq!(joined.choice(0), None, "of other tables");
}

#[test]
fn workers_open_what_depends_on_more_than_the_hash() {
    let (ips, with_flow) = (v4(), [(v4().on_b, 8080)]);
    let of = |change: &dyn Fn(&mut proto::Service)| {
        let mut service = tcp(ips.vip, &with_flow);
        change(&mut service);
        let mut joined = Joined::new();
        joined.serve_all(&[service, tcp(other_vip(), &[(ips.b, 8080)])]);
        joined.node.run(POD_A, &to_vip(TcpFlags::SYN));
        assert_eq!(joined.slots.given(), 2, "it was opened");
        joined.choice(0).is_some()
    };
    assert!(of(&|_| {}));
    assert!(!of(&|service| service.balancing = proto::Balancing::RoundRobin.into()));
    assert!(!of(&|service| service.balancing = proto::Balancing::LeastFlow.into()));
    assert!(!of(&|service| service.affinity_seconds = 10));
    let more = |service: &mut proto::Service| {
        let backend = |n: u8| proto::Backend {
            address: octets(Ipv4Addr::new(10, 2, 1, n).into()),
            port: 8080,
            // Which gets nothing.
            draining: true,
            ..Default::default()
        };
        service.backends.extend((0..128).map(backend));
    };
    assert!(!of(&more), "too many endpoints");
}

#[test]
fn workers_open_what_goes_to_an_endpoint_of_several_services() {
    let (mut joined, ips) = (Joined::new(), v4());
    let own = tcp(ips.vip, &[(ips.on_b, 8080)]);
    joined.serve_all(&[own.clone(), tcp(other_vip(), &[(ips.on_b, 8080)])]);
    joined.node.run(POD_A, &to_vip(TcpFlags::SYN));
    assert_eq!(joined.choice(0).map(|choice| choice.to), Some(None));
    joined.serve_all(&[own, tcp(other_vip(), &[(ips.on_b, 8081)])]);
    joined.node.run(POD_A, &to_vip(TcpFlags::ACK));
    assert_eq!(joined.choice(0).map(|choice| choice.to), Some(Some(NODE_B)), "it has another port");
}

#[test]
fn what_the_kernel_has_opened_has_its_flow_before_any_packet_is_looked_at() {
    let ips = v4();
    for by_the_client in [true, false] {
        let mut joined = Joined::new();
        joined.serve(ips.on_b);
        joined.open(ips.vip, ips.on_b);
        let outcome = if by_the_client {
            joined.node.run(POD_A, &to_vip(TcpFlags::ACK))
        } else {
            joined.node.run_tunnelled(answer(TcpFlags::SYN | TcpFlags::ACK))
        };
        let (to, source) = if by_the_client { (UPLINK, ips.a) } else { (POD_A, ips.vip) };
        assert_eq!(outcome.verdict, Verdict::Send(to));
        let inner = if by_the_client { &outcome.frame[50..] } else { &outcome.frame };
        let key = FlowKey4::of(inner, &parse(inner).unwrap(), Tenant::DEFAULT).unwrap();
        assert_eq!(IpAddr::V4(key.src()), source);
        assert_eq!(joined.node.flow_count(), 1);
        assert_eq!(joined.node.counters.service(0).new_flows, 1);
        assert_eq!(joined.open_flows(), 1);
        joined.node.run(POD_A, &to_vip(TcpFlags::ACK));
        assert_eq!(joined.node.counters.service(0).new_flows, 1, "once");
    }
}

#[test]
fn what_the_kernel_has_opened_goes_on_after_a_change_unless_its_endpoint_is_gone() {
    let ips = v4();
    for gone in [false, true] {
        let mut joined = Joined::new();
        joined.serve(ips.on_b);
        joined.open(ips.vip, ips.on_b);
        let others = tcp(other_vip(), &[(ips.b, 8080)]);
        joined.serve_all(&[tcp(ips.vip, &[(if gone { ips.b } else { ips.on_b }, 8080)]), others.clone()]);
        // Decisions have to be made anew in any case.
        joined.serve_all(&joined.node.view.services().map(proto::Service::from).take(1).collect::<Vec<_>>());
        let outcome = joined.node.run(POD_A, &to_vip(TcpFlags::ACK));
        assert_eq!(outcome.verdict, Verdict::Send(if gone { POD_A } else { UPLINK }));
        assert_eq!(joined.node.flow_count(), usize::from(!gone));
    }
}

#[test]
fn the_state_of_what_the_kernel_has_opened_is_that_of_what_went_by() {
    use TcpFlags as F;
    let (mut joined, ips) = (Joined::new(), v4());
    joined.serve(ips.on_b);
    joined.open(ips.vip, ips.on_b);
    let (original, reply) = (key((ips.a, CLIENT), (ips.vip, 80)), key((ips.on_b, 8080), (ips.a, CLIENT)));
    for (from, key, flags, expected) in [
        (end(POD_A), &original, F::SYN, State::Unwatched),
        (NODE_B, &reply, F::SYN | F::ACK, State::SynReceived),
        (end(POD_A), &original, F::ACK, State::Established),
    ] {
        assert!(joined.slots.pass(from, key, 60, flags));
        joined.review();
        assert_eq!(joined.state(), Some(expected));
    }
    assert_eq!(joined.node.counters.service(0).packets, 3);
}

#[test]
fn what_the_kernel_has_opened_takes_the_place_of_what_was_before() {
    use TcpFlags as F;
    let ips = v4();
    let new = (key((ips.a, CLIENT), (ips.vip, 80)), key((ips.a, CLIENT), (ips.on_b, 8080)));
    // The same connection, but closed; one to another endpoint; the same first packet.
    for (closed, endpoint) in [(true, ips.on_b), (false, ips.b), (false, ips.on_b)] {
        let mut joined = Joined::new();
        let others = [(ips.on_b, 8080), (ips.b, 8080)];
        joined.serve(endpoint);
        joined.node.run(POD_A, &to_vip(F::SYN));
        if closed {
            joined.node.run(POD_A, &to_vip(F::RST));
        }
        joined.serve_all(&[tcp(ips.vip, &others)]);
        [&new.0, &new.1.reversed()].iter().for_each(|key| joined.slots.forget(key, tsc::now()));
        joined.open(ips.vip, ips.on_b);
        joined.review();
        assert_eq!(joined.flows(), [(new.0, new.1, State::Unwatched)]);
        assert_eq!(joined.open_flows(), 1);
        let service = joined.node.counters.service(0);
        assert_eq!(service.new_flows, if closed || endpoint == ips.b { 2 } else { 1 });
        assert!(
            joined.direction(end(POD_A), &new.0).is_some()
                && joined.direction(NODE_B, &new.1.reversed()).is_some()
        );
    }
}

#[test]
fn who_opens_the_same_connections_again_and_again_needs_no_more_room() {
    let (mut joined, ips) = (Joined::with(Node::with_flows(256)), v4());
    joined.serve(ips.on_b);
    for _ in 0..1000 {
        joined.open(ips.vip, ips.on_b);
        joined.review();
        assert_eq!((joined.state(), joined.open_flows()), (Some(State::Unwatched), 1));
        joined.node.run(POD_A, &to_vip(TcpFlags::RST));
        assert_eq!((joined.state(), joined.open_flows()), (Some(State::Reset), 0));
    }
    assert!(joined.slots.memory().is_alive());
}

#[test]
fn what_the_kernel_has_opened_takes_answers_over_from_a_flow_through_another_service() {
    let (mut joined, ips) = (Joined::new(), v4());
    joined.serve_all(&[tcp(ips.vip, &[(ips.b, 8080)]), tcp(other_vip(), &[(ips.on_b, 8080)])]);
    let syn = testkit::tcp(at(ips.a, CLIENT), at(other_vip(), 80), TcpFlags::SYN, b"");
    joined.node.run(POD_A, &from_a(syn));
    // That service has lost the endpoint, and nobody has looked at its flow since.
    joined.serve_all(&[tcp(ips.vip, &[(ips.on_b, 8080)])]);
    joined.open(ips.vip, ips.on_b);
    joined.review();
    let (original, translated) =
        (key((ips.a, CLIENT), (ips.vip, 80)), key((ips.a, CLIENT), (ips.on_b, 8080)));
    assert_eq!(joined.flows(), [(original, translated, State::Unwatched)]);
}

#[test]
fn the_kernel_opens_nothing_when_there_is_hardly_room_for_flows() {
    let (mut joined, ips) = (Joined::with(Node::with_flows(256)), v4());
    joined.serve(ips.on_b);
    joined.review();
    assert!(joined.slots.memory().is_alive());
    for port in 0..300 {
        joined.node.run(POD_A, &from_a(testkit::tcp(at(ips.a, port), at(ips.vip, 80), TcpFlags::SYN, b"")));
    }
    joined.review();
    assert!(!joined.slots.memory().is_alive());
    // What was opened before that has to wait until there is.
    joined.slots.forget(&key((ips.a, CLIENT), (ips.vip, 80)), tsc::now());
    joined.open(ips.vip, ips.on_b);
    joined.review();
    let original = key((ips.a, CLIENT), (ips.vip, 80));
    assert!(joined.flows().iter().all(|(key, ..)| *key != original));
    joined.node.seconds += 1000;
    joined.node.age();
    joined.review();
    assert!(joined.flows().iter().any(|(key, ..)| *key == original));
    assert!(joined.slots.memory().is_alive());
}
