//! The binary against an agent that says what the test wants.

#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

use culvert_api::agent::agent_reply::Result as Reply;
use culvert_api::agent::{
    AgentReply, AgentRequest, Error, NicApplyReply, NicAttribute, NicDiffReply, NicEvent, NicListReply,
    NicPlanReply, NicShowReply, Pf, PlanStep, Progress, StatusReply, Subsystem, Vf, VfAttachment, VfCounters,
};
use culvert_api::fastpath::{Backend, Explanation, ListServicesResponse, Service, ServiceStatus};
use culvert_api::frame;

/// Runs the binary with an agent that gives `replies`, or with none.
fn culvert(args: &[&str], replies: Vec<Reply>) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    if replies.is_empty() {
        return finish(run(&socket, args));
    }
    let listener = UnixListener::bind(&socket).unwrap();
    let agent = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        frame::read::<AgentRequest>(&mut stream).unwrap();
        for reply in replies {
            frame::write(&mut stream, &AgentReply { result: Some(reply) }).unwrap();
        }
    });
    let output = run(&socket, args);
    agent.join().unwrap();
    finish(output)
}

fn run(socket: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_culvert")).args(args).arg("--socket").arg(socket).output().unwrap()
}

fn finish(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn step() -> PlanStep {
    PlanStep {
        object: "vf 3 of 0000:03:00.0".into(),
        action: "set vlan 100".into(),
        write: "netlink RTM_SETLINK IFLA_VF_VLAN".into(),
        touches: vec!["0000:04:00.3".into()],
    }
}

#[test]
fn an_agent_that_is_away_is_said_so_with_status_1() {
    let (code, out, err) = culvert(&["status"], vec![]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("is culvert-agent running?"), "{err}");
}

#[test]
fn a_plan_with_steps_exits_2_and_an_empty_one_0() {
    let plan =
        NicPlanReply { steps: vec![step()], blocked: vec!["0000:04:00.0: carries the default route".into()] };
    let (code, out, _) = culvert(&["nic", "plan"], vec![Reply::NicPlan(plan)]);
    assert_eq!(code, 2);
    assert!(out.contains("vf 3 of 0000:03:00.0  set vlan 100  netlink RTM_SETLINK IFLA_VF_VLAN"), "{out}");
    assert!(out.contains("blocked: 0000:04:00.0: carries the default route"), "{out}");
    let (code, out, _) = culvert(&["nic", "plan"], vec![Reply::NicPlan(NicPlanReply::default())]);
    assert_eq!((code, out.as_str()), (0, "nothing to do\n"));
}

#[test]
fn apply_waits_for_the_answer_behind_the_progress_and_fails_when_a_step_failed() {
    let progress = Reply::Progress(Progress { text: "carving".into(), done: 1, total: 2 });
    let reply = NicApplyReply {
        done: vec![step()],
        failed: vec!["vf 1 of 0000:03:00.0: busy".into()],
        blocked: vec![],
    };
    let (code, out, _) = culvert(&["nic", "apply"], vec![progress, Reply::NicApply(reply)]);
    assert_eq!(code, 1);
    assert!(
        out.contains("failed: vf 1 of 0000:03:00.0: busy") && out.contains("1 step done, 1 failed"),
        "{out}"
    );
}

#[test]
fn what_the_agent_refuses_is_an_error_on_stderr() {
    let error = Error { message: "nic: no policy: add `nic:` to the agent's configuration".into() };
    let (code, _, err) = culvert(&["nic", "plan"], vec![Reply::Error(error)]);
    assert_eq!(code, 1);
    assert_eq!(err, "culvert: nic: no policy: add `nic:` to the agent's configuration\n");
}

#[test]
fn a_card_and_its_functions_are_listed_both_ways() {
    let vf = Vf {
        index: 0,
        pci: "0000:03:10.0".into(),
        mac: "02:00:00:00:01:00".into(),
        vlan: 100,
        healthy: true,
        iommu_group: 11,
        owner: "default/web".into(),
        ..Vf::default()
    };
    let pf = Pf { pci: "0000:03:00.0".into(), numa_node: -1, total_vfs: 7, vfs: vec![vf], ..Pf::default() };
    let reply = || Reply::NicList(NicListReply { pfs: vec![pf.clone()] });
    let (code, out, _) = culvert(&["nic", "list"], vec![reply()]);
    assert_eq!(code, 0);
    assert!(out.contains("1/7") && out.contains("02:00:00:00:01:00") && out.contains("default/web"), "{out}");
    let (_, out, _) = culvert(&["nic", "list", "-o", "json"], vec![reply()]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json[0]["numaNode"], serde_json::Value::Null);
    assert_eq!(json[0]["vfs"][0]["iommuGroup"], 11);
    assert_eq!(json[0]["vfs"][0]["owner"], "default/web");
}

fn card() -> Pf {
    let vf = |index: u32| Vf {
        index,
        pci: format!("0000:03:10.{index}"),
        interface: format!("eth{index}"),
        mac: format!("02:00:00:00:01:0{index}"),
        pool: "tenant-a".into(),
        healthy: true,
        numa_node: -1,
        iommu_group: -1,
        ..Vf::default()
    };
    let attachment = VfAttachment {
        pod: "default/web".into(),
        interface: "net1".into(),
        addresses: vec!["10.9.0.5/24".into()],
        phase: "attached".into(),
        ..VfAttachment::default()
    };
    let taken = Vf {
        owner: "default/web".into(),
        vlan: 100,
        vlan_qos: 3,
        vlan_protocol: "802.1ad".into(),
        attachment: Some(attachment),
        counters: Some(VfCounters { rx_packets: 7, tx_bytes: 1 << 40, ..VfCounters::default() }),
        ..vf(1)
    };
    let sick = Vf { healthy: false, problem: "its PF eth9 is down".into(), ..vf(2) };
    Pf {
        pci: "0000:03:00.0".into(),
        interface: "ens1f0".into(),
        serial: "b4-96-91-ff-ff-a1-b2-c0".into(),
        link: "up".into(),
        total_vfs: 7,
        vfs: vec![vf(0), taken, sick],
        ..Pf::default()
    }
}

fn event(kind: &str, state: &str) -> NicEvent {
    NicEvent {
        unix_milliseconds: 1_700_000_000_123,
        kind: kind.into(),
        state: state.into(),
        pf: "0000:03:00.0".into(),
        index: Some(1),
        vf: "0000:03:10.1".into(),
        pod: "default/web".into(),
        text: "goes to default/web as net1".into(),
        seconds: Some(0.02),
        ..NicEvent::default()
    }
}

#[test]
fn a_tree_has_one_line_for_each_vf_and_its_owner_at_the_end() {
    let reply = Reply::NicList(NicListReply { pfs: vec![card()] });
    let (code, out, _) = culvert(&["nic", "list", "--tree"], vec![reply]);
    assert_eq!(code, 0);
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), 4, "{out}");
    assert!(lines[0].starts_with("0000:03:00.0 ens1f0") && lines[0].ends_with("3 of 7 VFs"), "{out}");
    assert!(lines[1].starts_with("├─ vf 0") && lines[1].ends_with("free"), "{out}");
    assert!(lines[2].contains("vlan 100 qos 3 802.1ad"), "{out}");
    assert!(lines[2].ends_with("default/web (net1)"), "{out}");
    assert!(lines[3].starts_with("└─ vf 2") && lines[3].ends_with("not ready: its PF eth9 is down"), "{out}");
}

