//! The tables: how long 30,000 Services with 250,000 endpoints take, and one change among them, from the call until a
//! worker's packets go by them.
//!
//! The control thread, its socket and the client are the real ones. The worker runs the real pipeline over and over on one
//! packet of one flow, by the snapshot that it pins for each; it writes down when the packet first goes elsewhere. After
//! the last run culvert-agent gives the same tables, which it makes of Kubernetes objects in files.

mod agent;
mod client;
mod manifests;
mod objects;
mod worker;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use culvert_api::config::fastpath::TunnelSegmentation;
use culvert_dpdk::lcore::{self, LcoreError};
use culvert_dpdk::{Eal, Mempool, MempoolConfig, MempoolError};
use culvert_engine::app::{self, AppError};
use culvert_engine::clock::Clock;
use culvert_engine::control::{ControlSocket, FastPath, SocketError};
use culvert_engine::counter::counters;
use culvert_engine::flow::{FlowMemoryError, FlowTables};
use culvert_engine::pipeline::Pipeline;
use culvert_engine::port::tap::{Budget, TapMemory};
use culvert_engine::port::{Devices, Drivers, PortDriver};
use culvert_engine::quiescent;
use culvert_engine::table::{Snapshot, TableError};
use culvert_engine::worker::Resting;
use culvert_engine::worker::WorkerError;
use tokio::sync::oneshot;

use crate::cli::{Output, Tables};
use crate::figure::{Figure, table};
use crate::ground::{self, StartError};
use agent::AgentTimes;
use client::{Client, Times};
use worker::{Sight, Worker};

/// Flows that there is room for; the worker has one.
const FLOWS: u32 = 1 << 16;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TablesError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Mempool(#[from] MempoolError),
    #[error(transparent)]
    Flows(#[from] FlowMemoryError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
    #[error(transparent)]
    Lcore(#[from] LcoreError),
    #[error("ports")]
    Ports(#[from] TableError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("the control thread")]
    Serve(#[from] AppError),
    #[error("{what}")]
    Io { what: &'static str, source: io::Error },
    #[error("connect to the control socket")]
    Connect(#[from] tonic::transport::Error),
    #[error("{call} was refused: {}", .status.message())]
    Refused { call: &'static str, status: Box<tonic::Status> },
    #[error("{0}: no packet went by it within {limit:?}", limit = client::PATIENCE)]
    Unseen(&'static str),
    #[error("culvert-agent: {0}")]
    Agent(String),
    #[error("the thread of the {0} ended by a panic")]
    Panicked(&'static str),
    #[error("print the figures")]
    Print(#[from] serde_json::Error),
}

impl TablesError {
    fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// Measures everything; whether all that is demanded was reached.
pub(crate) fn run(tables: &Tables) -> Result<bool, TablesError> {
    let eal = ground::start_without_hugepages(64, tables.control_cpu)?;
    let mut all = Vec::new();
    for number in 1..=tables.runs {
        eprintln!("[{number}/{}] {} Services", tables.runs, tables.services);
        all.push(measure(&eal, tables, number)?);
    }
    let figures = figures(&all);
    let heading = format!(
        "{} Services with {} endpoints on {} nodes, {} runs of {} changes",
        tables.services, tables.endpoints, tables.nodes, tables.runs, tables.changes
    );
    match tables.output {
        Output::Table => print!("{}", table(&heading, &figures)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&figures)?),
    }
    Ok(figures.iter().all(Figure::is_met))
}

fn figures(all: &[Times]) -> Vec<Figure> {
    let milliseconds = |time: &Duration| time.as_secs_f64() * 1e3;
    let changes = |of: fn(&Times) -> &[Duration]| all.iter().flat_map(of).map(milliseconds);
    let of_agent = || all.iter().filter_map(|times| times.agent.as_ref());
    let agent = |of: fn(&AgentTimes) -> &[Duration]| of_agent().flat_map(of).map(milliseconds);
    vec![
        Figure::of("cold load, visible", "ms", all.iter().map(|times| milliseconds(&times.cold)))
            .must(2000.0)
            .aim(500.0),
        Figure::of("one endpoint changed, visible", "ms", changes(|times| &times.endpoint))
            .must(5.0)
            .aim(0.2),
        Figure::of("one Service added, visible", "ms", changes(|times| &times.added)).must(5.0).aim(0.2),
        Figure::of("the same by a whole exchange", "ms", changes(|times| &times.exchanged)),
        // Later ones reuse what the first gave back.
        Figure::of("memory that the tables take", "MB", all.first().map(|times| times.megabytes)),
        Figure::of("a file of the agent's replaced, visible", "ms", agent(|times| &times.replaced))
            .must(5.0)
            .aim(0.2),
        Figure::of("the same from the read file on", "ms", agent(|times| &times.read)).must(5.0).aim(0.2),
        Figure::of("agent's start, visible", "ms", of_agent().map(|times| milliseconds(&times.start))),
        Figure::of("memory that the agent takes", "MB", of_agent().map(|times| times.megabytes)),
    ]
}

/// One run: a fast path without tables, loaded and changed.
fn measure(eal: &Eal, tables: &Tables, number: u16) -> Result<Times, TablesError> {
    let folder = tempfile::tempdir().map_err(TablesError::io("make a folder"))?;
    let socket = ControlSocket::bind(&folder.path().join("control.sock"))?;
    let config =
        MempoolConfig { name: format!("tables{number}"), mbufs: 1023, cache: 32, ..Default::default() };
    let pool = Mempool::create(eal, &config)?;
    let clock = Clock::start(eal);
    let flows = FlowTables::new(FLOWS)?;
    let (counters, mut writers) = counters(1);
    let (publisher, mut readers) = quiescent::channel(Snapshot::default(), 1);
    let worker = Worker {
        tables: readers.remove(0),
        pipeline: Pipeline::new(flows.worker(), writers.remove(0)),
        sight: Arc::new(Sight::new()),
    };
    // It makes no port, and no worker of its own.
    let memory = TapMemory { packets: pool.clone(), super_packets: pool };
    let drivers = Drivers {
        uplink: PortDriver::Tap,
        tunnel_segmentation: TunnelSegmentation::default(),
        pods: PortDriver::Tap,
        spread_pods: false,
        pod_budget: Budget::UNLIMITED,
    };
    let resting = Resting { idle_sleep: Duration::ZERO, busy_poll: Duration::ZERO };
    let devices = Devices::start(eal, memory, drivers, vec![], clock, resting)?;
    let mut fast_path = FastPath::new("bench".to_owned(), devices, publisher, counters, flows, clock);
    for (index, port) in objects::ports()? {
        fast_path.adopt(index, port)?;
    }
    let sight = Arc::clone(&worker.sight);
    let polling = lcore::spawn(eal, "bench-worker", tables.cpu, move |_| worker.run())?;
    let (finished, end) = oneshot::channel();
    let client = Client {
        socket: folder.path().join("control.sock"),
        sight: Arc::clone(&sight),
        tables: tables.clone(),
        // Its start takes longer than all runs.
        with_agent: number == tables.runs,
    };
    let client = std::thread::spawn(move || {
        let times = client.run();
        // The server is gone only if it failed, which is told there.
        let _ = finished.send(());
        times
    });
    let served = app::serve(&mut fast_path, &socket, async {
        // Gone without a word, the client has panicked.
        let _ = end.await;
        Ok(())
    });
    let times = client.join().map_err(|_| TablesError::Panicked("client"));
    sight.stop();
    polling.join().map_err(|_| TablesError::Panicked("worker"))?;
    served?;
    times?
}
