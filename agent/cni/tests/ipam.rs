//! IPAM plugins: shell scripts that note how they were called.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Output;
use std::thread;
use std::time::Duration;

use culvert_api::agent::{CniReply, CniRequest, IpamRun};
use serde_json::{Value, json};
use support::{Agent, run};
use tempfile::TempDir;

const RESULT: &str = r#"{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.5/24"}]}"#;

/// A folder of CNI_PATH with the plugin `toy`.
struct Toy(TempDir);

impl Toy {
    /// `script` runs after the call was noted, with its input in variable `input`.
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("toy");
        let calls = folder.path().join("calls");
        let text = format!(
            "#!/bin/sh\ninput=$(cat)\necho \"$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_ARGS $input\" >>{}\n{script}\n",
            calls.display()
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    /// The plugin's file, open for writing.
    fn open(&self) -> File {
        File::options().append(true).open(self.0.path().join("toy")).unwrap()
    }

    /// One line for each call.
    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.0.path().join("calls")).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    fn commands(&self) -> Vec<String> {
        self.calls().iter().map(|call| call.split(' ').next().unwrap_or_default().to_owned()).collect()
    }

    /// Runs culvert-cni with an agent that answers so; what came of it, and what the agent was asked.
    fn run<const N: usize>(&self, command: &str, replies: [CniReply; N]) -> (Output, Value, Vec<CniRequest>) {
        let agent = Agent::start(replies);
        let config = config(&agent);
        let path = format!("/nonexistent:{}", self.0.path().display());
        let envs = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/run/netns/x"),
            ("CNI_IFNAME", "net1"),
            ("CNI_ARGS", "IP=10.9.0.5"),
            ("CNI_PATH", path.as_str()),
            ("PATH", "/usr/bin:/bin"),
        ];
        let (output, json) = run(&envs, &config);
        (output, json, agent.requests())
    }
}

fn config(agent: &Agent) -> String {
    json!({
        "cniVersion": "1.0.0", "name": "n", "type": "sriov", "socket": agent.socket(), "ipam": { "type": "toy" }
    })
    .to_string()
}

fn runs(again: bool) -> CniReply {
    let run = IpamRun { plugin: "toy".to_owned(), again, release_first: false };
    CniReply { ipam: Some(run), ..CniReply::default() }
}

fn says(output: &str, exit_code: u32) -> CniReply {
    CniReply { output: output.as_bytes().to_vec(), exit_code, ..CniReply::default() }
}

/// Commands, and what came from the plugin with them.
fn asked(requests: &[CniRequest]) -> Vec<(&str, Option<&str>)> {
    requests
        .iter()
        .map(|r| {
            (
                r.command.as_str(),
                r.ipam_result.as_deref().map(|text| std::str::from_utf8(text).unwrap().trim()),
            )
        })
        .collect()
}

