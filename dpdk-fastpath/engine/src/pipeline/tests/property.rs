use std::collections::{BTreeSet, HashMap};

use culvert_packet::eth::EthAddr;
use culvert_packet::testkit::generate;
use proptest::prelude::*;

use super::*;

/// A node on which much can happen to a packet.
fn busy_node() -> Node {
    let mut node = Node::new();
    let services = both().into_iter().flat_map(|ips| {
        [proto::Protocol::Tcp, proto::Protocol::Udp, proto::Protocol::Sctp]
            .map(|protocol| service(protocol, ips.vip, &[(ips.a, 80), (ips.b, 80), (ips.on_b, 80)]))
    });
    node.program(&services.collect::<Vec<_>>());
    node
}

/// Stations that a frame may be for or from, and some that it may not.
fn station() -> impl Strategy<Value = EthAddr> {
    prop::sample::select(vec![
        UPLINK_MAC,
        POD_A_MAC,
        POD_B_MAC,
        GATEWAY_MAC,
        VTEP_MAC,
        NODE_B_MAC,
        EthAddr::BROADCAST,
        EthAddr::ZERO,
    ])
}

fn address(v6: bool) -> impl Strategy<Value = IpAddr> {
    let ips = both()[usize::from(v6)];
    let group = ip(if v6 { "ff02::1" } else { "224.0.0.1" });
    let remote_vtep = ip(if v6 { "2001:db8::3" } else { "192.168.0.2" });
    prop::sample::select(vec![
        ips.a,
        ips.b,
        ips.gateway,
        ips.vtep,
        ips.on_b,
        ips.on_c,
        ips.nobody,
        ips.elsewhere,
        ips.vip,
        group,
        remote_vtep,
    ])
}

/// A packet between addresses that mean something here, of whatever kind and with any trouble in it.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    let endpoints = any::<bool>().prop_flat_map(|v6| (address(v6), address(v6)));
    (
        generate::packet(),
        endpoints,
        station(),
        station(),
        prop::sample::select(vec![80_u16, 4789, 1000]),
        any::<bool>(),
    )
        .prop_map(|(packet, (src, dst), to, from, port, as_generated)| {
            let frame = if as_generated {
                packet.frame()
            } else if packet.is_v6() {
                testkit::tcp(at(src, port), at(dst, 80), TcpFlags(packet.frame()[30] & 0x3f), b"data")
            } else {
                testkit::udp(
                    at(src, 1000),
                    at(dst, port),
                    b"some data, long enough for a header of some kind or other",
                )
            };
            testkit::with_macs(frame, to, from)
        })
}

/// A frame of any kind: nonsense, plausible, plausible but damaged, alone or in a tunnel.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let damaged = (
        plausible(),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        any::<prop::sample::Index>(),
        any::<bool>(),
    )
        .prop_map(|(mut frame, changes, end, cut)| {
            for (at, value) in changes {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            if cut {
                frame.truncate(end.index(frame.len() + 1));
            }
            frame
        });
    let frame = prop_oneof![prop::collection::vec(any::<u8>(), 0..200), plausible(), damaged];
    (frame, any::<bool>())
        .prop_map(|(frame, tunnel)| if tunnel && frame.len() > 14 { tunnelled(frame) } else { frame })
}

proptest! {
    #[test]
    fn every_buffer_gets_one_verdict_whatever_is_in_it(
        frames in prop::collection::vec(any_frame(), 0..80),
        port in 0_u16..4,
        headroom in prop::sample::select(vec![0_usize, 20, 128]),
    ) {
        let mut node = busy_node();
        let mut bufs: Vec<_> = frames.iter().map(|frame| TestBuf::with_headroom(frame, headroom)).collect();
        let port = PortIndex(port);
        let before: u64 = node.counters.drops().iter().map(|(_, count)| count).sum();
        let answered_before: u64 = node.counters.answered().iter().map(|(_, count)| count).sum();
        let outcomes = node.burst_of(port, &mut bufs);
        let drops: u64 = node.counters.drops().iter().map(|(_, count)| count).sum::<u64>() - before;
        let answered: u64 = node.counters.answered().iter().map(|(_, count)| count).sum::<u64>() - answered_before;
        prop_assert_eq!(outcomes.len(), frames.len());
        prop_assert_eq!(node.counters.port(port).rx_dropped, drops);
        let count = |matches: fn(&Verdict) -> bool| outcomes.iter().filter(|o| matches(&o.verdict)).count() as u64;
        let dropped = count(|verdict| matches!(verdict, Verdict::Drop(_)));
        prop_assert!(drops >= dropped && drops <= dropped + answered, "{} counted, {} dropped, {} answered", drops, dropped, answered);
        for outcome in &outcomes {
            if let Verdict::Send(port) = outcome.verdict {
                prop_assert!(node.view.port(port).is_some());
                let parsed = parse(&outcome.frame);
                prop_assert!(parsed.is_ok(), "{:?} is sent: {:?}", parsed, outcome);
                prop_assert_eq!(parsed.map(|parsed| parsed.end()), Ok(outcome.frame.len()), "padding is sent");
            }
        }
    }

    #[test]
    fn a_burst_is_decided_as_its_packets_one_by_one(
        frames in prop::collection::vec(any_frame(), 1..70),
        port in 0_u16..3,
    ) {
        let (mut together, mut apart) = (busy_node(), busy_node());
        let at_once = together.burst(PortIndex(port), &frames);
        let one_by_one: Vec<_> = frames.iter().map(|frame| apart.run(PortIndex(port), frame)).collect();
        prop_assert_eq!(at_once, one_by_one);
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Pod A or B asks one of three services from one of five ports.
    Ask { pod: bool, port: u16, service: usize },
    /// The endpoint of a flow that is known answers.
    Answer(prop::sample::Index),
    /// A service's endpoints change.
    Change { service: usize, backends: BTreeSet<usize> },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (any::<bool>(), 1000_u16..1005, 0_usize..3).prop_map(|(pod, port, service)| Step::Ask { pod, port, service }),
        5 => any::<prop::sample::Index>().prop_map(Step::Answer),
        1 => (0_usize..3, prop::collection::btree_set(0_usize..4, 0..4))
            .prop_map(|(service, backends)| Step::Change { service, backends }),
    ];
    prop::collection::vec(step, 1..120)
}

