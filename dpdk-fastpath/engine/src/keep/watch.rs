//! Whether a forwarder stands still: its process is there, and nothing moves.
//!
//! Only time counts in which a thread could have come round and did not: it slept or was stopped (proc_pid_stat(5)), or it ran
//! on a CPU (schedstat). That others have its CPU is no fault of its own, nor that it waits for memory or a disk; and if the
//! keeper itself gets no CPU, it has no opinion. One under a debugger stands still by intention.

use std::fmt;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use super::pulse::{LINE, read};

/// Looks within the time that a worker may stand still.
const LOOKS: u32 = 5;

/// Time between two looks, at most.
const LONGEST: Duration = Duration::from_secs(1);

/// The control thread, which at times computes for long, may stand still so many times as long as a worker; so may a
/// forwarder that starts, without any CPU time at all.
const CONTROL: u32 = 6;

/// Looks at one forwarder.
#[derive(Debug)]
pub(super) struct Watch {
    process: u32,
    /// How long a worker may stand still.
    most: Duration,
    signs: Signs,
    threads: Vec<Thread>,
    looked: Instant,
}

/// Where signs of life are seen.
#[derive(Debug)]
enum Signs {
    /// It starts: its threads take CPU time.
    Start,
    /// The lines of its threads.
    Pulse(File),
    /// It has none to show.
    None,
}

/// Who is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Start,
    Control,
    Worker(usize),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("its start"),
            Self::Control => f.write_str("its control thread"),
            Self::Worker(number) => write!(f, "its worker {number}"),
        }
    }
}

/// What one look at a thread shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    /// Changes with each round.
    rounds: u64,
    /// As in proc_pid_stat(5).
    state: char,
    /// CPU time since it began.
    ran: Duration,
}

/// What is known of a thread.
#[derive(Debug)]
struct Thread {
    last: Look,
    still: Duration,
}

/// A thread that stands still.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hung {
    name: Name,
    still: Duration,
}

impl fmt::Display for Hung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} stood still for {:.1} s, so it was killed", self.name, self.still.as_secs_f64())
    }
}

/// Between two looks, where a worker may stand still for so long.
pub(super) fn pause(most: Duration) -> Duration {
    (most / LOOKS).min(LONGEST)
}

impl Thread {
    /// How long it stands still, if so much time has passed since the last look.
    fn look(&mut self, look: Look, passed: Duration) -> Duration {
        self.still = if look.rounds != self.last.rounds {
            Duration::ZERO
        } else {
            let could_run = match look.state {
                'S' | 'T' => passed,
                'R' => look.ran.saturating_sub(self.last.ran).min(passed),
                _ => Duration::ZERO,
            };
            self.still + could_run
        };
        self.last = look;
        self.still
    }
}

impl Watch {
    /// Of a process that starts now, whose workers may stand still for so long.
    pub(super) fn new(process: u32, most: Duration) -> Self {
        Self { process, most, signs: Signs::Start, threads: Vec::new(), looked: Instant::now() }
    }

    /// It is there, with these lines if any.
    pub(super) fn ready(&mut self, pulse: Option<OwnedFd>) {
        self.signs = pulse.map_or(Signs::None, |file| Signs::Pulse(file.into()));
        self.threads.clear();
    }

    /// Looks at all threads. The first that stands still for too long, if there is one.
    pub(super) fn look(&mut self) -> Option<Hung> {
        // Who looks late was kept from it, and so may those have been that are looked at.
        let passed = self.looked.elapsed().min(pause(self.most));
        self.looked = Instant::now();
        let looks = self.looks();
        if looks.len() != self.threads.len() {
            let new = |(_, look)| Thread { last: look, still: Duration::ZERO };
            self.threads = looks.into_iter().map(new).collect();
            return None;
        }
        let mut hung = None;
        for (thread, (name, look)) in self.threads.iter_mut().zip(looks) {
            let still = thread.look(look, passed);
            let most = if let Name::Worker(_) = name { self.most } else { self.most * CONTROL };
            if still >= most && hung.is_none() {
                hung = Some(Hung { name, still });
            }
        }
        let status = || fs::read_to_string(format!("/proc/{}/status", self.process)).unwrap_or_default();
        if hung.is_some() && is_traced(&status()) {
            self.threads.clear();
            return None;
        }
        hung
    }

    /// What there is to see; threads that have ended are not looked at: that is noticed by others.
    fn looks(&self) -> Vec<(Name, Look)> {
        match &self.signs {
            Signs::Start => look_at_all(self.process).map(|look| (Name::Start, look)).into_iter().collect(),
            Signs::Pulse(file) => {
                let lines = (0..).map_while(|number| {
                    let mut line = [0; LINE];
                    file.read_exact_at(&mut line, (number * LINE) as u64).ok()?;
                    Some((number, read(&line)))
                });
                let one = |(number, (thread, rounds))| {
                    let name = if number == 0 { Name::Control } else { Name::Worker(number - 1) };
                    Some((name, look(self.process, thread, rounds)?))
                };
                lines.filter_map(one).collect()
            }
            Signs::None => Vec::new(),
        }
    }
}

/// All threads of a process together: it comes round when any of them runs, and can if all of them could. While it starts,
/// the first mostly waits for the others.
fn look_at_all(process: u32) -> Option<Look> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let numbers = threads.filter_map(|thread| thread.ok()?.file_name().to_str()?.parse().ok());
    let looks = numbers.filter_map(|thread| look(process, thread, 0));
    let all = looks.reduce(|all, one| Look {
        state: if matches!(all.state, 'S' | 'T') { one.state } else { all.state },
        ran: all.ran + one.ran,
        ..all
    })?;
    Some(Look { rounds: all.ran.as_nanos() as u64, ..all })
}

