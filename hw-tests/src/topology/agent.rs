//! culvert-agent as a process, and `culvert` to ask it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use crate::frame::{Context, Outcome, wait_for};
use crate::net::{Netns, Process, Run, program, run};

/// How long a program may take until it serves; in the emulated guest everything takes ten times as long.
pub(super) const START: Duration = Duration::from_secs(120);

/// culvert-agent, in a namespace or in that of the tests.
#[derive(Debug)]
pub struct Agent {
    process: Option<Process>,
    netns: Option<String>,
    dir: PathBuf,
}

impl Agent {
    /// Writes its configuration, to which socket and state folder are added; nothing runs yet.
    pub fn configure(context: &Context, netns: Option<&Netns>, config: &str) -> Outcome<Self> {
        let agent = Self {
            process: None,
            netns: netns.map(|netns| netns.name().to_owned()),
            dir: context.dir().to_owned(),
        };
        agent.reconfigure(config)?;
        Ok(agent)
    }

    /// Writes another configuration; it counts from the next start.
    pub fn reconfigure(&self, config: &str) -> Outcome {
        let at = self.dir.display();
        let text = format!("socket: {at}/agent.sock\nstateDir: {at}/state\n{config}");
        Ok(std::fs::write(self.config(), text)?)
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.join("agent.yaml")
    }

    /// Its socket, for culvert-cni and culvert.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("agent.sock")
    }

    /// Starts it and waits until it says that all is well, and `ready` agrees. NICs may differ from the policy: it is the
    /// operator who has them changed.
    pub fn start(&mut self, mut ready: impl FnMut() -> Outcome<bool>) -> Outcome {
        self.start_until(|agent| Ok(ready()? && agent.is_well()?))
    }

    /// Starts it and waits until it is `ready`, whether all is well or not.
    pub fn start_until(&mut self, mut ready: impl FnMut(&Self) -> Outcome<bool>) -> Outcome {
        let mut command = self.inside(&program("culvert-agent")?);
        command.arg("--config").arg(self.config());
        // What the time of an attachment goes into is told to whoever wants to know.
        command.env("RUST_LOG", "info,culvert_agent::nic::attach=debug");
        let mut process = Process::spawn("agent", &mut command, &self.dir)?;
        wait_for("culvert-agent is ready", START, || {
            process.check_alive()?;
            Ok(ready(self)?.then_some(()))
        })?;
        self.process = Some(process);
        Ok(())
    }

    fn is_well(&self) -> Outcome<bool> {
        let status = self.culvert(&["status", "-o", "json"])?.stdout;
        let Ok(status) = serde_json::from_str::<serde_json::Value>(&status) else { return Ok(false) };
        let well = |part: &serde_json::Value| match part["state"].as_str() {
            Some("ok" | "off") => true,
            Some("degraded") => part["name"] == "nic",
            _ => false,
        };
        Ok(status["subsystems"].as_array().is_some_and(|parts| parts.iter().all(well)))
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) -> Outcome {
        self.process.take().map_or(Ok(()), Process::kill)
    }

    /// Asks it to end, and returns how it did.
    pub fn stop(&mut self) -> Outcome<Option<ExitStatus>> {
        self.process.take().map(Process::stop).transpose()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Runs `culvert`, as a person on the node would.
    pub fn culvert(&self, arguments: &[&str]) -> Outcome<Run> {
        let mut command = self.inside(&program("culvert")?);
        run(command.arg("--socket").arg(self.socket()).args(arguments))
    }

    /// Runs `culvert`, which must succeed, and returns what it printed.
    pub fn says(&self, arguments: &[&str]) -> Outcome<String> {
        self.culvert(arguments)?.success()
    }

    fn inside(&self, program: &Path) -> Command {
        match &self.netns {
            None => Command::new(program),
            Some(netns) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", netns]).arg(program);
                command
            }
        }
    }
}
