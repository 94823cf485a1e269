//! The engine as the model sees it: what goes in, what comes out, and what it says of itself.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use culvert_engine::counter::{CounterSet, counters};
use culvert_engine::flow::{FlowTables, Hit, Key as EngineKey, Tick};
use culvert_engine::pipeline::{Learned, Pipeline, Verdict};
use culvert_engine::table::{
    Applied, Builder, PortIndex, ServiceKey as EngineServiceKey, Snapshot, TableError,
};
use culvert_packet::eth::EthAddr;
use culvert_packet::flow::Tenant;
use culvert_packet::ip::Protocol;
use culvert_packet::offload::Offload;
use culvert_packet::{PacketBuf, TestBuf};

use crate::model::End;
use crate::model::counters::{PortCount, ServiceCount};
use crate::model::flow::Key;
use crate::model::tables::{Port, Said, ServiceKey, Tables};
use crate::wire::{Frame, Left, Mac};
use crate::world::proto;

pub(crate) struct Engine {
    builder: Builder,
    view: Snapshot,
    pub(crate) counters: CounterSet,
    flows: Arc<FlowTables>,
    pipeline: Pipeline,
    revision: u64,
    capacity: u32,
}

/// A tracked flow, in comparable form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tracked {
    pub(crate) original: Key,
    pub(crate) translated: Key,
    pub(crate) state: String,
    /// Seconds since its last packet.
    pub(crate) idle: u64,
}

impl Engine {
    pub(crate) fn new(capacity: u32) -> Self {
        let flows = FlowTables::new(capacity).expect("memory for few flows");
        let (counters, mut writers) = counters(1);
        let pipeline = Pipeline::new(flows.worker(), writers.remove(0));
        let mut builder = Builder::new();
        let view = builder.snapshot();
        Self { builder, view, counters, flows, pipeline, revision: 0, capacity }
    }

    pub(crate) fn take(&mut self, said: &Said) {
        self.revision += 1;
        let tables = proto::tables(said, self.revision);
        let applied = self.builder.apply(&tables);
        self.applied(applied);
    }

    /// Takes over what is different from the tables before.
    pub(crate) fn change(&mut self, before: &Tables, said: &Said, all: bool) {
        self.revision += 1;
        let changes = proto::changes(before, said, all, self.revision - 1, self.revision);
        let applied = self.builder.change(&changes);
        self.applied(applied);
    }

    fn applied(&mut self, applied: Result<Applied, TableError>) {
        let applied = applied.unwrap_or_else(|error| panic!("legal tables are refused: {error}"));
        self.counters.reserve_services(applied.service_slots);
        for slot in &applied.new_services {
            self.counters.restart_service(*slot);
        }
        self.publish();
    }

    pub(crate) fn attach(&mut self, index: u16, port: &Port) {
        let index = PortIndex(index);
        if self.view.port(index).is_none() {
            self.counters.restart_port(index);
        }
        self.builder
            .attach(index, proto::port(port))
            .unwrap_or_else(|error| panic!("a legal port is refused: {error}"));
        self.publish();
    }

    pub(crate) fn detach(&mut self, index: u16) {
        self.builder.detach(PortIndex(index));
        self.publish();
    }

    pub(crate) fn neighbours(&mut self, neighbours: &[(IpAddr, Mac)]) {
        self.builder.set_neighbours(neighbours.iter().map(|(ip, mac)| (*ip, EthAddr(*mac))));
        self.publish();
    }

    pub(crate) fn path_mtus(&mut self, path_mtus: &[(IpAddr, u16)]) {
        self.builder.set_path_mtus(path_mtus.iter().copied());
        self.publish();
    }

    fn publish(&mut self) {
        self.view = self.builder.snapshot();
    }

    /// What becomes of a burst.
    pub(crate) fn receive(&mut self, seconds: u64, port: u16, frames: &[Frame]) -> Vec<End> {
        let mut bufs: Vec<_> = frames.iter().map(buffer).collect();
        let mut verdicts = Vec::new();
        self.pipeline.process(&self.view, tick(seconds), PortIndex(port), &mut bufs, &mut verdicts);
        let mut learned = self.pipeline.learned().iter();
        let end = |(verdict, buf): (&Verdict, &TestBuf)| match verdict {
            Verdict::Send(port) => {
                let Offload { segment, partial } = buf.offload();
                let left = Left { segment: segment.map_or(0, NonZeroU16::get), partial };
                End::Send(port.0, Frame { bytes: buf.data().to_vec(), left })
            }
            Verdict::Drop(reason) => End::Drop(reason.name()),
            Verdict::Learned => match learned.next().expect("what has been learned") {
                Learned::Neighbour(heard) => {
                    End::Learned { ip: heard.ip, mac: heard.mac.0, solicited: heard.solicited }
                }
                Learned::PathMtu(heard) => End::Narrow { vtep: heard.vtep, mtu: heard.mtu },
            },
        };
        assert_eq!(verdicts.len(), frames.len(), "one verdict for each");
        verdicts.iter().zip(&bufs).map(end).collect()
    }

    /// Lets the ageing come by all flows.
    pub(crate) fn age(&mut self, seconds: u64) {
        for _ in 0..self.capacity.div_ceil(16) + 16 {
            self.pipeline.age(&self.view, tick(seconds), false);
        }
    }

    /// Whether there may be flows that are not tracked.
    pub(crate) fn overflows(&self, seconds: u64) -> bool {
        self.flows.overflow.is_active(tick(seconds))
    }

    /// All tracked flows, in order.
    pub(crate) fn tracked(&self, seconds: u64) -> Vec<Tracked> {
        let mut all: Vec<_> = self.flows.v4.iter().map(|hit| tracked(&hit, seconds)).collect();
        all.extend(self.flows.v6.iter().map(|hit| tracked(&hit, seconds)));
        all.sort_unstable();
        all
    }

    pub(crate) fn port_count(&self, index: u16) -> PortCount {
        let count = self.counters.port(PortIndex(index));
        PortCount { packets: count.rx_packets, bytes: count.rx_bytes, dropped: count.rx_dropped }
    }

    /// `None` if the engine does not know the service.
    pub(crate) fn service_count(&self, key: ServiceKey) -> Option<ServiceCount> {
        let ServiceKey { tenant, vip, protocol, port } = key;
        let (tenant, protocol) = (Tenant::new(tenant)?, Protocol(protocol));
        let service = self.view.service(&EngineServiceKey { tenant, vip, protocol, port })?;
        let count = self.counters.service(service.slot());
        Some(ServiceCount {
            packets: count.packets,
            bytes: count.bytes,
            flows: count.new_flows,
            rejected: count.rejected,
        })
    }
}

fn buffer(frame: &Frame) -> TestBuf {
    let mut buf = TestBuf::new(&frame.bytes);
    let Left { segment, partial } = frame.left;
    buf.set_offload(Offload { segment: NonZeroU16::new(segment), partial });
    buf
}

fn tick(seconds: u64) -> Tick {
    Tick::at(Duration::from_secs(seconds))
}

fn tracked<K: EngineKey>(hit: &Hit<K>, seconds: u64) -> Tracked {
    Tracked {
        original: key(&hit.record.original),
        translated: key(&hit.record.translated),
        state: format!("{:?}", hit.state()),
        idle: tick(seconds).seconds_since(hit.seen()),
    }
}

fn key<K: EngineKey>(key: &K) -> Key {
    Key { tenant: key.tenant().get(), protocol: key.protocol().0, src: key.source(), dst: key.destination() }
}
