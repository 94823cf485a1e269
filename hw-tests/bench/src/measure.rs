//! The worker: polls, and looks at the clock.
//!
//! The engine and plain io take turns on the same queues, the same packets and the same CPU, in one thread, so that
//! whatever disturbs the machine disturbs both.

use std::sync::Arc;
use std::time::Duration;

use culvert_dpdk::lcore::{self, LcoreError};
use culvert_dpdk::{Burst, Eal, tsc};
use culvert_engine::counter::CounterSet;
use culvert_engine::flow::{FlowTables, Tick};
use culvert_engine::pipeline::Verdict;
use culvert_engine::quiescent::{self, Publisher, Reader};
use culvert_engine::table::{PortIndex, Snapshot};
use culvert_engine::worker::{BURST, Forwarder, WorkerPort};
use culvert_packet::PacketBuf;

use crate::input::From;
use crate::reference::{Reference, Wrong};
use crate::rig::Rig;
use crate::scene::{Scene, UPLINK};
use crate::work::Work;

/// Rounds between two looks at the clock, and between two times of housekeeping as a worker does it.
const ROUNDS: usize = 64;

/// Records that one `Pipeline::age` looks at, at least.
const AGED: usize = 1;

/// How long, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) cpu: u32,
    pub(crate) runs: usize,
    pub(crate) seconds: f64,
    pub(crate) warmup: f64,
    /// Packets that are compared with the reference, before and after.
    pub(crate) sample: usize,
}

/// One run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) packets: u64,
    /// TSC cycles.
    pub(crate) cycles: u64,
}

impl Run {
    pub(crate) fn cycles_per_packet(self) -> f64 {
        self.cycles as f64 / self.packets as f64
    }
}

/// All runs of one work.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    /// Receive and transmit only.
    pub(crate) io: Vec<Run>,
    /// The work, each run right after the one of `io`.
    pub(crate) work: Vec<Run>,
    /// Packets that were compared with the reference, all of them right.
    pub(crate) checked: usize,
}

/// Why a measurement does not count.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeasureError {
    #[error(transparent)]
    Worker(#[from] LcoreError),
    #[error("the worker panicked")]
    Panic,
    #[error("nothing was received: is there memory for the packets?")]
    Silence,
    #[error("the engine did its work wrong: packet {nth} of the sample")]
    Wrong { nth: usize, source: Wrong },
    #[error("packet {nth} of the sample was not sent on: {verdict}")]
    NotSent { nth: usize, verdict: String },
    #[error("{lost} of {packets} packets were not sent on: {why}")]
    Lost { lost: u64, packets: u64, why: String },
    #[error("{packets} packets opened {opened} flows")]
    NotOpened { packets: u64, opened: u64 },
}

/// Measures a work. The queues are gone afterwards, so that the rig can be removed.
pub(crate) fn measure(
    eal: &Eal,
    work: Work,
    scene: Scene,
    rig: &mut Rig,
    plan: Plan,
) -> Result<Measured, MeasureError> {
    let worker = Worker::new(eal, work, scene, rig);
    let thread = lcore::spawn(eal, "bench", plan.cpu, move |_| worker.run(plan))?;
    thread.join().map_err(|_| MeasureError::Panic)?
}

struct Worker {
    work: Work,
    hz: u64,
    start: u64,
    /// As a worker of the engine has it.
    forwarder: Forwarder,
    /// Who is behind each of the engine's ports.
    behind: Vec<From>,
    flows: Arc<FlowTables>,
    counters: CounterSet,
    tables: Reader<Snapshot>,
    /// Not used again, but its end would be that of the tables.
    _publisher: Publisher<Snapshot>,
    /// Bursts from each queue in which no flow comes twice.
    pass: usize,
}

impl Worker {
    fn new(eal: &Eal, work: Work, scene: Scene, rig: &mut Rig) -> Self {
        let Scene { snapshot, pipeline, counters, tables: flows, input, .. } = scene;
        let pass =
            input.lanes.iter().map(|lane| lane.frames.len()).min().unwrap_or(0).min(input.flows) / BURST;
        let (publisher, mut readers) = quiescent::channel(snapshot, 1);
        let mut forwarder = Forwarder::new(pipeline);
        let mut received = std::mem::take(&mut rig.rx);
        for (index, tx) in std::mem::take(&mut rig.tx) {
            let rx = received.extract_if(.., |(port, _)| *port == index).map(|(_, rx)| rx).collect();
            forwarder.take(WorkerPort::new(index, rx, tx));
        }
        Self {
            work,
            hz: tsc::hz(eal),
            start: tsc::now(),
            forwarder,
            behind: [From::Underlay].into_iter().chain(input.pods.into_iter().map(From::Pod)).collect(),
            flows,
            counters,
            tables: readers.remove(0),
            _publisher: publisher,
            pass: pass.max(1),
        }
    }

