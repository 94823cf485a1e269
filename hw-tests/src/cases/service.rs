//! A Service over four pods, two here and two on the far node.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Netns, wait_for};
use crate::net::{self, Load};
use crate::topology::{BACKENDS, Family, Topology};

pub(super) const CASES: &[Case] = &[
    Case { name: "every_backend_answers_over_tcp_and_udp", place: Netns, run: all_answer },
    Case { name: "a_backend_reaches_itself_through_the_service", place: Netns, run: hairpin },
    Case { name: "a_download_through_the_service_arrives_unchanged", place: Netns, run: download },
    Case { name: "an_endpoint_that_goes_gets_nothing_within_a_second", place: Netns, run: removal },
    Case { name: "a_service_without_endpoints_refuses_at_once", place: Netns, run: refuses },
    Case { name: "tables_change_under_traffic_and_nothing_is_lost", place: Netns, run: tables_change },
];

fn all_answer(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    let client = net.pod("client").netns();
    for family in Family::BOTH {
        let to = Topology::web_address(family);
        expect_all(&format!("TCP {to}"), || net::http::name(client, to))?;
        expect_all(&format!("UDP {to}"), || net::udp::name(client, to, 100))?;
    }
    Ok(())
}

/// A hundred requests, none of which fails, and each backend has its share.
fn expect_all(what: &str, ask: impl Fn() -> Outcome<String>) -> Outcome {
    let mut answers: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..100 {
        *answers.entry(ask()?).or_default() += 1;
    }
    let missing: Vec<&str> = BACKENDS.into_iter().filter(|name| !answers.contains_key(*name)).collect();
    ensure!(missing.is_empty() && answers.len() == BACKENDS.len(), "{what}: {answers:?}");
    Ok(())
}

fn hairpin(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    for family in Family::BOTH {
        let to = Topology::web_address(family);
        wait_for(&format!("pod-a answers itself through {to}"), Duration::from_secs(10), || {
            Ok((net::http::name(net.pod("pod-a").netns(), to)? == "pod-a").then_some(()))
        })?;
    }
    Ok(())
}

fn download(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    for family in Family::BOTH {
        for _ in 0..8 {
            let to = Topology::web_address(family);
            net::http::download(net.pod("client").netns(), to, 1 << 20)?;
        }
    }
    Ok(())
}

fn removal(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    let load = Load::start(net.pod("client").netns(), Topology::web_address(Family::V4))?;
    wait_for("every backend has answered", Duration::from_secs(10), || {
        Ok((load.tally().answers.len() == BACKENDS.len()).then_some(()))
    })?;
    for gone in ["pod-d", "pod-b"] {
        let rest: Vec<&str> = BACKENDS.into_iter().filter(|name| *name != gone).collect();
        let start = Instant::now();
        net.node.manifests.endpoints(&net.web(&rest))?;
        std::thread::sleep(Duration::from_millis(1500));
        let last = load.tally().last[gone];
        let after = last.saturating_duration_since(start);
        ensure!(after < Duration::from_secs(1), "{gone} still answered {after:?} after it was removed");
        net.node.manifests.endpoints(&net.web(&BACKENDS))?;
        wait_for(&format!("{gone} answers again"), Duration::from_secs(2), || {
            Ok((load.tally().last[gone] > last).then_some(()))
        })?;
    }
    load.finish()?.nothing_lost(100)
}

fn refuses(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    net.node.manifests.endpoints(&net.web(&[]))?;
    net.wait_for_backends(0)?;
    for family in Family::BOTH {
        let start = Instant::now();
        let answer = net::http::name(net.pod("client").netns(), Topology::web_address(family));
        let took = start.elapsed();
        ensure!(answer.is_err(), "{answer:?} answered although there is no endpoint");
        ensure!(took < Duration::from_millis(500), "the client learned of it after {took:?} only");
    }
    Ok(())
}

fn tables_change(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    let load = Load::start(net.pod("client").netns(), Topology::web_address(Family::V4))?;
    let start = Instant::now();
    let mut changes = 0;
    while start.elapsed() < Duration::from_secs(3) {
        // Endpoints come and go, always two of them; the pods themselves stay.
        let pair = [BACKENDS[changes % 4], BACKENDS[(changes + 1) % 4]];
        net.node.manifests.endpoints(&net.web(&pair))?;
        std::thread::sleep(Duration::from_millis(20));
        changes += 1;
    }
    let tally = load.finish()?;
    tally.nothing_lost(100)?;
    ensure!(tally.answers.len() == BACKENDS.len(), "only {:?} answered", tally.answers);
    Ok(())
}
