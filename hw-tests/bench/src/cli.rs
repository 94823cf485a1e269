//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::input::frame::Transport;
use crate::work::Work;

/// Measures Culvert.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The forwarding engine, on packets replayed from memory, as a share of the machine's limit
    #[command(after_long_help = ENGINE_HELP)]
    Engine(Engine),
    /// The engine's table of flows beside DPDK's rte_hash: look-ups, inserts, memory
    #[command(after_long_help = LOOKUP_HELP)]
    Lookup(Lookup),
    /// Instructions per packet, which are the same on every machine, held against those in a file
    #[command(after_long_help = INSTRUCTIONS_HELP)]
    Instructions(Instructions),
    /// The device plugin and the CNI plugin, against a kubelet stand-in, on a made-up machine
    #[command(after_long_help = CONTROL_HELP)]
    Control(Control),
    /// The pods' path, between two nodes and within one, beside the kernel's own
    #[command(after_long_help = PODS_HELP)]
    Pods(Pods),
    /// Tables: loading them, and a change of one Service, until a worker's packets go by it; by a client, and by the agent
    #[command(after_long_help = TABLES_HELP)]
    Tables(Tables),
}

const TABLES_HELP: &str = "\
Each run begins with a fast path without tables: its control thread and socket as in culvert-fastpath, with a worker that \
passes packets of one flow through the pipeline, without pause. A time is that from a client's call until such a packet \
goes by what was sent. After the last run culvert-agent, which must lie beside culvert-bench, gives the same tables: it reads them as Kubernetes objects from about 300 files, of which one is replaced over and over; that time begins with the replacement. Exit status 1 if a figure misses what is demanded of it.

Needs root, for DPDK.

Examples:
  culvert-bench tables
  culvert-bench tables --services 5000 --endpoints 250000 --runs 9
  culvert-bench tables -o json >tables.json";

#[derive(Debug, Clone, Args)]
pub(crate) struct Tables {
    /// Services, each with one virtual address and port
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(1..=65_000))]
    pub(crate) services: u32,
    /// Endpoints of them all
    #[arg(long, default_value_t = 250_000, value_parser = clap::value_parser!(u32).range(0..=4_000_000))]
    pub(crate) endpoints: u32,
    /// Other nodes
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=16_000))]
    pub(crate) nodes: u32,
    /// Runs; medians are printed
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) runs: u16,
    /// Changes of each kind in a run
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) changes: u16,
    /// CPU of the worker
    #[arg(long, default_value_t = 1)]
    pub(crate) cpu: u32,
    /// CPU of everything else
    #[arg(long, default_value_t = 0)]
    pub(crate) control_cpu: u32,
    /// How to print the figures
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Output,
}

const PODS_HELP: &str = "\
Makes two nodes with culvert-fastpath and two that are nothing but the kernel (veth, VXLAN device, nft), all of them network \
namespaces of this machine, and lets iperf3 and others run between pods of both, in turns. culvert-fastpath must lie beside \
culvert-bench. A ratio is the median of those of runs that followed each other; programs on both sides take turns, so that a noisy machine is noisy for both.

Needs root, for the namespaces, and iperf3.

Examples:
  culvert-bench pods                                   about two minutes and a half
  culvert-bench pods --seconds 1 --runs 3
  culvert-bench pods --case \"4 streams\"
  culvert-bench pods --check                           exit status 1 if a figure is missed
  culvert-bench pods -o json >pods.json";

#[derive(Debug, Clone, Args)]
pub(crate) struct Pods {
    /// Only what has this in its name, such as "HTTP"
    #[arg(long, value_name = "PART")]
    pub(crate) case: Option<String>,
    /// Length of a run
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Runs of each side; medians are printed
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) runs: u16,
    /// How to print the figures
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Output,
    /// Exit with status 1 if a figure misses what is demanded of it
    #[arg(long)]
    pub(crate) check: bool,
}

