//! The node's own way to pods and Services, and theirs to it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use culvert_api::fastpath::{Port, PortKind};
use nix::sys::signal::{Signal, kill};

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Netns, Stop, wait_for};
use crate::net::{self, Load, Ping, Process, program};
use crate::topology::{Addresses, Family, POD_PORT, Topology};

pub(super) const CASES: &[Case] = &[
    Case { name: "the_node_reaches_pods_here_and_there_and_services", place: Netns, run: reaches },
    Case { name: "pods_here_and_there_reach_the_node", place: Netns, run: is_reached },
    Case { name: "the_nodes_requests_outlive_kill_9_of_the_fast_path", place: Netns, run: killed },
    Case { name: "the_node_sends_to_pods_under_no_other_name", place: Netns, run: spoofed },
    Case {
        name: "the_host_port_comes_and_goes_and_leaves_others_routes_alone",
        place: Netns,
        run: comes_and_goes,
    },
];

/// In the agent's configuration of the overlay.
const HOST_PORT: &str = ", hostPort: { podCidrs: [10.244.0.0/16, 'fd00:244::/32'], \
                         serviceCidrs: [10.96.0.0/16, 'fd00:96::/64'] }";

/// The addresses of the port: the second of each pod range of the node.
const HOST: Addresses =
    Addresses { v4: Ipv4Addr::new(10, 244, 1, 2), v6: Ipv6Addr::new(0xfd00, 0x244, 1, 0, 0, 0, 0, 2) };

/// A pod here that is no Service's endpoint, as one that is not ready; one here that is; one on the far node.
const PODS: [&str; 3] = ["client", "pod-a", "pod-c"];

fn reaches(context: &Context) -> Outcome {
    let net = Topology::start_with(context, Family::V4, HOST_PORT)?;
    let node = net.node.netns();
    for family in Family::BOTH {
        for name in PODS {
            let to = net.pod(name).addresses.get(family);
            let reach = || {
                Ping::to(to).answered(node)?;
                Ping::to(to).unfragmented(1450).answered(node)?;
                net::http::download(node, (to, POD_PORT).into(), 1 << 20)
            };
            reach().map_err(|stop| stop.while_doing(&format!("node to {name}")))?;
        }
        for _ in 0..8 {
            net::http::download(node, Topology::web_address(family), 1 << 16)?;
        }
    }
    let port = host_port(&net)?.ok_or_else(|| Stop::fail("there is no host port"))?;
    ensure!(port.name == "culvert0" && port.owner == "node node-a", "{port:?}");
    let listed = net.node.agent.says(&["port", "list"])?;
    let line = listed.lines().find(|line| line.starts_with("culvert0")).unwrap_or_default();
    ensure!(line.contains(" host ") && line.contains("10.244.1.2 fd00:244:1::2"), "{listed}");
    Ok(())
}

fn is_reached(context: &Context) -> Outcome {
    let net = Topology::start_with(context, Family::V4, HOST_PORT)?;
    let mut command = net.node.netns().command(program("culvert-hw-tests")?);
    command.args(["serve", "--name", "the-node", "--port", "10250"]);
    let server = Process::spawn("the-node", &mut command, context.dir())?;
    wait_for("the node serves", Duration::from_secs(5), || {
        Ok(server.log().contains("serving").then_some(()))
    })?;
    for address in HOST.both() {
        for name in PODS {
            let from = net.pod(name).netns();
            let reach = || {
                Ping::to(address).answered(from)?;
                net::http::download(from, (address, 10250).into(), 1 << 20)
            };
            reach().map_err(|stop| stop.while_doing(&format!("{name} to the node")))?;
        }
    }
    Ok(())
}

fn killed(context: &Context) -> Outcome {
    let net = Topology::start_with(context, Family::V4, HOST_PORT)?;
    let node = net.node.netns();
    let to = |name: &str, family| SocketAddr::new(net.pod(name).addresses.get(family), POD_PORT);
    let loads = [
        Load::start(node, to("pod-a", Family::V4))?,
        Load::start(node, to("pod-c", Family::V6))?,
        Load::start(node, Topology::web_address(Family::V4))?,
    ];
    std::thread::sleep(Duration::from_millis(300));
    let before = net.node.forwarders()?;
    for id in &before {
        kill(*id, Signal::SIGKILL)?;
    }
    let reached: Vec<u32> = loads.iter().map(|load| load.tally().total()).collect();
    wait_for("each is answered again", Duration::from_secs(20), || {
        let again = loads.iter().zip(&reached).all(|(load, before)| load.tally().total() > before + 20);
        Ok(again.then_some(()))
    })?;
    loads.into_iter().try_for_each(|load| load.finish()?.nothing_lost(20))?;
    ensure!(net.node.forwarders()?.iter().all(|id| !before.contains(id)), "the forwarder was not killed");
    let routes = node.sh("ip route show dev culvert0")?;
    ensure!(routes.contains("10.244.0.0/16 via 10.244.1.1"), "{routes}");
    Ok(())
}