#[test]
fn one_vf_is_shown_with_its_pod_its_counters_and_its_past() {
    let history = vec![event("attach", "done")];
    let reply = || {
        let (pf, history) = (Some(card()), history.clone());
        Reply::NicShow(NicShowReply { pf, vf_index: Some(1), history })
    };
    let (code, out, _) = culvert(&["nic", "show", "ens1f0/1"], vec![reply()]);
    assert_eq!(code, 0);
    for text in
        ["VF 1 of 0000:03:00.0 (ens1f0)", "default/web", "10.9.0.5/24", "1099511627776", "attach done"]
    {
        assert!(out.contains(text), "{text} is not in:\n{out}");
    }
    assert!(!out.contains("min rate"), "what is not set is not listed:\n{out}");
    let (_, out, _) = culvert(&["nic", "show", "ens1f0/1", "-o", "json"], vec![reply()]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["pf"], "0000:03:00.0");
    assert_eq!(json["vf"]["counters"]["txBytes"], 1_u64 << 40);
    assert_eq!(json["vf"]["attachment"]["addresses"][0], "10.9.0.5/24");
    assert_eq!(json["history"][0]["time"], "2023-11-14T22:13:20.123Z");
}

#[test]
fn one_pf_is_shown_with_its_vfs_and_an_answer_without_it_is_a_mismatch() {
    let reply = NicShowReply { pf: Some(card()), ..NicShowReply::default() };
    let (code, out, _) = culvert(&["nic", "show", "03:00.0"], vec![Reply::NicShow(reply)]);
    assert_eq!(code, 0);
    assert!(out.contains("b4-96-91-ff-ff-a1-b2-c0") && out.contains("0000:03:10.2"), "{out}");
    let (code, _, err) = culvert(&["nic", "show", "x"], vec![Reply::NicShow(NicShowReply::default())]);
    assert_eq!(code, 1);
    assert!(err.contains("same version"), "{err}");
    let (code, _, err) = culvert(&["nic", "show", "x"], vec![Reply::Status(StatusReply::default())]);
    assert!(code == 1 && err.contains("same version"), "{err}");
}

