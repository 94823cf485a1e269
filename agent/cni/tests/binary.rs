//! The binary as a container runtime runs it.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use culvert_api::agent::{AgentReply, AgentRequest, CniReply, agent_reply, agent_request};
use culvert_api::frame;
use serde_json::{Value, json};

fn run(envs: &[(&str, &str)], config: &str) -> (Output, Value) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_culvert-cni"))
        .env_clear()
        .envs(envs.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, json)
}

fn conf(socket: &Path) -> String {
    json!({ "cniVersion": "1.0.0", "name": "culvert", "type": "culvert-cni", "socket": socket }).to_string()
}

#[test]
fn version_is_answered_without_an_agent() {
    let (output, json) = run(&[("CNI_COMMAND", "VERSION")], r#"{"cniVersion":"0.4.0"}"#);
    assert!(output.status.success());
    assert_eq!(json["cniVersion"], "0.4.0");
    assert_eq!(json["supportedVersions"], json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
}

#[test]
fn an_agent_that_is_away_is_try_again_later_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    for command in ["ADD", "DEL", "CHECK", "STATUS", "GC"] {
        let (output, json) = run(&[("CNI_COMMAND", command)], &conf(&socket));
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert_eq!(json["code"], 11, "{command}");
        assert_eq!(json["cniVersion"], "1.0.0", "{command}");
        assert!(json["details"].as_str().unwrap().contains("is culvert-agent running?"), "{json}");
    }
}

#[test]
fn a_configuration_that_is_no_json_is_a_decoding_error() {
    let (output, json) = run(&[("CNI_COMMAND", "ADD")], "{");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json["code"], 6);
}

#[test]
fn the_agent_sees_the_invocation_whole_and_its_answer_is_printed_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let agent = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request: AgentRequest = frame::read(&mut stream).unwrap();
        let reply = CniReply { output: br#"{"cniVersion":"1.0.0"}"#.to_vec(), exit_code: 1 };
        frame::write(&mut stream, &AgentReply { result: Some(agent_reply::Result::Cni(reply)) }).unwrap();
        request.call
    });
    let envs = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/var/run/netns/p"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "K8S_POD_NAME=web"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    let (output, _) = run(&envs, &conf(&socket));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, br#"{"cniVersion":"1.0.0"}"#);
    let Some(agent_request::Call::Cni(request)) = agent.join().unwrap() else { panic!("no CNI call") };
    assert_eq!((request.command.as_str(), request.container_id.as_str()), ("ADD", "c1"));
    assert_eq!((request.netns.as_str(), request.ifname.as_str()), ("/var/run/netns/p", "eth0"));
    assert_eq!((request.args.as_str(), request.path.as_str()), ("K8S_POD_NAME=web", "/opt/cni/bin"));
    assert_eq!(request.config, conf(&socket).as_bytes());
}

#[test]
fn help_and_unknown_arguments_tell_how_it_is_used() {
    let help = Command::new(env!("CARGO_BIN_EXE_culvert-cni")).arg("--help").output().unwrap();
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("CNI_COMMAND"));
    let wrong = Command::new(env!("CARGO_BIN_EXE_culvert-cni")).arg("add").output().unwrap();
    assert_eq!(wrong.status.code(), Some(1));
}
