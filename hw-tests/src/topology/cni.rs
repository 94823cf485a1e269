//! Calls of culvert-cni with the environment and input that a container runtime gives it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Node, Pod};
use crate::ensure;
use crate::frame::{Outcome, Stop};
use crate::net::program;

/// Where Debian has the CNI project's own plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// A call that is about to be made; every part can be spoilt.
#[derive(Debug, Clone)]
pub struct Cni {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_NETNS.
    pub netns: PathBuf,
    /// CNI_IFNAME.
    pub ifname: String,
    /// CNI_ARGS.
    pub args: String,
    /// Standard input.
    pub config: Value,
}

/// What came of a call.
#[derive(Debug)]
pub struct Answer {
    /// Exit status 0.
    pub success: bool,
    /// Standard output: a result or an error object; null when there was none.
    pub output: Value,
    /// Standard error.
    pub stderr: String,
}

impl Cni {
    /// The calls for a pod on the overlay.
    pub fn overlay(node: &Node, pod: &Pod) -> Self {
        Self::new(pod, json!({ "socket": node.agent.socket() }))
    }

    /// The calls for a pod, with more keys of the network configuration.
    pub fn new(pod: &Pod, more: Value) -> Self {
        Self::for_container(&pod.name, &pod.container_id(), pod.netns().path(), more)
    }

    /// The calls for any container.
    pub fn for_container(pod_name: &str, container_id: &str, netns: PathBuf, more: Value) -> Self {
        let mut config = json!({ "cniVersion": "1.1.0", "name": "culvert", "type": "culvert-cni" });
        if let (Value::Object(config), Value::Object(more)) = (&mut config, more) {
            config.extend(more);
        }
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod_name};\
             K8S_POD_INFRA_CONTAINER_ID={container_id}"
        );
        Self { container_id: container_id.to_owned(), netns, ifname: "eth0".to_owned(), args, config }
    }

    /// The same for a pod of another namespace than "default".
    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        self.args = self.args.replace("K8S_POD_NAMESPACE=default", &format!("K8S_POD_NAMESPACE={namespace}"));
        self
    }

    /// ADD, which must succeed; returns the result.
    pub fn add(&self) -> Outcome<Value> {
        self.succeed("ADD")
    }

    /// DEL, which must succeed.
    pub fn del(&self) -> Outcome {
        self.succeed("DEL").map(drop)
    }

    /// A command that must succeed.
    pub fn succeed(&self, command: &str) -> Outcome<Value> {
        let answer = self.call(command)?;
        ensure!(answer.success, "culvert-cni {command}: {} {}", answer.output, answer.stderr);
        Ok(answer.output)
    }

    /// A command that must be refused with an error object; returns its message and details.
    pub fn refused(&self, command: &str) -> Outcome<String> {
        let answer = self.call(command)?;
        ensure!(!answer.success, "culvert-cni {command}: succeeded: {}", answer.output);
        let code = answer.output["code"].as_u64();
        ensure!(code.is_some_and(|code| code > 0), "culvert-cni {command}: no error code: {}", answer.output);
        let text = |key: &str| answer.output[key].as_str().unwrap_or_default().to_owned();
        Ok(format!("{} {}", text("msg"), text("details")))
    }

    /// Any command, whatever comes of it.
    pub fn call(&self, command: &str) -> Outcome<Answer> {
        let path = program("culvert-cni")?;
        let mut child = Command::new(&path)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &self.container_id)
            .env("CNI_NETNS", &self.netns)
            .env("CNI_IFNAME", &self.ifname)
            .env("CNI_ARGS", &self.args)
            .env("CNI_PATH", PLUGINS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A plugin that refuses its environment need not read its input.
            let _ = stdin.write_all(self.config.to_string().as_bytes());
        }
        let output = child.wait_with_output()?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        let value = if stdout.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&stdout)
                .map_err(|_| Stop::fail(format!("culvert-cni {command} printed no JSON: {stdout}")))?
        };
        Ok(Answer {
            success: output.status.success(),
            output: value,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
