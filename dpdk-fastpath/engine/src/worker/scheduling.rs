//! What the kernel's scheduler has counted of a worker: proc_pid_status(5), Documentation/scheduler/sched-stats.rst.

use std::fs;
use std::time::Duration;

use culvert_api::fastpath as proto;
use nix::unistd::Pid;

/// Counts of a thread since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduling {
    /// How often it waited for something to do.
    pub sleeps: u64,
    /// How often it had to leave its CPU to others.
    pub preemptions: u64,
    /// Time on a CPU.
    pub ran: Duration,
    /// Time in which it was ready and others had its CPU.
    pub waited: Duration,
}

impl Scheduling {
    /// Of a thread of this process; `None` if it has ended, or the kernel was built without.
    pub(super) fn of(thread: Pid) -> Option<Self> {
        let read = |file| fs::read_to_string(format!("/proc/self/task/{thread}/{file}")).ok();
        Self::parse(&read("status")?, &read("schedstat")?)
    }

    fn parse(status: &str, schedstat: &str) -> Option<Self> {
        let count =
            |key| status.lines().find_map(|line| line.strip_prefix(key)).and_then(|n| n.trim().parse().ok());
        let mut times = schedstat.split_ascii_whitespace().map(|time| time.parse().map(Duration::from_nanos));
        Some(Self {
            sleeps: count("voluntary_ctxt_switches:")?,
            preemptions: count("nonvoluntary_ctxt_switches:")?,
            ran: times.next()?.ok()?,
            waited: times.next()?.ok()?,
        })
    }
}

impl From<Scheduling> for proto::Scheduling {
    fn from(counts: Scheduling) -> Self {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self {
            sleeps: counts.sleeps,
            preemptions: counts.preemptions,
            ran_nanoseconds: nanoseconds(counts.ran),
            waited_nanoseconds: nanoseconds(counts.waited),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::unistd::gettid;

    use super::*;

    #[test]
    fn a_thread_that_slept_and_computed_has_both_counted() {
        let before = Scheduling::of(gettid()).unwrap();
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(1));
        }
        // Runtime is accounted at the end of a time slice and when it is asked for by a sleep.
        while Scheduling::of(gettid()).unwrap().ran < before.ran + Duration::from_millis(5) {
            std::hint::black_box((0..100_000_u64).sum::<u64>());
            thread::yield_now();
        }
        let after = Scheduling::of(gettid()).unwrap();
        assert!(after.sleeps >= before.sleeps + 3, "{before:?} {after:?}");
        assert!(after.preemptions >= before.preemptions && after.waited >= before.waited);
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_not_known() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t2\n";
        let [ran, waited] = [5, 6].map(Duration::from_nanos);
        let counts = Scheduling { sleeps: 7, preemptions: 2, ran, waited };
        assert_eq!(Scheduling::parse(status, "5 6 3\n"), Some(counts));
        for (status, schedstat) in
            [("", "5 6 3"), (status, "5"), (status, ""), (status, "5 x"), ("Name: x", "5 6")]
        {
            assert_eq!(Scheduling::parse(status, schedstat), None, "{status:?} {schedstat:?}");
        }
        // Numbers of threads end well before.
        assert_eq!(Scheduling::of(Pid::from_raw(i32::MAX)), None);
    }
}
