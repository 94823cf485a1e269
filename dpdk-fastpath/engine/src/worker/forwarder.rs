//! What a worker does in a round: from receive to transmit.

use culvert_dpdk::{Burst, Mbuf};

use super::BURST;
use super::port::{WorkerPort, WorkerPorts};
use crate::flow::Tick;
use crate::pipeline::{Learned, Leaving, Pipeline, Verdict};
use crate::table::{PortIndex, Snapshot};

/// A worker's ports and pipeline, and room for the packets that are under way.
#[derive(Debug)]
pub struct Forwarder {
    pub(super) ports: WorkerPorts,
    pub(super) pipeline: Pipeline,
    burst: Burst<BURST>,
    verdicts: Vec<Verdict>,
    dropped: Burst<BURST>,
}

impl Forwarder {
    /// Without ports.
    pub fn new(pipeline: Pipeline) -> Self {
        let (burst, verdicts, dropped) = (Burst::new(), Vec::with_capacity(BURST), Burst::new());
        Self { ports: WorkerPorts::new(), pipeline, burst, verdicts, dropped }
    }

    /// Takes in a port that never rests.
    pub fn take(&mut self, port: WorkerPort) {
        self.ports.take(Box::new(port));
    }

    /// The pipeline.
    pub fn pipeline(&mut self) -> &mut Pipeline {
        &mut self.pipeline
    }

    /// How many queues are polled.
    #[inline]
    pub fn polled(&self) -> usize {
        self.ports.polled()
    }

    /// Receives from the `n`th polled queue, as much as `burst` has room for. Returns the queue's port.
    #[inline]
    pub fn receive(&mut self, n: usize, burst: &mut Burst<BURST>) -> PortIndex {
        self.ports.rx(n, burst, self.pipeline.counters())
    }

    /// Sends packets as they are, at once and uncounted; those that the port does not take are freed.
    #[inline]
    pub fn transmit(&mut self, port: PortIndex, burst: &mut Burst<BURST>) {
        match self.ports.tx(port) {
            Some(tx) => drop(tx.tx_or_drop_with(burst, |_| {})),
            None => burst.clear(),
        }
    }

    /// Sends a frame of the control thread's at the end of the next round; gives it back if there is no such port.
    pub(super) fn send(&mut self, port: PortIndex, frame: Mbuf) -> Option<Mbuf> {
        self.ports.send(port, frame, port, self.pipeline.counters())
    }

    /// One round over all queues: what has come is decided on by `tables` and sent or freed. `learn` is told what the underlay said.
    /// Returns how many packets there were.
    #[inline]
    pub fn round(&mut self, tables: &Snapshot, now: Tick, mut learn: impl FnMut(Learned)) -> u64 {
        let Self { ports, pipeline, burst, verdicts, dropped } = self;
        let mut packets = 0;
        for queue in 0..ports.polled() {
            let from = ports.rx(queue, burst, pipeline.counters());
            if burst.is_empty() {
                continue;
            }
            packets += burst.len() as u64;
            match pipeline.process(tables, now, from, burst, verdicts) {
                Leaving::Together(port) if ports.send_all(port, burst, pipeline.counters()) => continue,
                Leaving::Ready => {
                    ports.deal(burst, verdicts, from, pipeline.counters());
                    continue;
                }
                _ => {}
            }
            for (packet, verdict) in burst.drain().zip(&*verdicts) {
                let unwanted = match *verdict {
                    Verdict::Send(port) => ports.send(port, packet, from, pipeline.counters()),
                    Verdict::Drop(_) | Verdict::Learned => Some(packet),
                };
                // Never more than were received, so there is room.
                let _ = unwanted.map(|packet| dropped.push(packet));
            }
            dropped.clear();
            pipeline.learned().iter().for_each(|&learned| learn(learned));
        }
        ports.flush(pipeline.counters());
        packets
    }
}
