//! What several workers do together: begin and end every step at the same time, and stop all when one fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::MeasureError;
use crate::reference::Reference;
use crate::work::Work;

/// Another worker failed, or this one did and has said why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopped;

/// Shared by the workers; not touched while the clock runs.
#[derive(Debug)]
pub(super) struct Team {
    workers: usize,
    meeting: Mutex<Meeting>,
    changed: Condvar,
    reference: Mutex<Reference>,
    /// Packets of all workers so far.
    packets: AtomicU64,
    /// Whether the first worker has had enough.
    over: AtomicBool,
}

#[derive(Debug, Default)]
struct Meeting {
    /// Workers that wait at the end of a step.
    arrived: usize,
    /// Steps that all have ended.
    steps: u64,
    /// The first failure.
    failure: Option<MeasureError>,
    failed: bool,
}

impl Team {
    pub(super) fn new(work: Work, workers: usize) -> Self {
        Self {
            workers,
            meeting: Mutex::default(),
            changed: Condvar::new(),
            reference: Mutex::new(Reference::new(work)),
            packets: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }
    }

    pub(super) const fn workers(&self) -> usize {
        self.workers
    }

    /// What sent packets are compared with.
    pub(super) fn reference(&self) -> MutexGuard<'_, Reference> {
        self.reference.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all workers have come here, then does this worker's part of a step.
    pub(super) fn step<T>(&self, part: impl FnOnce() -> Result<T, MeasureError>) -> Result<T, Stopped> {
        self.meet()?;
        match catch_unwind(AssertUnwindSafe(part)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                self.give_up(error);
                Err(Stopped)
            }
            Err(_) => {
                self.give_up(MeasureError::Panic);
                Err(Stopped)
            }
        }
    }

    /// Waits until all workers have come here, or one has given up.
    pub(super) fn meet(&self) -> Result<(), Stopped> {
        let mut meeting = self.lock();
        let step = meeting.steps;
        meeting.arrived += 1;
        if meeting.arrived == self.workers {
            meeting.arrived = 0;
            meeting.steps += 1;
            self.changed.notify_all();
        }
        while meeting.steps == step && !meeting.failed {
            meeting = self.changed.wait(meeting).unwrap_or_else(PoisonError::into_inner);
        }
        if meeting.failed { Err(Stopped) } else { Ok(()) }
    }

    /// Stops all workers at the end of their step.
    pub(super) fn give_up(&self, error: MeasureError) {
        let mut meeting = self.lock();
        meeting.failure.get_or_insert(error);
        meeting.failed = true;
        self.changed.notify_all();
    }

    /// Adds a worker's packets of a step; complete once all have met.
    pub(super) fn tell(&self, packets: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
    }

    /// Packets of all workers so far.
    pub(super) fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// By the first worker, before all meet: whether there is no further round.
    pub(super) fn say_over(&self, over: bool) {
        self.over.store(over, Ordering::Relaxed);
    }

    /// What the first worker has said before all met.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// When all workers have ended: how many packets were compared with the reference, or why nothing counts.
    pub(super) fn finish(&self) -> Result<usize, MeasureError> {
        match self.lock().failure.take() {
            Some(error) => Err(error),
            None => Ok(self.reference().checked()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Meeting> {
        self.meeting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn nobody_begins_a_step_before_all_have_ended_the_one_before() {
        let team = Team::new(Work::W1, 3);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for step in 1..=100 {
                        team.step(|| {
                            team.tell(1);
                            Ok(())
                        })
                        .unwrap();
                        team.meet().unwrap();
                        assert_eq!(team.packets(), 3 * step);
                    }
                });
            }
        });
    }

    #[test]
    fn when_one_fails_or_panics_all_stop_and_the_first_reason_is_kept() {
        for panics in [false, true] {
            let team = Team::new(Work::W1, 3);
            thread::scope(|scope| {
                for worker in 0..3 {
                    let team = &team;
                    scope.spawn(move || {
                        let outcome = team.step(|| match worker {
                            1 if panics => panic!("on purpose"),
                            1 => Err(MeasureError::Silence),
                            _ => Ok(()),
                        });
                        let outcome = outcome.and_then(|()| team.step(|| Ok(())));
                        assert_eq!(outcome, Err(Stopped));
                    });
                }
            });
            team.give_up(MeasureError::NotOpened { packets: 1, opened: 0 });
            let error = team.finish().unwrap_err();
            assert!(matches!((panics, error), (false, MeasureError::Silence) | (true, MeasureError::Panic)));
        }
    }
}
