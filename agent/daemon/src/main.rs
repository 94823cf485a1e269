//! culvert-agent: the node agent.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use culvert_agent::app::{self, App, ConfigFileError, PartEnded, StartError, read_config};
use culvert_agent::check::{CheckError, Checked};
use culvert_agent::errors::chain;
use culvert_agent::logging;
use culvert_agent::nic::Salvaged;
use culvert_agent::privileges::{self, PrivilegeError};
use culvert_api::config::device_plugin::ResourceListFile;
use culvert_api::config::nic::NicPolicy;
use culvert_api::value::ResourcePrefix;
use culvert_host::{HostRoot, heap};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Node agent of Culvert: SR-IOV virtual functions and the DPDK fast path for this node's pods.
#[derive(Debug, Parser)]
#[command(name = "culvert-agent", version, after_help = AFTER_HELP)]
struct Args {
    /// Configuration file (YAML)
    #[arg(long, value_name = "FILE", default_value = "/etc/culvert/agent.yaml")]
    config: PathBuf,
    /// Check the configuration file, and the list of resources that it names, and exit
    #[arg(long)]
    check_config: bool,
    /// Check this configuration file of sriov-network-device-plugin instead
    #[arg(long, value_name = "FILE", requires = "check_config", conflicts_with = "config")]
    resource_list: Option<PathBuf>,
    /// Prefix of resources in that file that name none
    #[arg(long, value_name = "PREFIX", requires = "resource_list", default_value = ResourceListFile::PREFIX)]
    resource_prefix: ResourcePrefix,
    /// Show which devices of this machine each resource of the list would have, if no pod had any
    #[arg(long, requires = "check_config")]
    devices: bool,
    /// Set a damaged journal of NIC changes aside, keep what is whole of it, and exit; no agent may be running
    #[arg(long, conflicts_with = "check_config")]
    discard_journal: bool,
    /// For tests: look at the machine below this folder (its sys, proc and dev)
    #[arg(long, value_name = "DIR", default_value = "/", hide_default_value = true)]
    root: PathBuf,
    /// How lines of the log look
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    log_format: logging::Format,
}

const AFTER_HELP: &str = "\
Examples:
  culvert-agent --config /etc/culvert/agent.yaml
  culvert-agent --check-config --config ./agent.yaml
  culvert-agent --check-config --resource-list /etc/pcidp/config.json
  culvert-agent --check-config --resource-list ./config.json --devices
  culvert-agent --discard-journal --config /etc/culvert/agent.yaml
  RUST_LOG=culvert_agent=debug culvert-agent

Environment:
  RUST_LOG  what is logged to standard error, such as info (default), debug, culvert_agent::nic=debug
  NO_COLOR  no colours, also not on a terminal

Exit codes:
  0  stopped by SIGTERM or SIGINT; with --check-config: there is nothing to say about the files
  1  the agent could not start, or failed
  2  wrong usage, or a configuration or list that cannot be used
  3  with --check-config: the list can be used, but for what was printed";

/// Prints what there is to say about a list of resources, beside a policy whose pools have this prefix.
fn check_list(
    args: &Args,
    file: ResourceListFile,
    policy: &NicPolicy,
    prefix: &ResourcePrefix,
) -> Result<ExitCode, Failure> {
    let checked = Checked::read(file)?;
    let mut lines = checked.lines();
    if args.devices {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
        let root = HostRoot::new(&args.root);
        lines.extend(runtime.block_on(checked.devices(&root, policy, prefix))?);
    }
    println!("{}", lines.join("\n"));
    Ok(if checked.is_good() { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

/// Why the program ends with an error.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigFileError),
    #[error(transparent)]
    List(#[from] CheckError),
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
    heap::keep_small();
    let args = Args::parse();
    logging::start(args.log_format);
    match run(&args) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("culvert-agent: {}", chain(&failure));
            ExitCode::from(match failure {
                Failure::Config(_) | Failure::List(CheckError::Read { .. } | CheckError::Syntax { .. }) => 2,
                _ => 1,
            })
        }
    }
}

fn run(args: &Args) -> Result<ExitCode, Failure> {
    if let Some(path) = &args.resource_list {
        let file = ResourceListFile { path: path.clone(), prefix: args.resource_prefix.clone() };
        return check_list(args, file, &NicPolicy::default(), &args.resource_prefix);
    }
    let (config, text) = read_config(&args.config)?;
    if args.check_config {
        println!("{}: good", args.config.display());
        let policy = config.nic.unwrap_or_default();
        return match config.device_plugin.map(|plugin| (plugin.resource_list, plugin.resource_prefix)) {
            Some((Some(file), prefix)) => check_list(args, file, &policy, &prefix),
            _ => Ok(ExitCode::SUCCESS),
        };
    }
    if args.discard_journal {
        print_salvaged(app::discard_journal(&config, &HostRoot::new(&args.root))?);
        return Ok(ExitCode::SUCCESS);
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
        let app = App::start(config, HostRoot::new(&args.root)).await?;
        app.following(args.config.clone(), text).run(stop).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Says what became of a damaged journal.
fn print_salvaged(salvaged: Option<Salvaged>) {
    let Some(Salvaged { aside, lost, kept, pods }) = salvaged else {
        println!("the journal is not damaged; nothing was done");
        return;
    };
    for (line, reason) in lost {
        println!("lost: line {line}: {reason}");
    }
    println!("kept: {kept} lines");
    for pod in pods {
        println!("kept: {pod}");
    }
    println!("the damaged journal is now {}", aside.display());
    println!(
        "a pod's VF that was lost is left alone while the pod lives; `culvert nic plan` shows what is to be done then"
    );
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
