//! Who gets new flows: Services that say so, and clients that keep their endpoint.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::time::Duration;

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Netns, wait_for};
use crate::net;
use crate::topology::manifest::Service;
use crate::topology::{BACKENDS, Family, Topology};

pub(super) const CASES: &[Case] = &[
    Case { name: "round_robin_asks_each_backend_in_turn", place: Netns, run: round_robin },
    Case { name: "least_flow_levels_open_connections", place: Netns, run: least_flow },
    Case { name: "a_client_keeps_its_backend_until_the_timeout", place: Netns, run: affinity },
];

/// The Service "web", spread in this way, with the affinity of this many seconds; and all of it in force.
fn start(context: &Context, balancing: &'static str, affinity: u32) -> Outcome<Topology> {
    let net = Topology::start(context)?;
    let web = Service { balancing: Some(balancing), affinity, ..net.web(&BACKENDS) };
    net.node.manifests.service(&web)?;
    wait_for("the Service is as it was written", Duration::from_secs(5), || {
        let services = net.node.control()?.services()?;
        let said = format!("BALANCING_{}", balancing.replace('-', "_").to_uppercase());
        let follows =
            services.iter().all(|s| s.balancing().as_str_name() == said && s.affinity_seconds == affinity);
        Ok(follows.then_some(()))
    })?;
    Ok(net)
}

fn round_robin(context: &Context) -> Outcome {
    let net = start(context, "round-robin", 0)?;
    let client = net.pod("client").netns();
    for family in Family::BOTH {
        let to = Topology::web_address(family);
        let mut answers: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..20 {
            *answers.entry(net::http::name(client, to)?).or_default() += 1;
        }
        ensure!(answers.len() == 4 && answers.values().all(|count| *count == 5), "{to}: {answers:?}");
    }
    Ok(())
}

fn least_flow(context: &Context) -> Outcome {
    let net = start(context, "least-flow", 0)?;
    for family in Family::BOTH {
        let to = Topology::web_address(family);
        let client = net.pod("client").netns();
        let connect = |count: usize| -> Outcome<Vec<TcpStream>> {
            let one = |_| TcpStream::connect_timeout(&to, Duration::from_secs(5));
            Ok(client.run(|| (0..count).map(one).collect::<Result<_, _>>())??)
        };
        let mut streams = connect(12)?;
        expect_flows(&net, family, [3; 4])?;
        // Who closes makes room for others.
        streams.truncate(5);
        wait_for("the fast path has seen that connections were closed", Duration::from_secs(5), || {
            Ok((flows(&net, family)?.iter().sum::<u32>() == 5).then_some(()))
        })?;
        streams.extend(connect(7)?);
        expect_flows(&net, family, [3; 4])?;
    }
    Ok(())
}

/// Open flows of the backends of "web" over TCP.
fn flows(net: &Topology, family: Family) -> Outcome<Vec<u32>> {
    let to = Topology::web_address(family);
    let statuses = net.node.control()?.service_statuses()?;
    let ours = statuses.into_iter().find(|status| {
        let service = status.service.as_ref();
        service.is_some_and(|s| s.port_name == "http" && (s.vip.len() == 4) == to.is_ipv4())
    });
    Ok(ours.map(|status| status.backend_flows).unwrap_or_default())
}

fn expect_flows(net: &Topology, family: Family, expected: [u32; 4]) -> Outcome {
    let flows = flows(net, family)?;
    ensure!(flows == expected, "{flows:?} open flows, expected {expected:?}");
    Ok(())
}

fn affinity(context: &Context) -> Outcome {
    const SECONDS: u32 = 3;
    // In turn, so that a client that does not keep its backend gets another.
    let net = start(context, "round-robin", SECONDS)?;
    let client = net.pod("client").netns();
    for family in Family::BOTH {
        let to = Topology::web_address(family);
        let first = net::http::name(client, to)?;
        // Over both ports, and for longer than the timeout in all.
        for _ in 0..8 {
            std::thread::sleep(Duration::from_millis(600));
            let (tcp, udp) = (net::http::name(client, to)?, net::udp::name(client, to, 100)?);
            ensure!(tcp == first && udp == first, "{to}: {first} first, then {tcp} and {udp}");
        }
        std::thread::sleep(Duration::from_secs(u64::from(SECONDS) + 4));
        let later = net::http::name(client, to)?;
        ensure!(later != first, "{to}: {first} even after the timeout");
        // An endpoint that goes takes its clients' affinity along.
        let rest: Vec<&str> = BACKENDS.into_iter().filter(|name| *name != later).collect();
        net.node.manifests.endpoints(&net.web(&rest))?;
        net.wait_for_backends(rest.len())?;
        let next = net::http::name(client, to)?;
        ensure!(next != later, "{to}: {later} although it is gone");
        ensure!(net::http::name(client, to)? == next, "{to}: not {next} again");
        net.node.manifests.endpoints(&net.web(&BACKENDS))?;
        net.wait_for_backends(BACKENDS.len())?;
        ensure!(net::http::name(client, to)? == next, "{to}: not {next} once there are more");
    }
    Ok(())
}