    fn run(mut self, plan: Plan) -> Result<Measured, MeasureError> {
        let mut reference = Reference::new(self.work);
        let mut measured = Measured::default();
        if self.work != Work::W0 {
            self.verify(&mut reference, plan.sample)?;
        }
        self.io(plan.warmup);
        self.engine(plan.warmup)?;
        for _ in 0..plan.runs {
            measured.io.push(self.io(plan.seconds));
            measured.work.push(self.engine(plan.seconds)?);
        }
        if measured.io.iter().chain(&measured.work).any(|run| run.packets == 0) {
            return Err(MeasureError::Silence);
        }
        if self.work != Work::W0 {
            self.verify(&mut reference, plan.sample)?;
            reference.finish().map_err(|source| MeasureError::Wrong { nth: reference.checked(), source })?;
        }
        measured.checked = reference.checked();
        Ok(measured)
    }

    /// Receives and transmits for some seconds.
    fn io(&mut self, seconds: f64) -> Run {
        let mut burst: Burst<BURST> = Burst::new();
        let begin = tsc::now();
        let enough = (seconds * self.hz as f64) as u64;
        let mut packets = 0;
        loop {
            for _ in 0..ROUNDS {
                for queue in 0..self.forwarder.polled() {
                    self.forwarder.receive(queue, &mut burst);
                    packets += burst.len() as u64;
                    self.forwarder.transmit(UPLINK, &mut burst);
                }
            }
            let cycles = tsc::now() - begin;
            if cycles >= enough {
                return Run { packets, cycles };
            }
        }
    }

    /// Does the work for some seconds.
    fn engine(&mut self, seconds: f64) -> Result<Run, MeasureError> {
        if self.work == Work::W0 {
            return Ok(self.io(seconds));
        }
        let enough = (seconds * self.hz as f64) as u64;
        let mut run = Run::default();
        let before = self.sent();
        while run.cycles < enough {
            let part = match self.work {
                Work::W4 => self.open_flows()?,
                _ => self.forward(enough),
            };
            run = Run { packets: run.packets + part.packets, cycles: run.cycles + part.cycles };
        }
        let lost = run.packets - (self.sent() - before);
        if lost > 0 {
            let reasons = self.counters.drops().into_iter().filter(|(_, count)| *count > 0);
            let why =
                reasons.map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", ");
            return Err(MeasureError::Lost { lost, packets: run.packets, why });
        }
        Ok(run)
    }

    /// Packets that the engine has sent.
    fn sent(&self) -> u64 {
        let ports = (0..self.behind.len() as u16).map(PortIndex);
        ports.map(|port| self.counters.port(port).tx_packets).sum()
    }

    fn forward(&mut self, enough: u64) -> Run {
        let begin = tsc::now();
        let mut packets = 0;
        loop {
            let now = self.now();
            for _ in 0..ROUNDS {
                packets += self.round(now);
            }
            self.forwarder.pipeline().age(self.tables.pin(), now);
            let cycles = tsc::now() - begin;
            if cycles >= enough {
                return Run { packets, cycles };
            }
        }
    }

    /// Opens every flow of the input once, and forgets all of them when the clock has stopped.
    fn open_flows(&mut self) -> Result<Run, MeasureError> {
        let before = self.counters.flows().created;
        let begin = tsc::now();
        let mut packets = 0;
        for _ in 0..self.pass {
            let now = self.now();
            packets += self.round(now);
        }
        let cycles = tsc::now() - begin;
        let opened = self.counters.flows().created - before;
        if opened != packets {
            return Err(MeasureError::NotOpened { packets, opened });
        }
        self.forget();
        Ok(Run { packets, cycles })
    }

    /// Ends all flows and frees their records.
    fn forget(&mut self) {
        let mut ended = 0;
        for hit in self.flows.v4.iter() {
            ended += usize::from(self.flows.v4.remove(&hit).is_some());
        }
        let now = self.now();
        for _ in 0..ended.div_ceil(AGED) + 1 {
            self.forwarder.pipeline().age(self.tables.pin(), now);
        }
    }

    /// One round over all queues.
    fn round(&mut self, now: Tick) -> u64 {
        // There is nobody in the input who would tell something of himself.
        self.forwarder.round(self.tables.pin(), now, |_| {})
    }

    /// Compares `sample` packets with the reference.
    fn verify(&mut self, reference: &mut Reference, sample: usize) -> Result<(), MeasureError> {
        let mut burst: Burst<BURST> = Burst::new();
        let mut verdicts = Vec::with_capacity(BURST);
        let goal = reference.checked() + sample;
        while reference.checked() < goal {
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
                        .check(received, self.behind[usize::from(out)], sent.data())
                        .map_err(|source| MeasureError::Wrong { nth, source })?;
                }
                burst.clear();
            }
        }
        if self.work == Work::W4 {
            self.forget();
        }
        Ok(())
    }

    fn now(&self) -> Tick {
        Tick::at(Duration::from_secs((tsc::now() - self.start) / self.hz.max(1)))
    }
}
