//! Configuration that makes no sense, and machines that lack something.

use std::path::PathBuf;
use std::time::Duration;

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Netns, wait_for};
use crate::net::{self, Process, program, run};

pub(super) const CASES: &[Case] = &[
    Case { name: "a_bad_configuration_is_refused_by_key_and_value", place: Netns, run: bad_configs },
    Case { name: "too_few_hugepages_are_told_with_what_to_do", place: Netns, run: too_few_hugepages },
    Case { name: "the_fast_path_needs_no_hugetlbfs_mount", place: Netns, run: no_hugetlbfs },
    Case { name: "programs_without_permission_say_so", place: Netns, run: no_permission },
];

/// Program, configuration, and what its error must name.
const BAD: [(&str, &str, &[&str]); 7] = [
    ("culvert-agent", "nod: node-a\n", &["nod", "line 1"]),
    ("culvert-agent", "overlay: { vni: 16777216 }\n", &["16777216"]),
    (
        "culvert-agent",
        "nic: { pfs: [{ pf: 0000:03:00.0, vfs: 4, vlan: 5000 }] }\n",
        &["0000:03:00.0", "5000"],
    ),
    ("culvert-agent", "node: [\n", &["line"]),
    ("culvert-fastpath", "workers: []\nuplink: { tap: { name: cvup0 } }\n", &["workers"]),
    ("culvert-fastpath", "uplink: { tap: { name: much-too-long-a-name } }\n", &["much-too-long-a-name"]),
    (
        "culvert-fastpath",
        "memory: { megabytes: 1 }\nuplink: { tap: { name: cvup0 } }\n",
        &["memory.megabytes", "1"],
    ),
];

fn bad_configs(context: &Context) -> Outcome {
    let netns = net::Netns::create("bad")?;
    for (name, text, named) in BAD {
        let config = context.file("bad.yaml", text)?;
        let ran = run(netns.command("timeout").arg("20").arg(program(name)?).arg("--config").arg(&config))?;
        ensure!(
            matches!(ran.status.code(), Some(1 | 2)),
            "{name} with {text:?}: {}\n{}",
            ran.status,
            ran.stderr
        );
        for word in named.iter().copied().chain(["bad.yaml"]) {
            ensure!(ran.stderr.contains(word), "{name} with {text:?} does not name {word}:\n{}", ran.stderr);
        }
        ensure!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    }
    Ok(())
}

/// A fast path that wants `megabytes` of hugepages.
fn fastpath(context: &Context, megabytes: u32) -> Outcome<PathBuf> {
    let text = format!(
        "socket: {}/s\nmemory: {{ hugepages: required, megabytes: {megabytes}, mbufs: 2048 }}\n\
         uplink: {{ tap: {{ name: cvup0 }} }}\n",
        context.dir().display()
    );
    context.file("fastpath.yaml", &text)
}

fn too_few_hugepages(context: &Context) -> Outcome {
    let config = fastpath(context, 1 << 20)?;
    let netns = net::Netns::create("bare")?;
    let path = program("culvert-fastpath")?;
    let ran = run(netns.command("timeout").arg("20").arg(path).arg("--config").arg(config))?;
    ensure!(ran.status.code() == Some(1), "{}\n{}", ran.status, ran.stderr);
    let says = ran.stderr.contains("hugepages") && ran.stderr.contains("nr_hugepages");
    ensure!(says, "it does not say what is missing, and how to get it:\n{}", ran.stderr);
    Ok(())
}

fn no_hugetlbfs(context: &Context) -> Outcome {
    let config = fastpath(context, 64)?;
    let netns = net::Netns::create("bare")?;
    let path = program("culvert-fastpath")?;
    let script = format!("umount -a -t hugetlbfs; exec {} --config {}", path.display(), config.display());
    let mut command = netns.command("unshare");
    let mut process =
        Process::spawn("fastpath", command.args(["--mount", "sh", "-c", &script]), context.dir())?;
    wait_for("it serves", Duration::from_secs(10), || {
        process.check_alive()?;
        Ok(process.log().contains("ready").then_some(()))
    })?;
    let status = process.stop()?;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

fn no_permission(context: &Context) -> Outcome {
    let socket = context.dir().join("s").display().to_string();
    let fastpath = fastpath(context, 64)?;
    let state = context.dir().join("state").display().to_string();
    let agent = context.file("agent.yaml", &format!("node: a\nsocket: {socket}\nstateDir: {state}\n"))?;
    let netns = net::Netns::create("weak")?;
    for (name, config) in [("culvert-fastpath", fastpath), ("culvert-agent", agent)] {
        // Still root by number, so that files can be read: what is missing is every capability.
        let mut command = netns.command("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all", "timeout", "20"]);
        let ran = run(command.arg(program(name)?).arg("--config").arg(config))?;
        ensure!(ran.status.code() == Some(1), "{name}: {}\n{}", ran.status, ran.stderr);
        let says = ["ermission", "ot permitted", "CAP_", "root"].iter().any(|word| ran.stderr.contains(word));
        ensure!(says, "{name} does not say that it lacks permission:\n{}", ran.stderr);
    }
    Ok(())
}