#[test]
fn add_gives_the_agent_what_the_plugin_printed_and_the_plugin_the_same_call() {
    let toy = Toy::new(&format!("echo '{RESULT}'"));
    let (output, json, requests) = toy.run("ADD", [runs(true), says(r#"{"done":1}"#, 0)]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(json["done"], 1);
    assert_eq!(asked(&requests), [("ADD", None), ("ADD", Some(RESULT))]);
    let calls = toy.calls();
    let [call] = calls.as_slice() else { panic!("{calls:?}") };
    let config = String::from_utf8(requests[0].config.clone()).unwrap();
    assert_eq!(*call, format!("ADD c1 net1 IP=10.9.0.5 {config}"));
}

#[test]
fn an_error_of_the_plugin_is_passed_on_as_it_is_and_everything_is_undone() {
    let error = r#"{"cniVersion":"1.0.0","code":42,"msg":"10.9.0.5 is in use","details":"by c0"}"#;
    let toy = Toy::new(&format!("[ $CNI_COMMAND = DEL ] || {{ echo '{error}'; exit 1; }}"));
    let (output, _, requests) = toy.run("ADD", [runs(true), says("", 0)]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), error);
    assert_eq!(asked(&requests), [("ADD", None), ("DEL", Some(""))]);
    assert_eq!(toy.commands(), ["ADD", "DEL"]);
}

#[test]
fn a_plugin_that_dies_or_prints_no_error_object_is_named_and_everything_is_undone() {
    for (script, part) in [
        ("echo oops; exit 3", "exit status: 3; no error object, but \"oops\\n\""),
        ("kill -9 $$", "signal: 9 (SIGKILL)"),
        ("exit 1", "exit status: 1"),
    ] {
        let toy = Toy::new(script);
        let (output, json, requests) = toy.run("ADD", [runs(true), says("", 0)]);
        assert_eq!((output.status.code(), &json["code"]), (Some(1), &json!(103)));
        assert_eq!((&json["msg"], &json["cniVersion"]), (&json!("ipam plugin toy"), &json!("1.0.0")));
        assert!(json["details"].as_str().unwrap().contains(part), "{json}");
        assert_eq!(asked(&requests), [("ADD", None), ("DEL", Some(""))]);
        assert_eq!(toy.commands(), ["ADD", "DEL"]);
    }
}

#[test]
fn what_the_agent_cannot_use_is_given_back_to_the_plugin_and_its_error_is_printed() {
    let toy = Toy::new("echo garbage");
    let refusal = r#"{"code":103,"msg":"garbage"}"#;
    let (output, json, requests) = toy.run("ADD", [runs(true), says(refusal, 1)]);
    assert_eq!((output.status.code(), &json["code"]), (Some(1), &json!(103)));
    assert_eq!(asked(&requests), [("ADD", None), ("ADD", Some("garbage"))]);
    assert_eq!(toy.commands(), ["ADD", "DEL"]);
}

#[test]
fn an_agent_that_dies_meanwhile_leaves_no_address_behind() {
    let toy = Toy::new(&format!("echo '{RESULT}'"));
    let (output, json, requests) = toy.run("ADD", [runs(true)]);
    assert_eq!((output.status.code(), &json["code"]), (Some(1), &json!(11)), "the runtime is to try again");
    assert_eq!(requests.len(), 1);
    assert_eq!(toy.commands(), ["ADD", "DEL"]);
}

#[test]
fn at_a_second_add_the_plugin_forgets_the_first() {
    let toy = Toy::new(&format!("[ $CNI_COMMAND = DEL ] || echo '{RESULT}'"));
    let mut first = runs(true);
    first.ipam.as_mut().unwrap().release_first = true;
    let (output, _, _) = toy.run("ADD", [first, says("{}", 0)]);
    assert!(output.status.success());
    assert_eq!(toy.commands(), ["DEL", "ADD"]);
}

#[test]
fn a_plugin_that_is_not_there_or_cannot_be_run_is_named_with_the_folders() {
    let toy = Toy::new("exit 0");
    fs::set_permissions(toy.0.path().join("toy"), Permissions::from_mode(0o644)).unwrap();
    for command in ["ADD", "DEL"] {
        let replies = [runs(command == "ADD"), says("", 0)];
        let agent = Agent::start(replies);
        let config = config(&agent);
        let folder = toy.0.path().display().to_string();
        let (output, json) = run(&[("CNI_COMMAND", command), ("CNI_PATH", &folder)], &config);
        assert_eq!((output.status.code(), &json["code"]), (Some(1), &json!(7)));
        let details = json["details"].as_str().unwrap();
        assert!(
            details.contains("ipam.type \"toy\": no such plugin in CNI_PATH") && details.contains(&folder)
        );
    }
}

#[test]
fn a_plugin_that_is_being_installed_is_waited_for() {
    let toy = Toy::new(&format!("echo '{RESULT}'"));
    let writer = toy.open();
    let installer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        drop(writer);
    });
    let (output, ..) = toy.run("ADD", [runs(true), says("{}", 0)]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(toy.commands(), ["ADD"]);
    installer.join().unwrap();
}

#[test]
fn a_plugin_that_stays_open_for_writing_is_named() {
    let toy = Toy::new("exit 0");
    let writer = toy.open();
    let (output, json, _) = toy.run("CHECK", [runs(false)]);
    assert_eq!((output.status.code(), &json["msg"]), (Some(1), &json!("ipam plugin toy")));
    assert!(json["details"].as_str().unwrap().contains("/toy: Text file busy"), "{json}");
    drop(writer);
}

#[test]
fn del_check_gc_and_status_run_the_plugin_after_the_agent_and_pass_its_error_on() {
    let error = r#"{"code":9,"msg":"no"}"#;
    for command in ["DEL", "CHECK", "GC", "STATUS"] {
        let good = Toy::new("exit 0");
        let (output, _, requests) = good.run(command, [runs(false)]);
        assert!(output.status.success() && output.stdout.is_empty(), "{command}: {output:?}");
        assert_eq!((asked(&requests), good.commands()), (vec![(command, None)], vec![command.to_owned()]));

        let bad = Toy::new(&format!("echo '{error}'; exit 1"));
        let (output, json, _) = bad.run(command, [runs(false)]);
        assert_eq!((output.status.code(), &json["code"]), (Some(1), &json!(9)), "{command}");

        let unasked = Toy::new("exit 0");
        let (output, _, _) = unasked.run(command, [says(error, 1)]);
        assert_eq!(output.status.code(), Some(1));
        assert!(unasked.calls().is_empty(), "{command}: the agent failed first");
    }
}

#[test]
fn a_del_that_needs_the_interface_runs_the_plugin_first_and_the_agent_in_any_case() {
    for (script, code) in [("exit 0", Some(0)), ("echo '{\"code\":9}'; exit 1", Some(1))] {
        let toy = Toy::new(script);
        let (output, _, requests) = toy.run("DEL", [runs(true), says("", 0)]);
        assert_eq!(output.status.code(), code);
        assert_eq!(asked(&requests), [("DEL", None), ("DEL", Some(""))]);
        assert_eq!(toy.commands(), ["DEL"]);
    }
}

#[test]
fn a_plugin_that_reads_nothing_and_prints_much_is_no_deadlock() {
    let toy = tempfile::tempdir().unwrap();
    let path = toy.path().join("toy");
    fs::write(&path, "#!/bin/sh\nhead -c 300000 /dev/zero | tr '\\0' ' '\necho '{}'\n").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    let agent = Agent::start([runs(true), says("{}", 0)]);
    let mut config: Value = serde_json::from_str(&config(&agent)).unwrap();
    config["padding"] = "x".repeat(300_000).into();
    let folder = toy.path().display().to_string();
    let envs = [("CNI_COMMAND", "ADD"), ("CNI_PATH", folder.as_str()), ("PATH", "/usr/bin:/bin")];
    let (output, _) = run(&envs, &config.to_string());
    assert!(output.status.success(), "{output:?}");
    let printed = agent.requests().pop().unwrap().ipam_result.unwrap();
    assert_eq!(printed.len(), 300_003);
}
