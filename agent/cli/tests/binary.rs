//! The binary against an agent that says what the test wants.

#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

use culvert_api::agent::agent_reply::Result as Reply;
use culvert_api::agent::{
    AgentReply, AgentRequest, Error, NicApplyReply, NicListReply, NicPlanReply, Pf, PlanStep, Progress,
    StatusReply, Subsystem, Vf,
};
use culvert_api::fastpath::{Backend, ListServicesResponse, Service, ServiceStatus};
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
            ..Service::default()
        }),
        ..ServiceStatus::default()
    };
    let backend = Backend { address: vec![10, 1, 0, 7], port: 8080, terminating: true, ..Backend::default() };
    let not_ready = Backend { address: vec![10, 1, 0, 8], port: 8080, draining: true, ..Backend::default() };
    let reply = ListServicesResponse { services: vec![service(vec![backend, not_ready]), service(vec![])] };
    let (code, out, _) = culvert(&["service", "list"], vec![Reply::ServiceList(reply)]);
    assert_eq!(code, 0);
    assert!(
        out.contains("10.1.0.7:8080 (terminating)")
            && out.contains("10.1.0.8:8080 (not ready)")
            && out.contains("none"),
        "{out}"
    );
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
