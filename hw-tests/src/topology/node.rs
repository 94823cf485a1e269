//! The node that runs Culvert.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::agent::{Agent, START};
use super::control::Control;
use super::manifest::Manifests;
use crate::frame::{Context, Outcome, wait_for};
use crate::net::{Netns, Process, Run, program, run};

/// A namespace in which culvert-fastpath and culvert-agent run.
#[derive(Debug)]
pub struct Node {
    /// The agent.
    pub agent: Agent,
    fastpath: Option<Process>,
    netns: Netns,
    dir: PathBuf,
    /// The folder of Kubernetes YAML that the agent watches.
    pub manifests: Manifests,
}

impl Node {
    /// Makes the namespace and writes the configuration, with more keys of the overlay and more lines of the fast path's in
    /// it, the uplink's first if it is not to be a tap; nothing runs yet.
    pub fn create(context: &Context, manifests: Manifests, overlay: &str, fastpath: &str) -> Outcome<Self> {
        let netns = Netns::create("node")?;
        let dir = context.dir().to_owned();
        let socket = dir.join("fastpath.sock").display().to_string();
        // One CPU polls; the other is for the control thread, the kernel and everything else.
        let uplink = if fastpath.starts_with("uplink:") { "" } else { "uplink: { tap: { name: cvup0 } }\n" };
        context.file(
            "fastpath.yaml",
            &format!(
                "socket: {socket}\ncontrolCpu: 0\nworkers: [1]\n\
                 memory: {{ hugepages: preferred, megabytes: 128, mbufs: 16384 }}\nflows: 16384\n\
                 {uplink}{fastpath}"
            ),
        )?;
        let config = agent_config(&dir, &manifests, overlay);
        let agent = Agent::configure(context, Some(&netns), &config)?;
        Ok(Self { agent, fastpath: None, netns, dir, manifests })
    }

    /// Writes the agent's configuration anew, with more keys of the overlay in it; it counts from the agent's next start.
    pub fn reconfigure(&self, overlay: &str) -> Outcome {
        self.agent.reconfigure(&agent_config(&self.dir, &self.manifests, overlay))
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Starts culvert-fastpath and waits until it answers on its control socket.
    pub fn start_fastpath(&mut self) -> Outcome {
        let mut command = self.netns.command(program("culvert-fastpath")?);
        command.arg("--config").arg(self.dir.join("fastpath.yaml"));
        let mut process = Process::spawn("fastpath", &mut command, &self.dir)?;
        wait_for("culvert-fastpath serves", START, || {
            process.check_alive()?;
            Ok(self.control().and_then(|control| control.info()).ok())
        })?;
        self.fastpath = Some(process);
        Ok(())
    }

    /// The processes of the fast path that forward, or are about to; not their keeper.
    pub fn forwarders(&self) -> Outcome<Vec<Pid>> {
        self.fastpath.as_ref().map_or(Ok(Vec::new()), Process::children)
    }

    /// Sends the fast path's keeper a signal.
    pub fn signal_fastpath(&self, signal: Signal) -> Outcome {
        self.fastpath.as_ref().map_or(Ok(()), |keeper| keeper.signal(signal))
    }

    /// Starts culvert-agent and waits until it has programmed the fast path with all it knows.
    pub fn start_agent(&mut self) -> Outcome {
        let control = self.control()?;
        self.agent.start(|| Ok(control.info()?.synced))
    }

    /// A client of the fast path's control socket.
    pub fn control(&self) -> Outcome<Control> {
        Control::connect(&self.dir.join("fastpath.sock"))
    }

    /// Runs one of the programs with any configuration, to its end.
    pub fn run_with_config(&self, program_name: &str, config: &Path) -> Outcome<Run> {
        let path = program(program_name)?;
        run(self.netns.command("timeout").arg("20").arg(path).arg("--config").arg(config))
    }
}

fn agent_config(dir: &Path, manifests: &Manifests, overlay: &str) -> String {
    format!(
        "node: node-a\nmetrics: 127.0.0.1:9470\nmanifests: {}\nfastpath: {{ socket: {}/fastpath.sock }}\n\
         overlay: {{ vni: 4096, underlayPrefix: 24{overlay} }}\n",
        manifests.dir().display(),
        dir.display()
    )
}