#[test]
fn watching_prints_each_event_and_ends_with_the_agent() {
    let replies = || {
        let watching = NicEvent { kind: "watching".into(), text: "node a".into(), ..NicEvent::default() };
        vec![Reply::NicEvent(watching), Reply::NicEvent(event("attach", "done"))]
    };
    let (code, out, err) = culvert(&["nic", "watch"], replies());
    assert_eq!(code, 1);
    assert!(err.contains("hung up"), "{err}");
    let line = out.lines().nth(1).unwrap();
    let wanted =
        "2023-11-14T22:13:20.123Z  attach done       vf 1 of 0000:03:00.0: goes to default/web as net1";
    assert_eq!(line, wanted);
    let (_, out, _) = culvert(&["nic", "watch", "-o", "json"], replies());
    let lines: Vec<serde_json::Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines[0]["kind"], "watching");
    assert_eq!(lines[0]["pod"], serde_json::Value::Null);
    assert_eq!((&lines[1]["pod"], &lines[1]["index"]), (&"default/web".into(), &1.into()));
    assert_eq!(lines[1]["seconds"], 0.02);
}

#[test]
fn who_is_too_slow_or_speaks_to_an_older_agent_is_told_so() {
    let slow = Error { message: "12 events were missed, as this reader is too slow: watch anew".into() };
    let (code, _, err) = culvert(&["nic", "watch"], vec![Reply::Error(slow)]);
    assert!(code == 1 && err.contains("12 events were missed"), "{err}");
    let old = Error { message: "a call that this agent does not know: is it older than the client?".into() };
    let (code, _, err) = culvert(&["nic", "show", "x"], vec![Reply::Error(old)]);
    assert!(code == 1 && err.contains("is it older than the client?"), "{err}");
}

#[test]
fn output_that_nobody_reads_any_more_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let agent = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        frame::read::<AgentRequest>(&mut stream).unwrap();
        let reply = || AgentReply { result: Some(Reply::NicEvent(event("attach", "done"))) };
        // Until the other end hangs up.
        while frame::write(&mut stream, &reply()).is_ok() {}
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_culvert"))
        .args(["nic", "watch", "--socket"])
        .arg(&socket)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut byte = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut byte).unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &[][..]));
    agent.join().unwrap();
}

