//! Processes that are killed at any point.

use std::io::{BufRead as _, BufReader};
use std::os::fd::{AsFd, AsRawFd as _};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU64;
use std::thread;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::*;
use crate::flow::{Sweep, Timeouts, Zeroed};

const NAME: &str = "flow::takeover::tests::killed::what_a_killed_process_had_done_is_there_and_nothing_else";

/// Says to this program that it is the one to be killed.
const VARIABLE: &str = "CULVERT_TO_BE_KILLED";

const KILLED: u64 = 40;

/// Threads, each with flows of its own, and how many each has.
const THREADS: u64 = 2;
const FLOWS: u64 = 300;

/// What a thread's n-th step does to which flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Enters it, if it is not there.
    Enter,
    /// Its state becomes another.
    Change,
    /// Ends it.
    End,
    /// Looks for records to be used again.
    Sweep,
}

fn step(thread: u64, n: u64) -> (Step, u64) {
    let mixed = (n << 8 | thread).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let step = match mixed >> 60 {
        0..=7 => Step::Enter,
        8..=10 => Step::Change,
        11..=14 => Step::End,
        _ => Step::Sweep,
    };
    (step, (mixed >> 20) % FLOWS)
}

fn flow(thread: u64, number: u64) -> Record<FlowKey4> {
    record((thread * FLOWS + number) as u16, Protocol::TCP, (number % 2) as u8 + 1)
}

/// What a flow is after the step, if it was `before`.
fn after(step: Step, before: Option<State>) -> Option<State> {
    match (step, before) {
        (Step::Enter, None) => Some(State::SynSent),
        (Step::Change, Some(_)) => Some(State::Reset),
        (Step::End, _) => None,
        (_, before) => before,
    }
}

/// Steps without end. How many a thread has begun and done stands in two words of its own.
fn work(tables: &Arc<FlowTables>, thread: u64, log: &[AtomicU64]) {
    use culvert_packet::tcp::TcpFlags;
    let mut worker = tables.worker();
    for n in 0.. {
        log[0].store(n + 1, Ordering::Release);
        let (step, number) = step(thread, n);
        let flow = flow(thread, number);
        let hit = tables.v4.lookup(&flow.original, flow.original.hash64());
        let (table, arena, _) = FlowKey4::parts(&mut worker);
        match (step, hit) {
            (Step::Enter, None) => table.insert(arena, &flow, at(100).0, State::SynSent).unwrap(),
            (Step::Change, Some(hit)) => drop(table.touch(&hit, at(100).0, TcpFlags::RST)),
            (Step::End, Some(hit)) => drop(table.remove(&hit)),
            (Step::Sweep, _) => {
                let timeouts = Timeouts::DEFAULT;
                let sweep = Sweep { now: at(100).0, pressure: false, records: 64, timeouts, flows: 64 };
                arena.sweep(table, sweep, |_| false, |_, _| ());
            }
            _ => {}
        }
        log[1].store(n + 1, Ordering::Release);
    }
}

fn be_killed() -> ! {
    let tables = FlowTables::shared(16 * 1024, CLIENTS, false).unwrap();
    let log = memfd_create("log", MemfdFlags::empty()).unwrap();
    ftruncate(&log, 4096).unwrap();
    let words: Zeroed<AtomicU64> = Zeroed::of(log.as_fd(), 512).unwrap();
    println!("descriptors {} {}", tables.segment().unwrap().as_fd().as_raw_fd(), log.as_raw_fd());
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let log = &words[thread as usize * 64..][..2];
            let tables = &tables;
            scope.spawn(move || work(tables, thread, log));
        }
    });
    unreachable!("steps have no end");
}

#[test]
fn what_a_killed_process_had_done_is_there_and_nothing_else() {
    if std::env::var_os(VARIABLE).is_some() {
        be_killed();
    }
    let mut steps = 0;
    for round in 0..KILLED {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(VARIABLE, "")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let descriptors = lines
            .map(Result::unwrap)
            .find_map(|line| line.split_once("descriptors ").map(|(_, numbers)| numbers.to_owned()))
            .expect("it says where its memory is");
        let open = |number: &str| {
            File::options().read(true).write(true).open(format!("/proc/{}/fd/{number}", child.id())).unwrap()
        };
        let (memory, log) = descriptors.split_once(' ').unwrap();
        let (memory, log) = (open(memory), open(log));
        // At any point of a step, and of the growth of the index.
        thread::sleep(Duration::from_micros(round * round * 20));
        child.kill().unwrap();
        child.wait().unwrap();
        let words: Zeroed<AtomicU64> = Zeroed::of(log.as_fd(), 512).unwrap();
        let word = |at: u64| words[at as usize].load(Ordering::Acquire);
        steps += compare(&memory, |thread| (word(thread * 64), word(thread * 64 + 1)));
    }
    assert!(steps > 100_000, "only {steps} steps were done");
}

/// Takes over from a process of whose steps each thread had begun and done so many; returns how many that are.
fn compare(memory: &File, steps_of: impl Fn(u64) -> (u64, u64)) -> u64 {
    let view = view(1, &endpoints(2), &[]);
    let tables = FlowTables::shared(16 * 1024, CLIENTS, false).unwrap();
    let mut workers = [tables.worker(), tables.worker()];
    let left = Left::open(memory.as_fd()).unwrap();
    let takeover = tables.take_over(&mut workers, vec![left], &view, at(110)).unwrap();
    let (mut steps, mut there) = (0, 0);
    for thread in 0..THREADS {
        let (begun, done) = steps_of(thread);
        assert!(done == begun || done + 1 == begun, "{done} of {begun} steps");
        steps += done;
        let mut expected = vec![None; FLOWS as usize];
        for n in 0..done {
            let (step, number) = step(thread, n);
            let state = &mut expected[number as usize];
            *state = after(step, *state);
        }
        let halfway = (begun > done).then(|| step(thread, done));
        for (number, &expected) in (0..).zip(&expected) {
            // By the one or the other key.
            let Record { original, translated, .. } = flow(thread, number);
            let key = if number % 3 == 0 { translated.reversed() } else { original };
            let may_become = match halfway {
                Some((step, of)) if of == number => after(step, expected),
                _ => expected,
            };
            workers[0].recall(&key, key.hash64(), &view, at(110).0);
            let found = tables.v4.lookup(&key, key.hash64()).map(|hit| hit.state());
            assert!(
                found == expected || found == may_become,
                "flow {number} of thread {thread} after {done} of {begun} steps: {found:?}, not {expected:?} or {may_become:?}"
            );
            there += u64::from(found.is_some());
        }
    }
    let taken = finish(&takeover, &mut workers, &view, at(110).0);
    assert_eq!((taken.damaged, taken.gone, taken.over, taken.no_room), (0, 0, 0, 0));
    // What was half entered may be found by one key only until then.
    let all = check::<FlowKey4>(&tables, &view);
    assert!((there..=there + THREADS).contains(&all) && taken.flows == all, "{there} found, {all} entered");
    steps
}
