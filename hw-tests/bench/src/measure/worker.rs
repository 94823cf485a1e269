//! A worker: polls, and looks at the clock.

use std::sync::Arc;
use std::time::Duration;

use culvert_dpdk::{Burst, Eal, tsc};
use culvert_engine::counter::CounterSet;
use culvert_engine::flow::{FlowTables, Tick};
use culvert_engine::pipeline::Verdict;
use culvert_engine::quiescent::{self, Publisher, Reader};
use culvert_engine::table::{PortIndex, Snapshot};
use culvert_engine::worker::{BURST, Forwarder, WorkerPort};
use culvert_packet::PacketBuf;

use super::misses::{Counters, Misses};
use super::team::{Stopped, Team};
use super::{MeasureError, Plan, Run};
use crate::input::From;
use crate::rig::{Queues, Rig};
use crate::scene::{Scene, UPLINK};
use crate::work::Work;

/// Rounds between two looks at the clock, and between two times of housekeeping as a worker does it.
const ROUNDS: usize = 64;

/// Seconds of io, and then of the work, in which a neighbour of the machine seldom comes or goes.
const TURN: f64 = 0.1;

/// Records that one `Pipeline::age` looks at, at least.
const AGED: u64 = 4;

/// What all workers use.
struct Shared {
    work: Work,
    hz: u64,
    start: u64,
    /// Who is behind each of the engine's ports.
    behind: Vec<From>,
    flows: Arc<FlowTables>,
    counters: CounterSet,
    /// Bursts from each queue in which no flow comes twice.
    pass: usize,
    team: Arc<Team>,
}

/// One worker's runs.
pub(super) struct Runs {
    /// Of io and of the work, which take turns.
    pub(super) pairs: Vec<(Run, Run)>,
    /// Of the work, if they can be counted.
    pub(super) misses: Option<Misses>,
}

pub(super) struct Worker {
    shared: Arc<Shared>,
    /// One of them does what is to be done once.
    is_first: bool,
    /// As a worker of the engine has it.
    forwarder: Forwarder,
    tables: Reader<Snapshot>,
}

impl Shared {
    /// Packets that the engine has sent.
    fn sent(&self) -> u64 {
        let ports = (0..self.behind.len() as u16).map(PortIndex);
        ports.map(|port| self.counters.port(port).tx_packets).sum()
    }
}

impl Worker {
    /// One worker for each of the rig's sets of queues, and the publisher of their tables, whose end would be that of the
    /// tables.
    pub(super) fn all(
        eal: &Eal,
        work: Work,
        scene: Scene,
        rig: &mut Rig,
        team: &Arc<Team>,
    ) -> (Vec<Self>, Publisher<Snapshot>) {
        let Scene { snapshot, pipelines, counters, tables: flows, input, .. } = scene;
        let pass = input.pass() / BURST;
        let (publisher, readers) = quiescent::channel(snapshot, team.workers());
        let shared = Arc::new(Shared {
            work,
            hz: tsc::hz(eal),
            start: tsc::now(),
            behind: [From::Underlay].into_iter().chain(input.pods.into_iter().map(From::Pod)).collect(),
            flows,
            counters,
            pass: pass.max(1),
            team: Arc::clone(team),
        });
        let queues = std::mem::take(&mut rig.queues);
        let parts = queues.into_iter().zip(pipelines).zip(readers).enumerate();
        let worker = |(n, ((Queues { mut rx, tx }, pipeline), tables))| {
            let mut forwarder = Forwarder::new(pipeline);
            for (index, tx) in tx {
                let rx: &mut Vec<_> = &mut rx;
                let rx = rx.extract_if(.., |(port, _)| *port == index).map(|(_, rx)| rx).collect();
                forwarder.take(WorkerPort::new(index, rx, tx));
            }
            Self { shared: Arc::clone(&shared), is_first: n == 0, forwarder, tables }
        };
        (parts.map(worker).collect(), publisher)
    }

