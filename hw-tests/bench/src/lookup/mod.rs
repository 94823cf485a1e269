//! Look-ups alone: the engine's table of flows beside DPDK's rte_hash.
//!
//! Both hold the same keys, both directions of each connection, and are asked for the same ones in the same shuffled order,
//! in bursts, as the pipeline does it: fetch the buckets of all, then the records of all, then compare. rte_hash has one call
//! for a burst, and gives a number; as a table of flows it would need a record beside it, so it is also measured with
//! that: one cache line, fetched for the whole burst and then read.

mod peer;
mod report;
mod table;

use std::net::Ipv4Addr;

use culvert_dpdk::lcore::{self, LcoreError};
use culvert_dpdk::{DpdkError, Eal, tsc};
use culvert_engine::flow::FlowMemoryError;
use culvert_packet::flow::{FlowKey4, Tenant};
use culvert_packet::ip::Protocol;

use self::report::Figure;
use crate::cli::{Lookup, Output};
use crate::ground::{self, StartError};
use crate::input::frame::{self, PORTS, client};
use crate::input::shuffled;
use crate::report::Machine;
use crate::stats::Spread;

/// Bytes of a key.
const KEY: usize = size_of::<FlowKey4>();

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookupError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Worker(#[from] LcoreError),
    #[error("the worker panicked")]
    Panic,
    #[error(transparent)]
    Flows(#[from] FlowMemoryError),
    #[error(transparent)]
    Hash(#[from] DpdkError),
    #[error("connection {0} does not fit into the table")]
    Full(usize),
    #[error("{found} of {keys} keys were found instead of {expected}")]
    Wrong { found: usize, keys: usize, expected: usize },
    #[error("print the figures")]
    Print(#[from] serde_json::Error),
}

/// What is looked up in.
trait Tested {
    /// Looks a burst of keys up; returns how many were found.
    fn lookup(&mut self, keys: &[FlowKey4]) -> usize;
}

/// A table that holds all connections.
struct Built<T> {
    table: T,
    /// TSC cycles to enter a connection.
    insert: f64,
    /// Memory of all of it.
    bytes: u64,
}

/// Measures all sizes.
pub(crate) fn run(options: &Lookup) -> Result<(), LookupError> {
    ground::need_root()?;
    let most = options.keys.iter().copied().max().unwrap_or(0);
    // Of rte_hash: a key, its bucket, and what keeps its free slots, with room to spare; and a record for it.
    let megabytes = (u64::from(most) * 256).div_ceil(1 << 20) + 64;
    let (_reservation, eal) = ground::start(megabytes, options.control_cpu)?;
    let machine = Machine::this(tsc::hz(&eal), Eal::version());
    let mut figures = Vec::new();
    for &keys in &options.keys {
        let (worker_eal, options) = (eal.clone(), options.clone());
        let worker =
            lcore::spawn(&eal, "bench", options.cpu, move |_| measure(&worker_eal, keys as usize, &options))?;
        figures.extend(worker.join().map_err(|_| LookupError::Panic)??);
    }
    match options.output {
        Output::Table => print!("{}", report::table(&machine, &figures)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&figures)?),
    }
    Ok(())
}

/// Both directions of a connection: as the client sends, and as the server does.
fn connection(n: u32) -> [FlowKey4; 2] {
    let client = client(n, PORTS);
    let server = u32::from(frame::REMOTE_POD) + n % u32::from(frame::BACKENDS);
    let server = (Ipv4Addr::from(server), frame::REMOTE_PORT);
    let key = |src, dst| FlowKey4::new(Tenant::DEFAULT, Protocol::UDP, src, dst);
    [key(client, (frame::VIP, frame::VIP_PORT)), key(server, client)]
}

fn measure(eal: &Eal, keys: usize, options: &Lookup) -> Result<Vec<Figure>, LookupError> {
    let connections: Vec<_> = (0..keys as u32 / 2).map(connection).collect();
    let order = shuffled(keys as u32);
    let all = |first: u32| {
        let key = move |n: &u32| connection(first + n / 2)[*n as usize % 2];
        order.iter().map(key).collect::<Vec<_>>()
    };
    // Those that are absent are of other connections.
    let (present, absent) = (all(0), all(keys as u32 / 2));
    let plan = Plan { present, absent, options: options.clone(), hz: tsc::hz(eal) };
    let mut figures = vec![plan.figure("culvert", table::build(&connections)?)?];
    for (name, with_record) in [("rte_hash", false), ("rte_hash and record", true)] {
        figures.push(plan.figure(name, peer::build(eal, &connections, with_record)?)?);
    }
    Ok(figures)
}

/// What is asked for, and for how long.
struct Plan {
    present: Vec<FlowKey4>,
    absent: Vec<FlowKey4>,
    options: Lookup,
    hz: u64,
}

impl Plan {
    fn figure(&self, table: &'static str, built: Built<impl Tested>) -> Result<Figure, LookupError> {
        let Built { table: mut tested, insert, bytes } = built;
        let keys = self.present.len();
        let figure = Figure {
            table,
            keys,
            burst: self.options.burst.into(),
            hit: self.cycles(&mut tested, &self.present, keys)?,
            miss: self.cycles(&mut tested, &self.absent, 0)?,
            inserts: self.hz as f64 / insert / 1e6,
            bytes: Some(bytes as f64 / (keys / 2) as f64),
        };
        Ok(figure.measurable())
    }

    /// TSC cycles per key over all runs, after one that does not count.
    fn cycles(
        &self,
        tested: &mut impl Tested,
        keys: &[FlowKey4],
        expected: usize,
    ) -> Result<Spread, LookupError> {
        let enough = (self.options.seconds * self.hz as f64) as u64;
        let mut runs = Vec::new();
        for _ in 0..=self.options.runs {
            let (begin, mut looked_up) = (tsc::now(), 0);
            let cycles = loop {
                let mut found = 0;
                for burst in keys.chunks(self.options.burst.into()) {
                    found += tested.lookup(burst);
                }
                looked_up += keys.len();
                if found != expected {
                    return Err(LookupError::Wrong { found, keys: keys.len(), expected });
                }
                let cycles = tsc::now() - begin;
                if cycles >= enough {
                    break cycles;
                }
            };
            runs.push(cycles as f64 / looked_up as f64);
        }
        Ok(Spread::of(runs.into_iter().skip(1)))
    }
}
