//! The control thread's side of the workers.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use culvert_dpdk::lcore::{self, LcoreError};
use culvert_dpdk::{Eal, Mbuf};
use nix::unistd::{Pid, gettid};

use super::Resting;
use super::mailbox::{Done, Mailbox, Order};
use super::port::WorkerPort;
use super::rest::{Bell, Rest};
use super::runner::Runner;
use super::scheduling::Scheduling;
use crate::clock::Clock;
use crate::keep::Beat;
use crate::pipeline::{Learned, Pipeline};
use crate::port::Queues;
use crate::quiescent::Reader;
use crate::table::{PortIndex, Snapshot};

/// How long a worker may take to carry out an order. One round is enough, but the machine may be busy with others.
const PATIENCE: Duration = Duration::from_secs(3);

/// Between two looks at whether a worker is done.
const PAUSE: Duration = Duration::from_micros(20);

/// What can be wrong with workers.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// It could not be started.
    #[error(transparent)]
    Start(#[from] LcoreError),
    /// The descriptors that wake it up.
    #[error("worker {worker}: cannot make descriptors")]
    Descriptors {
        /// The worker.
        worker: usize,
        /// Why not.
        source: io::Error,
    },
    /// It has ended, which it never does by itself.
    #[error("worker {worker} on CPU {cpu} has ended unexpectedly")]
    Ended {
        /// The worker.
        worker: usize,
        /// Its CPU.
        cpu: u32,
    },
    /// It does not carry out its orders.
    #[error("worker {worker} on CPU {cpu} has not answered for {PATIENCE:?}")]
    Silent {
        /// The worker.
        worker: usize,
        /// Its CPU.
        cpu: u32,
    },
}

/// All workers.
#[derive(Debug)]
pub struct Team {
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    number: usize,
    mailbox: Mailbox,
    thread: lcore::Worker<()>,
    /// Its number among the threads of this process, once it runs.
    id: Arc<OnceLock<Pid>>,
}

/// Who polls a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polling {
    /// The worker of this number, all of its receive queues.
    By(usize),
    /// All workers: the first queue the first, and so on.
    ByAll,
}

/// What a worker is made of.
#[derive(Debug)]
pub struct Recruit {
    /// Its CPU.
    pub cpu: u32,
    /// Where it reads the tables.
    pub tables: Reader<Snapshot>,
    /// What it does with packets.
    pub pipeline: Pipeline,
    /// Where it shows that it goes on.
    pub beat: Beat,
}

impl Team {
    /// Starts the workers, each on its CPU and without ports. They rest as said.
    ///
    /// # Errors
    /// None runs then.
    pub fn start(
        eal: &Eal,
        recruits: Vec<Recruit>,
        clock: Clock,
        resting: Resting,
    ) -> Result<Self, WorkerError> {
        let mut team = Self { members: Vec::with_capacity(recruits.len()) };
        for (number, Recruit { cpu, tables, pipeline, beat }) in recruits.into_iter().enumerate() {
            let made = Bell::new().and_then(|bell| Ok((Mailbox::new(Arc::clone(&bell)), Rest::new(bell)?)));
            let (mailbox, rest) = match made {
                Ok(made) => made,
                Err(source) => {
                    let _ = team.stop();
                    return Err(WorkerError::Descriptors { worker: number, source });
                }
            };
            let runner = Runner::new(mailbox.clone(), rest, tables, pipeline, beat, clock, resting);
            let id = Arc::new(OnceLock::new());
            let own = Arc::clone(&id);
            let body = move |_: &lcore::Lcore| {
                own.get_or_init(gettid);
                runner.run();
            };
            match lcore::spawn(eal, &format!("culvert-w{number}"), cpu, body) {
                Ok(thread) => team.members.push(Member { number, mailbox, thread, id }),
                Err(error) => {
                    // The error that is returned is the one that counts.
                    let _ = team.stop();
                    return Err(error.into());
                }
            }
        }
        Ok(team)
    }

    /// Has all leave their ports alone from their next round on, as long as they are `held`; packets wait in the ports' queues.
    pub fn hold(&self, held: bool) {
        self.members.iter().for_each(|member| member.mailbox.hold(held));
    }

