//! The one call to the agent.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use culvert_api::agent::{CniReply, CniRequest, agent_reply, agent_request};
use culvert_api::frame;
use serde::Deserialize;

use crate::output::{CONFIG, DECODE, Failure, TRY_LATER};

const DEFAULT_SOCKET: &str = "/run/culvert/agent.sock";

/// Runtimes give a plugin minutes; an agent that says nothing for this long is stuck.
const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetConf {
    cni_version: Option<String>,
    socket: Option<PathBuf>,
}

/// Where the agent listens, and the version of CNI that the caller speaks.
pub(crate) struct Socket {
    path: PathBuf,
    version: Option<String>,
}

/// Finds the agent's socket: key `socket` of the configuration, else `CULVERT_SOCKET`, else the default.
pub(crate) fn socket(config: &[u8]) -> Result<Socket, Failure> {
    let conf: NetConf = serde_json::from_slice(config)
        .map_err(|e| Failure::new(DECODE, "network configuration on standard input", e.to_string()))?;
    let path = conf
        .socket
        .or_else(|| std::env::var_os("CULVERT_SOCKET").map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET));
    if !path.is_absolute() {
        let details = format!("socket {}: must be an absolute path", path.display());
        return Err(
            Failure::new(CONFIG, "network configuration", details).in_version(conf.cni_version.as_deref())
        );
    }
    Ok(Socket { path, version: conf.cni_version })
}

/// Hands the invocation to the agent and returns what it says.
pub(crate) fn agent(socket: &Socket, command: &str, config: Vec<u8>) -> Result<CniReply, Failure> {
    let request = CniRequest {
        command: command.to_owned(),
        container_id: env("CNI_CONTAINERID"),
        netns: env("CNI_NETNS"),
        ifname: env("CNI_IFNAME"),
        args: env("CNI_ARGS"),
        path: env("CNI_PATH"),
        config,
    };
    let failed = |details: String| {
        Failure::new(TRY_LATER, format!("culvert-cni {command}"), details)
            .in_version(socket.version.as_deref())
    };
    match talk(&socket.path, request) {
        Ok(agent_reply::Result::Cni(reply)) => Ok(reply),
        Ok(agent_reply::Result::Error(error)) => Err(failed(error.message)),
        Ok(_) => Err(failed("the agent answered another question: are both of the same version?".to_owned())),
        Err(error) => {
            let path = socket.path.display();
            Err(failed(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    format!("agent at {path} not reachable ({error}): is culvert-agent running?")
                }
                io::ErrorKind::PermissionDenied => format!("agent at {path}: {error}: must run as root"),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    format!("agent at {path}: no answer within {} seconds", PATIENCE.as_secs())
                }
                _ => format!("agent at {path}: {error}"),
            }))
        }
    }
}

fn talk(path: &Path, request: CniRequest) -> io::Result<agent_reply::Result> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    frame::call(&mut stream, agent_request::Call::Cni(request), |_| ())
}

fn env(name: &str) -> String {
    std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()).unwrap_or_default()
}