fn spoofed(context: &Context) -> Outcome {
    let net = Topology::start_with(context, Family::V4, HOST_PORT)?;
    let node = net.node.netns();
    node.ip("addr add 192.0.2.77/32 dev lo\naddr add 2001:db8::77/128 dev lo")?;
    for (family, other) in [(Family::V4, "192.0.2.77"), (Family::V6, "2001:db8::77")] {
        let to = net.pod("pod-a").addresses.get(family);
        let before = spoofs(&net)?;
        Ping::to(to).answered(node)?;
        ensure!(spoofs(&net)? == before, "what the node may send was refused");
        Ping::to(to).source(other).unanswered(node)?;
        let refused = spoofs(&net)? - before;
        ensure!(refused == 3, "{refused} packets were refused");
    }
    Ok(())
}

fn spoofs(net: &Topology) -> Outcome<u64> {
    let drops = host_port(net)?.map(|port| port.drops).unwrap_or_default();
    Ok(drops.iter().find(|drop| drop.name == "spoofed-address").map_or(0, |drop| drop.value))
}

fn comes_and_goes(context: &Context) -> Outcome {
    let mut net = Topology::configured(context, Family::V4, HOST_PORT)?;
    let routes = |net: &Topology| net.node.netns().sh("ip route show; ip -6 route show");
    // What an administrator adds is the administrator's.
    net.node.netns().ip("route add 198.51.100.0/24 dev culvert0")?;

    // Other ranges, another address.
    let other = ", hostPort: { addresses: [10.244.1.200], podCidrs: [10.244.0.0/17, 'fd00:244::/32'] }";
    restart_agent(&mut net, other)?;
    wait_for("the routes are the new ones", Duration::from_secs(10), || {
        let text = routes(&net)?;
        let new = text.contains("10.244.0.0/17 via 10.244.1.1 dev culvert0");
        Ok((new && !text.contains("10.244.0.0/16") && !text.contains("96")).then_some(()))
    })?;
    let text = routes(&net)?;
    ensure!(text.contains("198.51.100.0/24 dev culvert0"), "{text}");
    let addresses = net.node.netns().sh("ip -br addr show culvert0")?;
    ensure!(addresses.contains("10.244.1.200/32") && !addresses.contains("10.244.1.2/32"), "{addresses}");

    // What is missing is put back.
    net.node.netns().ip("link set culvert0 down")?;
    wait_for("it is up again with its routes", Duration::from_secs(30), || {
        Ok(routes(&net)?.contains("10.244.0.0/17 via 10.244.1.1 dev culvert0").then_some(()))
    })?;

    // None.
    restart_agent(&mut net, "")?;
    wait_for("the port is gone", Duration::from_secs(10), || Ok(host_port(&net)?.is_none().then_some(())))?;
    let links = net.node.netns().sh("ip -br link")?;
    ensure!(!links.contains("culvert0"), "{links}");

    // One with another's route in the way, which is left alone.
    net.node.netns().ip("link add other0 type veth peer name other1
        link set other0 up
        route add 10.244.7.0/24 dev other0")?;
    net.node.reconfigure(HOST_PORT)?;
    net.node.agent.stop()?;
    let reason = "podCidrs 10.244.0.0/16: overlaps with route 10.244.7.0/24 on other0";
    net.node.agent.start_until(|agent| Ok(agent.culvert(&["status"])?.stdout.contains(reason)))?;
    ensure!(host_port(&net)?.is_none(), "it was made all the same");
    net.node.netns().ip("link del other0")?;
    wait_for("it is there once nothing is in the way", Duration::from_secs(20), || {
        Ok(routes(&net)?.contains("10.244.0.0/16 via 10.244.1.1 dev culvert0").then_some(()))
    })
}

fn restart_agent(net: &mut Topology, overlay: &str) -> Outcome {
    net.node.reconfigure(overlay)?;
    net.node.agent.stop()?;
    net.node.start_agent()
}

fn host_port(net: &Topology) -> Outcome<Option<Port>> {
    Ok(net.node.control()?.ports()?.into_iter().find(|port| port.kind() == PortKind::Host))
}
