//! Packets that come while flows of another process are still being entered.

use super::overflow::packets;
use super::*;
use crate::counter::DropReason as R;

const PROTOCOLS: [proto::Protocol; 3] = [proto::Protocol::Tcp, proto::Protocol::Udp, proto::Protocol::Sctp];

const CLIENTS: u16 = 40;
const PORT: u16 = 40_000;

/// Services under one address, whose endpoints take turns, in an order of which nothing is left when it begins anew; and
/// one more with one of the endpoints.
fn services(protocol: proto::Protocol, ips: &Ips) -> [proto::Service; 2] {
    let endpoints: Vec<_> = (0..7).map(|port| (ips.on_b, 8080 + port)).collect();
    let in_turn = proto::Service {
        balancing: proto::Balancing::RoundRobin.into(),
        ..service(protocol, ips.vip, &endpoints)
    };
    let other = if ips.a.is_ipv4() { ip("10.96.0.11") } else { ip("fd00:96::11") };
    let other = proto::Service { name: "other".to_owned(), ..service(protocol, other, &endpoints[..1]) };
    [in_turn, other]
}

/// Where pod A's packet arrives.
fn arrives(node: &mut Node, frame: Vec<u8>) -> (SocketAddr, SocketAddr) {
    let arrived = read(&inner(&node.run(POD_A, &from_a(frame))));
    (arrived.src, arrived.dst)
}

#[test]
fn connections_go_on_with_whatever_packet_comes_first() {
    for (protocol, ips) in PROTOCOLS.into_iter().flat_map(|protocol| both().map(|ips| (protocol, ips))) {
        let mut before = Node::with_tables(FlowTables::shared(4096, 64, false).unwrap());
        let services = services(protocol, &ips);
        before.program(&services);
        let request =
            |n: u16, part: usize| packets(protocol, at(ips.a, PORT + n), at(ips.vip, 80))[part].clone();
        let became: Vec<_> = (0..CLIENTS).map(|n| arrives(&mut before, request(n, 0))).collect();
        let answer = |n: u16| {
            let (client, endpoint) = became[usize::from(n)];
            packets(protocol, endpoint, client)[1].clone()
        };
        for n in 0..CLIENTS {
            let (client, endpoint) = became[usize::from(n)];
            let first = match protocol {
                proto::Protocol::Tcp => testkit::tcp(endpoint, client, TcpFlags::SYN | TcpFlags::ACK, b""),
                _ => answer(n),
            };
            before.run_tunnelled(first);
        }

        // Slots of services and endpoints are others.
        let mut node = Node::with_tables(FlowTables::shared(4096, 64, false).unwrap());
        let [served, other] = services;
        node.program(&[other.clone(), served]);
        node.succeed(&before);
        for n in 0..CLIENTS {
            let (_, endpoint) = became[usize::from(n)];
            match n % 4 {
                0 => {
                    let got = node.run_tunnelled(answer(n));
                    assert_eq!(got.verdict, Verdict::Send(POD_A), "{protocol:?}");
                    let got = read(&got.frame);
                    assert_eq!((got.src, got.dst), (at(ips.vip, 80), at(ips.a, PORT + n)));
                }
                1 => assert_eq!(arrives(&mut node, request(n, 1)), became[usize::from(n)], "{protocol:?}"),
                2 => {
                    let kind = if ips.a.is_ipv4() { (3, 3) } else { (1, 4) };
                    let about = packets(protocol, became[usize::from(n)].0, endpoint)[1].clone();
                    let got = node.run_tunnelled(testkit::icmp_error(endpoint.ip(), kind, 0, &about, 64));
                    assert_eq!(got.verdict, Verdict::Send(POD_A), "{protocol:?}");
                    assert_eq!(read(&got.frame).dst.ip(), ips.a);
                }
                _ => {
                    // A new connection whose answers would be those of one that goes on gets another port.
                    let vip = at(ip_of(&other), 80);
                    let new = packets(protocol, at(ips.a, PORT + n), vip)[0].clone();
                    let arrived = arrives(&mut node, new);
                    assert_eq!(arrived.1, at(ips.on_b, 8080));
                    assert_ne!(arrived, became[usize::from(n)], "{protocol:?}");
                    assert_eq!(arrives(&mut node, request(n, 1)), became[usize::from(n)], "{protocol:?}");
                }
            }
        }
        let now = Tick::at(Duration::from_secs(node.seconds));
        while node.pipeline.take_over(&node.view, now, true) {}
        for n in 0..CLIENTS {
            assert_eq!(arrives(&mut node, request(n, 1)), became[usize::from(n)], "{protocol:?}");
        }
        let new = u64::from(CLIENTS / 4);
        assert_eq!(node.counters.flows().created, u64::from(CLIENTS) + new, "no flow was opened anew");
        assert_eq!(node.flow_count() as u64, u64::from(CLIENTS) + new);
        // What nobody knows is refused, or decided, as ever.
        let unknown = node.run(POD_A, &from_a(request(CLIENTS, 1)));
        match protocol {
            proto::Protocol::Udp => assert_eq!(unknown.verdict, Verdict::Send(UPLINK)),
            _ => assert_eq!(node.dropped(R::FLOW_UNKNOWN), 1),
        }
    }
}

fn ip_of(service: &proto::Service) -> IpAddr {
    match *service.vip {
        [a, b, c, d] => [a, b, c, d].into(),
        ref octets => <[u8; 16]>::try_from(octets).unwrap().into(),
    }
}
