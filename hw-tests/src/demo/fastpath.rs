//! The fast path: overlay to a node that is only the kernel, and a Service over pods of both.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use super::Show;
use crate::ensure;
use crate::frame::{Context, Outcome, Stop, wait_for};
use crate::net::{self, Load, Netns, Ping, pattern};
use crate::topology::{BACKENDS, CLUSTER_IP, Family, POD_PORT, Topology};

/// Requests for each family.
const REQUESTS: u32 = 100;
/// Size of the download.
const MEGABYTE: usize = 1 << 20;

pub(super) fn show(show: &mut Show) -> Outcome {
    show.heading(
        "Fast path: this node runs culvert-agent and culvert-fastpath, the far one is only the kernel",
    );
    let context = Context::new()?;
    let net = Topology::start(&context).map_err(|stop| with_logs(&stop, &context))?;
    introduce(show, &net)?;
    for (family, name) in [(Family::V4, "IPv4"), (Family::V6, "IPv6")] {
        show.heading(&format!("A Service over {name}"));
        show.check(
            &format!("{REQUESTS} requests to the ClusterIP, {name}: every backend answers, none fails"),
            |show| requests(show, &net, family),
        );
        show.check(&format!("UDP to the ClusterIP, {name}: every backend answers"), |_| {
            datagrams(&net, family)
        });
        show.heading(&format!("Pod to pod across the overlay over {name}"));
        show.check(&format!("ping to a pod of the far node, {name}"), |show| ping(show, &net, family));
        show.check(&format!("download of 1 MB from the far node, {name}: unchanged"), |show| {
            download(show, &net, family, &context)
        });
    }
    show.heading("An endpoint goes");
    show.check("a removed endpoint gets nothing after a second, and no request fails from then on", |show| {
        removal(show, &net)
    });
    show.heading("The agent dies");
    let mut net = net;
    show.check("killing the agent and starting it again loses no request", |show| agent_dies(show, &mut net));
    show.heading("What the node says of itself");
    for arguments in [&["port", "list"][..], &["service", "list"], &["status"]] {
        show.say(&format!("$ culvert {}", arguments.join(" ")));
        net.node.agent.says(arguments)?.lines().for_each(|line| show.say(line));
    }
    Ok(())
}

fn introduce(show: &Show, net: &Topology) -> Outcome {
    let info = net.node.control()?.info()?;
    show.say(&format!(
        "culvert-fastpath {} with {} worker, {} packet buffers",
        info.version, info.workers, info.mbufs_total
    ));
    for name in BACKENDS.into_iter().chain(["client"]) {
        let pod = net.pod(name);
        let at = if ["pod-c", "pod-d"].contains(&name) {
            "far node, veth and kernel VXLAN"
        } else {
            "this node, attached by culvert-cni"
        };
        show.say(&format!("{name:<7} {:<13} {:<16} {at}", pod.addresses.v4, pod.addresses.v6));
    }
    show.say(&format!(
        "Service default/web: {} and {}, port 80, over the four pods",
        CLUSTER_IP.v4, CLUSTER_IP.v6
    ));
    Ok(())
}

fn requests(show: &Show, net: &Topology, family: Family) -> Outcome<String> {
    let url = format!("http://{}/", Topology::web_address(family));
    show.say(&format!("$ curl {url}     # {REQUESTS} times, from pod client"));
    let mut answers: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..REQUESTS {
        let name = net::run(&mut curl(net.pod("client").netns(), &[&url]))?.success()?;
        *answers.entry(name.trim().to_owned()).or_default() += 1;
    }
    all_answered(&answers)
}

fn datagrams(net: &Topology, family: Family) -> Outcome<String> {
    let mut answers: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..REQUESTS {
        let name = net::udp::name(net.pod("client").netns(), Topology::web_address(family), 100)?;
        *answers.entry(name).or_default() += 1;
    }
    all_answered(&answers)
}