const CONTROL_HELP: &str = "\
Starts and kills culvert-agent again and again between a kubelet stand-in and a made-up machine (--root) whose PF is a veth \
in a network namespace. culvert-agent and culvert-cni must lie beside culvert-bench. The peer is \
sriov-network-device-plugin with sriov-cni; of it the least that was measured is shown. Exit status 1 if a figure misses \
what is demanded of it.

Needs root, for the namespace.

Examples:
  culvert-bench control
  culvert-bench control --vfs 64 --runs 3
  culvert-bench control -o json >control.json";

#[derive(Debug, Clone, Args)]
pub(crate) struct Control {
    /// VFs of the PF
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u16).range(16..=512))]
    pub(crate) vfs: u16,
    /// Runs; medians are printed
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=15))]
    pub(crate) runs: u16,
    /// How to print the figures
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Output,
}

const LOOKUP_HELP: &str = "\
Both tables hold the same connections, each by the keys of both its directions, and are asked for them in the same shuffled \
order, in bursts. rte_hash is made for readers without locks and several writers, as a table of flows needs it. Alone it \
gives a number for a key; with a record it also reads a cache line for each connection, as the engine's table does.

Needs root: hugepages are reserved for the time of the measurement.

Examples:
  culvert-bench lookup
  culvert-bench lookup --keys 1M --burst 64 -o json";

#[derive(Debug, Clone, Args)]
pub(crate) struct Lookup {
    /// Numbers of keys, two for each connection, such as 1k or 1M
    #[arg(long, value_delimiter = ',', value_parser = keys, default_value = "1k,100k,1M")]
    pub(crate) keys: Vec<u32>,
    /// Keys that are looked up together
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) burst: u16,
    /// Length of a run
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Runs; medians are printed
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) runs: u16,
    /// CPU of the measurement
    #[arg(long, default_value_t = 1)]
    pub(crate) cpu: u32,
    /// CPU of everything else
    #[arg(long, default_value_t = 0)]
    pub(crate) control_cpu: u32,
    /// How to print the figures
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Output,
}

const INSTRUCTIONS_HELP: &str = "\
Sends each work's packets (1k flows, in plain memory, no ports) through the engine's pipeline under callgrind and counts \
instructions, receive and transmit left out. With --baseline: exit status 1 if one of them is more than 3 % above the file's, \
which holds for one version of rustc; under another nothing is compared, and counted as skipped.

Needs valgrind, and a program built with --release.

Examples:
  culvert-bench instructions
  culvert-bench instructions --work w3 --keep /tmp     then: callgrind_annotate /tmp/callgrind.out.w3
  culvert-bench instructions --baseline hw-tests/bench/instructions.json --renew";

#[derive(Debug, Clone, Args)]
pub(crate) struct Instructions {
    /// What to count [default: w1,w2,w3,w4,w5]
    #[arg(long, value_enum, ignore_case = true, value_delimiter = ',')]
    pub(crate) work: Vec<Work>,
    /// Counts to hold these against
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,
    /// Write the file instead
    #[arg(long, requires = "baseline", conflicts_with = "work")]
    pub(crate) renew: bool,
    /// Keep callgrind's profiles in this folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) keep: Option<PathBuf>,
    /// Do the work once and print the number of packets: what callgrind is to watch
    #[arg(long, hide = true)]
    pub(crate) count: bool,
}

const ENGINE_HELP: &str = "\
The engine and plain receive-and-transmit (io) take turns on the same packets, queues and CPU. A share is what the engine \
reaches of io in the same pair of runs; printed is the median. Before and after the runs a sample of the packets sent is \
compared, byte by byte, with a slow reference: a fast engine that does its work wrong fails.

Needs root: hugepages are reserved for the time of the measurement. Keep the machine quiet meanwhile.

