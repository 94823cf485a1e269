//! What dies, and what goes on.

use std::time::Duration;

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Netns, wait_for};
use crate::net::{Load, Ping};
use crate::topology::{Family, Topology, cni::Cni};

pub(super) const CASES: &[Case] = &[
    Case { name: "killing_and_restarting_the_agent_loses_no_request", place: Netns, run: agent_killed },
    Case { name: "the_agent_ends_cleanly_and_traffic_goes_on", place: Netns, run: agent_stopped },
    Case {
        name: "a_pod_that_goes_while_the_agent_is_away_is_removed_later",
        place: Netns,
        run: del_while_away,
    },
    Case { name: "a_second_agent_is_refused", place: Netns, run: second_agent },
    Case { name: "a_second_fast_path_is_refused", place: Netns, run: second_fastpath },
];

/// How long the agent is away: longer than a request takes on a busy machine.
const AWAY: Duration = Duration::from_secs(3);

fn agent_killed(context: &Context) -> Outcome {
    let mut net = Topology::start(context)?;
    let loads = [
        Load::start(net.pod("client").netns(), Topology::web_address(Family::V4))?,
        Load::start(net.pod("client").netns(), Topology::web_address(Family::V6))?,
    ];
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(500));
        net.node.agent.kill()?;
        std::thread::sleep(AWAY);
        net.node.start_agent()?;
    }
    std::thread::sleep(Duration::from_millis(500));
    for load in loads {
        let tally = load.finish()?;
        tally.nothing_lost(200)?;
        ensure!(tally.slowest < AWAY, "a request took {:?}", tally.slowest);
    }
    Ok(())
}

fn agent_stopped(context: &Context) -> Outcome {
    let mut net = Topology::start(context)?;
    let status = net.node.agent.stop()?;
    ensure!(status.is_some_and(|status| status.success()), "the agent ended with {status:?}");
    ensure!(!net.node.agent.socket().exists(), "its socket is still there");
    let to = net.pod("pod-c").addresses;
    to.both().into_iter().try_for_each(|address| Ping::to(address).answered(net.pod("pod-a").netns()))
}

fn del_while_away(context: &Context) -> Outcome {
    let mut net = Topology::start(context)?;
    let ports = net.node.control()?.ports()?.len();
    net.node.agent.kill()?;
    let cni = Cni::overlay(&net.node, net.pod("pod-b"));
    let message = cni.refused("DEL")?;
    ensure!(message.contains("culvert-agent"), "the error does not say who is away: {message}");
    net.node.start_agent()?;
    // The runtime repeats a DEL that failed.
    cni.del()?;
    wait_for("the port is gone", Duration::from_secs(10), || {
        Ok((net.node.control()?.ports()?.len() + 1 == ports).then_some(()))
    })
}

fn second_agent(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    let second = net.node.run_with_config("culvert-agent", &net.node.agent.config())?;
    ensure!(!second.status.success(), "it ran");
    let socket = net.node.agent.socket().display().to_string();
    ensure!(second.stderr.contains(&socket), "the error does not name the socket:\n{}", second.stderr);
    net.node.agent.says(&["status"])?;
    Ping::to(net.pod("pod-c").addresses.v4).answered(net.pod("pod-a").netns())
}

fn second_fastpath(context: &Context) -> Outcome {
    let net = Topology::start(context)?;
    let second = net.node.run_with_config("culvert-fastpath", &context.dir().join("fastpath.yaml"))?;
    ensure!(!second.status.success(), "it ran");
    ensure!(
        second.stderr.contains("fastpath.sock"),
        "the error does not name the socket:\n{}",
        second.stderr
    );
    Ping::to(net.pod("pod-c").addresses.v4).answered(net.pod("pod-a").netns())
}
