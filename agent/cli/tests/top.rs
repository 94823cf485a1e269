//! `culvert top` against an agent whose counters the test makes up.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::Read as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

use culvert_api::agent::agent_reply::Result as Reply;
use culvert_api::agent::agent_request::Call;
use culvert_api::agent::{AgentReply, AgentRequest, Error};
use culvert_api::fastpath::{Counters, NamedCounter, Port, PortCounters, WorkerCounters};
use culvert_api::frame;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;
use tempfile::TempDir;

const HZ: u64 = 1_000_000_000;

/// An agent that answers one call with each of these, and is gone then.
struct Agent {
    folder: TempDir,
    thread: JoinHandle<()>,
}

impl Agent {
    fn start(replies: Vec<Reply>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("agent.sock")).unwrap();
        let thread = std::thread::spawn(move || {
            for reply in replies {
                let (mut stream, _) = listener.accept().unwrap();
                let request: AgentRequest = frame::read(&mut stream).unwrap();
                assert!(matches!(request.call, Some(Call::Counters(_))));
                frame::write(&mut stream, &AgentReply { result: Some(reply) }).unwrap();
            }
        });
        Self { folder, thread }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }
}

fn command(socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_culvert"));
    command.arg("top").args(args).args(["--interval", "100ms", "--socket"]).arg(socket);
    command
}

/// Runs it against an agent with these answers, all of which it asks for.
fn top(args: &[&str], replies: Vec<Reply>) -> (i32, String, String) {
    let agent = Agent::start(replies);
    let Output { status, stdout, stderr } = command(&agent.socket(), args).output().unwrap();
    agent.thread.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Counters after so many seconds in each of which a worker was busy for 0.4 s with 1000 packets, all from pod-a's port,
/// which have 1250 bytes; of every ten one was dropped.
fn after(seconds: u64) -> Counters {
    let port = |name: &str, packets| Port {
        name: name.into(),
        owner: format!("default/{name}"),
        counters: Some(PortCounters {
            rx_packets: packets,
            rx_bytes: packets * 1250,
            rx_dropped: packets / 10,
            rx_deferred: packets / 500,
            ..PortCounters::default()
        }),
        drops: vec![NamedCounter { name: "spoofed-mac".into(), value: packets / 10 }],
        ..Port::default()
    };
    Counters {
        workers: vec![WorkerCounters {
            lcore: 7,
            packets: 1000 * seconds,
            busy_cycles: seconds * HZ * 4 / 10,
            ..WorkerCounters::default()
        }],
        ports: vec![port("pod-b", 0), port("pod-a", 1000 * seconds)],
        cycles: 9 * HZ + seconds * HZ,
        cycles_per_second: HZ,
        instance: "first".into(),
        ..Counters::default()
    }
}

fn samples(seconds: impl IntoIterator<Item = u64>) -> Vec<Reply> {
    seconds.into_iter().map(|seconds| Reply::Counters(after(seconds))).collect()
}

#[test]
fn json_is_one_object_a_line_with_rates_by_the_fast_paths_own_clock() {
    let (code, out, err) = top(&["--count", "2", "-o", "json"], samples([5, 7, 8]));
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    for (line, seconds) in lines.iter().zip([2.0, 1.0]) {
        assert_eq!(line["seconds"], seconds);
        let worker = &line["workers"][0];
        assert_eq!((&worker["worker"], &worker["cpu"], &worker["busy"]), (&0.into(), &7.into(), &0.4.into()));
        assert_eq!(worker["packetsPerSecond"], 1000.0);
        assert_eq!(worker["cyclesPerPacket"], 400_000.0);
        assert_eq!(worker["headroomPacketsPerSecond"], 1500.0);
        assert_eq!(worker["sleepsPerSecond"], Value::Null, "this agent's kernel does not tell");
        let port = &line["ports"][0];
        assert_eq!(port["owner"], "default/pod-a", "the one with more packets");
        assert_eq!(port["rxBitsPerSecond"], 10_000_000.0);
        assert_eq!(port["rxDeferredPerSecond"], 2.0);
        assert_eq!(port["dropsPerSecond"]["spoofed-mac"], 100.0);
        assert_eq!(line["ports"][1]["dropsPerSecond"], serde_json::json!({}));
    }
}

#[test]
fn tables_follow_each_other_without_control_sequences_where_there_is_no_terminal() {
    let (code, out, _) = top(&["--count", "2", "--limit", "1"], samples([1, 2, 3]));
    assert_eq!(code, 0);
    assert!(!out.contains('\x1b'), "{out}");
    for line in [
        "1.0 s: 1000 packets/s received, 0 sent, 100 dropped",
        "0       7    40.0%  1000       400k           1500        -         -            -",
        "pod-a  default/pod-a  0       1000          0.010      0             0.000      2.00        100        spoofed-mac 100",
        "and 1 more",
    ] {
        assert_eq!(out.matches(line).count(), 2, "{line}:\n{out}");
    }
    assert!(!out.contains("pod-b"), "{out}");
}

#[test]
fn once_is_one_interval() {
    let (code, out, _) = top(&["--once", "--sort", "name", "-o", "json"], samples([1, 2]));
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &object["ports"][1]["name"]), (0, &"pod-b".into()));
}

