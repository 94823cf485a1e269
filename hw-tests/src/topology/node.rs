//! The node that runs Culvert.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::control::Control;
use super::manifest::Manifests;
use crate::frame::{Context, Outcome, wait_for};
use crate::net::{Netns, Process, Run, program, run};

/// A namespace in which culvert-fastpath and culvert-agent run.
#[derive(Debug)]
pub struct Node {
    agent: Option<Process>,
    fastpath: Option<Process>,
    netns: Netns,
    dir: PathBuf,
    /// The folder of Kubernetes YAML that the agent watches.
    pub manifests: Manifests,
}

/// How long a program may take until it serves; EAL maps and clears its memory first.
const START: Duration = Duration::from_secs(20);

impl Node {
    /// Makes the namespace and writes the configuration; nothing runs yet.
    pub fn create(context: &Context, manifests: Manifests) -> Outcome<Self> {
        let dir = context.dir().to_owned();
        let at = dir.display();
        // Two CPUs at least make a node: one for the kernel and the control thread, one that polls.
        context.file(
            "fastpath.yaml",
            &format!(
                "socket: {at}/fastpath.sock\ncontrolCpu: 0\nworkers: [1]\n\
                 memory: {{ hugepages: preferred, megabytes: 128, mbufs: 16384 }}\nflows: 16384\n\
                 uplink: {{ tap: {{ name: cvup0 }} }}\n"
            ),
        )?;
        context.file(
            "agent.yaml",
            &format!(
                "node: node-a\nsocket: {at}/agent.sock\nstateDir: {at}/state\nmetrics: 127.0.0.1:9470\n\
                 manifests: {}\nfastpath: {{ socket: {at}/fastpath.sock }}\n\
                 overlay: {{ vni: 4096, underlayPrefix: 24 }}\n",
                manifests.dir().display()
            ),
        )?;
        Ok(Self { agent: None, fastpath: None, netns: Netns::create("node")?, dir, manifests })
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The agent's socket, for culvert-cni and culvert.
    pub fn agent_socket(&self) -> PathBuf {
        self.dir.join("agent.sock")
    }

    /// Starts culvert-fastpath and waits until it answers on its control socket.
    pub fn start_fastpath(&mut self) -> Outcome {
        let mut process = self.spawn("culvert-fastpath", "fastpath")?;
        wait_for("culvert-fastpath serves", START, || {
            process.check_alive()?;
            Ok(self.control().and_then(|control| control.info()).ok())
        })?;
        self.fastpath = Some(process);
        Ok(())
    }

    /// Starts culvert-agent and waits until it has programmed the fast path with all it knows.
    pub fn start_agent(&mut self) -> Outcome {
        let mut process = self.spawn("culvert-agent", "agent")?;
        wait_for("culvert-agent is ready", START, || {
            process.check_alive()?;
            let synced = self.control()?.info()?.synced;
            let status = run(&mut self.culvert(&["status"])?)?;
            Ok((synced && status.status.success()).then_some(()))
        })?;
        self.agent = Some(process);
        Ok(())
    }

    /// Ends the agent as `kill -9` does.
    pub fn kill_agent(&mut self) -> Outcome {
        self.agent.take().map_or(Ok(()), Process::kill)
    }

    /// Asks the agent to end, and returns how it did.
    pub fn stop_agent(&mut self) -> Outcome<Option<std::process::ExitStatus>> {
        self.agent.take().map(Process::stop).transpose()
    }

    /// What culvert-agent has logged.
    pub fn agent_log(&self) -> String {
        self.agent.as_ref().map(Process::log).unwrap_or_default()
    }

    /// A client of the fast path's control socket.
    pub fn control(&self) -> Outcome<Control> {
        Control::connect(&self.dir.join("fastpath.sock"))
    }

    /// Runs `culvert`, as a person on the node would, and returns what it printed.
    pub fn culvert_prints(&self, arguments: &[&str]) -> Outcome<String> {
        run(&mut self.culvert(arguments)?)?.success()
    }

    /// Runs one of the programs with a configuration of the case's own, to its end.
    pub fn run_with_config(&self, program_name: &str, config: &Path) -> Outcome<Run> {
        let path = program(program_name)?;
        run(self.netns.command("timeout").arg("20").arg(path).arg("--config").arg(config))
    }

    fn culvert(&self, arguments: &[&str]) -> Outcome<std::process::Command> {
        let mut command = self.netns.command(program("culvert")?);
        command.arg("--socket").arg(self.agent_socket()).args(arguments);
        Ok(command)
    }

    fn spawn(&self, program_name: &str, config: &str) -> Outcome<Process> {
        let mut command = self.netns.command(program(program_name)?);
        command.arg("--config").arg(self.dir.join(format!("{config}.yaml")));
        Process::spawn(config, &mut command, &self.dir)
    }
}