#[test]
fn every_command_explains_itself_with_examples_and_exit_status() {
    for command in ["list", "show", "watch", "plan", "diff", "apply", "orphans", "release", "schema"] {
        let (code, out, _) = culvert(&["nic", command, "--help"], vec![]);
        assert_eq!(code, 0);
        assert!(out.contains("Examples:") && out.contains("Exit status:"), "{command}:\n{out}");
    }
}

#[test]
fn a_service_shows_its_backends_and_one_without_says_none() {
    let service = |backends| ServiceStatus {
        service: Some(Service {
            namespace: "default".into(),
            name: "web".into(),
            port_name: "http".into(),
            protocol: 1,
            vip: vec![10, 96, 0, 10],
            port: 80,
            backends,
            balancing: 3,
            affinity_seconds: 90,
            ..Service::default()
        }),
        backend_flows: vec![0, 5],
        ..ServiceStatus::default()
    };
    let backend = Backend { address: vec![10, 1, 0, 7], port: 8080, terminating: true, ..Backend::default() };
    let not_ready = Backend { address: vec![10, 1, 0, 8], port: 8080, draining: true, ..Backend::default() };
    let away =
        Backend { address: vec![10, 1, 0, 9], port: 8080, away: true, weight: 3, ..Backend::default() };
    let reply =
        ListServicesResponse { services: vec![service(vec![backend, not_ready, away]), service(vec![])] };
    let (code, out, _) = culvert(&["service", "list"], vec![Reply::ServiceList(reply)]);
    assert_eq!(code, 0);
    assert!(
        out.contains("10.1.0.7:8080 (terminating)")
            && out.contains("10.1.0.8:8080 flows 5 (not ready)")
            && out.contains("10.1.0.9:8080 weight 3 (not for new flows)")
            && out.contains("least-flow")
            && out.contains("client IP 90 s")
            && out.contains("none"),
        "{out}"
    );
}

#[test]
fn explain_shows_each_step_and_the_endpoint_at_the_end() {
    let reply = Explanation {
        service: "default/web:http".into(),
        endpoint: vec![10, 1, 0, 7],
        endpoint_port: 8080,
        steps: vec!["first".into(), "second".into()],
    };
    let args = ["explain", "--from", "10.1.0.5:40000", "--to", "10.96.0.10:80", "--protocol", "udp"];
    let (code, out, _) = culvert(&args, vec![Reply::Explain(reply.clone())]);
    assert_eq!((code, out.as_str()), (0, "first\nsecond\n-> 10.1.0.7:8080\n"));
    let (_, out, _) = culvert(&[&args[..], &["-o", "json"]].concat(), vec![Reply::Explain(reply)]);
    assert!(out.contains("\"endpoint\": \"10.1.0.7:8080\"") && out.contains("default/web:http"), "{out}");
    let (code, _, err) = culvert(&["explain", "--from", "10.1.0.5", "--to", "10.96.0.10:80"], vec![]);
    assert!(code == 1 && err.contains("--from"), "{err}");
}

#[test]
fn a_part_that_is_not_well_gives_status_3() {
    let part =
        |state: &str| Subsystem { name: "fastpath".into(), state: state.into(), detail: String::new() };
    let reply =
        |state| Reply::Status(StatusReply { subsystems: vec![part(state)], ..StatusReply::default() });
    assert_eq!(culvert(&["status"], vec![reply("degraded")]).0, 3);
    assert_eq!(culvert(&["status"], vec![reply("ok")]).0, 0);
}