    /// All runs.
    pub(super) fn run(mut self, plan: Plan) -> Result<Runs, Stopped> {
        let team = Arc::clone(&self.shared.team);
        self.verify(plan.sample)?;
        team.step(|| Ok(self.io(plan.warmup, 0)))?;
        self.engine(plan.warmup, plan.pause)?;
        let mut counters = Counters::of_this_thread();
        let mut misses = counters.as_ref().map(|_| Misses::default());
        let mut pairs = Vec::new();
        let turns = (plan.seconds / TURN).ceil();
        for _ in 0..plan.runs {
            let (mut io, mut work) = (Run::default(), Run::default());
            for _ in 0..turns as usize {
                io = io.plus(team.step(|| match self.io(plan.seconds / turns, 0) {
                    Run { packets: 0, .. } => Err(MeasureError::Silence),
                    run => Ok(run),
                })?);
                let before = counters.as_mut().and_then(Counters::read);
                work = work.plus(self.engine(plan.seconds / turns, plan.pause)?);
                let part = counters.as_mut().and_then(Counters::read).zip(before);
                misses = misses.zip(part).map(|(sum, (after, before))| sum.plus(after.since(before)));
            }
            pairs.push((io, work));
        }
        self.verify(plan.sample)?;
        let is_first = self.is_first;
        team.step(|| if is_first { finish(&team) } else { Ok(()) })?;
        Ok(Runs { pairs, misses })
    }

    /// Receives and transmits for some seconds, with a pause of so many cycles for each packet in between.
    fn io(&mut self, seconds: f64, pause: u16) -> Run {
        let mut burst: Burst<BURST> = Burst::new();
        let begin = tsc::now();
        let enough = (seconds * self.shared.hz as f64) as u64;
        let mut packets = 0;
        loop {
            for _ in 0..ROUNDS {
                for queue in 0..self.forwarder.polled() {
                    self.forwarder.receive(queue, &mut burst);
                    packets += burst.len() as u64;
                    if pause > 0 {
                        let until = tsc::now() + u64::from(pause) * burst.len() as u64;
                        while tsc::now() < until {}
                    }
                    self.forwarder.transmit(UPLINK, &mut burst);
                }
            }
            let cycles = tsc::now() - begin;
            if cycles >= enough {
                return Run { packets, cycles };
            }
        }
    }

    /// Does the work for some seconds, or pauses in its place.
    fn engine(&mut self, seconds: f64, pause: Option<u16>) -> Result<Run, Stopped> {
        let enough = (seconds * self.shared.hz as f64) as u64;
        match (self.shared.work, pause) {
            (Work::W0, _) | (_, Some(_)) => {
                let team = Arc::clone(&self.shared.team);
                team.step(|| Ok(self.io(seconds, pause.unwrap_or(0))))
            }
            (Work::W4, None) => self.open_flows(enough),
            (_, None) => self.counted(|worker| worker.forward(enough)),
        }
    }

    /// Does a part of the work, and holds what all workers have received against what the engine says of it.
    fn counted(&mut self, part: impl FnOnce(&mut Self) -> Run) -> Result<Run, Stopped> {
        let shared = Arc::clone(&self.shared);
        let (team, counters) = (&shared.team, &shared.counters);
        // Nobody begins before all are here.
        let before = (team.packets(), shared.sent(), counters.flows().created);
        let run = team.step(|| Ok(part(self)))?;
        team.tell(run.packets);
        team.meet()?;
        let packets = team.packets() - before.0;
        let (lost, opened) = (packets - (shared.sent() - before.1), counters.flows().created - before.2);
        if lost > 0 {
            let reasons = counters.drops().into_iter().filter(|(_, count)| *count > 0);
            let why = reasons.map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>();
            team.give_up(MeasureError::Lost { lost, packets, why: why.join(", ") });
            return Err(Stopped);
        }
        if shared.work == Work::W4 && opened != packets {
            team.give_up(MeasureError::NotOpened { packets, opened });
            return Err(Stopped);
        }
        Ok(run)
    }

