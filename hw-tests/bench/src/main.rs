//! culvert-bench: measures Culvert's data path against the machine's limit, and its control plane against the peer's.

#![forbid(unsafe_code)]

mod cli;
mod control;
mod hugepages;
mod input;
mod instructions;
mod measure;
mod pods;
mod reference;
mod report;
mod rig;
mod scene;
mod stats;
mod work;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use culvert_dpdk::{Eal, EalConfig, EalError, Hugepages, tsc};

use cli::{Arguments, Command, Engine, Output};
use hugepages::{HugepageError, Reservation};
use input::frame::{OUTER, Transport};
use input::{Input, InputError};
use measure::{MeasureError, Plan};
use report::{Figure, Machine, short};
use rig::{Rig, RigError};
use scene::{Scene, SceneError};
use work::Work;

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Engine(engine) => {
            run(&engine).map(|all_met| all_met || !engine.check).map_err(Box::<dyn Error>::from)
        }
        Command::Instructions(options) => instructions::run(&options).map_err(Box::<dyn Error>::from),
        Command::Control(control) => control::run(&control).map_err(Box::<dyn Error>::from),
        Command::Pods(pods) => pods::run(&pods).map_err(Box::<dyn Error>::from),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprint!("culvert-bench: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                eprint!(": {error}");
                source = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error("hugepages")]
    Hugepages(#[from] HugepageError),
    #[error("DPDK")]
    Eal(#[from] EalError),
    #[error("{}", .path.display())]
    Input { path: PathBuf, source: InputError },
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
}

impl Case {
    fn name(self) -> String {
        match self.flows {
            0 => format!("{:?}", self.work),
            flows => format!("{:?}, {} flows", self.work, short(flows as usize)),
        }
    }

    /// Its packets; for W5 those of W3.
    fn input(self, engine: &Engine) -> Result<Input, BenchError> {
        let work = if self.work == Work::W5 { Work::W3 } else { self.work };
        match &engine.pcap {
            None => Ok(Input::generate(work, transport(self.work, engine), self.flows)),
            Some(path) => {
                Input::replay(work, path).map_err(|source| BenchError::Input { path: path.clone(), source })
            }
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
    works.iter().flat_map(|&work| flows(work).into_iter().map(move |flows| Case { work, flows })).collect()
}

/// Measures everything; whether all goals were met.
fn run(engine: &Engine) -> Result<bool, BenchError> {
    let cases = cases(engine);
    let mut megabytes = 0;
    for case in &cases {
        let (packets, longest) = match (&engine.pcap, case.flows) {
            (None, flows) => (flows as usize + 1024, 60 + OUTER),
            (Some(_), _) => {
                let input = case.input(engine)?;
                (input.frames().count(), input.longest() + OUTER)
            }
        };
        megabytes = megabytes.max(rig::megabytes(packets, longest, input::MAX_PODS));
    }
    let _reservation = Reservation::of(megabytes)?;
    // Several processes' nice values count only within their session where sched_autogroup is on; elsewhere there is no
    // such file.
    let _ = std::fs::write("/proc/self/autogroup", "-20");
    let eal = Eal::init(&EalConfig {
        control_cpu: engine.control_cpu,
        hugepages: Hugepages::Required,
        megabytes: megabytes as u32,
        file_prefix: "culvert-bench".into(),
        ..EalConfig::default()
    })?;
    let machine = Machine::this(tsc::hz(&eal), Eal::version());
    let mut figures = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        eprintln!("[{}/{}] {}", number + 1, cases.len(), case.name());
        figures.push(measure(&eal, engine, *case, number)?);
    }
    match engine.output {
        Output::Table => print!("{}", report::table(&machine, &figures)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&figures)?),
    }
    if let Some(path) = &engine.report {
        std::fs::write(path, report::html(&machine, &figures))
            .map_err(|source| BenchError::Report { path: path.clone(), source })?;
    }
    Ok(figures.iter().all(Figure::is_met))
}

fn measure(eal: &Eal, engine: &Engine, case: Case, number: usize) -> Result<Figure, BenchError> {
    let name = || case.name();
    let input = case.input(engine)?;
    let flows = input.flows;
    let scene = Scene::new(case.work, transport(case.work, engine), input)
        .map_err(|source| BenchError::Scene { case: name(), source })?;
    let rig_error = |source| BenchError::Rig { case: name(), source };
    let mut rig = Rig::new(eal, &scene, number).map_err(rig_error)?;
    let plan = Plan {
        cpu: engine.cpu,
        runs: engine.runs.into(),
        seconds: engine.seconds,
        warmup: engine.warmup,
        sample: engine.sample as usize,
    };
    let measured = measure::measure(eal, case.work, scene, &mut rig, plan);
    rig.remove().map_err(rig_error)?;
    let measured = measured.map_err(|source| BenchError::Measure { case: name(), source })?;
    Ok(Figure::new(case.work, flows, tsc::hz(eal), &measured))
}