fn look(process: u32, thread: u64, rounds: u64) -> Option<Look> {
    let read = |file| fs::read_to_string(format!("/proc/{process}/task/{thread}/{file}")).ok();
    let stat = read("stat")?;
    // The second field, in parentheses, may hold anything.
    let state = stat.rsplit_once(')')?.1.trim_start().chars().next()?;
    // A kernel without schedstat tells nothing of threads that run.
    let ran = read("schedstat").and_then(|times| times.split_ascii_whitespace().next()?.parse().ok());
    Some(Look { rounds, state, ran: Duration::from_nanos(ran.unwrap_or_default()) })
}

/// Whether a debugger is attached to the process of this status (proc_pid_status(5)).
fn is_traced(status: &str) -> bool {
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::super::pulse::Pulse;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// After each of these looks, a second apart, how many seconds the thread has stood still.
    fn still(looks: &[(u64, char, u64)]) -> Vec<u64> {
        let look = |&(rounds, state, ran): &(u64, char, u64)| Look {
            rounds,
            state,
            ran: Duration::from_millis(ran),
        };
        let mut thread = Thread { last: look(&looks[0]), still: Duration::ZERO };
        looks[1..].iter().map(|next| thread.look(look(next), SECOND).as_secs()).collect()
    }

    #[test]
    fn one_that_is_stopped_or_waits_for_ever_stands_still() {
        assert_eq!(still(&[(7, 'R', 0), (7, 'T', 0), (7, 'T', 0), (7, 'S', 0)]), [1, 2, 3]);
        assert_eq!(still(&[(7, 'S', 0), (7, 'S', 0), (8, 'S', 0), (8, 'S', 0)]), [1, 0, 1]);
    }

    #[test]
    fn one_that_runs_in_circles_stands_still() {
        assert_eq!(still(&[(7, 'R', 0), (7, 'R', 1000), (7, 'R', 2000), (7, 'R', 2500)]), [1, 2, 2]);
    }

    #[test]
    fn one_that_gets_no_cpu_or_no_memory_does_not() {
        assert_eq!(still(&[(7, 'R', 0), (7, 'R', 0), (7, 'R', 1), (7, 'R', 1)]), [0, 0, 0]);
        assert_eq!(still(&[(7, 'S', 0), (7, 'D', 0), (7, 't', 0), (7, 'Z', 0)]), [0, 0, 0]);
    }

    #[test]
    fn one_that_comes_round_does_not() {
        assert_eq!(still(&[(0, 'S', 0), (1, 'S', 0), (2, 'R', 900), (u64::MAX, 'S', 1800)]), [0, 0, 0]);
    }

    #[test]
    fn one_under_a_debugger_is_known_by_it() {
        assert!(is_traced("Name:\tculvert-fastpath\nPPid:\t1\nTracerPid:\t4711\nUid:\t0\n"));
        assert!(!is_traced(&fs::read_to_string("/proc/self/status").unwrap()));
        assert!(!is_traced(""), "it has ended");
    }

    fn within(what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < end, "not within 20 s: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_thread_of_a_process_is_hung_once_it_stands_still_for_too_long() {
        const MOST: Duration = Duration::from_millis(100);
        let pulse = Pulse::new(1).unwrap();
        let mut watch = Watch::new(std::process::id(), MOST);
        watch.ready(Some(pulse.as_fd().try_clone_to_owned().unwrap()));
        assert_eq!(watch.look(), None, "none has begun");
        let (stop, stopped) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let beat = pulse.worker(0);
            scope.spawn(move || {
                beat.begin();
                while stopped.recv_timeout(Duration::from_millis(1)) != Ok("stand still") {
                    beat.beat();
                }
                // Until the test ends.
                while stopped.recv().is_ok() {}
            });
            for _ in 0..10 {
                std::thread::sleep(MOST / 5);
                // However rarely it runs on a busy machine: it does not stand still.
                assert_eq!(watch.look(), None);
            }
            stop.send("stand still").unwrap();
            let mut hung = None;
            within("it is seen to stand still", || {
                hung = watch.look();
                hung.is_some()
            });
            let hung = hung.unwrap();
            assert_eq!(hung.name, Name::Worker(0));
            assert!(hung.still >= MOST && hung.to_string().starts_with("its worker 0 stood still for 0."));
            drop(stop);
        });
        // The kernel shows it a moment longer than the scope waits for it.
        within("it has ended and is not looked at", || watch.looks().is_empty());
        assert_eq!(watch.look(), None);
    }

    #[test]
    fn a_forwarder_that_starts_may_take_its_time_as_long_as_it_does_something() {
        let mut sleeping = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut watch = Watch::new(sleeping.id(), Duration::from_millis(50));
        let begin = Instant::now();
        let mut hung = None;
        within("it is seen to stand still", || {
            hung = watch.look();
            hung.is_some()
        });
        assert_eq!(hung.unwrap().name, Name::Start);
        assert!(begin.elapsed() >= Duration::from_millis(50) * CONTROL);
        // Of this test's process the first thread waits for the others.
        let (mut watch, busy) = (Watch::new(std::process::id(), Duration::from_millis(50)), Instant::now());
        while busy.elapsed() < Duration::from_millis(600) {
            assert_eq!(watch.look(), None, "a thread of it computes");
        }
        let (mut watch, ready) = (Watch::new(sleeping.id(), Duration::from_millis(50)), Instant::now());
        watch.ready(None);
        while ready.elapsed() < Duration::from_millis(400) {
            assert_eq!(watch.look(), None, "it has no signs to show");
            std::thread::sleep(Duration::from_millis(10));
        }
        sleeping.kill().unwrap();
        sleeping.wait().unwrap();
        assert_eq!(Watch::new(sleeping.id(), SECOND).look(), None, "it has ended");
    }
}
