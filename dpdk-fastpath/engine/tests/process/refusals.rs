//! What it does not start with.

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Output;

use nix::sys::signal::Signal;

use crate::Case;
use crate::fastpath::{FastPath, configuration, run};
use crate::netns::Netns;

const UPLINK: &str = "uplink: { tap: { name: cvtup0 } }";

pub(crate) fn cases() -> Vec<Case> {
    let any = |name, body| Case { name, root: false, device: None, body };
    let root = |name, body| Case { name, root: true, device: None, body };
    vec![
        any("help_and_version_are_printed", help),
        any("a_valid_configuration_is_said_to_be_valid", valid),
        any("a_wrong_configuration_is_refused_with_2_and_the_place", wrong_configuration),
        any("a_cpu_that_does_not_exist_is_refused_by_name", no_such_cpu),
        root("a_second_instance_on_the_same_socket_is_refused_and_the_first_goes_on", second_instance),
        root("the_socket_of_a_killed_process_is_replaced", stale_socket),
        root("an_uplink_name_that_is_taken_is_refused_and_nothing_stays", taken_name),
    ]
}

/// Exit code and standard error.
fn outcome(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Runs the program with a configuration of these lines.
fn start(more: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(&directory, more);
    outcome(&run(&[&["--config", config.to_str().unwrap()], arguments].concat()))
}

fn help() {
    let help = run(&["--help"]);
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    assert_eq!(help.status.code(), Some(0));
    for word in ["--check-config", "Examples:", "Exit codes:"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let version = run(&["--version"]);
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("culvert-fastpath "));
    assert_eq!(run(&["--nonsense"]).status.code(), Some(2));
}

fn valid() {
    assert_eq!(start(UPLINK, &["--check-config"]), (Some(0), String::new()));
}

fn wrong_configuration() {
    for (lines, reason) in [
        ("uplink: { tap: { name: a } }\nwokers: [1]", "line 5 column 1: unknown field `wokers`"),
        ("uplink: { tap: { name: a/b } }", "interface name \"a/b\""),
        ("uplink: { tap: { name: a } }\nworkers: [1, 1]", "workers[1] 1: is named twice"),
    ] {
        for arguments in [&["--check-config"][..], &[]] {
            let (code, said) = start(lines, arguments);
            assert_eq!(code, Some(2), "{said}");
            assert!(said.contains("fastpath.yaml: ") && said.contains(reason), "{said}");
        }
    }
    let (code, said) = outcome(&run(&["--config", "/nowhere/fastpath.yaml"]));
    assert_eq!(code, Some(2));
    assert!(said.contains("/nowhere/fastpath.yaml: cannot be read: No such file"), "{said}");
}

fn no_such_cpu() {
    let (code, said) = start(&format!("{UPLINK}\nworkers: [60000]"), &[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("workers[0] 60000: no such CPU; this machine has 0"), "{said}");
}

fn second_instance() {
    let mut first = FastPath::start();
    let (code, said) = outcome(&first.start_another());
    assert_eq!(code, Some(1));
    assert!(said.contains("fastpath.sock: another culvert-fastpath serves it"), "{said}");
    assert_eq!(first.info().workers, 1);
    first.stop(Signal::SIGTERM);
}

fn stale_socket() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(&directory, UPLINK);
    drop(UnixListener::bind(directory.path().join("fastpath.sock")).unwrap());
    let netns = Netns::new("fp");
    let mut command = netns.command("timeout");
    // Ended by timeout's SIGTERM, it exits with 0; timeout itself reports that as 124 unless told otherwise.
    command.args(["--preserve-status", "3", crate::fastpath::BINARY, "--config"]).arg(config);
    let (code, said) = outcome(&command.output().unwrap());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("removing the socket of a process that is gone"), "{said}");
    assert!(said.contains("stopped"), "{said}");
}

fn taken_name() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(&directory, UPLINK);
    let netns = Netns::new("fp");
    netns.ip("tuntap add cvtup0 mode tap");
    let mut command = netns.command("timeout");
    command.args(["20", crate::fastpath::BINARY, "--config"]).arg(config);
    let (code, said) = outcome(&command.output().unwrap());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cvtup0") && said.contains("exists"), "{said}");
    assert!(!fs::exists(directory.path().join("fastpath.sock")).unwrap(), "the socket stayed");
    assert!(netns.ip("-o link").contains("cvtup0"), "somebody else's interface is left alone");
}
