//! culvert: shows what the agent of this node knows, and asks it to act.
//!
//! It keeps no state and touches no hardware: every command is one call on the agent's socket; `top` repeats it.

#![forbid(unsafe_code)]

mod args;
mod client;
mod output;
mod top;
mod view;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command, FlowCommand, ListCommand, NicCommand};
use client::{Client, ClientError};
use output::Output;

/// Exit status of `nic plan`, `nic diff` and `nic orphans` when something is not as it should be.
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

/// The text of a policy; none if the one in force is meant.
fn read(file: Option<&Path>) -> Result<String, ClientError> {
    let Some(file) = file else { return Ok(String::new()) };
    let text = std::fs::read_to_string(file).map_err(|e| ClientError::Policy(file.to_owned(), e))?;
    // An empty text would mean the policy in force.
    if text.trim().is_empty() { Err(ClientError::NoPolicy(file.to_owned())) } else { Ok(text) }
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
        Command::Nic(NicCommand::Plan { policy }) => {
            let plan = view::nic::plan(client.nic_plan(read(policy.as_deref())?)?);
            let code = if plan.is_empty() { 0 } else { CHANGES };
            output.print(&plan)?;
            return Ok(code);
        }
        Command::Nic(NicCommand::Diff { policy, all }) => {
            let diff = view::nic::diff(client.nic_diff(read(policy.as_deref())?)?, *all);
            let code = if diff.is_empty() { 0 } else { CHANGES };
            output.print(&diff)?;
            return Ok(code);
        }
        Command::Nic(NicCommand::Schema) => output.print(&view::nic::schema()),
        Command::Nic(NicCommand::Apply) => {
            let applied = view::nic::applied(client.nic_apply()?);
            let code = u8::from(applied.has_failures());
            output.print(&applied)?;
            return Ok(code);
        }
        Command::Nic(NicCommand::Orphans) => {
            let orphans = view::nic::orphans(client.nic_orphans()?);
            let code = if orphans.is_empty() { 0 } else { CHANGES };
            output.print(&orphans)?;
            return Ok(code);
        }
        Command::Nic(NicCommand::Release { vfs, all: _, force }) => {
            let released = view::nic::released(client.nic_release(vfs, *force)?);
            let code = u8::from(released.is_incomplete());
            output.print(&released)?;
            return Ok(code);
        }
        Command::Port(ListCommand::List) => output.print(&view::port::list(client.port_list()?)),
        Command::Service(ListCommand::List) => output.print(&view::service::list(client.service_list()?)),
        Command::Flow(FlowCommand::List { limit }) => {
            output.print(&view::flow::list(client.flow_list(*limit)?))
        }
        Command::Explain(question) => {
            output.print(&view::explain::explanation(client.explain(question.into())?))
        }
        Command::Top(args) => top::run(&client, &output, args),
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
