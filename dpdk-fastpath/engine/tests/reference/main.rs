//! The engine against a slow model of the whole decision.
//!
//! [`model`] says what becomes of a packet, as plainly as it can be said: written from the RFCs and from what the engine
//! promises its users, with lists that are searched from end to end, with packets that are taken apart byte by byte and
//! checksums that are computed from scratch ([`wire`]). It shares no packet, flow or table code with the engine. [`world`]
//! makes random tables, packets and events, and [`harness`] lets them happen to both. After every packet both must agree on
//! the verdict and on every byte that leaves, and after every event on all tracked flows and all counters.
//!
//! # The rules
//! - A pod speaks for itself: its own Ethernet and IP address, no VLAN tag, to the router. Anything else is dropped, by a
//!   reason with a name (`pod`). ARP and neighbour discovery are for the router's address (`neighbour`).
//! - From the underlay comes VXLAN from known nodes, with our identifier and for our inner Ethernet address; besides, ARP,
//!   neighbour discovery and ping for our own address. What the underlay says of others' addresses, and of narrow links on
//!   the way to other nodes, is learned (`uplink`).
//! - A packet of a tracked flow is translated as its first packet was; one to a service's address opens a flow; anything else
//!   goes where its destination is: ourselves, a pod here, a pod elsewhere (`route`, `flow`, `service`). Tenants have nothing
//!   to do with each other, whatever their addresses.
//! - An ICMP error about a translated packet goes to whoever sent that (`error`); fragments follow the first one
//!   (`fragment`).
//! - What is sent has one hop less, fits, and is quoted unchanged to its sender if it cannot be sent (`output`, `answer`).
//! - Flows come, live and go as their protocol does (`state`), leave with their endpoint, and make room by age only (`flow`).
//!   Connections to an endpoint itself and through a service are kept apart (`beside`).
//!
//! # Choices
//! Where the engine is free (which endpoint, which source port if the own one is another flow's, which flow leaves a full
//! table, which source port in a tunnel, whether a packet that cannot be sent on is a sign of life) the model lists what is
//! allowed and then holds the engine to what it chose (`choice`): a flow keeps its endpoint and its tunnel port, the same flow
//! gets the same endpoint again while the service does not change.
//!
//! # Failures
//! A failure tells the tables, what happened before, the packet, and both outcomes byte by byte. It is shrunk, and kept as a
//! seed in `regressions.txt`, to be tried first ever after. `PROPTEST_CASES=10000` tries more than the usual few.

#![allow(clippy::unwrap_used)]
// Messages and tables may get more fields.
#![allow(clippy::needless_update)]

mod engine;
mod harness;
mod model;
#[path = "../../../../fuzz/replay.rs"]
mod replay;
mod story;
mod targets;
mod wire;
mod world;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use self::harness::Pair;
use self::model::tables::Backend;
use self::wire::{ACK, ETH, Frame};
use self::world::event::{self, Event, How, event, flood_of};
use self::world::sequence::events;
use self::world::{UPLINK, ip, tables};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_engine_decides_as_the_model(
        flows in prop_oneof![2 => Just(4096_u32), 1 => Just(256), 1 => Just(512)],
        pods in (tables::pod(0), tables::pod(1), tables::pod(2), tables::pod(3), tables::pod(4), tables::pod(5)),
        said in tables::said(true),
        neighbours in tables::neighbours(),
        events in events(),
    ) {
        let mut pair = Pair::new(flows);
        pair.attach(UPLINK, &tables::uplink());
        let (a, b, c, d, e, f) = pods;
        for (n, port) in [a, b, c, d, e, f].iter().enumerate() {
            pair.attach(n as u16 + 1, port);
        }
        pair.said(&said, How::Whole);
        pair.happen(&Event::Neighbours(neighbours))?;
        for event in &events {
            pair.happen(event)?;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: config().cases.div_ceil(8), ..config() })]

    /// From a full table on.
    #[test]
    fn what_finds_no_room_is_decided_as_the_model(
        service in 0_usize..6,
        packets in event::packets(),
        events in prop::collection::vec(event(), 1..20),
    ) {
        let mut pair = targets::usual_pair(256);
        let flood = flood_of(&pair.model, 0, service, 0..400);
        pair.packets(&flood)?;
        prop_assert!(pair.model.counters.stateless > 60);
        pair.happen(&packets)?;
        for event in &events {
            pair.happen(event)?;
        }
    }
}

