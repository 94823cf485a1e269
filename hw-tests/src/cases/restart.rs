//! The fast path dies, and connections go on.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Netns, note, wait_for};
use crate::net::{Load, pattern};
use crate::topology::{Family, Topology};

pub(super) const CASES: &[Case] = &[
    Case { name: "a_download_from_a_remote_pod_outlives_kill_9_of_the_fast_path", place: Netns, run: killed },
    Case { name: "the_fast_path_forwards_again_before_the_agent_is_back", place: Netns, run: without_agent },
    Case { name: "an_upgrade_of_the_fast_path_loses_no_request", place: Netns, run: upgraded },
];

/// Longest time without a byte that is no mistake: much more than it takes, for machines that are busy.
const GAP: Duration = Duration::from_secs(3);

/// Far more than can be under way when the fast path is killed.
const BYTES: usize = 200 << 20;

fn killed(context: &Context) -> Outcome {
    let net = remote_only(context)?;
    for family in [Family::V4, Family::V6] {
        let gap = download(&net, Topology::web_address(family), || kill_forwarder(&net))?;
        note(&format!("longest time without a byte: {} ms", gap.as_millis()));
        ensure!(gap < GAP, "no byte for {gap:?}");
    }
    let status = net.node.agent.says(&["status"])?;
    ensure!(
        status.contains("restarted 2 time(s), last: killed by SIGKILL"),
        "the agent does not tell:\n{status}"
    );
    Ok(())
}

fn without_agent(context: &Context) -> Outcome {
    let mut net = remote_only(context)?;
    net.node.agent.kill()?;
    let gap = download(&net, Topology::web_address(Family::V4), || kill_forwarder(&net))?;
    ensure!(gap < GAP, "no byte for {gap:?}");
    let load = Load::start(net.pod("client").netns(), Topology::web_address(Family::V4))?;
    std::thread::sleep(Duration::from_millis(300));
    net.node.start_agent()?;
    std::thread::sleep(Duration::from_millis(300));
    load.finish()?.nothing_lost(20)
}

fn upgraded(context: &Context) -> Outcome {
    let net = remote_only(context)?;
    let load = Load::start(net.pod("client").netns(), Topology::web_address(Family::V4))?;
    let before = net.node.forwarders()?;
    download(&net, Topology::web_address(Family::V6), || {
        net.node.signal_fastpath(Signal::SIGHUP)?;
        wait_for("the one before has ended", Duration::from_secs(20), || {
            let now = net.node.forwarders()?;
            Ok(before.iter().all(|id| !now.contains(id)).then_some(()))
        })
    })?;
    load.finish()?.nothing_lost(100)
}

/// Everything started, and the Service over the pods of the kernel's node alone.
fn remote_only(context: &Context) -> Outcome<Topology> {
    let net = Topology::start(context)?;
    let remote = ["pod-c", "pod-d"];
    net.node.manifests.service(&net.web(&remote))?;
    net.wait_for_backends(remote.len())?;
    Ok(net)
}

pub(super) fn kill_forwarder(net: &Topology) -> Outcome {
    for id in net.node.forwarders()? {
        kill(id, Signal::SIGKILL)?;
    }
    Ok(())
}

/// Downloads many bytes, compares each, and does something in the midst. Returns the longest time without a byte.
fn download(net: &Topology, from: SocketAddr, meanwhile: impl FnOnce() -> Outcome) -> Outcome<Duration> {
    let netns = net.pod("client").netns();
    let mut stream = netns.run(|| TcpStream::connect_timeout(&from, Duration::from_secs(10)))??;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET /bytes/{BYTES} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let expected: Vec<u8> = pattern(BYTES);
    let (mut at, mut buffer, mut meanwhile) = (0, vec![0; 1 << 16], Some(meanwhile));
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    loop {
        let read = stream.read(&mut buffer)?;
        longest = longest.max(last.elapsed());
        if read == 0 {
            break;
        }
        ensure!(
            expected.get(at..at + read) == Some(&buffer[..read]),
            "bytes from {at} on changed on the way"
        );
        at += read;
        if at > BYTES / 8
            && let Some(meanwhile) = meanwhile.take()
        {
            meanwhile()?;
        }
        last = Instant::now();
    }
    ensure!(at == BYTES, "the download ended after {at} of {BYTES} bytes");
    Ok(longest)
}
