//! A fast path that keeps what it is told, a namespace as a pod, and an agent between the two.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use culvert_agent::app::{App, PartEnded};
use culvert_api::agent::{CniReply, CniRequest, agent_reply, agent_request};
use culvert_api::config::agent::AgentConfig;
use culvert_api::fastpath::fast_path_server::{FastPath, FastPathServer};
use culvert_api::fastpath::*;
use culvert_api::frame;
use culvert_host::HostRoot;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// What the fake fast path was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) instance: String,
    pub(crate) tables: Tables,
    /// All that were taken over.
    pub(crate) changes: Vec<Changes>,
    pub(crate) ports: BTreeMap<String, AttachPortRequest>,
    /// Refuse to attach ports.
    pub(crate) refuse: bool,
    made: Made,
}

/// Every kernel interface made, removed at the end.
#[derive(Debug, Default)]
struct Made(Vec<String>);

/// A fast path whose ports are taps that nobody reads.
#[derive(Clone)]
pub(crate) struct FakeFastPath(Arc<Mutex<Told>>);

impl FakeFastPath {
    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap()
    }

    /// Starts a process of it, which ends with the handle.
    pub(crate) fn start(&self, socket: &Path, instance: &str) -> FakeProcess {
        let _ = std::fs::remove_file(socket);
        {
            let mut told = self.told();
            *told = Told {
                instance: instance.to_owned(),
                made: std::mem::take(&mut told.made),
                ..Told::default()
            };
        }
        // A runtime of its own: when it ends, connections end with it.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let entered = runtime.enter();
        let listener = UnixListener::bind(socket).unwrap();
        drop(entered);
        let service = FastPathServer::new(self.clone()).max_decoding_message_size(frame::MAX_FRAME);
        let server = tonic::transport::Server::builder().add_service(service);
        runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        FakeProcess(Some(runtime))
    }
}

/// Killed when dropped.
pub(crate) struct FakeProcess(Option<tokio::runtime::Runtime>);

impl Drop for FakeProcess {
    fn drop(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for name in &self.0 {
            // Those that were moved into a pod have gone with it.
            let _ =
                Command::new("ip").args(["link", "del", name]).stderr(std::process::Stdio::null()).status();
        }
    }
}

#[tonic::async_trait]
impl FastPath for FakeFastPath {
    async fn get_info(&self, _: Request<GetInfoRequest>) -> Result<Response<Info>, Status> {
        let told = self.told();
        Ok(Response::new(Info {
            instance: told.instance.clone(),
            revision: told.tables.revision,
            synced: told.tables.synced,
            ..Info::default()
        }))
    }

    async fn attach_port(&self, request: Request<AttachPortRequest>) -> Result<Response<Port>, Status> {
        let mut told = self.told();
        let port = request.into_inner();
        if told.refuse {
            return Err(Status::resource_exhausted("no port is left"));
        }
        if !told.ports.contains_key(&port.name) && port.socket.is_empty() {
            ip(&format!("tuntap add dev {} mode tap", port.name));
            told.made.0.push(port.name.clone());
        }
        told.ports.insert(port.name.clone(), port.clone());
        Ok(Response::new(Port { name: port.name, ..Port::default() }))
    }

    async fn detach_port(
        &self,
        request: Request<DetachPortRequest>,
    ) -> Result<Response<DetachPortResponse>, Status> {
        let existed = self.told().ports.remove(&request.into_inner().name).is_some();
        Ok(Response::new(DetachPortResponse { existed }))
    }

    async fn replace_tables(
        &self,
        request: Request<Tables>,
    ) -> Result<Response<ReplaceTablesResponse>, Status> {
        let tables = request.into_inner();
        let mut told = self.told();
        if tables.revision <= told.tables.revision {
            return Err(Status::failed_precondition("revision is not newer"));
        }
        told.tables = tables;
        Ok(Response::new(ReplaceTablesResponse::default()))
    }

    async fn apply_changes(
        &self,
        request: Request<Changes>,
    ) -> Result<Response<ApplyChangesResponse>, Status> {
        let changes = request.into_inner();
        let mut told = self.told();
        let Told { tables, changes: seen, .. } = &mut *told;
        if changes.base != tables.revision || changes.revision <= changes.base {
            return Err(Status::failed_precondition("another base"));
        }
        seen.push(changes.clone());
        tables.revision = changes.revision;
        let remotes = &changes.remotes;
        tables.remotes.retain(|r| !remotes.iter().any(|new| new.name == r.name));
        tables.remotes.retain(|r| !changes.removed_remotes.contains(&r.name));
        tables.remotes.extend(changes.remotes);
        let key = |s: &Service| ServiceKey {
            tenant: s.tenant,
            protocol: s.protocol,
            vip: s.vip.clone(),
            port: s.port,
        };
        tables.services.retain(|s| !changes.services.iter().any(|new| key(new) == key(s)));
        tables.services.retain(|s| !changes.removed_services.contains(&key(s)));
        tables.services.extend(changes.services);
        Ok(Response::new(ApplyChangesResponse { revision: changes.revision, ..Default::default() }))
    }