#[test]
fn frames_that_were_trouble_are_decided_as_the_model() {
    replay::replay("pipeline", 300, targets::pipeline);
}

#[test]
fn whatever_the_agent_says_is_taken_over_whole_or_not_at_all() {
    replay::replay("tables", 20_000, targets::tables);
}

#[test]
fn new_flows_reach_all_usable_endpoints_by_their_weight() {
    const FLOWS: u16 = 4000;
    let mut said = targets::usual();
    let service = &mut said.services[0];
    service.backends = vec![
        targets::backend("10.2.0.7", 1),
        targets::backend("10.2.0.8", 2),
        targets::backend("10.3.0.7", 3),
        Backend { terminating: true, ..targets::backend("10.2.0.9", 9) },
        Backend { draining: true, ..targets::backend("10.2.0.10", 9) },
    ];
    let key = service.key;
    let mut pair = targets::usual_pair(8192);
    pair.said(&said, How::Whole);
    let service = pair.model.tables.services.iter().position(|service| service.key == key).unwrap();
    let frames = flood_of(&pair.model, 0, service, 0..FLOWS);
    pair.packets(&frames).unwrap();
    let reached = |address: &str| {
        let flows = pair.model.flows.iter();
        flows.filter(|flow| flow.translated.dst.0 == ip(address)).count() as f64 / f64::from(FLOWS)
    };
    for (address, share) in [("10.2.0.7", 1.0 / 6.0), ("10.2.0.8", 2.0 / 6.0), ("10.3.0.7", 3.0 / 6.0)] {
        let reached = reached(address);
        assert!((reached - share).abs() < 0.03, "{address}: {reached} instead of {share}");
    }
}

#[test]
fn what_a_lost_packet_has_lent_lets_connections_without_a_place_go_on() {
    // One service's flows have all places, so that the other's find none.
    let (placed, placeless) = (3, 0);
    for (first_is_lost, seconds) in [(true, 4_000), (true, 90_000), (false, 4_000), (false, 90_000)] {
        let mut pair = targets::usual_pair(256);
        pair.packets(&flood_of(&pair.model, 0, placed, 0..256)).unwrap();
        if first_is_lost {
            pair.happen(&Event::Detach(UPLINK)).unwrap();
        }
        let first = flood_of(&pair.model, 0, placeless, 100..101);
        pair.packets(&first).unwrap();
        pair.happen(&Event::Time(seconds)).unwrap();
        // Between the same client and endpoint.
        pair.happen(&Event::Detach(UPLINK)).unwrap();
        pair.packets(&flood_of(&pair.model, 0, placeless, 101..102)).unwrap();
        pair.happen(&Event::Uplink).unwrap();
        pair.happen(&Event::Time(4_000)).unwrap();
        pair.packets(&acknowledged(first)).unwrap();
        pair.happen(&Event::Time(2)).unwrap();
        assert_eq!((pair.model.counters.stateless, pair.model.counters.answered.len()), (3, 0));
    }
}

#[test]
fn a_lost_packet_does_not_show_where_its_connection_goes() {
    let (placed, placeless) = (3, 0);
    let mut said = targets::usual();
    said.services[placeless].backends = ["10.2.0.7", "10.2.0.8"].map(|end| targets::backend(end, 1)).to_vec();
    let mut pair = targets::usual_pair(256);
    pair.said(&said, How::Whole);
    pair.packets(&flood_of(&pair.model, 0, placed, 0..256)).unwrap();
    let first = flood_of(&pair.model, 0, placeless, 100..120);
    let later = acknowledged(first.clone());
    pair.happen(&Event::Detach(UPLINK)).unwrap();
    pair.packets(&[first, later.clone()].concat()).unwrap();
    pair.happen(&Event::Uplink).unwrap();
    pair.packets(&later).unwrap();
    pair.happen(&Event::Time(2)).unwrap();
    assert_eq!((pair.model.counters.stateless, pair.model.counters.answered.len()), (60, 0));
}

/// The next packets of TCP connections over IPv4 after these first ones.
fn acknowledged(mut first: Vec<(u16, Frame)>) -> Vec<(u16, Frame)> {
    for (_, frame) in &mut first {
        frame.bytes[ETH + 20 + 13] = ACK;
    }
    first
}

/// Few enough cases for every run of the tests, unless more are asked for.
fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(128),
        max_shrink_iters: 20_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/reference/regressions.txt",
        ))),
        ..ProptestConfig::default()
    }
}
