//! The program and its log. Needs root, as the program does.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Ends the program with the test, whatever becomes of that.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_agent_whose_log_nobody_reads_any_more_ends_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir_all(path("root/proc/sys/kernel/random")).unwrap();
    std::fs::write(path("root/proc/sys/kernel/random/boot_id"), "b\n").unwrap();
    let config =
        format!("node: a\nsocket: {}\nstateDir: {}\n", path("agent.sock").display(), path("state").display());
    std::fs::write(path("agent.yaml"), config).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_culvert-agent"))
        .arg("--config")
        .arg(path("agent.yaml"))
        .arg("--root")
        .arg(path("root"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut agent = Agent(child);
    let mut log = BufReader::new(agent.0.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("started") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the agent ended");
    }
    drop(log);
    kill(Pid::from_raw(agent.0.id() as i32), Signal::SIGTERM).unwrap();
    let told = Instant::now();
    let status = loop {
        if let Some(status) = agent.0.try_wait().unwrap() {
            break status;
        }
        assert!(told.elapsed() < Duration::from_secs(60), "goes on for ever");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(0));
    assert!(!path("agent.sock").exists());
}
