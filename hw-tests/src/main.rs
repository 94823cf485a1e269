//! culvert-hw-tests: runs tests on real packets and real VFs.

#![forbid(unsafe_code)]

use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};
use culvert_hw_tests::demo::Half;
use culvert_hw_tests::frame::{Case, Outcome, Place, Report, Stop, run_here, select};
use culvert_hw_tests::guest::{Guest, LIMIT, run_in_guest};
use culvert_hw_tests::{cases, demo, net};

/// Tests on real packets and real VFs.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List the cases
    List {
        /// Only cases whose name contains one of these
        filters: Vec<String>,
    },
    /// Run cases and report how many passed, failed and were skipped
    Run {
        /// Only cases whose name contains one of these
        filters: Vec<String>,
        /// This machine is the guest: run guest cases here, and print results as JSON
        #[arg(long, hide = true)]
        inside: bool,
    },
    /// Show Culvert at work
    Demo {
        /// What to show
        #[arg(required = true)]
        halves: Vec<Half>,
        /// This machine is the guest
        #[arg(long, hide = true)]
        inside: bool,
    },
    /// Serve a pod's name over HTTP and UDP
    Serve {
        /// What to answer
        #[arg(long)]
        name: String,
        /// TCP and UDP port
        #[arg(long)]
        port: u16,
    },
    /// Run a command in the guest with emulated SR-IOV NICs
    Guest {
        /// The command and its arguments
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Remove namespaces and processes that interrupted runs left behind
    CleanTestbed,
}

fn main() -> ExitCode {
    match act(Arguments::parse().action) {
        Ok(code) => code,
        Err(stop) => {
            eprintln!("culvert-hw-tests: {}", stop.text());
            ExitCode::FAILURE
        }
    }
}

fn act(action: Action) -> Outcome<ExitCode> {
    match action {
        Action::List { filters } => {
            for case in select(&cases::all(), &filters) {
                println!("{}", case.full_name());
            }
            Ok(ExitCode::SUCCESS)
        }
        Action::Run { filters, inside } => run_cases(&select(&cases::all(), &filters), inside),
        Action::Demo { halves, inside } => {
            if inside {
                prepare_guest()?;
            } else {
                net::clean_testbed()?;
            }
            Ok(if demo::run(&halves, inside) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Action::Serve { name, port } => {
            net::serve::serve(&name, port).map_err(|e| Stop::from(e).while_doing(&format!("port {port}")))?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Guest { command } => {
            let status = Guest::prepare()?.run(&command, LIMIT, |line| println!("{line}"))?;
            Ok(u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from))
        }
        Action::CleanTestbed => {
            for name in net::clean_testbed()? {
                println!("removed namespace {name}");
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn run_cases(cases: &[Case], inside: bool) -> Outcome<ExitCode> {
    if cases.is_empty() {
        return Err(Stop::fail("no case has such a name; `culvert-hw-tests list` shows them"));
    }
    let mut report = Report::new(inside);
    if inside {
        prepare_guest()?;
        run_here(cases, &mut report);
    } else {
        net::clean_testbed()?;
        let (here, guest): (Vec<Case>, Vec<Case>) = cases.iter().partition(|case| case.place == Place::Netns);
        run_here(&here, &mut report);
        if !guest.is_empty() {
            run_in_guest(&guest, &mut report)?;
        }
        report.failures().for_each(|line| println!("{line}"));
        println!("{}", report.summary());
    }
    Ok(if report.failed().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Loads drivers: the PF's before the VFs', so that it has set up its side when theirs comes.
fn prepare_guest() -> Outcome {
    for module in ["igb", "igbvf", "vfio-pci", "tun"] {
        net::run(Command::new("modprobe").arg(module))?.success()?;
    }
    Ok(())
}