    async fn list_ports(&self, _: Request<ListPortsRequest>) -> Result<Response<ListPortsResponse>, Status> {
        let port = |p: &AttachPortRequest| Port {
            name: p.name.clone(),
            kind: p.kind,
            addresses: p.addresses.clone(),
            mac: p.mac.clone(),
            mtu: p.mtu,
            owner: p.owner.clone(),
            ..Port::default()
        };
        Ok(Response::new(ListPortsResponse { ports: self.told().ports.values().map(port).collect() }))
    }

    async fn list_services(
        &self,
        _: Request<ListServicesRequest>,
    ) -> Result<Response<ListServicesResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn list_flows(&self, _: Request<ListFlowsRequest>) -> Result<Response<ListFlowsResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn explain(&self, _: Request<ExplainRequest>) -> Result<Response<Explanation>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn get_counters(&self, _: Request<GetCountersRequest>) -> Result<Response<Counters>, Status> {
        Ok(Response::new(Default::default()))
    }
}

/// A network namespace that goes away with the value.
pub(crate) struct Pod {
    pub(crate) name: String,
}

impl Pod {
    /// A new one; `None`, with a word on standard error, without the right to make one.
    pub(crate) fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("cvagent-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        if !made.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: cannot make network namespaces, needs root and iproute2");
            return None;
        }
        Some(Self { name })
    }

    pub(crate) fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Runs `ip` in it and returns what it printed.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.name))
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// A folder with an agent's configuration and manifests.
pub(crate) struct Node {
    dir: TempDir,
    pub(crate) fastpath: FakeFastPath,
}

/// A running agent; stopped in order by [`Agent::stop`], killed when dropped.
pub(crate) struct Agent {
    stop: CancellationToken,
    task: JoinHandle<Result<(), PartEnded>>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        (&mut self.task).await.unwrap().unwrap();
    }
}

pub(crate) const NODE: &str = "apiVersion: v1
kind: Node
metadata: { name: node-a }
spec: { podCIDRs: [10.1.0.0/24, 'fd00:1::/64'] }
status: { addresses: [{ type: InternalIP, address: 192.0.2.1 }] }
";

impl Node {
    pub(crate) fn new() -> Self {
        let node = Self {
            dir: tempfile::tempdir().unwrap(),
            fastpath: FakeFastPath(Arc::new(Mutex::new(Told::default()))),
        };
        std::fs::create_dir(node.path("manifests")).unwrap();
        node.manifest("node.yaml", NODE);
        node
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn manifest(&self, name: &str, text: &str) {
        std::fs::write(self.path("manifests").join(name), text).unwrap();
    }

    pub(crate) fn config(&self) -> AgentConfig {
        let at = self.dir.path().display();
        let text = format!(
            "node: node-a\nsocket: {at}/agent.sock\nstateDir: {at}/state\nmanifests: {at}/manifests\n\
             fastpath: {{ socket: {at}/fastpath.sock }}\n\
             cni: {{ podMayChoose: {{ ports: true }}, kubeletDir: {at}/k }}\n"
        );
        AgentConfig::from_yaml(&text).unwrap()
    }

    pub(crate) async fn agent(&self) -> Agent {
        let stop = CancellationToken::new();
        let app = App::start(self.config(), HostRoot::default()).await.unwrap();
        Agent { stop: stop.clone(), task: tokio::spawn(app.run(stop)) }
    }

    pub(crate) fn start_fastpath(&self, instance: &str) -> FakeProcess {
        self.fastpath.start(&self.path("fastpath.sock"), instance)
    }

    /// One call on the agent's socket.
    pub(crate) async fn call(&self, call: agent_request::Call) -> agent_reply::Result {
        let socket = self.path("agent.sock");
        tokio::task::spawn_blocking(move || {
            let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
            frame::call(&mut stream, call, |_| {}).unwrap()
        })
        .await
        .unwrap()
    }

    /// One CNI invocation: exit code and standard output.
    pub(crate) async fn cni(&self, command: &str, pod: &Pod, args: &str) -> (u32, Value) {
        self.cni_with(command, pod, args, r#"{"cniVersion":"1.1.0","name":"culvert","type":"culvert-cni"}"#)
            .await
    }

    /// The same with a configuration of the case's own.
    pub(crate) async fn cni_with(&self, command: &str, pod: &Pod, args: &str, config: &str) -> (u32, Value) {
        let request = CniRequest {
            command: command.to_owned(),
            container_id: pod.name.clone(),
            netns: pod.path(),
            ifname: "eth0".to_owned(),
            args: args.to_owned(),
            path: String::new(),
            config: config.as_bytes().to_vec(),
            ipam_result: None,
        };
        let answer = self.call(agent_request::Call::Cni(request)).await;
        let agent_reply::Result::Cni(CniReply { output, exit_code, .. }) = answer else {
            panic!("{answer:?}")
        };
        let value = if output.is_empty() { Value::Null } else { serde_json::from_slice(&output).unwrap() };
        (exit_code, value)
    }

    /// State and detail of one of the agent's parts.
    pub(crate) async fn part(&self, name: &str) -> (String, String) {
        let answer = self.call(agent_request::Call::Status(culvert_api::agent::StatusRequest {})).await;
        let agent_reply::Result::Status(status) = answer else { panic!("{answer:?}") };
        let part = status.subsystems.into_iter().find(|s| s.name == name).unwrap();
        (part.state, part.detail)
    }
}

/// Waits until `check` holds and returns how long that took.
pub(crate) async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !check().await {
        assert!(start.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    start.elapsed()
}
