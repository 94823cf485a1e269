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
        run(Command::new("ip").args(["-n", &self.0]).args(arguments.split(' ')))
    }

    /// Whether there is an interface of this name.
    pub(crate) fn has(&self, interface: &str) -> bool {
        self.ip("-o link show").contains(&format!(" {interface}"))
    }

    /// Runs a command there, and panics with what it said if it fails.
    pub(crate) fn run(&self, command: &str) -> String {
        run(Command::new("ip").args(["netns", "exec", &self.0]).args(command.split(' ')))
    }

    /// Lets the calling thread go there.
    pub(crate) fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
        setns(file, CloneFlags::CLONE_NEWNET).unwrap();
    }

    /// Does something on a thread that is there. A socket made there stays there.
    pub(crate) fn within<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
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

/// Runs a command, and panics with what it said if it fails.
fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}
