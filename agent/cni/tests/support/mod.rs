//! The binary as a runtime runs it, and an agent that answers by a script.

#![allow(dead_code)]

use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use culvert_api::agent::{AgentReply, AgentRequest, CniReply, CniRequest, agent_reply, agent_request};
use culvert_api::frame;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Runs culvert-cni to its end; what it printed, also as JSON.
pub(crate) fn run(envs: &[(&str, &str)], config: &str) -> (Output, Value) {
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

pub(crate) fn conf(socket: &Path) -> String {
    json!({ "cniVersion": "1.0.0", "name": "culvert", "type": "culvert-cni", "socket": socket }).to_string()
}

/// An agent that gives one answer after the other, and remembers what it was asked.
pub(crate) struct Agent {
    folder: TempDir,
    asked: mpsc::Receiver<CniRequest>,
}

impl Agent {
    pub(crate) fn start<const N: usize>(replies: [CniReply; N]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("agent.sock")).unwrap();
        let (send, asked) = mpsc::channel();
        std::thread::spawn(move || {
            for reply in replies {
                let (mut stream, _) = listener.accept().unwrap();
                let request: AgentRequest = match frame::read(&mut stream) {
                    Ok(request) => request,
                    Err(e) if e.kind() == ErrorKind::UnexpectedEof => return,
                    Err(e) => panic!("{e}"),
                };
                let Some(agent_request::Call::Cni(request)) = request.call else { panic!("{request:?}") };
                send.send(request).unwrap();
                let reply = AgentReply { result: Some(agent_reply::Result::Cni(reply)) };
                frame::write(&mut stream, &reply).unwrap();
            }
        });
        Self { folder, asked }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    /// What it was asked, after its last answer.
    pub(crate) fn requests(self) -> Vec<CniRequest> {
        let mut requests = Vec::new();
        while let Ok(request) = self.asked.recv_timeout(Duration::from_secs(30)) {
            requests.push(request);
        }
        requests
    }
}
