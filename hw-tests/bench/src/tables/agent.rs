//! The agent's part of a change: culvert-agent reads Kubernetes objects from files, of which one is replaced.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use culvert_host::fake::FakeHost;
use culvert_hw_tests::net::program;
use serde::Deserialize;
use tempfile::TempDir;

use super::TablesError;
use super::manifests::Manifests;
use super::objects::{self, Size, is_endpoint};
use super::worker::Sight;

/// How long the agent may take until its first tables are in force.
const START: Duration = Duration::from_secs(120);

/// How long a change may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two changes. What follows another sooner, the agent reads together with what else may come.
const PAUSE: Duration = Duration::from_millis(60);

/// What the agent took.
#[derive(Debug)]
pub(super) struct AgentTimes {
    /// From its exec until its tables are in force.
    pub(super) start: Duration,
    /// From a file's replacement until a packet went by it.
    pub(super) replaced: Vec<Duration>,
    /// From the read file until the fast path has answered.
    pub(super) read: Vec<Duration>,
    /// Resident memory after the changes.
    pub(super) megabytes: f64,
}

/// Starts the agent on the fast path at `socket`, and lets it change the watched Service so many times.
pub(super) fn measure(
    socket: &Path,
    sight: &Sight,
    size: Size,
    changes: u16,
) -> Result<AgentTimes, TablesError> {
    let write = TablesError::io("write the agent's files");
    let folder = tempfile::tempdir().map_err(TablesError::io("make the agent's folder"))?;
    let (from, _) = sight.now();
    let manifests = Manifests::write(&folder.path().join("manifests"), size, from).map_err(write)?;
    let agent = Agent::start(folder, socket)?;
    let moved = |from| sight.wait_asleep(START, move |to| is_endpoint(to) && to != from);
    let seen = moved(from).ok_or_else(|| agent.explain("its tables were not in force in time"))?;
    let start = seen - agent.started;
    let mut replaced = Vec::new();
    for _ in 0..changes {
        thread::sleep(PAUSE);
        let (from, _) = sight.now();
        let file = manifests.watched(from).map_err(TablesError::io("write a file of the agent's"))?;
        let begin = Instant::now();
        file.put().map_err(TablesError::io("replace a file of the agent's"))?;
        let seen = sight.wait_asleep(PATIENCE, move |to| is_endpoint(to) && to != from);
        replaced.push(seen.ok_or_else(|| agent.explain("a change was not in force in time"))? - begin);
    }
    // The last answer has yet to be logged.
    thread::sleep(PAUSE);
    let read = agent.changes()?;
    if read.len() != replaced.len() {
        return Err(agent.explain(&format!(
            "{} changes, of which {} were logged",
            replaced.len(),
            read.len()
        )));
    }
    Ok(AgentTimes { start, replaced, read, megabytes: agent.resident()? })
}

/// A culvert-agent that runs; it ends with the value.
struct Agent {
    folder: TempDir,
    /// The machine that it is on: one without NICs.
    _machine: FakeHost,
    child: Child,
    started: Instant,
}

/// A line of its log.
#[derive(Deserialize)]
struct Line {
    message: String,
    #[serde(default)]
    took: String,
}

impl Agent {
    fn start(folder: TempDir, socket: &Path) -> Result<Self, TablesError> {
        let program = program("culvert-agent").map_err(|stop| TablesError::Agent(stop.text().to_owned()))?;
        let at = folder.path().display();
        let config = format!(
            "node: {}
socket: {at}/agent.sock
stateDir: {at}/state
manifests: {at}/manifests
fastpath: {{ socket: {} }}
",
            objects::NODE,
            socket.display()
        );
        let (file, log) = (folder.path().join("agent.yaml"), Self::log(&folder));
        fs::write(&file, config).map_err(TablesError::io("write the agent's configuration"))?;
        let log = fs::File::create(log).map_err(TablesError::io("write the agent's log"))?;
        let machine = FakeHost::new();
        let mut command = Command::new(program);
        command.arg("--config").arg(file).arg("--root").arg(machine.root().path(""));
        command.args(["--log-format", "json"]).env("RUST_LOG", "warn,culvert_agent::fastpath=debug");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let started = Instant::now();
        let child = command.spawn().map_err(TablesError::io("start culvert-agent"))?;
        Ok(Self { folder, _machine: machine, child, started })
    }

    fn log(folder: &TempDir) -> PathBuf {
        folder.path().join("log")
    }

    /// How long each change took, by its log.
    fn changes(&self) -> Result<Vec<Duration>, TablesError> {
        let log =
            fs::read_to_string(Self::log(&self.folder)).map_err(TablesError::io("read the agent's log"))?;
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let changes = lines.filter(|line| line.message == "changes in force");
        Ok(changes.filter_map(|line| duration(&line.took)).collect())
    }

    /// Resident memory in MB (10^6 bytes).
    fn resident(&self) -> Result<f64, TablesError> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .map_err(TablesError::io("read the agent's status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().unwrap_or(f64::NAN);
        Ok(kilobytes * 1024.0 / 1e6)
    }

    fn explain(&self, what: &str) -> TablesError {
        let log = fs::read_to_string(Self::log(&self.folder)).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        TablesError::Agent(format!("{what}; its last words:\n{}", last.join("\n")))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It is gone already, or it goes now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A duration as Rust prints it for people.
fn duration(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    let unit = match &text[at..] {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    };
    Duration::try_from_secs_f64(text[..at].parse::<f64>().ok()? * unit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_they_are_logged() {
        for nanoseconds in [0, 7, 1_500, 350_250_000, 12_000_000_000] {
            let time = Duration::from_nanos(nanoseconds);
            assert_eq!(duration(&format!("{time:?}")), Some(time));
        }
        for bad in ["", "ms", "5", "5 ms", "1.2.3s", "5min"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
