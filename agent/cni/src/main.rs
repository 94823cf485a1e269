//! culvert-cni: the CNI plugin of a Culvert node.
//!
//! A container runtime starts it for every pod with its wishes in the environment and the network configuration on
//! standard input (CNI specification 1.1.0, section 2). It hands both to culvert-agent, which owns all state, and
//! prints what comes back. It keeps nothing itself, so that killing it at any point harms nothing.
//!
//! When the agent is away every command but VERSION fails with code 11, "try again later". That holds for DEL too:
//! the runtime repeats it, while a DEL that claimed success would leave the pod's VF or port behind.

#![forbid(unsafe_code)]

mod call;
mod output;

use std::io::{self, Read, Write};
use std::process::ExitCode;

use output::Failure;

const ABOUT: &str = concat!(
    "culvert-cni ",
    env!("CARGO_PKG_VERSION"),
    ", a CNI plugin (CNI 0.3.1 to 1.1.0).

A container runtime runs it; by hand, for instance:
  echo '{\"cniVersion\":\"1.1.0\",\"name\":\"culvert\",\"type\":\"culvert-cni\"}' |
    CNI_COMMAND=STATUS culvert-cni

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
        Ok(_) => run(&command.to_string_lossy(), config),
        Err(error) => Err(Failure::new(output::IO, "reading the network configuration", error.to_string())),
    };
    match answer {
        Ok((text, code)) => print(text, code),
        Err(failure) => print(failure.to_json(), 1),
    }
}

/// What to print, and the exit status.
fn run(command: &str, config: Vec<u8>) -> Result<(Vec<u8>, u8), Failure> {
    if command == "VERSION" {
        return Ok((output::versions(&config)?, 0));
    }
    let socket = call::socket(&config)?;
    let reply = call::agent(&socket, command, config)?;
    Ok((reply.output, u8::try_from(reply.exit_code).unwrap_or(1)))
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
