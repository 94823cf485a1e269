//! EAL starts once in a process, so each file here is a program of its own that starts it, runs its cases one after the
//! other, and reports them as `cargo test` does.
#![allow(dead_code, clippy::unwrap_used)]

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use culvert_dpdk::{Eal, EalConfig, Hugepages, Mempool, MempoolConfig};
use libtest_mimic::{Arguments, Trial};

/// One case: what holds, what it needs, and its body.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Why it cannot run here.
    pub(crate) skip: Option<String>,
    pub(crate) body: fn(),
}

impl Case {
    pub(crate) fn new(name: &'static str, body: fn()) -> Self {
        Self { name, skip: None, body }
    }

    /// A case that changes the machine: interfaces, namespaces, hugepages.
    pub(crate) fn root(name: &'static str, body: fn()) -> Self {
        // SAFETY: no preconditions.
        let root = unsafe { libc::geteuid() } == 0;
        Self { name, skip: (!root).then(|| "needs root".into()), body }
    }
}

/// Runs the cases in order.
pub(crate) fn run(cases: Vec<Case>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let trials = cases.into_iter().map(|case| {
        let body = case.body;
        let trial = Trial::test(case.name, move || {
            body();
            Ok(())
        });
        match case.skip {
            Some(reason) => {
                eprintln!("skipped: {}: {reason}", case.name);
                trial.with_ignored_flag(true)
            }
            None => trial,
        }
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// What most cases start with: runs anywhere, with or without root.
pub(crate) fn ordinary_pages() -> EalConfig {
    EalConfig { hugepages: Hugepages::Off, megabytes: 128, ..EalConfig::default() }
}

/// A small pool; its name must be new.
pub(crate) fn pool(eal: &Eal, name: &str, mbufs: u32) -> Mempool {
    let config = MempoolConfig { name: name.into(), mbufs, cache: 32, ..MempoolConfig::default() };
    Mempool::create(eal, &config).unwrap()
}

/// Runs `ip`, and panics with what it said if it fails.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A network namespace, removed at the end whatever happens.
pub(crate) struct Netns(pub(crate) String);

impl Netns {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        ip(&format!("netns add {name}"));
        Self(name)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Repeats `step` until it gives something, for at most `seconds`.
pub(crate) fn within<T>(seconds: u64, what: &str, mut step: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(result) = step() {
            return result;
        }
        assert!(Instant::now() < end, "not within {seconds} s: {what}");
        std::thread::yield_now();
    }
}
