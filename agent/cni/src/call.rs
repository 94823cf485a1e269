//! Calls to the agent.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use culvert_api::agent::{CniReply, CniRequest, agent_reply, agent_request};
use culvert_api::frame;

use crate::conf::Conf;
use crate::output::{Failure, TRY_LATER, UNAVAILABLE};

/// Runtimes give a plugin minutes; an agent that says nothing for this long is stuck.
const PATIENCE: Duration = Duration::from_secs(90);

/// The agent, and what a runtime wants of it.
pub(crate) struct Agent<'a> {
    conf: &'a Conf,
    config: &'a [u8],
}

impl<'a> Agent<'a> {
    pub(crate) fn new(conf: &'a Conf, config: &'a [u8]) -> Self {
        Self { conf, config }
    }

    /// Hands the invocation to the agent and returns what it says. `ipam_result`: what an IPAM plugin printed that the
    /// agent asked for.
    pub(crate) fn call(&self, command: &str, ipam_result: Option<Vec<u8>>) -> Result<CniReply, Failure> {
        let request = CniRequest {
            command: command.to_owned(),
            container_id: env("CNI_CONTAINERID"),
            netns: env("CNI_NETNS"),
            ifname: env("CNI_IFNAME"),
            args: env("CNI_ARGS"),
            path: env("CNI_PATH"),
            config: self.config.to_vec(),
            ipam_result,
        };
        // STATUS has a code of its own for it (specification, section 4).
        let code = if command == "STATUS" { UNAVAILABLE } else { TRY_LATER };
        let failed = |details: String| {
            let failure = Failure::new(code, format!("culvert-cni {command}"), details);
            failure.in_version(self.conf.version.as_deref())
        };
        match self.talk(request) {
            Ok(agent_reply::Result::Cni(reply)) => Ok(reply),
            Ok(agent_reply::Result::Error(error)) => Err(failed(error.message)),
            Ok(_) => {
                Err(failed("the agent answered another question: are both of the same version?".to_owned()))
            }
            Err(error) => {
                let path = self.conf.socket.display();
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

    fn talk(&self, request: CniRequest) -> io::Result<agent_reply::Result> {
        let mut stream = UnixStream::connect(&self.conf.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        frame::call(&mut stream, agent_request::Call::Cni(request), |_| ())
    }
}

/// A variable of the environment; empty where there is none.
pub(crate) fn env(name: &str) -> String {
    std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()).unwrap_or_default()
}
