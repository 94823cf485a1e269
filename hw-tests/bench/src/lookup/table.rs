//! The engine's own table.

use std::time::Duration;

use culvert_dpdk::{hash::BULK, tsc};
use culvert_engine::flow::{FlowTables, FlowWorker, Moment, Out, Probe, Record, Route, State, Tick};
use culvert_engine::table::{BackendId, PortIndex};
use culvert_packet::flow::FlowKey4;
use culvert_packet::usual::Kind;

use super::{Built, LookupError, Tested};

/// Epoch of the tables that all flows were decided under.
const EPOCH: u32 = 1;

pub(super) struct Own {
    worker: FlowWorker,
    moment: Moment,
}

/// Holds the connections, all of them established.
pub(super) fn build(connections: &[[FlowKey4; 2]]) -> Result<Built<Own>, LookupError> {
    let now = Tick::at(Duration::ZERO);
    let before = resident();
    let mut worker = FlowTables::new(connections.len() as u32)?.worker();
    let begin = tsc::now();
    for (n, [original, reply]) in connections.iter().enumerate() {
        let record = Record {
            original: *original,
            translated: reply.reversed(),
            route: Route { epoch: EPOCH, forward: Out::Remote(0), reply: Out::Pod(PortIndex(1)) },
            service: 0,
            backend: BackendId { slot: 0, generation: 0 },
        };
        let FlowWorker { tables, arena4, .. } = &mut worker;
        tables.v4.insert(arena4, &record, now, State::TwoWay).map_err(|_| LookupError::Full(n))?;
    }
    let insert = (tsc::now() - begin) as f64 / connections.len() as f64;
    let bytes = resident().saturating_sub(before);
    Ok(Built { table: Own { worker, moment: Moment::new(EPOCH, now) }, insert, bytes })
}

impl Tested for Own {
    /// As `Pipeline` does it.
    fn lookup(&mut self, keys: &[FlowKey4]) -> usize {
        let table = &self.worker.tables.v4;
        let burst = table.burst();
        let mut hashes = [0; BULK];
        for (hash, key) in hashes.iter_mut().zip(keys) {
            *hash = key.hash64();
            burst.prefetch(*hash);
        }
        let mut probes = [Probe::ABSENT; BULK];
        for (probe, hash) in probes.iter_mut().zip(&hashes[..keys.len()]) {
            *probe = burst.probe(*hash);
        }
        let mut found = 0;
        for ((key, hash), probe) in keys.iter().zip(hashes).zip(probes) {
            if probe.is_absent() {
                continue;
            }
            let hit = table.follow(probe, key, true, &self.moment, self.moment.calm(Kind::Udp)).is_some();
            found += usize::from(hit || table.lookup(key, hash).is_some());
        }
        found
    }
}

/// Bytes of this process in memory, which its tables take as they fill.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * 4096
}