    /// Gives a started port to the workers: its receive queues as `polling` says, and a transmit queue to each. Returns
    /// when all have it.
    ///
    /// # Errors
    /// No worker holds the port then, except one that does not answer.
    pub fn hand_over(&self, index: PortIndex, polling: Polling, queues: Queues) -> Result<(), WorkerError> {
        let mut result = Ok(());
        let mut shares: Vec<_> = self.members.iter().map(|_| Vec::new()).collect();
        for (n, rx) in queues.rx.into_iter().enumerate() {
            let worker = match polling {
                Polling::By(worker) => worker,
                Polling::ByAll => n % self.members.len().max(1),
            };
            if let Some(share) = shares.get_mut(worker) {
                share.push(rx);
            }
        }
        for ((member, tx), rx) in self.members.iter().zip(queues.tx).zip(shares) {
            let port = Box::new(WorkerPort::new(index, rx, tx));
            result = result.and(member.order(Order::Take(port)));
        }
        for member in &self.members {
            let taken = member.wait(|done| matches!(done, Done::Taken(taken) if *taken == index));
            result = result.and(taken.map(|_| ()));
        }
        if result.is_err() {
            let _ = self.take_back(index);
        }
        result
    }

    /// Takes a port away from all workers. When this returns without error nobody uses it.
    ///
    /// # Errors
    /// Of the first worker that does not answer; all were asked.
    pub fn take_back(&self, index: PortIndex) -> Result<(), WorkerError> {
        let mut result = Ok(());
        for member in &self.members {
            result = result.and(member.order(Order::Return(index)));
        }
        for member in &self.members {
            match member.wait(|done| matches!(done, Done::Returned(returned, _) if *returned == index)) {
                // The queues go here, on the control thread.
                Ok(Done::Returned(_, port)) => drop(port),
                Ok(Done::Taken(_)) => {}
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    /// Sends a frame through a port, by the worker of this number. Gives the frame back if too many wait there.
    ///
    /// # Errors
    /// The frame.
    pub fn inject(&self, worker: usize, port: PortIndex, frame: Mbuf) -> Result<(), Mbuf> {
        match self.members.get(worker) {
            Some(member) => member.mailbox.inject(port, frame),
            None => Err(frame),
        }
    }

    /// What the underlay has said since.
    pub fn learned(&self) -> impl Iterator<Item = Learned> + '_ {
        self.members.iter().flat_map(|member| std::iter::from_fn(|| member.mailbox.learned()))
    }

    /// The CPU of each worker.
    pub fn cpus(&self) -> impl Iterator<Item = u32> + '_ {
        self.members.iter().map(|member| member.thread.cpu())
    }

    /// What the kernel's scheduler has counted of each worker, where it tells.
    pub fn scheduling(&self) -> impl Iterator<Item = Option<Scheduling>> + '_ {
        self.members.iter().map(|member| Scheduling::of(*member.id.get()?))
    }

    /// Whether all still run.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), WorkerError> {
        self.members.iter().try_for_each(Member::check)
    }

    /// Lets all leave their loops, and waits for that. Ports they still hold they drop.
    ///
    /// # Errors
    /// The first that ended by a panic.
    pub fn stop(self) -> Result<(), WorkerError> {
        for member in &self.members {
            member.mailbox.stop();
        }
        let mut result = Ok(());
        for Member { number: worker, thread, .. } in self.members {
            let cpu = thread.cpu();
            result = result.and(thread.join().map_err(|_| WorkerError::Ended { worker, cpu }));
        }
        result
    }
}

impl Member {
    fn check(&self) -> Result<(), WorkerError> {
        match self.thread.is_finished() {
            true => Err(WorkerError::Ended { worker: self.number, cpu: self.thread.cpu() }),
            false => Ok(()),
        }
    }

    fn order(&self, order: Order) -> Result<(), WorkerError> {
        self.mailbox.order(order).map_err(|_| self.silent())
    }

    /// Waits for an answer; others, late ones to orders that nobody waits for any more, are dropped.
    fn wait(&self, expected: impl Fn(&Done) -> bool) -> Result<Done, WorkerError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.mailbox.done() {
                Some(done) if expected(&done) => return Ok(done),
                Some(_) => {}
                None => {
                    self.check()?;
                    if Instant::now() > deadline {
                        return Err(self.silent());
                    }
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    fn silent(&self) -> WorkerError {
        WorkerError::Silent { worker: self.number, cpu: self.thread.cpu() }
    }
}
