//! culvert-cni: the CNI plugin of a Culvert node.
//!
//! A container runtime starts it for every pod with its wishes in the environment and the network configuration on
//! standard input (CNI specification 1.1.0, section 2). It hands both to culvert-agent, which owns all state, and
//! prints what comes back. It keeps nothing itself, so that killing it at any point harms nothing.
//!
//! Two things it does itself, since it is the process that the runtime started on the host: it runs the IPAM plugin that
//! the agent asks for, and puts device information files where Multus finds them.
//!
//! When the agent is away every command but VERSION fails with code 11, "try again later". That holds for DEL too:
//! the runtime repeats it, while a DEL that claimed success would leave the pod's VF or port behind.

#![forbid(unsafe_code)]

mod call;
mod conf;
mod device_info;
mod invocation;
mod ipam;
mod log;
mod output;

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::Instant;

use conf::Conf;
use invocation::Invocation;
use log::{Level, Log};
use output::Failure;

const ABOUT: &str = concat!(
    "culvert-cni ",
    env!("CARGO_PKG_VERSION"),
    ", a CNI plugin (CNI 0.3.1 to 1.1.0).

A container runtime runs it; by hand, for instance:
  echo '{\"cniVersion\":\"1.1.0\",\"name\":\"culvert\",\"type\":\"culvert-cni\"}' |
    CNI_COMMAND=STATUS culvert-cni

Where it lies under the name of sriov, configurations of sriov-cni use it unchanged. An IPAM plugin that the
configuration names is looked for in CNI_PATH.

Environment: CNI_COMMAND (ADD, DEL, CHECK, GC, STATUS, VERSION), CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME,
  CNI_ARGS, CNI_PATH; CULVERT_SOCKET is the agent's socket where the configuration has no \"socket\".
Exit status: 0 done; 1 failed, with a CNI error object on standard output.
"
);

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => {}
        Some("--version" | "-V") => {
            return print(concat!("culvert-cni ", env!("CARGO_PKG_VERSION"), "\n"), 0);
        }
        Some("--help" | "-h") => return print(ABOUT, 0),
        Some(other) => {
            eprintln!("culvert-cni: argument {other:?}: takes none; its wishes come in the environment");
            return ExitCode::from(1);
        }
    }
    let Some(command) = std::env::var_os("CNI_COMMAND") else {
        eprint!("{ABOUT}");
        return ExitCode::from(1);
    };
    let mut config = Vec::new();
    let answer = match io::stdin().lock().read_to_end(&mut config) {
        Ok(_) => run(&command.to_string_lossy(), &config),
        Err(error) => Err(Failure::new(output::IO, "reading the network configuration", error.to_string())),
    };
    match answer {
        Ok((text, code)) => print(text, code),
        Err(failure) => print(failure.to_json(), 1),
    }
}

/// What to print, and the exit status.
fn run(command: &str, config: &[u8]) -> Result<(Vec<u8>, u8), Failure> {
    if command == "VERSION" {
        return Ok((output::versions(config)?, 0));
    }
    let conf = Conf::read(config)?;
    let (mut log, started) = (Log::open(&conf), Instant::now());
    log.write(Level::Debug, command, &format!("configuration {}", String::from_utf8_lossy(config)));
    let answer = Invocation { command, config, conf: &conf }.run(&mut log);
    let took = started.elapsed().as_millis();
    match &answer {
        Ok((_, 0)) => log.write(Level::Info, command, &format!("done in {took} ms")),
        Ok((output, _)) => {
            log.write(Level::Error, command, &format!("refused: {}", String::from_utf8_lossy(output)));
        }
        Err(failure) => log.write(Level::Error, command, &failure.to_string()),
    }
    answer
}

fn print(text: impl AsRef<[u8]>, code: u8) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::from(code),
        Err(error) => {
            eprintln!("culvert-cni: standard output: {error}");
            ExitCode::from(1)
        }
    }
}