Examples:
  culvert-bench engine                                 all works, as in docs/performance.md: about three minutes
  culvert-bench engine --work w3 --flows 1k,1M --runs 9
  culvert-bench engine --work w3 --flows 1k --workers 1,2
  culvert-bench engine --work w1 --pcap pods.pcap      the packets of a capture, sent by pods
  culvert-bench engine --work w2 --flows 100k --pause 40
  culvert-bench engine -o json >engine.json
  culvert-bench engine --check --report engine.html    exit status 1 if a goal is missed";

#[derive(Debug, Clone, Args)]
pub(crate) struct Engine {
    /// What to measure [default: w1,w2,w3,w4,w5]
    #[arg(long, value_enum, ignore_case = true, value_delimiter = ',')]
    pub(crate) work: Vec<Work>,
    /// Numbers of flows, such as 1k or 1M [default: for each work those that have a goal]
    #[arg(long, value_delimiter = ',', value_parser = flows)]
    pub(crate) flows: Vec<u32>,
    /// Transport protocol of the flows; w4 always opens TCP connections
    #[arg(long, value_enum, default_value = "udp")]
    pub(crate) transport: Transport,
    /// Numbers of workers, each with queues, ports and packets of its own
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) workers: Vec<u16>,
    /// Replay this capture (pcap, Ethernet) instead of packets of our own
    #[arg(long, value_name = "FILE", conflicts_with = "flows")]
    pub(crate) pcap: Option<PathBuf>,
    /// Length of a run, which is as long again with io: both take turns of a tenth of a second
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Runs of each work, and as many of io
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) runs: u16,
    /// Seconds of both before the first run
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub(crate) warmup: f64,
    /// Instead of doing the work, wait so many cycles for each packet between receive and transmit: the share that is left to
    /// an engine which takes as long and touches no memory
    #[arg(long, value_name = "CYCLES", conflicts_with = "check", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) pause: Option<u16>,
    /// Packets compared with the reference, before the runs and again after
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sample: u32,
    /// CPUs of the workers, the first one's first [default: all but --control-cpu, then that one]
    #[arg(long, value_delimiter = ',')]
    pub(crate) cpus: Vec<u32>,
    /// CPU of everything else
    #[arg(long, default_value_t = 0)]
    pub(crate) control_cpu: u32,
    /// How to print the figures
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Output,
    /// Also write an HTML page with charts
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Exit with status 1 if a figure misses what is demanded of it
    #[arg(long)]
    pub(crate) check: bool,
}

/// How figures are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

const MAX_FLOWS: u32 = 10_000_000;

fn flows(text: &str) -> Result<u32, String> {
    number(text)
        .filter(|number| (1..=MAX_FLOWS).contains(number))
        .ok_or_else(|| "must be 1 to 10M, such as 1000, 100k or 1M".to_owned())
}

fn keys(text: &str) -> Result<u32, String> {
    number(text)
        .filter(|number| (64..=MAX_FLOWS).contains(number))
        .ok_or_else(|| "must be 64 to 10M, such as 1000, 100k or 1M".to_owned())
}

/// A number as people write it: 1000, 100k, 1M.
fn number(text: &str) -> Option<u32> {
    let (digits, factor) = match text.as_bytes() {
        [.., b'k' | b'K'] => (&text[..text.len() - 1], 1_000),
        [.., b'm' | b'M'] => (&text[..text.len() - 1], 1_000_000),
        _ => (text, 1),
    };
    digits.parse::<u32>().ok().and_then(|number| number.checked_mul(factor))
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|seconds| (0.01..=3600.0).contains(seconds));
    number.ok_or_else(|| "must be 0.01 to 3600".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_read_as_they_are_written() {
        assert_eq!(
            ["1", "1k", "100K", "1M", "10m"].map(|text| flows(text).unwrap()),
            [1, 1_000, 100_000, 1_000_000, 10_000_000]
        );
        for bad in ["", "k", "0", "11M", "1.5M", "-1", "5000000k", "1kk"] {
            assert!(flows(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
