//! culvert-fastpath: the poll-mode forwarding engine.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use culvert_api::config::ConfigError;
use culvert_api::config::fastpath::FastPathConfig;
use culvert_engine::app::{self, AppError, Part};
use culvert_engine::control::chain;
use culvert_engine::keep::{Keep, Keeper, KeeperError};
use tracing_subscriber::EnvFilter;

const AFTER_HELP: &str = "\
Examples:
  culvert-fastpath --config /etc/culvert/fastpath.yaml --check-config
  culvert-fastpath --config /etc/culvert/fastpath.yaml
  culvert-fastpath --config fastpath.yaml --log debug

The smallest configuration; everything else has a default:
  uplink: { tap: { name: cvup0 } }

It is two processes: the keeper, which is what you start, and the one that forwards. When
the second ends, the first starts it again, with pods' ports, tables and connections.

SIGTERM and SIGINT end it in order: workers, ports, DPDK, socket. SIGHUP has a new process, of
the version that is installed by then, take over while the present one still forwards.

Exit codes:
  0  ended as told, or the configuration is valid
  1  something it needs is missing, or failed while it ran
  2  the command line or the configuration is wrong";

/// Poll-mode forwarding engine of Culvert: VXLAN overlay and ClusterIP translation for pods.
#[derive(Debug, Parser)]
#[command(name = "culvert-fastpath", version, after_help = AFTER_HELP)]
struct Args {
    /// Configuration file (YAML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Check the configuration and exit.
    #[arg(long)]
    check_config: bool,

    /// Forward, with what the keeper at the other end of standard input has kept.
    #[arg(long, hide = true)]
    kept: bool,

    /// The same, once that keeper says so.
    #[arg(long, hide = true)]
    standby: bool,

    /// What is logged to standard error: error, warn, info, debug, or per part as in `info,dpdk=debug`.
    #[arg(long, value_name = "FILTER", env = "CULVERT_LOG", default_value = "info")]
    log: EnvFilter,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{path}: cannot be read")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{path}")]
    Config { path: PathBuf, source: ConfigError },
    #[error(transparent)]
    Run(#[from] AppError),
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    #[error("standard input cannot be used")]
    Input(#[source] std::io::Error),
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("culvert-fastpath: {}", chain(&failure));
            match failure {
                Failure::Unreadable { .. } | Failure::Config { .. } => ExitCode::from(2),
                Failure::Run(_) | Failure::Keeper(_) | Failure::Input(_) => ExitCode::FAILURE,
            }
        }
    }
}

fn run(args: Args) -> Result<ExitCode, Failure> {
    let Args { config: path, check_config, kept, standby, log } = args;
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(Failure::Unreadable { path, source }),
    };
    let config = match FastPathConfig::from_yaml(&text) {
        Ok(config) => config,
        Err(source) => return Err(Failure::Config { path, source }),
    };
    if check_config {
        println!("{}: valid", path.display());
        return Ok(ExitCode::SUCCESS);
    }
    tracing_subscriber::fmt()
        .with_env_filter(log)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    if !kept && !standby {
        let arguments = std::env::args_os().skip(1).collect();
        return Ok(Keeper::new(arguments, config.standby, config.hang)?.run()?.into());
    }
    let keep = Keep::by_standard_input().map_err(Failure::Input)?;
    app::run(&config, &keep, if standby { Part::Standby } else { Part::First })?;
    Ok(ExitCode::SUCCESS)
}
