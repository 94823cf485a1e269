//! Network namespaces.

use std::fs::File;
use std::process::{Command, Output, id};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

/// A network namespace, removed at the end whatever happens.
pub(crate) struct Netns(String);

impl Netns {
    pub(crate) fn new(purpose: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("cvt{}-{}-{purpose}", id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        run(Command::new("ip").args(["netns", "add", &name]));
        let netns = Self(name);
        netns.ip("link set lo up");
        netns
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// Runs `ip` there, and panics with what it said if it fails.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        ip(&self.0, arguments)
    }

    /// A command that runs there.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }

    /// Whether an address answers three echo requests.
    pub(crate) fn ping(&self, address: &str) -> bool {
        let arguments = ["-n", "-c", "3", "-i", "0.05", "-W", "2", address];
        self.command("ping").args(arguments).output().is_ok_and(|output| output.status.success())
    }

    /// Of 100 echo requests, one after the other, the share that is answered within so many milliseconds.
    pub(crate) fn share_of_pings_within(&self, milliseconds: u32, address: &str) -> f64 {
        let output =
            self.command("ping").args(["-n", "-c", "100", "-i", "0.007", "-W", "2", address]).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        let times =
            text.lines().filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse().ok());
        times.filter(|time: &f64| *time < milliseconds.into()).count() as f64 / 100.0
    }

    /// Runs something on a thread that is there. A socket made there stays there.
    pub(crate) fn within<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET).unwrap();
                body()
            });
            thread.join().unwrap()
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

/// Runs `ip` in a namespace, and panics with what it said if it fails.
pub(crate) fn ip(netns: &str, arguments: &str) -> String {
    run(Command::new("ip").args(["-n", netns]).args(arguments.split(' ')))
}

/// Runs a command, and panics with what it said if it fails.
fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}
