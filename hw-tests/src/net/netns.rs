//! Network namespaces that vanish with the value that made them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::process::run;
use crate::frame::{Outcome, Stop};

/// What the names of all namespaces made here begin with; the process id of the maker follows.
const PREFIX: &str = "cvt";
/// Where iproute2 keeps named namespaces.
const FOLDER: &str = "/run/netns";

/// A network namespace with its loopback interface up. Dropping it ends every process inside.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace; `label` says what it stands for and need not be unique.
    pub fn create(label: &str) -> Outcome<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{count}-{label}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?.success()?;
        let netns = Self { name };
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// Its name, for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file, as CNI_NETNS wants it.
    pub fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// A command that runs inside, with /sys of the namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs lines of `ip` commands (without the word `ip`), up to the first that fails.
    pub fn ip(&self, lines: &str) -> Outcome {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            run(Command::new("ip").args(["-n", &self.name]).args(line.split_whitespace()))?.success()?;
        }
        Ok(())
    }

    /// Runs a shell script inside and returns what it printed.
    pub fn sh(&self, script: &str) -> Outcome<String> {
        run(self.command("sh").args(["-euc", script]))?.success()
    }

    /// Runs `work` on a thread inside the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Outcome<T> {
        Ok(culvert_host::netns::Netns::open(self.path())?.run(work)?)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

/// Ends the processes in a namespace and removes it. Errors are for nobody: what is gone is gone.
fn delete(name: &str) {
    if let Ok(listed) = run(Command::new("ip").args(["netns", "pids", name])) {
        for pid in listed.stdout.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let _ = run(Command::new("ip").args(["netns", "delete", name]));
}

/// Removes what runs that were interrupted left behind; those that are still going stay. Returns the names.
///
/// # Errors
/// When namespaces cannot be listed.
pub fn clean_testbed() -> Outcome<Vec<String>> {
    let entries = match std::fs::read_dir(FOLDER) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Stop::from(error).while_doing(FOLDER)),
    };
    let mut removed = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if maker(&name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            delete(&name);
            removed.push(name);
        }
    }
    Ok(removed)
}

/// The process that made the namespace `name`; `None` for a namespace of somebody else.
fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_namespaces_are_recognised() {
        assert_eq!(maker("cvt123-0-node"), Some(123));
        assert_eq!(maker("cvt-0-node"), None);
        assert_eq!(maker("blue"), None);
    }
}
