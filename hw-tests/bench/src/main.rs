//! culvert-bench: measures Culvert's data path against the machine's limit, and its control plane against the peer's.

#![forbid(unsafe_code)]

mod cli;
mod columns;
mod control;
mod cpu;
mod engine;
mod figure;
mod ground;
mod hugepages;
mod input;
mod instructions;
mod lookup;
mod measure;
mod pods;
mod reference;
mod report;
mod rig;
mod scene;
mod stats;
mod tables;
mod work;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use cli::{Arguments, Command};

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Engine(options) => {
            engine::run(&options).map(|all_met| all_met || !options.check).map_err(Box::<dyn Error>::from)
        }
        Command::Lookup(options) => lookup::run(&options).map(|()| true).map_err(Box::<dyn Error>::from),
        Command::Instructions(options) => instructions::run(&options).map_err(Box::<dyn Error>::from),
        Command::Control(control) => control::run(&control).map_err(Box::<dyn Error>::from),
        Command::Tables(tables) => tables::run(&tables).map_err(Box::<dyn Error>::from),
        Command::Pods(options) => {
            pods::run(&options).map(|all_met| all_met || !options.check).map_err(Box::<dyn Error>::from)
        }
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