#[test]
fn an_interval_over_a_restart_is_not_counted_and_said_so() {
    let mut replies = samples([5, 6, 7]);
    let restarted = |seconds| Reply::Counters(Counters { instance: "second".into(), ..after(seconds) });
    replies[1] = restarted(6);
    replies[2] = restarted(7);
    let (code, out, err) = top(&["--once", "-o", "json"], replies);
    assert_eq!((code, out.lines().count()), (0, 1));
    assert_eq!(err, "culvert: the fast path was started anew: its counters begin at zero\n");
}

#[test]
fn who_cannot_answer_ends_it_with_status_1_at_once_or_later() {
    let refused = || Reply::Error(Error { message: "fast path at /run/x: not reachable".into() });
    for (replies, lines) in [(vec![refused()], 0), ([samples([1, 2]), vec![refused()]].concat(), 1)] {
        let (code, out, err) = top(&["-o", "json"], replies);
        assert_eq!((code, out.lines().count()), (1, lines));
        assert_eq!(err, "culvert: fast path at /run/x: not reachable\n");
    }
    let folder = tempfile::tempdir().unwrap();
    let away = command(&folder.path().join("none"), &[]).output().unwrap();
    assert_eq!(away.status.code(), Some(1));
    assert!(String::from_utf8(away.stderr).unwrap().contains("is culvert-agent running?"));
    let old = Counters { cycles_per_second: 0, ..after(1) };
    let (code, _, err) = top(&[], vec![Reply::Counters(old)]);
    assert!(code == 1 && err.contains("are both of the same version?"), "{err}");
}

#[test]
fn wrong_arguments_are_refused_by_name_and_value() {
    for (args, text) in [
        (&["--interval", "1ms"][..], "must be 100ms-1h"),
        (&["--count", "0"], "'--count <N>'"),
        (&["--once", "--count", "2"], "cannot be used with"),
        (&["--sort", "colour"], "colour"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_culvert")).arg("top").args(args).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && err.contains(text), "{args:?}: {err}");
    }
    let help = Command::new(env!("CARGO_BIN_EXE_culvert")).args(["top", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(
        help.contains("Examples:") && help.contains("Exit status:") && help.contains("HEADROOM/S"),
        "{help}"
    );
}

/// Frames are drawn over each other, no higher than the terminal; an agent that is gone is said and waited for.
#[test]
fn at_a_terminal_what_is_shown_is_replaced_and_an_agent_that_went_is_waited_for() {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let slave = File::options().read(true).write(true).open(name).unwrap();
    tcsetwinsize(&slave, Winsize { ws_row: 5, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let agent = Agent::start(samples([1, 2, 3]));
    let mut child = command(&agent.socket(), &[])
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .stdout(Stdio::from(slave))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut screen, mut master) = (String::new(), File::from(master));
    let mut buffer = [0; 4096];
    while !screen.contains("is culvert-agent running?") {
        let read = master.read(&mut buffer).unwrap();
        assert!(read > 0);
        screen += std::str::from_utf8(&buffer[..read]).unwrap();
    }
    assert_eq!(child.try_wait().unwrap(), None, "it waits for the agent");
    child.kill().unwrap();
    child.wait().unwrap();
    agent.thread.join().unwrap();

    let frames: Vec<_> = screen.split("\x1b[H").collect();
    assert_eq!(frames[0], "\x1b[2J", "the screen is cleared once:\n{screen:?}");
    let lines = |frame: &str| frame.lines().count();
    for frame in &frames[1..3] {
        assert!(frame.contains("\x1b[1m") && frame.contains("WORKER"), "{frame:?}");
        assert_eq!(lines(frame), 4 + 1, "four rows of five, and what ends the frame");
    }
    assert!(frames[3].contains("is culvert-agent running?"), "{:?}", frames[3]);
}