#[test]
fn wrong_usage_is_status_1_and_help_status_0() {
    assert_eq!(culvert(&["nic", "lst"], vec![]).0, 1);
    let (code, out, _) = culvert(&["--help"], vec![]);
    assert_eq!(code, 0);
    assert!(out.contains("Examples:") && out.contains("Exit status:"), "{out}");
    let (code, out, _) = culvert(&["completions", "bash"], vec![]);
    assert!(code == 0 && out.contains("_culvert"));
}

fn attribute(wanted: &str, observed: &str) -> NicAttribute {
    NicAttribute {
        object: "vf 3 of 0000:03:00.0".into(),
        attribute: "vlan".into(),
        wanted: wanted.into(),
        observed: observed.into(),
        differs: wanted != observed,
        user: "it is used by default/web".into(),
    }
}

#[test]
fn a_diff_shows_what_differs_and_its_status_is_2_then() {
    let reply = |blocked: &[&str], attributes: &[NicAttribute]| {
        let blocked = blocked.iter().map(|text| (*text).to_owned()).collect();
        vec![Reply::NicDiff(NicDiffReply { attributes: attributes.to_vec(), blocked })]
    };
    let (same, other) = (attribute("7", "7"), attribute("100", ""));
    let (code, out, _) = culvert(&["nic", "diff"], reply(&[], &[same.clone(), other]));
    assert_eq!(code, 2);
    assert!(out.contains("vlan") && out.contains("100") && out.contains("differs"), "{out}");
    assert!(out.contains("default/web") && !out.contains(" 7 "), "{out}");
    let (code, out, _) = culvert(&["nic", "diff"], reply(&[], std::slice::from_ref(&same)));
    assert_eq!((code, out.as_str()), (0, "nothing differs\n"));
    let (_, out, _) = culvert(&["nic", "diff", "--all"], reply(&[], std::slice::from_ref(&same)));
    assert!(out.contains(" 7 "), "{out}");
    let (code, out, _) = culvert(&["nic", "diff"], reply(&["eth9: no such NIC"], &[same]));
    assert_eq!(code, 2);
    assert!(out.contains("blocked: eth9: no such NIC"), "{out}");
}

#[test]
fn a_plan_that_is_blocked_is_not_nothing_to_do() {
    let reply = NicPlanReply { blocked: vec!["eth9: no such NIC".into()], ..NicPlanReply::default() };
    let (code, out, _) = culvert(&["nic", "plan"], vec![Reply::NicPlan(reply)]);
    assert_eq!(code, 2);
    assert!(out.contains("nothing can be done now"), "{out}");
}

#[test]
fn a_plan_can_be_made_for_a_policy_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, "pfs: []").unwrap();
    let (socket, path) = (folder.path().join("agent.sock"), file.to_str().unwrap().to_owned());
    let listener = UnixListener::bind(&socket).unwrap();
    let agent = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request = frame::read::<AgentRequest>(&mut stream).unwrap();
        let reply = Some(Reply::NicPlan(NicPlanReply::default()));
        frame::write(&mut stream, &AgentReply { result: reply }).unwrap();
        request
    });
    let (code, _, err) = finish(run(&socket, &["nic", "plan", "--policy", &path]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(format!("{:?}", agent.join().unwrap()).contains("pfs: []"));

    std::fs::write(&file, "\n").unwrap();
    let (code, _, err) = culvert(&["nic", "plan", "--policy", &path], vec![]);
    assert_eq!(code, 1);
    assert!(err.contains("policy.yaml: holds no policy"), "{err}");
    let (code, _, err) = culvert(&["nic", "diff", "--policy", "/does/not/exist"], vec![]);
    assert_eq!(code, 1);
    assert!(err.contains("/does/not/exist: No such file"), "{err}");
}

#[test]
fn the_schema_needs_no_agent() {
    for format in ["table", "json"] {
        let (code, out, err) = culvert(&["nic", "schema", "-o", format], vec![]);
        assert_eq!((code, err.as_str()), (0, ""));
        let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert!(schema["properties"]["pfs"].is_object(), "{out}");
    }
}
