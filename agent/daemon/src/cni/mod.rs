//! The CNI, as culvert-cni hands it over: one invocation in, standard output and exit code back.
//!
//! CNI specification 1.1.0, <https://www.cni.dev/docs/spec/>.

mod error;
mod invocation;
mod netconf;
mod output;
mod overlay;
mod requested;
mod vf;

use std::sync::Arc;

use culvert_api::agent::{CniReply, CniRequest};
use tokio::sync::watch;
use tracing::{info, warn};

pub use error::CniError;
use invocation::{Command, Invocation};
pub use netconf::Version;
use output::CniResult;

use crate::kube::Snapshot;
use crate::nic::NicManager;
use crate::pods::Overlay;

/// Answers CNI invocations.
#[derive(Debug, Clone)]
pub struct Cni {
    /// Pods on the fast path; absent where none is configured.
    pub overlay: Option<Arc<Overlay>>,
    /// Virtual functions.
    pub nics: NicManager,
    /// What is known of pods.
    pub objects: watch::Receiver<Arc<Snapshot>>,
}

impl Cni {
    /// Answers one invocation. Never fails: what goes wrong is an error object of the CNI.
    pub async fn handle(&self, request: &CniRequest) -> CniReply {
        let mut version = Version::LATEST;
        let result = match Invocation::parse(request, &mut version) {
            Ok(invocation) => self.run(&invocation).await,
            Err(e) => Err(e),
        };
        let (command, container, ifname) = (&request.command, &request.container_id, &request.ifname);
        match result {
            Ok(output) => {
                info!(command, container, ifname, "done");
                let output = output.map(|result| result.to_json(version)).unwrap_or_default();
                CniReply { output, exit_code: 0 }
            }
            Err(e) => {
                warn!(command, container, ifname, code = e.code(), "{e}");
                CniReply { output: e.to_json(version), exit_code: 1 }
            }
        }
    }

    async fn run(&self, invocation: &Invocation) -> Result<Option<CniResult>, CniError> {
        match &invocation.command {
            Command::Add(attachment) => {
                let snapshot = self.objects.borrow().clone();
                match attachment.conf.device() {
                    Some(device) => vf::add(&self.nics, &snapshot, attachment, device).await,
                    None => overlay::add(self.overlay()?, &snapshot, attachment).await,
                }
                .map(Some)
            }
            // Not every runtime repeats the device: whatever this interface has is taken back.
            Command::Del(key) => {
                let released = self.nics.detach_vf(key, None).await;
                if let Some(overlay) = &self.overlay {
                    overlay::delete(overlay, key).await?;
                }
                released?;
                Ok(None)
            }
            Command::Check(attachment) => {
                match attachment.conf.device() {
                    Some(_) => self.nics.check_vf(&attachment.key).await?,
                    None => overlay::check(self.overlay()?, attachment).await?,
                }
                Ok(None)
            }
            Command::Gc(network, valid) => {
                if let Some(overlay) = &self.overlay {
                    overlay::collect_garbage(overlay, network, valid).await?;
                }
                Ok(None)
            }
            Command::Status => {
                if let Some(overlay) = &self.overlay {
                    overlay.status().await.map_err(|e| CniError::unavailable(&e))?;
                }
                Ok(None)
            }
        }
    }

    fn overlay(&self) -> Result<&Overlay, CniError> {
        self.overlay.as_deref().ok_or_else(|| {
            CniError::config("this node has no overlay: the agent's configuration has no section fastpath")
        })
    }
}

#[cfg(test)]
mod tests;
