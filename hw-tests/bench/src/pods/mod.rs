//! The pods' path: two nodes with Culvert and two that are nothing but the kernel, side by side.
//!
//! Each node is a network namespace, and between the two of a kind lies a wire that no packet longer than the MTU crosses. On
//! both sides a pod talks to another one on its node, on the other node, and through the address of a Service. The same
//! programs make the traffic, and the two sides take turns.

mod figure;
mod kernel;
mod load;
mod ours;
mod restart;

use culvert_hw_tests::frame::Stop;
use culvert_hw_tests::net::Netns;

use self::figure::Figure;
use self::kernel::Kernel;
use self::ours::Ours;
use crate::cli::{Output, Pods};

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodsError {
    #[error("{0}")]
    Scene(String),
    #[error("{0}")]
    Load(String),
    #[error("{what}")]
    Io { what: &'static str, source: std::io::Error },
    #[error("print the figures")]
    Print(#[from] serde_json::Error),
}

impl From<Stop> for PodsError {
    fn from(stop: Stop) -> Self {
        Self::Scene(stop.text().to_owned())
    }
}

impl PodsError {
    fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// Address of the Service, and the addresses of pods: number 2 is the client, 3 the server.
const VIP: &str = "10.96.0.10";

/// Port of what iperf3 serves.
const IPERF: u16 = 5201;
/// Port of what answers single bytes.
const ECHO: u16 = 7;
/// Port of what answers HTTP.
const HTTP: u16 = 80;

/// Address of pod `number` on node 1 or 2.
fn address(node: u8, number: u8) -> String {
    format!("10.244.{node}.{number}")
}

/// Two nodes with their pods.
trait Side {
    /// The client, a pod of node 1.
    fn client(&self) -> &Netns;
    /// A server on the same node.
    fn near(&self) -> &Netns;
    /// A server on node 2.
    fn far(&self) -> &Netns;
    /// Lets the address of the Service lead to the near or to the far server.
    fn serve(&mut self, far: bool) -> Result<(), PodsError>;
}

/// Measures everything; whether all that is demanded was reached.
pub(crate) fn run(pods: &Pods) -> Result<bool, PodsError> {
    let dir = tempfile::tempdir().map_err(PodsError::io("make a folder"))?;
    let (mut ours, mut kernel) = (Ours::new(dir.path())?, Kernel::new()?);
    let figures = load::all(pods, &mut ours, &mut kernel)?;
    match pods.output {
        Output::Table => print!("{}", figure::table(&figures)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&figures)?),
    }
    Ok(figures.iter().all(Figure::is_met))
}
