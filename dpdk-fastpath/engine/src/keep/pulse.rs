//! Signs of life.
//!
//! A file in memory with a [`Line`] for each thread of the forwarder that must go on: the control thread's first, then the
//! workers'. Each counts its own rounds there, and the keeper reads them now and then: no message, no system call, and
//! no line that two threads write. A worker that rests comes round ten times a second, too.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::unistd::gettid;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use zerocopy::FromBytes;

use crate::flow::Zeroed;

/// Of one thread.
#[derive(Debug, FromBytes)]
#[repr(C, align(64))]
struct Line {
    /// The number by which the kernel knows it; 0 until it runs.
    thread: AtomicU64,
    rounds: AtomicU64,
    rest: [u64; 6],
}

/// Bytes of a line.
pub(super) const LINE: usize = size_of::<Line>();

/// What a line's bytes say: the thread, and how many rounds it has made.
pub(super) fn read(line: &[u8; LINE]) -> (u64, u64) {
    let [thread, rounds] = [0, 8].map(|at| {
        let bytes = line[at..].first_chunk().expect("a line of 64 bytes");
        u64::from_ne_bytes(*bytes)
    });
    (thread, rounds)
}

/// The lines of this process.
#[derive(Debug)]
pub struct Pulse {
    file: OwnedFd,
    lines: Arc<Zeroed<Line>>,
}

impl Pulse {
    /// For the control thread and so many workers; `None` if there is no memory or no descriptor.
    pub fn new(workers: usize) -> Option<Self> {
        let file = memfd_create("pulse", MemfdFlags::CLOEXEC).ok()?;
        ftruncate(&file, ((1 + workers) * LINE) as u64).ok()?;
        let lines = Arc::new(Zeroed::of(file.as_fd(), 1 + workers)?);
        Some(Self { file, lines })
    }

    /// The control thread's.
    pub fn control(&self) -> Beat {
        Beat(Some((Arc::clone(&self.lines), 0)))
    }

    /// That of the worker of this number, which is one of those there are.
    pub fn worker(&self, number: usize) -> Beat {
        Beat(Some((Arc::clone(&self.lines), 1 + number)))
    }
}

impl AsFd for Pulse {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// One thread's line; by default nobody's.
#[derive(Debug, Default)]
pub struct Beat(Option<(Arc<Zeroed<Line>>, usize)>);

impl Beat {
    /// The thread that it is of begins.
    pub fn begin(&self) {
        if let Some(line) = self.line() {
            line.thread.store(gettid().as_raw().unsigned_abs().into(), Ordering::Relaxed);
        }
    }

    /// That thread comes round.
    #[inline]
    pub fn beat(&self) {
        if let Some(line) = self.line() {
            // Nobody else writes.
            line.rounds.store(line.rounds.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    #[inline]
    fn line(&self) -> Option<&Line> {
        self.0.as_ref().and_then(|(lines, at)| lines.get(*at))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn another_process_reads_who_came_round_how_often() {
        let pulse = Pulse::new(2).unwrap();
        let file = File::from(pulse.as_fd().try_clone_to_owned().unwrap());
        let own = gettid().as_raw().unsigned_abs().into();
        pulse.control().begin();
        let worker = pulse.worker(1);
        worker.begin();
        (0..3).for_each(|_| worker.beat());
        pulse.worker(2).beat();
        Beat::default().beat();
        let read = |number: usize| {
            let mut line = [0; LINE];
            file.read_exact_at(&mut line, (number * LINE) as u64).unwrap();
            read(&line)
        };
        assert_eq!([0, 1, 2].map(read), [(own, 0), (0, 0), (own, 3)]);
        assert_eq!(file.metadata().unwrap().len(), 3 * LINE as u64);
    }
}
