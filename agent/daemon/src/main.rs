//! culvert-agent: the node agent.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use culvert_agent::app::{App, ConfigFileError, PartEnded, StartError, read_config};
use culvert_agent::errors::chain;
use culvert_agent::privileges::{self, PrivilegeError};
use culvert_host::HostRoot;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::EnvFilter;

/// Node agent of Culvert: SR-IOV virtual functions and the DPDK fast path for this node's pods.
#[derive(Debug, Parser)]
#[command(name = "culvert-agent", version, after_help = AFTER_HELP)]
struct Args {
    /// Configuration file (YAML)
    #[arg(long, value_name = "FILE", default_value = "/etc/culvert/agent.yaml")]
    config: PathBuf,
    /// Check the configuration file and exit
    #[arg(long)]
    check_config: bool,
    /// For tests: look at the machine below this folder (its sys, proc and dev)
    #[arg(long, value_name = "DIR", default_value = "/", hide_default_value = true)]
    root: PathBuf,
}

const AFTER_HELP: &str = "\
Examples:
  culvert-agent --config /etc/culvert/agent.yaml
  culvert-agent --check-config --config ./agent.yaml
  RUST_LOG=culvert_agent=debug culvert-agent

Environment:
  RUST_LOG  what is logged to standard error, such as info (default), debug, culvert_agent::kube=debug

Exit codes:
  0  stopped by SIGTERM or SIGINT; with --check-config: the file is good
  1  the agent could not start, or failed
  2  wrong usage, or a configuration that cannot be used";

/// Why the program ends with an error.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigFileError),
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Ended(#[from] PartEnded),
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("culvert-agent: {}", chain(&failure));
            ExitCode::from(if matches!(failure, Failure::Config(_)) { 2 } else { 1 })
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let config = read_config(&args.config)?;
    if args.check_config {
        println!("{}: good", args.config.display());
        return Ok(());
    }
    privileges::check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .thread_name("agent")
        .build()
        .map_err(Failure::Runtime)?;
    runtime.block_on(async {
        let stop = stop_on_signal().map_err(Failure::Signals)?;
        App::start(config, HostRoot::new(&args.root)).await?.run(stop).await?;
        Ok(())
    })
}

fn stop_on_signal() -> std::io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!("{name} received");
        stopped.cancel();
    });
    Ok(stop)
}
