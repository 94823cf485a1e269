//! rte_hash.

use culvert_dpdk::hash::{self, BULK, HashTable};
use culvert_dpdk::{Eal, tsc};
use culvert_engine::flow::prefetch;
use culvert_packet::flow::FlowKey4;

use super::{Built, KEY, LookupError, Tested};

/// What a connection's record is in a table of flows: a cache line.
#[derive(Clone)]
#[repr(align(64))]
struct Line([u64; 8]);

pub(super) struct Peer {
    table: HashTable<KEY>,
    /// One for each connection; none, if only keys are looked up.
    records: Vec<Line>,
    /// Of what was read, so that it is read.
    sum: u64,
}

/// Holds the connections.
pub(super) fn build(
    eal: &Eal,
    connections: &[[FlowKey4; 2]],
    with_record: bool,
) -> Result<Built<Peer>, LookupError> {
    let before = hash::memory_used(eal);
    let table = HashTable::create(eal, "bench", 2 * connections.len() as u32)?;
    let begin = tsc::now();
    for (n, directions) in connections.iter().enumerate() {
        for key in directions {
            table.add(zerocopy::transmute_ref!(key), n)?;
        }
    }
    let insert = (tsc::now() - begin) as f64 / connections.len() as f64;
    let records = if with_record { vec![Line([1; 8]); connections.len()] } else { Vec::new() };
    let bytes = hash::memory_used(eal) - before + size_of_val(&records[..]) as u64;
    Ok(Built { table: Peer { table, records, sum: 0 }, insert, bytes })
}

impl Tested for Peer {
    fn lookup(&mut self, keys: &[FlowKey4]) -> usize {
        let mut bytes = [&[0; KEY]; BULK];
        for (bytes, key) in bytes.iter_mut().zip(keys) {
            *bytes = zerocopy::transmute_ref!(key);
        }
        let mut values = [0; BULK];
        let found = self.table.lookup_bulk(&bytes[..keys.len()], &mut values);
        if !self.records.is_empty() {
            let values = || (0..keys.len()).filter(|n| found >> n & 1 != 0).map(|n| values[n]);
            values().for_each(|value| prefetch(&self.records[value]));
            self.sum += values().map(|value| self.records[value].0[0]).sum::<u64>();
        }
        found.count_ones() as usize
    }
}
