//! culvert-fastpath as a process: real namespaces, real taps, its real control socket.

#![allow(clippy::unwrap_used)]

mod fastpath;
mod manager;
mod netns;
mod pods;
mod programs;
mod refusals;
mod restart;
mod shares;
mod shortcut;
mod uplinks;
mod waking;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};

/// A case, and what it needs.
struct Case {
    name: &'static str,
    root: bool,
    /// A device node that not every kernel has, or what else it lacks.
    device: Option<&'static str>,
    body: fn(),
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Workers poll: two fast paths at once would only take each other's CPU.
    arguments.test_threads = Some(1);
    let root = nix::unistd::geteuid().is_root();
    let cases = [
        pods::cases(),
        programs::cases(),
        uplinks::cases(),
        refusals::cases(),
        restart::cases(),
        manager::cases(),
        shares::cases(),
        shortcut::cases(),
        waking::cases(),
    ];
    let trials = cases.into_iter().flatten().map(|Case { name, root: needed, device, body }| {
        let missing = match device {
            _ if needed && !root => Some("root".to_owned()),
            Some(device) if !Path::new(device).exists() => Some(device.to_owned()),
            _ => None,
        };
        if let Some(missing) = &missing {
            eprintln!("skipped: {name}: needs {missing}");
        }
        let trial = Trial::test(name, move || {
            body();
            Ok(())
        });
        trial.with_ignored_flag(missing.is_some())
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Repeats `step` until it gives something, for at most `seconds`.
fn within<T>(seconds: u64, what: &str, mut step: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(result) = step() {
            return result;
        }
        assert!(Instant::now() < end, "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
