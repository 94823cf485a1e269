//! culvert: shows what the agent of this node knows, and asks it to act.
//!
//! It keeps no state and touches no hardware: every command is one call on the agent's socket.

#![forbid(unsafe_code)]

mod args;
mod client;
mod output;
mod view;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command, FlowCommand, ListCommand, NicCommand};
use client::{Client, ClientError};
use output::Output;

/// Exit status of `nic plan` when something would change.
const CHANGES: u8 = 2;
/// Exit status of `status` when a subsystem is not well.
const DEGRADED: u8 = 3;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(text) => {
            // clap's own status for a usage error is 2, which means "changes" here.
            let code = u8::from(text.use_stderr());
            // Nobody is left to tell when the terminal is gone.
            let _ = text.print();
            return ExitCode::from(code);
        }
    };
    match run(&args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("culvert: {error}");
            ExitCode::from(1)
        }
    }
}

fn run(args: &Args) -> Result<u8, ClientError> {
    let client = Client::new(&args.socket);
    let output = Output::new(args.output);
    match &args.command {
        Command::Nic(NicCommand::List { tree: false }) => output.print(&view::nic::list(client.nic_list()?)),
        Command::Nic(NicCommand::List { tree: true }) => output.print(&view::nic::tree(client.nic_list()?)),
        Command::Nic(NicCommand::Show { name }) => {
            let shown = view::nic::show(client.nic_show(name)?).ok_or_else(|| client.mismatch())?;
            output.print(&shown)
        }
        Command::Nic(NicCommand::Watch) => client.nic_watch(|event| output.event(&event.into())),
        Command::Nic(NicCommand::Plan) => {
            let plan = view::nic::plan(client.nic_plan()?);
            let code = if plan.is_empty() { 0 } else { CHANGES };
            output.print(&plan)?;
            return Ok(code);
        }
        Command::Nic(NicCommand::Apply) => {
            let applied = view::nic::applied(client.nic_apply()?);
            let code = u8::from(applied.has_failures());
            output.print(&applied)?;
            return Ok(code);
        }
        Command::Port(ListCommand::List) => output.print(&view::port::list(client.port_list()?)),
        Command::Service(ListCommand::List) => output.print(&view::service::list(client.service_list()?)),
        Command::Flow(FlowCommand::List { limit }) => {
            output.print(&view::flow::list(client.flow_list(*limit)?))
        }
        Command::Status => {
            let status = view::status::status(client.status()?);
            let code = if status.is_well() { 0 } else { DEGRADED };
            output.print(&status)?;
            return Ok(code);
        }
        Command::Completions { shell } => {
            args::completions(*shell);
            Ok(())
        }
    }?;
    Ok(0)
}
