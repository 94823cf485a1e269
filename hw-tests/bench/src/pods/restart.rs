//! A fast path that is killed under a stream.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use culvert_hw_tests::net::Netns;

use super::figure::{Better, Figure};
use super::ours::Ours;
use super::{PodsError, Side};
use crate::cli::Pods;

/// The figure's name.
pub(super) const CASE: &str = "kill -9 of the fast path, longest time without a byte";

/// Into the stream, it is watched; then the fast path is killed; and later nobody watches any more, before it ends.
const STEADY: Duration = Duration::from_millis(500);
const KILLED: Duration = Duration::from_millis(500);
const WATCHED: Duration = Duration::from_millis(2500);

/// How long the stream lasts, in seconds.
const STREAM: f64 = 4.0;

/// A fast path that has lived for as long is started again at once, with all that was kept.
const LIVED: Duration = Duration::from_millis(10_500);

/// The longest time for which nothing of a stream to a Service arrives at a remote pod, of runs of `stream`, which fails if
/// it is cut off.
pub(super) fn gap(
    pods: &Pods,
    ours: &mut Ours,
    stream: impl Fn(&dyn Side, f64) -> Result<f64, PodsError> + Sync,
) -> Result<Figure, PodsError> {
    ours.serve(true)?;
    let mut runs = Vec::new();
    for _ in 0..pods.runs {
        thread::sleep(LIVED);
        runs.push(one(ours, &stream)?);
    }
    Ok(Figure::of_ours(CASE, "ms", Better::Lower, 1000.0, &runs))
}

fn one(
    ours: &Ours,
    stream: &(impl Fn(&dyn Side, f64) -> Result<f64, PodsError> + Sync),
) -> Result<f64, PodsError> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let streaming = scope.spawn(|| stream(ours, STREAM));
        thread::sleep(STEADY);
        let watching = scope.spawn(|| longest_silence(ours.far(), &over));
        thread::sleep(KILLED);
        let killed = ours.kill_forwarder();
        thread::sleep(WATCHED);
        over.store(true, Ordering::Relaxed);
        let panicked = |_| PodsError::Load("a thread panicked".to_owned());
        let longest = watching.join().map_err(panicked)??;
        streaming.join().map_err(panicked)??;
        killed?;
        Ok(longest.as_secs_f64() * 1e3)
    })
}

/// The longest time for which the pod receives nothing.
fn longest_silence(pod: &Netns, over: &AtomicBool) -> Result<Duration, PodsError> {
    let watch = || -> std::io::Result<Duration> {
        let (mut longest, mut last, mut before) = (Duration::ZERO, Instant::now(), 0);
        while !over.load(Ordering::Relaxed) {
            let devices = fs::read_to_string("/proc/thread-self/net/dev")?;
            // By whichever interface: the short cut has one of its own.
            let counts = devices.lines().filter_map(|line| line.trim_start().split_once(':'));
            let bytes = |counts: &str| counts.split_whitespace().next()?.parse::<u64>().ok();
            let others = counts.filter(|(name, _)| *name != "lo");
            let received = others.filter_map(|(_, counts)| bytes(counts)).sum::<u64>();
            if received != before {
                longest = longest.max(last.elapsed());
                (last, before) = (Instant::now(), received);
            }
            thread::sleep(Duration::from_micros(500));
        }
        Ok(longest.max(last.elapsed()))
    };
    pod.run(watch)?.map_err(PodsError::io("read a pod's counters"))
}
