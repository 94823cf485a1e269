//! A culvert-fastpath of one's own.

use std::fs;
use std::future::Future;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use culvert_api::fastpath::fast_path_client::FastPathClient;
use culvert_api::fastpath::{self as api, Info};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use crate::netns::Netns;
use crate::within;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_culvert-fastpath");

/// A process in a namespace of its own; killed at the end if it still runs.
pub(crate) struct FastPath {
    pub(crate) netns: Netns,
    directory: TempDir,
    child: Child,
    runtime: Runtime,
    pub(crate) client: FastPathClient<Channel>,
}

/// A configuration for small machines. Any CPU there is does for the tests.
pub(crate) fn configuration(directory: &TempDir, more: &str) -> PathBuf {
    let path = directory.path().join("fastpath.yaml");
    let socket = directory.path().join("fastpath.sock");
    let flows = if more.contains("flows:") { "" } else { "flows: 4096" };
    let text = format!(
        "socket: {}\nmemory: {{ hugepages: off, megabytes: 128, mbufs: 8191 }}\n{flows}\n{more}\n",
        socket.display()
    );
    fs::write(&path, text).unwrap();
    path
}

impl FastPath {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// With more lines of configuration.
    pub(crate) fn start_with(more: &str) -> Self {
        let uplink = "uplink: { tap: { name: cvtup0, mac: 02:00:00:00:aa:01 } }";
        Self::start_in(Netns::new("fp"), &format!("{uplink}\n{more}"))
    }

    /// In this namespace, with these lines of configuration.
    pub(crate) fn start_in(netns: Netns, lines: &str) -> Self {
        Self::launch_in(netns, lines, |netns, config| {
            let mut command = netns.command(BINARY);
            command.arg("--config").arg(config);
            command
        })
    }

    /// With more lines of configuration, by a command that becomes the program.
    pub(crate) fn launch(more: &str, command: impl FnOnce(&Netns, &Path) -> Command) -> Self {
        let uplink = "uplink: { tap: { name: cvtup0, mac: 02:00:00:00:aa:01 } }";
        Self::launch_in(Netns::new("fp"), &format!("{uplink}\n{more}"), command)
    }

    fn launch_in(netns: Netns, lines: &str, command: impl FnOnce(&Netns, &Path) -> Command) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = configuration(&directory, lines);
        let child = command(&netns, &config).stderr(Stdio::piped()).spawn().unwrap();
        let socket = directory.path().join("fastpath.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = Endpoint::try_from(format!("unix:{}", socket.display())).unwrap();
        let client = FastPathClient::new(runtime.block_on(async { endpoint.connect_lazy() }));
        let mut fast_path = Self { netns, directory, child, runtime, client };
        fast_path.wait_until_it_answers();
        fast_path
    }

