//! The control plane: how fast kubelet knows the devices, and what the programs cost.
//!
//! The real culvert-agent looks at a made-up machine with one PF and many VFs, between a kubelet stand-in and a network
//! namespace of its own. The peer is sriov-network-device-plugin with sriov-cni, measured in the same way with as many VFs.

mod agent;
mod cases;
mod cni;
mod machine;

use culvert_hw_tests::frame::Stop;
use culvert_hw_tests::kubelet::KubeletError;

use crate::cli::{Control, Output};
use crate::figure::{Figure, table};

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error("prepare the machine: {0}")]
    Machine(String),
    #[error("{0}")]
    Agent(String),
    #[error("kubelet stand-in")]
    Kubelet(#[from] KubeletError),
    #[error("{what}")]
    Io { what: &'static str, source: std::io::Error },
    #[error("print the figures")]
    Print(#[from] serde_json::Error),
}

impl ControlError {
    fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

impl From<Stop> for ControlError {
    fn from(stop: Stop) -> Self {
        Self::Machine(stop.text().to_owned())
    }
}

/// Measures everything; whether all that is demanded was reached.
pub(crate) fn run(control: &Control) -> Result<bool, ControlError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(ControlError::io("start the runtime"))?;
    let figures: Vec<Figure> = runtime.block_on(cases::all(control))?;
    match control.output {
        Output::Table => {
            let heading = format!("{} VFs of one PF, {} runs", control.vfs, control.runs);
            print!("{}", table(&heading, &figures));
        }
        Output::Json => println!("{}", serde_json::to_string_pretty(&figures)?),
    }
    Ok(figures.iter().all(Figure::is_met))
}
