//! The command line.

mod explain;
mod nic;
mod top;

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub(crate) use explain::Question;
pub(crate) use nic::NicCommand;
pub(crate) use top::{Sort, TopArgs};

const EXIT: &str = "Exit status:
  0  done; `nic plan`, `nic diff`: nothing to do; `status`: all is well
  1  failed, or wrongly called
  2  `nic plan`, `nic diff`: there is something to do
  3  `status`: a part of the agent is not well";

const EXAMPLES: &str = "Examples:
  culvert status
  culvert nic plan && echo 'nothing to do'
  culvert nic list --tree
  culvert nic show ens1f0/3
  culvert nic watch
  culvert nic list -o json | jq '.[].vfs[] | select(.owner != \"\")'
  culvert top
  culvert service list
  culvert flow list --limit 20
  culvert explain --from 10.1.0.5:40000 --to 10.96.0.10:80";

const PORT: &str = "Examples:
  culvert port list
  culvert port list -o json | jq -r '.[] | select(.rxDropped > 0).name'";

const SERVICE: &str = "Examples:
  culvert service list
  culvert service list -o json | jq -r '.[] | select(.backends == []).name'";

const FLOW: &str = "Examples:
  culvert flow list --limit 20";

const EXPLAIN: &str = "Examples:
  culvert explain --from 10.1.0.5:40000 --to 10.96.0.10:80
  culvert explain --from [fd00::5]:5353 --to [fd00:96::a]:53 --protocol udp -o json

Exit status:
  0  done
  1  failed";

const TOP: &str = "Examples:
  culvert top
  culvert top --interval 10s --sort drops --limit 20
  culvert top --once -o json | jq '.workers[] | {cpu, busy, headroomPacketsPerSecond}'
  culvert top -o json | jq -c '.ports[] | select(.rxDeferredPerSecond > 0) | .owner'

Of a worker:
  BUSY         share of the time in which it had packets; at 100% the rest waits or is lost
  HEADROOM/S   packets that it could carry besides, at the present cycles per packet
  SLEEPS/S     how often it waited for packets
  PREEMPTED/S  how often others got its CPU while it was awake; WAITED: share of the time for which they had it
Of a port, TX is what its pod receives:
  DEFERRED/S   turns that ended before all was received: it sends faster than it has turns
  DROPPED/S    of both directions, and what most were dropped for
What goes by the short cut is in the rates of ports, but not in those of workers, who have nothing to do with it.

At a terminal what is shown is replaced, and `top` goes on when the agent or the fast path is started anew.
Elsewhere tables follow each other, and JSON is one object per line and interval.

Exit status:
  0  done
  1  failed";

const STATUS: &str = "Examples:
  culvert status
  culvert status -o json | jq -r '.subsystems[] | select(.state == \"degraded\").detail'

Exit status:
  0  all parts that are switched on are well
  1  failed
  3  a part is not well";

const COMPLETIONS: &str = "Examples:
  culvert completions bash > /etc/bash_completion.d/culvert
  culvert completions zsh > \"${fpath[1]}/_culvert\"
  culvert completions fish > ~/.config/fish/completions/culvert.fish";

/// Shows what the Culvert agent of this node knows, and asks it to act.
#[derive(Debug, Parser)]
#[command(name = "culvert", version, after_help = format!("{EXAMPLES}\n\n{EXIT}"), infer_subcommands = false)]
pub(crate) struct Args {
    /// The agent's socket.
    #[arg(
        long,
        global = true,
        env = "CULVERT_SOCKET",
        default_value = "/run/culvert/agent.sock",
        value_name = "PATH"
    )]
    pub(crate) socket: PathBuf,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns, for people.
    Table,
    /// JSON, for programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Network cards: physical functions (PFs) and their virtual functions (VFs).
    #[command(subcommand)]
    Nic(NicCommand),
    /// Ports of the fast path.
    #[command(subcommand, after_help = PORT)]
    Port(ListCommand),
    /// Service addresses that the fast path translates.
    #[command(subcommand, after_help = SERVICE)]
    Service(ListCommand),
    /// Flows that the fast path tracks.
    #[command(subcommand)]
    Flow(FlowCommand),
    /// What would become of a pod's packet, and why; nothing changes by asking.
    #[command(after_help = EXPLAIN)]
    Explain(Question),
    /// How busy the fast path's workers are, and what goes through each port, again and again.
    #[command(after_help = TOP)]
    Top(TopArgs),
    /// How the agent and its parts are.
    #[command(after_help = STATUS)]
    Status,
    /// Prints a completion script.
    #[command(after_help = COMPLETIONS)]
    Completions {
        /// The shell to print it for.
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ListCommand {
    /// Lists all of them with their counters.
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FlowCommand {
    /// Lists tracked flows, one line per direction.
    #[command(after_help = FLOW)]
    List {
        /// Most flows to list.
        #[arg(long, default_value_t = 1000, value_name = "N")]
        limit: u32,
    },
}

/// Writes a completion script to standard output.
pub(crate) fn completions(shell: Shell) {
    clap_complete::generate(shell, &mut Args::command(), "culvert", &mut std::io::stdout());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }
}
