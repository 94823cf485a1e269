//! What a process begins with: what the one before it left, as far as that can be used.

use std::net::IpAddr;
use std::sync::Arc;

use culvert_api::config::fastpath::{FastPathConfig, Hugepages};
use culvert_api::fastpath as proto;
use culvert_api::value::Mac;
use culvert_dpdk::Eal;

use crate::balance::{Calendar, Moment};
use crate::clock::Clock;
use crate::control::{Memory, Recalled, chain};
use crate::flow::{FlowMemoryError, FlowTables, FlowWorker, KEPT_AS, Left, TakenOver};
use crate::keep::{Inheritance, Keep};
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
    pub(crate) taken: TakenOver,
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
        let left = match (no_tables, inheritance.take(KEPT_AS).map(Left::open)) {
            (Some(error), _) => {
                refused = chain(&error);
                None
            }
            (None, Some(Err(error))) => {
                refused = chain(&error);
                None
            }
            (None, left) => left.and_then(Result::ok),
        };
        let flows = memory_for_flows(config, keep)?;
        let snapshot = tables.as_mut().map_or_else(Snapshot::default, |(builder, _)| builder.snapshot());
        let mut workers: Vec<_> = config.workers.iter().map(|_| flows.worker()).collect();
        let mut clock = Clock::start(eal);
        let mut taken = TakenOver::default();
        if let Some(left) = left {
            match Clock::started_at(eal, left.start()) {
                Some(started) => {
                    clock = started;
                    let now = (clock.tick(), Moment::after(clock.elapsed()));
                    match flows.take_over(&mut workers, &left, &snapshot, now) {
                        Ok(all) => taken = all,
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
            // In place of what was left, of which all is known by now.
            keep.store(KEPT_AS, &[std::os::fd::AsFd::as_fd(segment)]);
        }
        if !refused.is_empty() {
            tracing::error!(reason = refused, "flows of the process before are not kept");
        }
        Ok(Self { clock, flows, workers, snapshot, tables, memory, ports, neighbours, taken, refused })
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