    /// A folder that goes at the end.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Kills the keeper, and starts another by a command that becomes the program.
    pub(crate) fn kill_and_launch(&mut self, command: impl FnOnce(&Netns, &Path) -> Command) {
        let forwarder = self.processes()[1];
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        within(20, "the forwarder ends with its keeper", || kill(forwarder, None).is_err().then_some(()));
        let config = self.directory.path().join("fastpath.yaml");
        self.child = command(&self.netns, &config).stderr(Stdio::piped()).spawn().unwrap();
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&mut self) {
        within(20, "culvert-fastpath answers", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("culvert-fastpath ended with {status}: {}", self.said());
            }
            self.try_info()
        });
    }

    pub(crate) fn try_info(&mut self) -> Option<Info> {
        let mut client = self.client.clone();
        self.wait(async move { client.get_info(api::GetInfoRequest {}).await }).ok()
    }

    /// Waits for a call, five seconds at most.
    pub(crate) fn wait<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        let late = |_| Status::deadline_exceeded("no answer within five seconds");
        let call = async { tokio::time::timeout(Duration::from_secs(5), call).await.map_err(late)? };
        self.runtime.block_on(call).map(Response::into_inner)
    }

    pub(crate) fn info(&mut self) -> Info {
        self.try_info().expect("culvert-fastpath answers")
    }

    /// Waits until as many buffers are free as were, but for the one that each worker keeps for the next packet.
    pub(crate) fn wait_for_buffers(&mut self, before: u64) {
        let mut free = 0;
        let kept = u64::from(self.info().workers);
        let end = Instant::now() + Duration::from_secs(5);
        while free + kept < before {
            assert!(Instant::now() < end, "{before} buffers were free, now it is {free}");
            free = self.info().mbufs_free;
        }
    }

    pub(crate) fn counters(&self) -> api::Counters {
        let mut client = self.client.clone();
        self.wait(async move { client.get_counters(api::GetCountersRequest {}).await }).unwrap()
    }

    pub(crate) fn replace(&self, tables: api::Tables) -> Result<api::ReplaceTablesResponse, Status> {
        let mut client = self.client.clone();
        self.wait(async move { client.replace_tables(tables).await })
    }

    pub(crate) fn attach(&self, request: api::AttachPortRequest) -> Result<api::Port, Status> {
        let mut client = self.client.clone();
        self.wait(async move { client.attach_port(request).await })
    }

    pub(crate) fn detach(&self, name: &str) -> Result<bool, Status> {
        let (mut client, name) = (self.client.clone(), name.to_owned());
        let call = async move { client.detach_port(api::DetachPortRequest { name }).await };
        self.wait(call).map(|response| response.existed)
    }

    pub(crate) fn ports(&self) -> Vec<api::Port> {
        let mut client = self.client.clone();
        self.wait(async move { client.list_ports(api::ListPortsRequest {}).await }).unwrap().ports
    }

    /// Counters of a port.
    pub(crate) fn port(&self, name: &str) -> api::PortCounters {
        self.ports().into_iter().find(|port| port.name == name).and_then(|port| port.counters).unwrap()
    }

    /// CPU time used so far, of all threads.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.processes().into_iter().map(Self::cpu_seconds_of).sum()
    }

    fn cpu_seconds_of(process: Pid) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        // proc_pid_stat(5): utime and stime are the 14th and 15th field; the second, in parentheses, may hold spaces.
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        ticks as f64 / 100.0
    }

    /// The keeper, and whom it has started.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let keeper = self.child.id().cast_signed();
        let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
        let children = children.split_whitespace().map(|id| id.parse().unwrap());
        std::iter::once(keeper).chain(children).map(Pid::from_raw).collect()
    }

    /// Starts another with the same configuration, which is expected to end by itself.
    pub(crate) fn start_another(&self) -> Output {
        let config = self.directory.path().join("fastpath.yaml");
        self.netns.command("timeout").args(["20", BINARY, "--config"]).arg(config).output().unwrap()
    }

    /// Sends a signal and waits for the end. `ip netns exec` has become the program, so it is our child.
    pub(crate) fn stop(mut self, signal: Signal) {
        let process = Pid::from_raw(self.child.id().cast_signed());
        kill(process, signal).unwrap();
        let status = within(10, "culvert-fastpath ends", || self.child.try_wait().unwrap());
        assert_eq!((status.code(), status.signal()), (Some(0), None), "{}", self.said());
        assert!(!self.directory.path().join("fastpath.sock").exists(), "the socket stayed");
        assert!(
            !self.netns.ip("-br link").contains("cvt"),
            "an interface stayed: {}",
            self.netns.ip("-br link")
        );
    }

    /// What an ended process wrote to standard error.
    fn said(&mut self) -> String {
        let stderr = self.child.stderr.take();
        stderr.map(|stderr| std::io::read_to_string(stderr).unwrap_or_default()).unwrap_or_default()
    }
}

impl Drop for FastPath {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("culvert-fastpath said:\n{}", self.said());
        }
    }
}

/// Runs the program in this namespace to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    Command::new("timeout").args(["20", BINARY]).args(arguments).output().unwrap()
}
