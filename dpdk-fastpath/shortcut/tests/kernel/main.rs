//! The short cut in this machine's kernel: real namespaces, real taps, the kernel's own TCP.

#![allow(clippy::unwrap_used)]

mod bulk;
mod datagram;
mod frame;
mod joins;
mod left;
mod netns;
mod node;
mod openings;
mod paths;
mod relay;
mod supers;
mod tap;
mod udp;
mod unusual;
mod uplinks;
mod watched;
mod welcome;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};

/// A case. All of them need root.
type Case = (&'static str, fn());

fn main() -> ExitCode {
    if std::env::var_os(joins::LOAD).is_some() {
        joins::load_and_tell();
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    // Each has a few namespaces, and transfers that fill all CPUs.
    arguments.test_threads = Some(1);
    let root = nix::unistd::geteuid().is_root();
    let cases = [
        joins::cases(),
        left::cases(),
        uplinks::cases(),
        welcome::cases(),
        openings::cases(),
        bulk::cases(),
        paths::cases(),
        unusual::cases(),
        udp::cases(),
        supers::cases(),
        watched::cases(),
    ];
    let trials = cases.into_iter().flatten().map(|(name, body)| {
        if !root {
            eprintln!("skipped: {name}: needs root");
        }
        let trial = Trial::test(name, move || {
            body();
            Ok(())
        });
        trial.with_ignored_flag(!root)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Repeats `step` until it gives something, for at most ten seconds.
fn within<T>(what: &str, mut step: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(result) = step() {
            return result;
        }
        assert!(Instant::now() < end, "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
