//! The usual way against the long one, which any other packet takes.

use proptest::prelude::*;

use super::*;

/// Something that happens to a node.
#[derive(Debug, Clone)]
enum Event {
    /// Packets come in, each at some port.
    Packets(Vec<(PortIndex, Vec<u8>)>),
    /// The service gets these endpoints.
    Endpoints(Vec<usize>),
    /// Time goes by.
    Seconds(u64),
}

const PORTS: std::ops::Range<u16> = 1000..1006;

fn endpoints() -> [(IpAddr, u32); 3] {
    let [ips, _] = both();
    [(ips.a, 80), (ips.b, 80), (ips.on_b, 80)]
}

/// A TCP or UDP packet over IPv4 of one of few flows, in either direction, and where it comes in.
fn segment() -> impl Strategy<Value = (PortIndex, Vec<u8>)> {
    let [ips, _] = both();
    let pod = prop::sample::select(vec![ips.a, ips.b]);
    let peer = prop::sample::select(vec![
        ips.vip,
        ips.vip,
        ips.vip,
        ips.on_b,
        ips.on_c,
        ips.b,
        ips.nobody,
        ips.gateway,
        ips.elsewhere,
    ]);
    let flags = prop::sample::select(vec![0x02_u8, 0x10, 0x10, 0x18, 0x12, 0x11, 0x14]);
    (pod, peer, PORTS, flags, any::<bool>(), any::<bool>(), 0_usize..3, 0_usize..40).prop_map(
        move |(pod, peer, port, flags, udp, reply, endpoint, len)| {
            let (src, dst) = if reply {
                let (endpoint, service_port) = endpoints()[endpoint];
                (at(endpoint, service_port as u16), at(pod, port))
            } else {
                (at(pod, port), at(peer, 80))
            };
            let payload = vec![7; len];
            let frame = if udp {
                testkit::udp(src, dst, &payload)
            } else {
                testkit::tcp(src, dst, TcpFlags(flags), &payload)
            };
            match src.ip() {
                src if src == ips.a => (POD_A, from_a(frame)),
                src if src == ips.b => (POD_B, from_b(frame)),
                _ => (UPLINK, tunnelled(frame)),
            }
        },
    )
}

/// A packet through the tunnel that answers no flow, even if others between its addresses do.
fn stranger() -> impl Strategy<Value = (PortIndex, Vec<u8>)> {
    let [ips, _] = both();
    let src = prop::sample::select(vec![at(ips.on_c, 80), at(ips.on_c, 7), at(ips.on_b, 7)]);
    let dst = prop::sample::select(vec![ips.a, ips.a, ips.b, ips.on_b, ips.nobody, ips.gateway, ips.vip]);
    let len = prop::sample::select(vec![0, 1, 18, 1410, 1411, 1422, 1423]);
    let ttl = prop::sample::select(vec![0, 1, 2, 64, 64]);
    (src, dst, PORTS, len, ttl, any::<bool>()).prop_map(|(src, dst, port, len, ttl, udp)| {
        let (dst, payload) = (at(dst, port), vec![7; len]);
        let mut frame = if udp {
            testkit::udp(src, dst, &payload)
        } else {
            testkit::tcp(src, dst, TcpFlags::ACK, &payload)
        };
        frame[22] = ttl;
        testkit::fill_checksums(&mut frame);
        (UPLINK, tunnelled(frame))
    })
}

/// One of both, sometimes with something about it that is not quite as it mostly is.
fn packet() -> impl Strategy<Value = (PortIndex, Vec<u8>)> {
    let odd = prop_oneof![
        8 => Just(None),
        1 => (0_usize..110, any::<u8>(), any::<bool>()).prop_map(Some),
    ];
    let port = prop_oneof![20 => Just(None), 1 => (0_u16..3).prop_map(|port| Some(PortIndex(port)))];
    (prop_oneof![2 => segment(), 1 => stranger()], odd, port, prop::sample::select(vec![0_usize, 0, 60, 200]))
        .prop_map(|((right, mut frame), odd, port, padded)| {
            if let Some((at, value, repair)) = odd {
                let at = at % frame.len();
                frame[at] = value;
                if repair {
                    frame[24..26].fill(0);
                    let checksum = culvert_packet::checksum::checksum(&frame[14..34]);
                    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
                }
            }
            (port.unwrap_or(right), testkit::padded(frame, padded))
        })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => prop::collection::vec(packet(), 1..90).prop_map(Event::Packets),
        1 => prop::sample::subsequence(vec![0_usize, 1, 2], 0..=3).prop_map(Event::Endpoints),
        1 => (1_u64..90).prop_map(Event::Seconds),
    ]
}