    fn forward(&mut self, enough: u64) -> Run {
        let begin = tsc::now();
        let mut packets = 0;
        loop {
            let now = self.now();
            for _ in 0..ROUNDS {
                packets += self.round(now);
            }
            self.forwarder.pipeline().age(self.tables.pin(), now, false);
            let cycles = tsc::now() - begin;
            if cycles >= enough {
                return Run { packets, cycles };
            }
        }
    }

    /// Opens every flow of the input once, and forgets all of them when the clock has stopped; again and again.
    fn open_flows(&mut self, enough: u64) -> Result<Run, Stopped> {
        let team = Arc::clone(&self.shared.team);
        let mut run = Run::default();
        loop {
            run = run.plus(self.counted(Self::open_all)?);
            if self.is_first {
                team.say_over(run.cycles >= enough);
            }
            self.forget()?;
            if team.is_over() {
                return Ok(run);
            }
        }
    }

    fn open_all(&mut self) -> Run {
        let begin = tsc::now();
        let mut packets = 0;
        for _ in 0..self.shared.pass {
            let now = self.now();
            packets += self.round(now);
        }
        Run { packets, cycles: tsc::now() - begin }
    }

    /// Ends all flows, and frees the records of this worker.
    fn forget(&mut self) -> Result<(), Stopped> {
        let shared = Arc::clone(&self.shared);
        let flows = &shared.flows.v4;
        if self.is_first {
            for hit in flows.iter() {
                let _ = flows.remove(&hit);
            }
        }
        shared.team.meet()?;
        let now = self.now();
        for _ in 0..flows.capacity() / AGED + 1 {
            self.forwarder.pipeline().age(self.tables.pin(), now, false);
        }
        shared.team.meet()
    }

    /// One round over all queues.
    fn round(&mut self, now: Tick) -> u64 {
        // There is nobody in the input who would tell something of himself.
        self.forwarder.round(self.tables.pin(), now, |_| {})
    }

    /// Compares this worker's share of `sample` packets with the reference.
    fn verify(&mut self, sample: usize) -> Result<(), Stopped> {
        let shared = Arc::clone(&self.shared);
        if shared.work == Work::W0 {
            return Ok(());
        }
        let mut left = sample.div_ceil(shared.team.workers());
        shared.team.step(|| {
            let mut reference = shared.team.reference();
            let mut burst: Burst<BURST> = Burst::new();
            let mut verdicts = Vec::with_capacity(BURST);
            while left > 0 {
                let now = self.now();
                let tables = self.tables.pin();
                for queue in 0..self.forwarder.polled() {
                    let port = self.forwarder.receive(queue, &mut burst);
                    if burst.is_empty() {
                        return Err(MeasureError::Silence);
                    }
                    let received: Vec<_> = burst.iter().map(|packet| packet.data().to_vec()).collect();
                    self.forwarder.pipeline().process(tables, now, port, &mut burst, &mut verdicts);
                    for ((received, sent), verdict) in received.iter().zip(burst.iter()).zip(&verdicts) {
                        let nth = reference.checked();
                        let Verdict::Send(PortIndex(out)) = *verdict else {
                            return Err(MeasureError::NotSent { nth, verdict: format!("{verdict:?}") });
                        };
                        reference
                            .check(received, shared.behind[usize::from(out)], sent.data())
                            .map_err(|source| MeasureError::Wrong { nth, source })?;
                    }
                    left = left.saturating_sub(burst.len());
                    burst.clear();
                }
            }
            Ok(())
        })?;
        if shared.work == Work::W4 {
            shared.team.meet()?;
            self.forget()?;
        }
        Ok(())
    }

    fn now(&self) -> Tick {
        let Shared { start, hz, .. } = *self.shared;
        Tick::at(Duration::from_secs((tsc::now() - start) / hz.max(1)))
    }
}

/// Holds the whole sample against what is demanded of all of it.
fn finish(team: &Team) -> Result<(), MeasureError> {
    let reference = team.reference();
    reference.finish().map_err(|source| MeasureError::Wrong { nth: reference.checked(), source })
}