fn all_answered(answers: &BTreeMap<String, u32>) -> Outcome<String> {
    let text: Vec<String> = answers.iter().map(|(name, count)| format!("{name} {count}")).collect();
    ensure!(answers.keys().eq(BACKENDS.iter()), "answers came from {}", text.join(", "));
    Ok(text.join(", "))
}

fn ping(show: &Show, net: &Topology, family: Family) -> Outcome<String> {
    let to = net.pod("pod-c").addresses.get(family);
    show.say(&format!("$ ping -c 3 {to}     # from pod-a to pod-c"));
    let pong = Ping::to(to).from(net.pod("pod-a").netns())?;
    ensure!(pong.received == pong.sent, "{}", pong.text);
    let times = pong.text.lines().last().unwrap_or_default().to_owned();
    show.say(&times);
    Ok(times)
}

fn download(show: &Show, net: &Topology, family: Family, context: &Context) -> Outcome<String> {
    let to = std::net::SocketAddr::new(net.pod("pod-d").addresses.get(family), POD_PORT);
    let url = format!("http://{to}/bytes/{MEGABYTE}");
    let file = context.dir().join("download");
    show.say(&format!("$ curl -o download {url}     # from pod-b to pod-d"));
    let start = Instant::now();
    let path = file.display().to_string();
    net::run(&mut curl(net.pod("pod-b").netns(), &["-o", &path, &url]))?.success()?;
    let took = start.elapsed();
    ensure!(std::fs::read(&file)? == pattern(MEGABYTE), "what arrived is not what was sent");
    Ok(format!("{MEGABYTE} bytes in {:.2} s", took.as_secs_f32()))
}

fn removal(show: &Show, net: &Topology) -> Outcome<String> {
    let load = Load::start(net.pod("client").netns(), Topology::web_address(Family::V4))?;
    wait_for("every backend answers", Duration::from_secs(10), || {
        Ok((load.tally().answers.len() == BACKENDS.len()).then_some(()))
    })?;
    show.say("pod-d is taken out of the EndpointSlice in the folder, while requests go on");
    let start = Instant::now();
    net.node.manifests.endpoints(&net.web(&BACKENDS[..3]))?;
    std::thread::sleep(Duration::from_secs(2));
    let tally = load.finish()?;
    tally.lost_at_most(1, start + Duration::from_secs(1))?;
    let last = tally.last["pod-d"].saturating_duration_since(start);
    ensure!(last < Duration::from_secs(1), "pod-d answered for another {last:?}");
    net.node.manifests.endpoints(&net.web(&BACKENDS))?;
    net.wait_for_backends(BACKENDS.len())?;
    Ok(format!("its last answer came {} ms after the change", last.as_millis()))
}

fn agent_dies(show: &Show, net: &mut Topology) -> Outcome<String> {
    let load = Load::start(net.pod("client").netns(), Topology::web_address(Family::V6))?;
    std::thread::sleep(Duration::from_millis(300));
    show.say("$ kill -9 culvert-agent");
    net.node.agent.kill()?;
    std::thread::sleep(Duration::from_secs(1));
    show.say("$ culvert-agent &");
    net.node.start_agent()?;
    std::thread::sleep(Duration::from_secs(1));
    let tally = load.finish()?;
    tally.nothing_lost(100)?;
    Ok(format!("{} requests, the slowest took {} ms", tally.total(), tally.slowest.as_millis()))
}

fn curl(netns: &Netns, arguments: &[&str]) -> Command {
    let mut command = netns.command("curl");
    // --globoff: an IPv6 address in brackets is no pattern.
    command.args(["--silent", "--show-error", "--fail", "--globoff", "--max-time", "5"]).args(arguments);
    command
}

fn with_logs(stop: &Stop, context: &Context) -> Stop {
    Stop::fail(format!("{}\n{}", stop.text(), context.logs()))
}