fn program(node: &mut Node, chosen: &[usize]) {
    let [ips, _] = both();
    let backends: Vec<_> = chosen.iter().map(|&n| endpoints()[n]).collect();
    let services =
        [proto::Protocol::Tcp, proto::Protocol::Udp].map(|protocol| service(protocol, ips.vip, &backends));
    node.program(&services);
}

#[test]
fn strangers_and_answers_of_one_burst_go_each_to_its_pod() {
    let [ips, _] = both();
    let mut node = Node::new();
    program(&mut node, &[2]);
    assert_eq!(
        node.run(POD_B, &from_b(syn(at(ips.b, 1000), at(ips.vip, 80)))).verdict,
        Verdict::Send(UPLINK)
    );
    let answers = [TcpFlags::SYN | TcpFlags::ACK, TcpFlags::ACK]
        .map(|flags| tunnelled(testkit::tcp(at(ips.on_b, 80), at(ips.b, 1000), flags, b"")));
    let stranger = tunnelled(testkit::udp(at(ips.on_c, 80), at(ips.a, 1000), b"who?"));
    let bursts = answers.iter().flat_map(|answer| [[&stranger, answer], [answer, &stranger]]);
    for burst in bursts {
        let outcomes = node.burst(UPLINK, &burst.map(Vec::clone));
        for (frame, Outcome { verdict, frame: sent }) in burst.into_iter().zip(outcomes) {
            let (port, src, dst) = if *frame == stranger {
                (POD_A, at(ips.on_c, 80), at(ips.a, 1000))
            } else {
                (POD_B, at(ips.vip, 80), at(ips.b, 1000))
            };
            let sent = read(&sent);
            assert_eq!((verdict, sent.src, sent.dst), (Verdict::Send(port), src, dst));
        }
        node.run(POD_B, &from_b(testkit::tcp(at(ips.b, 1000), at(ips.vip, 80), TcpFlags::ACK, b"")));
    }
}

#[test]
fn a_burst_of_strangers_to_one_pod_leaves_together() {
    let [ips, _] = both();
    let mut node = Node::new();
    let stranger = |port| tunnelled(testkit::udp(at(ips.on_b, port), at(ips.a, 1000), b"who?"));
    let mut bufs: Vec<_> = (1..100).map(|port| TestBuf::new(&stranger(port))).collect();
    let now = Tick::at(Duration::from_secs(node.seconds));
    let leaving = node.pipeline.process(&node.view, now, UPLINK, &mut bufs, &mut Vec::new());
    assert_eq!(leaving, super::super::Leaving::Together(POD_A));
}

proptest! {
    #[test]
    fn usual_packets_are_decided_as_they_would_be_the_long_way(
        events in prop::collection::vec(event(), 1..40),
        headroom in prop::sample::select(vec![128_usize, 128, 49]),
    ) {
        let (mut usual, mut long) = (Node::new(), Node::new());
        long.pipeline.nothing_is_usual = true;
        for node in [&mut usual, &mut long] {
            program(node, &[0, 1, 2]);
        }
        for event in events {
            match event {
                Event::Packets(packets) => {
                    for port in [POD_A, UPLINK, POD_B] {
                        let frames = || packets.iter().filter(|(at, _)| *at == port).map(|(_, frame)| frame);
                        let [quick, slow] = [&mut usual, &mut long].map(|node| {
                            let mut bufs: Vec<_> =
                                frames().map(|frame| TestBuf::with_headroom(frame, headroom)).collect();
                            node.burst_of(port, &mut bufs)
                        });
                        prop_assert_eq!(quick, slow);
                    }
                }
                Event::Endpoints(chosen) => {
                    for node in [&mut usual, &mut long] {
                        program(node, &chosen);
                    }
                }
                Event::Seconds(seconds) => {
                    for node in [&mut usual, &mut long] {
                        node.seconds += seconds;
                        node.age();
                    }
                }
            }
        }
        let state = |node: &Node| {
            let flows: Vec<_> = node.flows.v4.iter().map(|hit| (hit.record, hit.state(), hit.seen())).collect();
            let services: Vec<_> = (0..2).map(|slot| node.counters.service(slot)).collect();
            (flows, services, node.counters.drops(), node.counters.answered(), node.counters.flows())
        };
        prop_assert_eq!(state(&usual), state(&long));
    }
}
