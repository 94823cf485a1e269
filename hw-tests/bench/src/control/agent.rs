//! The culvert-agent that is measured.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use culvert_hw_tests::net::program;
use tempfile::TempDir;

use super::ControlError;
use super::machine::Machine;

/// Its folder, and the process while it runs.
#[derive(Debug)]
pub(super) struct Agent {
    program: PathBuf,
    dir: TempDir,
    child: Option<Child>,
}

impl Agent {
    pub(super) fn new() -> Result<Self, ControlError> {
        let program = program("culvert-agent")?;
        let dir = tempfile::tempdir().map_err(ControlError::io("make a folder"))?;
        let at = dir.path().display();
        let config = format!(
            "node: bench
socket: {at}/agent.sock
stateDir: {at}/state
devicePlugin:
  kubeletDir: {at}/kubelet/device-plugins
  deviceInfo: {{ dir: {at}/devinfo }}
  resourceList: {at}/config.json
"
        );
        let write = |name, text: String| fs::write(dir.path().join(name), text);
        write("agent.yaml", config)
            .and_then(|()| write("config.json", Machine::resource_list()))
            .map_err(ControlError::io("write the configuration"))?;
        Ok(Self { program, dir, child: None })
    }

    /// Root of the kubelet that it talks to.
    pub(super) fn kubelet(&self) -> PathBuf {
        self.dir.path().join("kubelet")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// The file in which it remembers the devices.
    pub(super) fn memory(&self) -> PathBuf {
        self.dir.path().join("state/devices.json")
    }

    /// Starts it, and returns when that was.
    pub(super) fn start(&mut self, machine: &Machine) -> Result<Instant, ControlError> {
        let log = fs::File::create(self.log()).map_err(ControlError::io("write its log"))?;
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.dir.path().join("agent.yaml"));
        command.arg("--root").arg(machine.root());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        let (started, child) = machine.netns().run(move || (Instant::now(), command.spawn()))?;
        self.child = Some(child.map_err(ControlError::io("start culvert-agent"))?);
        Ok(started)
    }

    /// Ends it as `kill -9` does.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It is gone already, or it goes now.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Forgets everything, as if it had never run.
    pub(super) fn forget(&self) {
        // What is not there is forgotten.
        let _ = fs::remove_dir_all(self.dir.path().join("state"));
    }

    /// Resident memory in MB (10^6 bytes).
    pub(super) fn resident(&self) -> Result<f64, ControlError> {
        let pid = self.child.as_ref().map(Child::id).unwrap_or_default();
        status(pid, "VmRSS:")
    }

    /// `error`, with the end of the log.
    pub(super) fn explain(&self, error: impl std::fmt::Display) -> ControlError {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(10).collect();
        let tail: Vec<&str> = lines.into_iter().rev().collect();
        ControlError::Agent(format!("{error}\nculvert-agent's last words:\n{}", tail.join("\n")))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A line of proc(5)'s `status` in kB, as MB (10^6 bytes).
pub(super) fn status(pid: u32, key: &str) -> Result<f64, ControlError> {
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))
        .map_err(ControlError::io("read the status of a process"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().unwrap_or(f64::NAN);
    Ok(kilobytes * 1024.0 / 1e6)
}
