//! Pods and the fast path come and go under connections that go by the short cut.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use super::{
    CULVERT0, PATIENCE, PORT, Talk, check_kernel, directly, serve, start, through_the_service,
    wait_until_carried,
};
use crate::cases::restart::kill_forwarder;
use crate::ensure;
use crate::frame::{Context, Outcome, wait_for};
use crate::net::Netns;
use crate::topology::cni::Cni;
use crate::topology::{Addresses, Family, Topology};

pub(super) fn deleted(context: &Context) -> Outcome {
    let net = start(context)?;
    let client = net.pod("client").netns();
    for server in ["pod-c", "pod-b"] {
        let talk = through_the_service(&net, server)?;
        talk.meanwhile(|| {
            client.ip(&format!("link del {CULVERT0}"))?;
            wait_until_carried(client)
        })?;
    }
    Ok(())
}

pub(super) fn down(context: &Context) -> Outcome {
    let net = start(context)?;
    let client = net.pod("client").netns();
    let has_short_cut = || -> Outcome<bool> {
        let ports = net.node.control()?.ports()?;
        Ok(ports.iter().any(|port| port.owner == "default/client" && port.short_cut))
    };
    for server in ["pod-c", "pod-b"] {
        let talk = through_the_service(&net, server)?;
        client.ip(&format!("link set {CULVERT0} down"))?;
        talk.exchange(1 << 20).map_err(|stop| stop.while_doing("talking while it is down"))?;
        wait_for(
            "the port is told of without short cut",
            PATIENCE,
            || Ok((!has_short_cut()?).then_some(())),
        )?;
        client.ip(&format!("link set {CULVERT0} up"))?;
        talk.meanwhile(|| wait_until_carried(client))?;
        ensure!(has_short_cut()?, "the port has no short cut");
    }
    Ok(())
}

pub(super) fn attached_again(context: &Context) -> Outcome {
    let net = start(context)?;
    let (client, pod) = (net.pod("client").netns(), net.pod("pod-a"));
    let pods = ["pod-a", "pod-b", "client"];
    wait_for("all pods have their short cut", PATIENCE, || {
        Ok((of_the_short_cut(net.node.netns())?.len() == pods.len()).then_some(()))
    })?;
    let talk = Talk::open(client, directly(&net, "pod-a"), pod.netns())?;
    talk.exchange_by_the_short_cut(1 << 20, &[client, pod.netns()])?;
    let cni = Cni::overlay(&net.node, pod);
    cni.del()?;
    let left = of_the_short_cut(pod.netns())?;
    ensure!(left.is_empty(), "a pod that is detached has {left:?}");
    let address = Addresses::of_result(&cni.add()?)?.v4;
    let talk = Talk::open(client, (address, PORT).into(), pod.netns())?;
    talk.exchange_by_the_short_cut(1 << 20, &[client, pod.netns()])?;
    let ends = (of_the_short_cut(pod.netns())?, of_the_short_cut(net.node.netns())?);
    ensure!(ends.0 == [CULVERT0] && ends.1.len() == pods.len(), "in the pod and the node: {ends:?}");
    Ok(())
}

/// Kills what forwards at the first node, and waits for the next.
pub(super) fn restart(net: &Topology) -> Outcome {
    let before = net.node.forwarders()?;
    kill_forwarder(net)?;
    wait_for("the fast path is there again", PATIENCE, || {
        let now = net.node.forwarders()?;
        Ok((!now.is_empty() && before.iter().all(|id| !now.contains(id))).then_some(()))
    })
}

pub(super) fn still(context: &Context) -> Outcome {
    check_kernel()?;
    let net = Topology::start_by_veth(context, "hangSeconds: 0\n")?;
    let client = net.pod("client").netns();
    let talks = [Talk::open(client, directly(&net, "pod-b"), net.pod("pod-b").netns())?, {
        serve(&net, &["pod-c"], PORT)?;
        Talk::open(client, Topology::web_address(Family::V4), net.pod("pod-c").netns())?
    }];
    for talk in &talks {
        talk.take_the_short_cut(client)?;
    }
    let interfaces = of_the_short_cut(net.node.netns())?;
    for id in net.node.forwarders()? {
        kill(id, Signal::SIGSTOP)?;
    }
    // Long enough for all that would have to be done from time to time.
    for _ in 0..10 {
        for talk in &talks {
            talk.exchange_by_the_short_cut(1 << 20, &[client])?;
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    restart(&net)?;
    for talk in &talks {
        talk.take_the_short_cut(client)?;
        talk.exchange_by_the_short_cut(1 << 20, &[client])?;
    }
    let now = of_the_short_cut(net.node.netns())?;
    ensure!(now == interfaces, "{interfaces:?} have become {now:?}");
    Ok(())
}

pub(super) fn killed(context: &Context, server: &str) -> Outcome {
    let net = start(context)?;
    let talk = through_the_service(&net, server)?;
    talk.meanwhile(|| {
        // Not a third time: what has killed it so soon would be in the flows, which the fast path would forget.
        for _ in 0..2 {
            restart(&net)?;
            wait_until_carried(net.pod("client").netns())?;
        }
        Ok(())
    })?;
    // Nothing of those before is left.
    for name in ["pod-a", "pod-b", "client"] {
        let netns = net.pod(name).netns();
        wait_for(&format!("{name} has one way to the short cut"), PATIENCE, || {
            Ok((of_the_short_cut(netns)? == [CULVERT0]).then_some(()))
        })?;
    }
    wait_for("the agent knows that it was killed twice", PATIENCE, || {
        let status = net.node.agent.culvert(&["status"])?.stdout;
        Ok(status.contains("restarted 2 time(s), last: killed by SIGKILL").then_some(()))
    })
}

pub(super) fn off(context: &Context) -> Outcome {
    check_kernel()?;
    let net = Topology::start_by_veth(context, "shortCut: off\n")?;
    serve(&net, &["pod-c"], PORT)?;
    let (client, server) = (net.pod("client").netns(), net.pod("pod-c").netns());
    let talk = Talk::open(client, Topology::web_address(Family::V4), server)?;
    talk.exchange(1 << 20)?;
    // Several times as long as it takes where it is on.
    std::thread::sleep(Duration::from_secs(1));
    talk.exchange(1 << 20)?;
    for netns in [client, net.pod("pod-a").netns(), net.node.netns()] {
        let there = of_the_short_cut(netns)?;
        ensure!(there.is_empty(), "{}: {there:?}", netns.name());
    }
    Ok(())
}

/// The interfaces of the short cut in a pod, or in the node.
fn of_the_short_cut(netns: &Netns) -> Outcome<Vec<String>> {
    let names = netns.sh("ls /sys/class/net")?;
    Ok(names.split_whitespace().filter(|name| name.starts_with("culvert")).map(str::to_owned).collect())
}
