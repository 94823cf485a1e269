//! What a process begins with: what the one before it left, as far as that can be used.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use culvert_api::config::fastpath::{FastPathConfig, Hugepages};
use culvert_api::fastpath as proto;
use culvert_api::value::Mac;
use culvert_dpdk::Eal;

use crate::balance::{Calendar, Moment};
use crate::clock::Clock;
use crate::control::{Memory, Recalled, chain};
use crate::flow::{FlowMemoryError, FlowTables, FlowWorker, KEPT_AS, Left, Takeover};
use crate::keep::{Inheritance, Keep};
use crate::shortcut::Remains;
use crate::table::{Applied, Builder, Snapshot};

/// All that is known before the first packet.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) clock: Clock,
    pub(crate) flows: Arc<FlowTables>,
    /// One for each worker.
    pub(crate) workers: Vec<FlowWorker>,
    /// What the workers are to begin with.
    pub(crate) snapshot: Snapshot,
    /// What that was made of, if there were tables.
    pub(crate) tables: Option<(Builder, Applied)>,
    /// Where the next process will find them.
    pub(crate) memory: Memory,
    /// Ports of the process before.
    pub(crate) ports: Vec<proto::Port>,
    /// Neighbours that it knew.
    pub(crate) neighbours: Vec<(IpAddr, Mac)>,
    /// Flows of the process before, which are being taken over.
    pub(crate) takeover: Option<Arc<Takeover>>,
    /// Why flows, or tables and flows, of the process before are not in use; empty if they are, or if there was none.
    pub(crate) refused: String,
}

impl Beginning {
    /// Takes over tables and flows.
    ///
    /// # Errors
    /// When there is no memory for flows.
    pub(crate) fn new(
        config: &FastPathConfig,
        eal: &Eal,
        keep: &Keep,
        inheritance: &mut Inheritance,
    ) -> Result<Self, FlowMemoryError> {
        let (memory, Recalled { mut tables, ports, neighbours }, no_tables) =
            Memory::recall(keep, inheritance);
        let mut refused = inheritance.occasion.discarded.clone();
        let kept = inheritance.take_all(KEPT_AS);
        let unseen = Remains::is_in(inheritance);
        let lefts: Result<Vec<_>, _> =
            kept.iter().map(|file| Left::open(file.as_fd()).map(|left| left.unseen(unseen))).collect();
        let lefts = match (no_tables, lefts) {
            (None, Ok(lefts)) => lefts,
            (Some(error), _) => {
                refused = chain(&error);
                Vec::new()
            }
            (None, Err(error)) => {
                refused = chain(&error);
                Vec::new()
            }
        };
        let flows = memory_for_flows(config, keep)?;
        let snapshot = tables.as_mut().map_or_else(Snapshot::default, |(builder, _)| builder.snapshot());
        let mut workers: Vec<_> = config.workers.iter().map(|_| flows.worker()).collect();
        let mut clock = Clock::start(eal);
        let mut takeover = None;
        if let Some(left) = lefts.first() {
            match Clock::started_at(eal, left.start()) {
                Some(started) => {
                    clock = started;
                    let now = (clock.tick(), Moment::after(clock.elapsed()));
                    match flows.take_over(&mut workers, lefts, &snapshot, now) {
                        Ok(begun) => takeover = Some(begun),
                        Err(error) => refused = chain(&error),
                    }
                }
                None => refused = "flow memory is of a time that is yet to come".to_owned(),
            }
        }
        flows.set_start(clock.start_count());
        for worker in &mut workers {
            worker.calendar = Calendar::from(Moment::after(clock.elapsed()));
        }
        if let Some(segment) = flows.segment() {
            // Whatever is not entered yet is still where it was.
            let before =
                kept.iter().filter(|_| takeover.as_ref().is_some_and(|takeover| !takeover.is_done()));
            let all: Vec<_> = std::iter::once(segment.as_fd()).chain(before.map(AsFd::as_fd)).collect();
            keep.store(KEPT_AS, &all);
        }
        if !refused.is_empty() {
            tracing::error!(reason = refused, "flows of the process before are not kept");
        }
        Ok(Self { clock, flows, workers, snapshot, tables, memory, ports, neighbours, takeover, refused })
    }

    /// The uplink's own address, if the process before had this uplink.
    pub(crate) fn uplink_mac(&self, name: &str) -> Option<Mac> {
        let uplink = self.ports.iter().find(|port| port.kind() == proto::PortKind::Uplink)?;
        let mac = <[u8; 6]>::try_from(&uplink.mac[..]).ok().filter(|_| uplink.name == name)?;
        Mac::try_from(mac).ok()
    }
}

fn memory_for_flows(config: &FastPathConfig, keep: &Keep) -> Result<Arc<FlowTables>, FlowMemoryError> {
    if !keep.is_kept() {
        return FlowTables::with_clients(config.flows, config.affinity_clients);
    }
    let wanted = config.memory.hugepages != Hugepages::Off;
    let flows = FlowTables::shared(config.flows, config.affinity_clients, wanted)?;
    if wanted && !flows.segment().is_some_and(crate::flow::Segment::is_in_hugepages) {
        tracing::warn!("flow memory is in ordinary pages: not enough hugepages are free for it");
    }
    Ok(flows)
}
