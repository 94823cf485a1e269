//! The binary as a container runtime runs it.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use culvert_api::agent::{AgentRequest, CniReply, DeviceInfoFile};
use culvert_api::frame;
use serde_json::json;
use support::{Agent, conf, run};

#[test]
fn version_is_answered_without_an_agent() {
    let (output, json) = run(&[("CNI_COMMAND", "VERSION")], r#"{"cniVersion":"0.4.0"}"#);
    assert!(output.status.success());
    assert_eq!(json["cniVersion"], "0.4.0");
    assert_eq!(json["supportedVersions"], json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
}

#[test]
fn an_agent_that_is_away_is_told_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    for (command, code) in [("ADD", 11), ("DEL", 11), ("CHECK", 11), ("STATUS", 50), ("GC", 11)] {
        let (output, json) = run(&[("CNI_COMMAND", command)], &conf(&socket));
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert_eq!(json["code"], code, "{command}");
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
    let answer = br#"{"cniVersion":"1.0.0"}"#;
    let agent = Agent::start([CniReply { output: answer.to_vec(), exit_code: 1, ..CniReply::default() }]);
    let envs = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/var/run/netns/p"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "K8S_POD_NAME=web"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    let config = conf(&agent.socket());
    let (output, _) = run(&envs, &config);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, answer);
    let requests = agent.requests();
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!((request.command.as_str(), request.container_id.as_str()), ("ADD", "c1"));
    assert_eq!((request.netns.as_str(), request.ifname.as_str()), ("/var/run/netns/p", "eth0"));
    assert_eq!((request.args.as_str(), request.path.as_str()), ("K8S_POD_NAME=web", "/opt/cni/bin"));
    assert_eq!((request.config.as_slice(), &request.ipam_result), (config.as_bytes(), &None));
}

#[test]
fn a_device_information_file_is_written_once_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cni/n-1");
    let call = |content: &str| {
        let file = DeviceInfoFile { path: path.display().to_string(), content: content.as_bytes().to_vec() };
        let agent = Agent::start([CniReply { device_info: Some(file), ..CniReply::default() }]);
        let (output, _) = run(&[("CNI_COMMAND", "ADD")], &conf(&agent.socket()));
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        agent.requests();
        std::fs::read_to_string(&path).ok()
    };
    assert_eq!(call("first").as_deref(), Some("first"));
    assert_eq!(call("second").as_deref(), Some("first"), "the device plugin's copy stays");
    assert_eq!(call(""), None);
    assert_eq!(call(""), None, "that it is gone is no error");
}

#[test]
fn the_log_file_of_the_configuration_gets_lines_at_its_level() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cni.log");
    let lines = |level: &str| {
        let agent = Agent::start([
            CniReply { output: b"no VF".to_vec(), exit_code: 1, ..CniReply::default() },
            CniReply::default(),
        ]);
        for command in ["ADD", "DEL"] {
            let config = json!({
                "cniVersion": "1.0.0", "socket": agent.socket(), "logFile": path, "logLevel": level
            });
            run(&[("CNI_COMMAND", command), ("CNI_CONTAINERID", "c1")], &config.to_string());
        }
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        text
    };
    let error = lines("error");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains("level=error msg=\"refused: no VF\" command=\"ADD\" container=\"c1\""), "{error}");
    let info = lines("");
    assert!(info.lines().count() == 2 && info.contains("level=info msg=\"done in"), "{info}");
    let debug = lines("debug");
    assert!(debug.lines().count() == 4 && debug.contains("level=debug msg=\"configuration"), "{debug}");
    let odd = lines("loud");
    assert!(odd.contains("logLevel \\\"loud\\\": is none") && odd.contains("done in"), "{odd}");
}

#[test]
fn a_log_that_cannot_be_written_is_told_and_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), &link).unwrap();
    for path in [link, folder.path().join("none/cni.log")] {
        let agent = Agent::start([CniReply::default()]);
        let config = json!({ "cniVersion": "1.0.0", "socket": agent.socket(), "logFile": path });
        let (output, _) = run(&[("CNI_COMMAND", "DEL")], &config.to_string());
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("logFile {}", path.display())));
    }
    assert!(!folder.path().join("elsewhere").exists(), "a link is not followed");
}

#[test]
fn it_answers_under_the_name_of_the_plugin_that_it_replaces() {
    let folder = tempfile::tempdir().unwrap();
    let sriov = folder.path().join("sriov");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_culvert-cni"), &sriov).unwrap();
    let output = Command::new(&sriov).env("CNI_COMMAND", "VERSION").stdin(Stdio::null()).output();
    assert!(String::from_utf8(output.unwrap().stdout).unwrap().contains("supportedVersions"));
}

/// The benchmark holds the plugin as it is installed to 3 MB. Of what it takes nine tenths are pages of its file, and code
/// that was not optimised has more of them; so this holds what it allocates by itself to a figure of its own.
#[test]
fn it_takes_less_than_3_mb_of_memory_and_a_fifth_more_unoptimised() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_culvert-cni"))
        .env_clear()
        .env("CNI_COMMAND", "ADD")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(conf(&socket).as_bytes()).unwrap();
    // It has sent everything and waits.
    let (mut stream, _) = listener.accept().unwrap();
    let _: AgentRequest = frame::read(&mut stream).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    drop(stream);
    child.wait().unwrap();
    let kilobytes = |name| -> u32 {
        let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        value.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let most = if cfg!(debug_assertions) { 3686 } else { 3072 };
    let (peak, allocated) = (kilobytes("VmHWM:"), kilobytes("RssAnon:"));
    assert!((500..most).contains(&peak), "{peak} kB at most");
    assert!((50..400).contains(&allocated), "{allocated} kB of its own");
}

#[test]
fn help_and_unknown_arguments_tell_how_it_is_used() {
    let help = Command::new(env!("CARGO_BIN_EXE_culvert-cni")).arg("--help").output().unwrap();
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("CNI_COMMAND"));
    let wrong = Command::new(env!("CARGO_BIN_EXE_culvert-cni")).arg("add").output().unwrap();
    assert_eq!(wrong.status.code(), Some(1));
}
