//! A NIC policy, changed while the whole agent and a kubelet run.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use culvert_agent::app::{App, read_config};
use culvert_api::agent::agent_request::Call;
use culvert_api::agent::{NicPlanReply, NicPlanRequest, StatusRequest, agent_reply};
use culvert_api::frame;
use culvert_host::fake::{FakeHost, ICE};
use culvert_hw_tests::kubelet::KubeletStandIn;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine: a made-up one is looked at every half second.
const PATIENCE: Duration = Duration::from_secs(30);

const PF: &str = "0000:03:00.0";

/// A machine with four VFs, an agent and a kubelet.
struct Node {
    dir: TempDir,
    _host: FakeHost,
    kubelet: KubeletStandIn,
    stop: CancellationToken,
    agent: JoinHandle<()>,
}

impl Node {
    async fn start(pfs: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut host = FakeHost::new();
        let pf = PF.parse().unwrap();
        host.add_pf(ICE, pf, "ens3f0", 0);
        // No interface of the machine that the test runs on has this number: the kernel says nothing of its VFs.
        host.file(format!("sys/bus/pci/devices/{PF}/net/ens3f0/ifindex"), "2000000000\n");
        host.add_vfs(ICE, pf, 4, false);
        let kubelet = KubeletStandIn::start(dir.path()).await.unwrap();
        let path = dir.path().join("agent.yaml");
        fs::write(&path, config(&dir, pfs)).unwrap();
        let (config, text) = read_config(&path).unwrap();
        let app = App::start(config, host.root()).await.unwrap().following(path, text);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let agent = tokio::spawn(async move { app.run(stopped).await.unwrap() });
        Self { dir, _host: host, kubelet, stop, agent }
    }

    fn change(&self, pfs: &str) {
        fs::write(self.dir.path().join("agent.yaml"), config(&self.dir, pfs)).unwrap();
    }

    async fn call(&self, call: Call) -> agent_reply::Result {
        let socket: PathBuf = self.dir.path().join("agent.sock");
        let call = tokio::task::spawn_blocking(move || {
            let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
            frame::call(&mut stream, call, |_| {}).unwrap()
        });
        call.await.unwrap()
    }

    async fn plan(&self, policy: &str) -> NicPlanReply {
        match self.call(Call::NicPlan(NicPlanRequest { policy: policy.to_owned() })).await {
            agent_reply::Result::NicPlan(plan) => plan,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the line of the part "config" is as wanted.
    async fn config_is(&self, state: &str, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let agent_reply::Result::Status(status) = self.call(Call::Status(StatusRequest {})).await else {
                panic!("no status")
            };
            let part = status.subsystems.into_iter().find(|part| part.name == "config").unwrap();
            if part.state == state && part.detail.contains(text) {
                return;
            }
            assert!(Instant::now() < deadline, "{part:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.agent.await.unwrap();
    }
}

fn config(dir: &TempDir, pfs: &str) -> String {
    let at = |name: &str| dir.path().join(name).display().to_string();
    format!(
        "node: a\nsocket: {}\nstateDir: {}\ndevicePlugin: {{kubeletDir: {}, registration: kubelet}}\nnic: {{pfs: [{pfs}]}}\n",
        at("agent.sock"),
        at("state"),
        at("device-plugins")
    )
}

#[tokio::test]
async fn a_changed_policy_moves_vfs_through_the_open_lists_and_a_bad_one_is_refused() {
    let node = Node::start("{pf: ens3f0, vfs: 4, pools: [{name: a, vfs: 0-2}, {name: b, vfs: 3}]}").await;
    let has =
        |count: usize| move |r: &culvert_hw_tests::kubelet::Resource| r.connected && r.capacity() == count;
    node.kubelet.wait("culvert.io/a", PATIENCE, has(3)).await.unwrap();
    node.kubelet.wait("culvert.io/b", PATIENCE, has(1)).await.unwrap();
    node.config_is("ok", "agent.yaml").await;

    node.change("{pf: ens3f0, vfs: 4, pools: [{name: a, vfs: 0-1}, {name: b, vfs: 2-}]}");
    let a = node.kubelet.wait("culvert.io/a", PATIENCE, has(2)).await.unwrap();
    let b = node.kubelet.wait("culvert.io/b", PATIENCE, has(2)).await.unwrap();
    assert_eq!((a.registrations, b.registrations), (1, 1), "the same streams");

    // Fewer are in service: the others leave their pool and stay.
    node.change("{pf: ens3f0, vfs: 2, carve: 4, pools: [{name: a, vfs: all}]}");
    node.kubelet.wait("culvert.io/b", PATIENCE, |r| !r.connected).await.unwrap();
    assert_eq!(node.kubelet.resource("culvert.io/a").unwrap().capacity(), 2);

    for (bad, reason) in [
        ("{pf: ens3f0, vfs: 2, vlan: 5000}", "vlan 5000: must be 0-4094"),
        ("{pf: ens3f0, vfs: 2, colour: red}", "line 5"),
        (
            "{pf: \"ens*\", vfs: 4}, {pf: \"8086:1592\", vfs: 2}",
            "the entries ens* and 8086:1592 of the policy both match",
        ),
    ] {
        node.change(bad);
        node.config_is("degraded", reason).await;
        node.config_is("degraded", "what was loaded before stays in force").await;
        assert_eq!(node.kubelet.resource("culvert.io/a").unwrap().capacity(), 2, "{bad}");
    }
    node.change("{pf: ens3f0, vfs: 4, pools: [{name: a, vfs: all}]}");
    node.kubelet.wait("culvert.io/a", PATIENCE, has(4)).await.unwrap();
    node.config_is("ok", "agent.yaml").await;
    node.stop().await;
}

#[tokio::test]
async fn a_plan_for_another_policy_puts_nothing_in_force() {
    let node = Node::start("{pf: ens3f0, vfs: 4}").await;
    let _pod_resources = node.kubelet.pod_resources().await.unwrap();
    let writes =
        |plan: &NicPlanReply| plan.steps.iter().map(|s| s.write.clone()).collect::<Vec<_>>().join("\n");
    let before = node.plan("").await;
    assert!(!writes(&before).contains("sriov_numvfs"), "{before:?}");
    for policy in ["pfs: [{pf: ens3f0, vfs: 6}]", "nic: {pfs: [{pf: ens3f0, vfs: 6}]}"] {
        let other = node.plan(policy).await;
        assert!(writes(&other).contains("sriov_numvfs <- 6"), "{other:?}");
        let removed = other.steps.iter().find(|s| s.action == "remove all VFs").unwrap();
        assert_eq!(removed.touches, ["vf 0-3"]);
    }
    assert_eq!(node.plan("").await, before);
    let refused = node.call(Call::NicPlan(NicPlanRequest { policy: "pfs: [{pf: ens3f0}]".to_owned() })).await;
    let agent_reply::Result::Error(error) = refused else { panic!("{refused:?}") };
    assert!(
        error.message.contains("the policy is refused") && error.message.contains("vfs"),
        "{}",
        error.message
    );
    node.stop().await;
}

#[tokio::test]
async fn while_kubelet_does_not_say_who_has_what_no_vf_is_touched() {
    let node = Node::start("{pf: ens3f0, vfs: 6}").await;
    let plan = node.plan("").await;
    assert!(
        plan.steps.iter().all(|step| !step.object.starts_with("vf") && !step.write.contains("numvfs")),
        "{plan:?}"
    );
    let told = plan.blocked.join("\n");
    assert!(told.contains("kubelet does not say whether a pod has it: cannot connect to"), "{told}");
    node.stop().await;
}
