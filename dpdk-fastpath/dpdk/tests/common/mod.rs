//! EAL starts once in a process, so each file here is a program of its own that starts it, runs its cases one after the
//! other, and reports them as `cargo test` does.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod net;

use std::process::ExitCode;
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
        Self { name, skip: (!is_root()).then(|| "needs root".into()), body }
    }
}

pub(crate) fn is_root() -> bool {
    // SAFETY: no preconditions.
    unsafe { libc::geteuid() == 0 }
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
