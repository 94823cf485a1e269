//! A client that never stops asking, while a case breaks things around it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::http;
use crate::ensure;
use crate::frame::{Outcome, Stop};

/// What came back so far.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Answers by the name of who gave them.
    pub answers: BTreeMap<String, u32>,
    /// Requests without an answer: when that was clear, and why.
    pub failures: Vec<(Instant, String)>,
    /// When each server answered last.
    pub last: BTreeMap<String, Instant>,
    /// The longest time that one request took.
    pub slowest: Duration,
}

impl Tally {
    /// Answers in all.
    pub fn total(&self) -> u32 {
        self.answers.values().sum()
    }

    /// Fails unless at most `most` requests failed, and none later than `settled`: what was on its way when something
    /// went away may be cut off, what comes after may not.
    pub fn lost_at_most(&self, most: usize, settled: Instant) -> Outcome {
        let late = self.failures.iter().find(|(when, _)| *when > settled);
        ensure!(late.is_none(), "a request failed after all had settled: {late:?}");
        ensure!(self.failures.len() <= most, "{} requests failed: {:?}", self.failures.len(), self.failures);
        Ok(())
    }

    /// Fails unless there were `least` answers and every request had one.
    pub fn nothing_lost(&self, least: u32) -> Outcome {
        let count = self.failures.len();
        let first = self.failures.first().map_or("", |(_, why)| why);
        ensure!(
            count == 0,
            "{count} of {} requests failed; the first: {first}",
            self.total() as usize + count
        );
        ensure!(self.total() >= least, "only {} requests were made, {least} were expected", self.total());
        Ok(())
    }
}

/// HTTP requests, one after the other, each over a connection of its own.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    thread: Option<JoinHandle<Outcome>>,
}

impl Load {
    /// Starts asking the server at `to` for its name, from inside `netns`.
    pub fn start(netns: &super::Netns, to: SocketAddr) -> Outcome<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let tally = Arc::new(Mutex::new(Tally::default()));
        let inside = culvert_host::netns::Netns::open(netns.path())?;
        let (thread_stop, thread_tally) = (Arc::clone(&stop), Arc::clone(&tally));
        let thread = thread::spawn(move || {
            inside.run(|| ask_until(&thread_stop, &thread_tally, to)).map_err(Stop::from)
        });
        Ok(Self { stop, tally, thread: Some(thread) })
    }

    /// What came back so far.
    pub fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// Stops asking.
    pub fn finish(mut self) -> Outcome<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("is taken only here and in drop");
        thread.join().map_err(|_| Stop::fail("the client panicked"))??;
        Ok(self.tally())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A case that fails elsewhere has its own reason to tell.
            let _ = thread.join();
        }
    }
}

fn ask_until(stop: &AtomicBool, tally: &Mutex<Tally>, to: SocketAddr) {
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let answer = http::name_here(to);
        let now = Instant::now();
        let mut tally = lock(tally);
        tally.slowest = tally.slowest.max(now - start);
        match answer {
            Ok(name) => {
                *tally.answers.entry(name.clone()).or_default() += 1;
                tally.last.insert(name, now);
            }
            Err(stop) => tally.failures.push((now, stop.text().to_owned())),
        }
        drop(tally);
        // Hundreds of requests a second are enough, and each leaves a socket in TIME-WAIT.
        thread::sleep(Duration::from_millis(2));
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}