/// What a client must see, in a few lines: a flow keeps its endpoint while the service has it, otherwise gets one of
/// those that it has now; what the endpoint answers comes from where the client asked.
#[derive(Default)]
struct Reference {
    backends: [BTreeSet<usize>; 3],
    /// Client and service to endpoint, and the source that the endpoint sees.
    flows: HashMap<(SocketAddr, usize), (usize, SocketAddr)>,
}

proptest! {
    #[test]
    fn requests_and_replies_are_translated_as_the_reference_says(steps in steps(), v6: bool) {
        let ips = both()[usize::from(v6)];
        let vip = |n: usize| at(ip(&if v6 { format!("fd00:96::{n}") } else { format!("10.96.0.{}", n + 1) }), 80);
        // Two ports of one pod, the other pod, and a pod elsewhere.
        let endpoints = [at(ips.a, 8080), at(ips.a, 8081), at(ips.b, 8080), at(ips.on_b, 8080)];
        let mut node = Node::new();
        let mut reference = Reference::default();
        let program = |node: &mut Node, reference: &Reference| {
            let services: Vec<_> = (0..3)
                .map(|n| {
                    let chosen: Vec<_> = reference.backends[n].iter().map(|&b| (endpoints[b].ip(), endpoints[b].port().into())).collect();
                    proto::Service { name: format!("s{n}"), ..service(proto::Protocol::Udp, vip(n).ip(), &chosen) }
                })
                .collect();
            node.program(&services);
        };
        program(&mut node, &reference);
        for step in steps {
            match step {
                Step::Change { service, backends } => {
                    reference.backends[service] = backends;
                    program(&mut node, &reference);
                    // A flow whose endpoint is gone is over, and one whose endpoint came back is a new one.
                    reference.flows.retain(|(_, n), (backend, _)| reference.backends[*n].contains(backend));
                }
                Step::Ask { pod, port, service } => {
                    let (in_port, mac, client) = if pod { (POD_A, POD_A_MAC, at(ips.a, port)) } else { (POD_B, POD_B_MAC, at(ips.b, port)) };
                    let question = testkit::with_macs(testkit::udp(client, vip(service), b"?"), GATEWAY_MAC, mac);
                    let outcome = node.run(in_port, &question);
                    if reference.backends[service].is_empty() {
                        prop_assert_eq!(icmp(&outcome.frame), kind(&ips, (3, 3), (1, 4)));
                        continue;
                    }
                    let frame = if outcome.verdict == Verdict::Send(UPLINK) { inner(&outcome) } else { outcome.frame.clone() };
                    let got = read(&frame);
                    let Some(backend) = endpoints.iter().position(|endpoint| *endpoint == got.dst) else {
                        panic!("{got:?} is no endpoint")
                    };
                    prop_assert!(reference.backends[service].contains(&backend));
                    let expected_source = if endpoints[backend].ip() == client.ip() { ips.gateway } else { client.ip() };
                    prop_assert_eq!(got.src.ip(), expected_source);
                    let place = match endpoints[backend].ip() {
                        address if address == ips.a => POD_A,
                        address if address == ips.b => POD_B,
                        _ => UPLINK,
                    };
                    prop_assert_eq!(outcome.verdict, Verdict::Send(place));
                    let known = reference.flows.entry((client, service)).or_insert((backend, got.src));
                    prop_assert_eq!(*known, (backend, got.src), "a flow changed its endpoint");
                    let sources: Vec<_> = reference.flows.values().filter(|flow| **flow == (backend, got.src)).collect();
                    prop_assert_eq!(sources.len(), 1, "two flows have the same replies");
                }
                Step::Answer(which) => {
                    if reference.flows.is_empty() {
                        continue;
                    }
                    let mut flows: Vec<_> = reference.flows.iter().collect();
                    flows.sort_unstable();
                    let ((client, service), (backend, source)) = flows[which.index(flows.len())];
                    let answer = testkit::udp(endpoints[*backend], *source, b"!");
                    let outcome = match endpoints[*backend].ip() {
                        address if address == ips.a => node.run(POD_A, &from_a(answer)),
                        address if address == ips.b => node.run(POD_B, &from_b(answer)),
                        _ => node.run_tunnelled(answer),
                    };
                    prop_assert_eq!(outcome.verdict, Verdict::Send(if client.ip() == ips.a { POD_A } else { POD_B }));
                    let got = read(&outcome.frame);
                    prop_assert_eq!((got.src, got.dst), (vip(*service), *client));
                }
            }
        }
    }
}
