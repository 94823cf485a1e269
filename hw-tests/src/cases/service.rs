//! A Service over four pods, two here and two on the far node.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Netns, Stop, wait_for};
use crate::net::{self, Load};
use crate::topology::manifest::Service;
use crate::topology::{Addresses, BACKENDS, Family, POD_PORT, Topology};

pub(super) const CASES: &[Case] = &[
    Case { name: "every_backend_answers_over_tcp_and_udp", place: Netns, run: all_answer },
    Case { name: "datagrams_longer_than_the_mtu_pass_in_fragments", place: Netns, run: fragments },
    Case { name: "a_backend_reaches_itself_through_the_service", place: Netns, run: hairpin },
    Case {
        name: "a_port_used_through_the_service_serves_the_backend_itself_next",
        place: Netns,
        run: port_again,
    },
    Case {
        name: "a_port_serves_the_service_and_the_backend_itself_at_once_whichever_comes_first",
        place: Netns,
        run: port_twice,
    },
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

fn fragments(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    let client = net.pod("client").netns();
    for family in Family::BOTH {
        let to = Topology::web_address(family);
        // Both ways: the answer is as long as the question.
        expect_all(&format!("8000 bytes over UDP to {to}"), || net::udp::name(client, to, 8000))?;
        for name in BACKENDS {
            let to = (net.pod(name).addresses.get(family), POD_PORT).into();
            let answer = net::udp::name(client, to, 20_000)?;
            ensure!(answer == name, "{answer} answered for {name}");
        }
    }
    Ok(())
}

/// The virtual address of a Service beside the one that traffic goes to.
const OTHER_IP: Addresses =
    Addresses { v4: Ipv4Addr::new(10, 96, 0, 11), v6: Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x11) };

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

/// To the backend both connections look alike, and the answers to the second must not be taken for the first one's.
fn port_again(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    let client = net.pod("client").netns();
    for family in Family::BOTH {
        for port in 40_000..40_004 {
            let name = net::http::name_from(client, port, Topology::web_address(family))?;
            let backend = (net.pod(&name).addresses.get(family), POD_PORT).into();
            let answer = net::http::name_from(client, port, backend)?;
            ensure!(answer == name, "{answer} answered for {name}");
        }
    }
    Ok(())
}

fn port_twice(context: &Context) -> Outcome {
    use net::http::{connect_from, name_from, name_over};
    let net = Topology::start(context)?;
    let client = net.pod("client").netns();
    for family in Family::BOTH {
        let web = Topology::web_address(family);
        let itself = |name| (net.pod(name).addresses.get(family), POD_PORT).into();
        let is_of = |name: &str, answer: String| {
            ensure!(answer == name, "{answer} answered for {name}");
            Ok(())
        };
        for port in 41_000..41_004 {
            let through = connect_from(client, port, web)?;
            // One of them has got that connection.
            for name in BACKENDS {
                is_of(name, name_from(client, port, itself(name))?)?;
            }
            name_over(through)?;
        }
        let mut alike = 0;
        for port in 42_000..42_064 {
            let directly = connect_from(client, port, itself("pod-c"))?;
            // The Service chooses that one for a quarter of all ports.
            alike += u32::from(name_from(client, port, web)? == "pod-c");
            is_of("pod-c", name_over(directly)?)?;
            if alike == 2 {
                break;
            }
        }
        ensure!(alike > 0, "the Service has never chosen pod-c");
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
        net.node.manifests.endpoints(&net.web(&rest))?;
        net.wait_for_backends(rest.len())?;
        // For what is under way, even if there is no CPU for it just now.
        let settled = Instant::now() + Duration::from_secs(1);
        std::thread::sleep(Duration::from_secs(2));
        let tally = load.tally();
        let last = tally.last[gone];
        let late = last.saturating_duration_since(settled);
        ensure!(late.is_zero(), "{gone} still answered {late:?} after all had settled");
        tally.lost_at_most(1, settled)?;
        net.node.manifests.endpoints(&net.web(&BACKENDS))?;
        wait_for(&format!("{gone} answers again"), Duration::from_secs(10), || {
            Ok((load.tally().last[gone] > last).then_some(()))
        })?;
    }
    ensure!(load.finish()?.total() > 100, "hardly anything was asked");
    Ok(())
}

fn refuses(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    net.node.manifests.endpoints(&net.web(&[]))?;
    net.wait_for_backends(0)?;
    for family in Family::BOTH {
        let answer = net::http::name(net.pod("client").netns(), Topology::web_address(family));
        // And not that nobody has answered for long.
        let refused = answer.as_ref().is_err_and(|stop| stop.text().contains("refused"));
        ensure!(refused, "although there is no endpoint: {answer:?}");
    }
    Ok(())
}

fn tables_change(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    let load = Load::start(net.pod("client").netns(), Topology::web_address(Family::V4))?;
    let client = net.pod("client").netns();
    let download = std::thread::scope(|scope| {
        // One connection that lives through all changes, and many short ones beside it.
        let download =
            scope.spawn(|| net::http::download(client, Topology::web_address(Family::V6), 64 << 20));
        let mut other = Service { name: "other".to_owned(), cluster_ip: OTHER_IP, ..net.web(&BACKENDS) };
        let mut changes = 0;
        while changes < 100 && !download.is_finished() || changes < 20 {
            other.backends.rotate_left(1);
            other.backends.truncate(1 + changes % 4);
            net.node.manifests.service(&other)?;
            std::thread::sleep(Duration::from_millis(20));
            other.backends = net.web(&BACKENDS).backends;
            changes += 1;
        }
        download.join().unwrap_or_else(|_| Err(Stop::fail("the client panicked")))
    });
    download?;
    let tally = load.finish()?;
    tally.nothing_lost(50)?;
    ensure!(tally.answers.len() == BACKENDS.len(), "only {:?} answered", tally.answers);
    Ok(())
}
