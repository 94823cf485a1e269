//! `culvert nic`.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum NicCommand {
    /// Lists PFs and VFs, and who uses each VF.
    #[command(after_help = LIST)]
    List {
        /// Draws PFs, VFs and pods as a tree.
        #[arg(long)]
        tree: bool,
    },
    /// Shows everything that is known of one PF or VF, with counters and what happened to it.
    #[command(after_help = SHOW)]
    Show {
        /// A PF by PCI address or interface; a VF by PCI address, interface, or as PF/INDEX.
        name: String,
    },
    /// Tells what happens to PFs and VFs, one line each, until it is interrupted.
    #[command(after_help = WATCH)]
    Watch,
    /// Shows what `apply` would do, step by step, and changes nothing.
    #[command(after_help = PLAN)]
    Plan {
        /// Plans for the policy in this file, which is not put in force: YAML, the section `nic` or a whole configuration
        /// of culvert-agent.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
    /// Shows what the policy wants beside what there is, attribute by attribute.
    #[command(after_help = DIFF)]
    Diff {
        /// Compares with the policy in this file instead, as in `plan`.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// Shows what does not differ, too.
        #[arg(long)]
        all: bool,
    },
    /// Brings PFs and VFs to what the policy asks for. A PF with a VF in use is not carved anew.
    #[command(after_help = APPLY)]
    Apply,
    /// Prints the JSON schema of a policy (draft 2020-12). Needs no agent.
    #[command(after_help = SCHEMA)]
    Schema,
    /// Lists VFs that nobody has, but that are not as they should be, and why. Changes nothing.
    #[command(after_help = ORPHANS)]
    Orphans,
    /// Takes VFs back: their interfaces return to the host, and they are again what they are of their own.
    #[command(after_help = RELEASE)]
    Release {
        /// PCI address, interface, or PF/INDEX.
        #[arg(value_name = "VF", required_unless_present = "all")]
        vfs: Vec<String>,
        /// All orphans that nobody uses.
        #[arg(long, conflicts_with_all = ["vfs", "force"])]
        all: bool,
        /// Also if the VF is in use: a pod, or a process in the namespace where it is, loses it.
        #[arg(long)]
        force: bool,
    },
}

const LIST: &str = "Examples:
  culvert nic list
  culvert nic list --tree
  culvert nic list -o json | jq -r '.[].vfs[] | select(.healthy | not) | [.pci, .problem] | @tsv'

Exit status:
  0  done
  1  failed";

const SHOW: &str = "Examples:
  culvert nic show ens1f0
  culvert nic show ens1f0/3
  culvert nic show 0000:03:10.6
  culvert nic show 03:10.6 -o json | jq .vf.counters

Exit status:
  0  done
  1  failed, or there is no such PF or VF";

const WATCH: &str = "Events:
  attach  done, refused             a pod gets a VF, or does not
  detach  done, failed              a VF comes back
  health  healthy, unhealthy, gone  a VF can be given to pods, or not
  link    up, no carrier, down      the link of a PF
  step    begun, done, failed       one step of a plan
  apply   done, failed              a plan as a whole

Examples:
  culvert nic watch
  culvert nic watch -o json | jq -c 'select(.kind == \"attach\")'

Exit status:
  0  standard output was closed
  1  the agent ended or is away, or this reader was too slow for it";

const PLAN: &str = "Examples:
  culvert nic plan
  culvert nic plan && echo 'nothing to do'
  culvert nic plan --policy ./new.yaml

Exit status:
  0  nothing to do
  1  failed
  2  there is something to do, be it that it is blocked";

const DIFF: &str = "Examples:
  culvert nic diff
  culvert nic diff --all -o json | jq -r '.attributes[] | select(.attribute == \"mac\")'
  culvert nic diff --policy ./new.yaml

Exit status:
  0  nothing differs
  1  failed
  2  something differs, or is blocked";

const SCHEMA: &str = "Examples:
  culvert nic schema > nic-policy.schema.json
  printf '# yaml-language-server: $schema=nic-policy.schema.json\\n' >> policy.yaml

Exit status:
  0  done";

const APPLY: &str = "Examples:
  culvert nic plan; culvert nic apply
  culvert nic apply -o json | jq -r '.failed[]'

Exit status:
  0  all steps are done
  1  a step failed, or the agent refused";

const ORPHANS: &str = "Examples:
  culvert nic orphans
  culvert nic orphans -o json | jq -r '.[] | select(.user == \"\") | .vf'

Exit status:
  0  there are none
  1  failed
  2  there are some";

const RELEASE: &str = "Examples:
  culvert nic release --all
  culvert nic release 0000:81:10.2
  culvert nic release ens1f0/3 --force

Exit status:
  0  all of them are back
  1  one could not be taken back, or is in use";
