//! The forwarding engine, on packets replayed from memory.

use std::path::PathBuf;

use culvert_dpdk::{Eal, tsc};

use crate::cli::{Engine, Output};
use crate::cpu::{self, CpuError};
use crate::ground::{self, StartError};
use crate::input::frame::{OUTER, Transport};
use crate::input::{self, Input, InputError};
use crate::measure::{self, MeasureError, Plan};
use crate::report::{self, Figure, Machine, short};
use crate::rig::{self, Rig, RigError};
use crate::scene::{Scene, SceneError};
use crate::work::Work;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{input}")]
    Input { input: String, source: InputError },
    #[error(transparent)]
    Cpus(#[from] CpuError),
    #[error("{case}: tables and flows")]
    Scene { case: String, source: SceneError },
    #[error("{case}: ports")]
    Rig { case: String, source: RigError },
    #[error("{case}")]
    Measure { case: String, source: MeasureError },
    #[error("{}", .path.display())]
    Report { path: PathBuf, source: std::io::Error },
    #[error("print the figures")]
    Print(#[from] serde_json::Error),
}

/// What is measured together.
#[derive(Debug, Clone, Copy)]
struct Case {
    work: Work,
    /// 0: as many as a capture has.
    flows: u32,
    workers: usize,
}

impl Case {
    fn name(self) -> String {
        let flows = match self.flows {
            0 => String::new(),
            flows => format!(", {} flows", short(flows as usize)),
        };
        match self.workers {
            1 => format!("{:?}{flows}", self.work),
            workers => format!("{:?}{flows}, {workers} workers", self.work),
        }
    }

    /// Its packets; for W5 those of W3.
    fn input(self, engine: &Engine) -> Result<Input, EngineError> {
        let work = if self.work == Work::W5 { Work::W3 } else { self.work };
        match &engine.pcap {
            None => Input::generate(work, transport(self.work, engine), self.flows, self.workers)
                .map_err(|source| EngineError::Input { input: self.name(), source }),
            Some(path) => Input::replay(work, path, self.workers)
                .map_err(|source| EngineError::Input { input: path.display().to_string(), source }),
        }
    }
}

fn transport(work: Work, engine: &Engine) -> Transport {
    if work == Work::W4 { Transport::Tcp } else { engine.transport }
}

fn cases(engine: &Engine) -> Vec<Case> {
    let works = if engine.work.is_empty() { &Work::ALL[..] } else { &engine.work };
    let flows = |work: Work| match (&engine.pcap, &engine.flows[..]) {
        (Some(_), _) => vec![0],
        (None, []) => work.flows().to_vec(),
        (None, flows) => flows.to_vec(),
    };
    let with_flows = works.iter().flat_map(|&work| flows(work).into_iter().map(move |flows| (work, flows)));
    let cases = with_flows.flat_map(|(work, flows)| {
        engine.workers.iter().map(move |&workers| Case { work, flows, workers: workers.into() })
    });
    cases.collect()
}

/// Measures everything; whether all goals were met.
pub(crate) fn run(engine: &Engine) -> Result<bool, EngineError> {
    ground::need_root()?;
    let cases = cases(engine);
    let cpus = cpu::of_workers(engine)?;
    let mut megabytes = 0;
    for case in &cases {
        let (packets, longest) = match (&engine.pcap, case.flows) {
            (None, flows) => (flows as usize + 1024, 60 + OUTER),
            (Some(_), _) => {
                let input = case.input(engine)?;
                (input.frames().count(), input.longest() + OUTER)
            }
        };
        megabytes = megabytes.max(rig::megabytes(packets, longest, input::MAX_PODS + case.workers));
    }
    let (_reservation, eal) = ground::start(megabytes, engine.control_cpu)?;
    let machine = Machine::this(tsc::hz(&eal), Eal::version());
    let mut figures = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        eprintln!("[{}/{}] {}", number + 1, cases.len(), case.name());
        figures.push(measure(&eal, engine, *case, &cpus, number)?);
    }
    match engine.output {
        Output::Table => print!("{}", report::table(&machine, &figures)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&figures)?),
    }
    if let Some(path) = &engine.report {
        std::fs::write(path, report::html(&machine, &figures))
            .map_err(|source| EngineError::Report { path: path.clone(), source })?;
    }
    Ok(figures.iter().all(Figure::is_met))
}

fn measure(
    eal: &Eal,
    engine: &Engine,
    case: Case,
    cpus: &[u32],
    number: usize,
) -> Result<Figure, EngineError> {
    let name = || case.name();
    let input = case.input(engine)?;
    let flows = input.flows;
    let scene = Scene::new(case.work, transport(case.work, engine), input, case.workers)
        .map_err(|source| EngineError::Scene { case: name(), source })?;
    let rig_error = |source| EngineError::Rig { case: name(), source };
    let mut rig = Rig::new(eal, &scene, number).map_err(rig_error)?;
    let plan = Plan {
        runs: engine.runs.into(),
        seconds: engine.seconds,
        warmup: engine.warmup,
        pause: engine.pause,
        sample: engine.sample as usize,
    };
    let measured = measure::measure(eal, case.work, scene, &mut rig, &cpus[..case.workers], plan);
    rig.remove().map_err(rig_error)?;
    let measured = measured.map_err(|source| EngineError::Measure { case: name(), source })?;
    Ok(Figure { pause: engine.pause, ..Figure::new(case.work, flows, case.workers, tsc::hz(eal), &measured) })
}
