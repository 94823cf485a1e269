//! Keeps a configuration file of sriov-network-device-plugin loaded.

use std::fs;
use std::sync::Arc;

use culvert_api::config::device_plugin::ResourceListFile;
use culvert_device_plugin::resource_list::{ResourceList, Severity, SyntaxError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::health::{Reporter, State};
use crate::reload::Changes;

#[cfg(test)]
mod tests;

/// A file, and who hears of what it says.
#[derive(Debug)]
pub struct Follower {
    file: ResourceListFile,
    /// What was read last, or why nothing could be.
    text: Result<String, String>,
    send: watch::Sender<Option<Arc<ResourceList>>>,
}

/// Why the file is not in force.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("cannot be read: {0}")]
    Read(String),
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
}

impl Follower {
    /// Reads the file. If it cannot be used, the list is `None` until it can.
    pub fn open(file: ResourceListFile) -> (Self, watch::Receiver<Option<Arc<ResourceList>>>) {
        let text = read(&file);
        let list = parse(&file, &text).ok().map(Arc::new);
        let (send, receiver) = watch::channel(list);
        (Self { file, text, send }, receiver)
    }

    /// Reads the file again whenever it changes, and after SIGHUP, until `stop`. One that cannot be used changes nothing.
    pub async fn run(mut self, health: Reporter, stop: CancellationToken) {
        let mut changes = Changes::of(&self.file.path);
        self.tell(&health, parse(&self.file, &self.text).as_ref());
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                asked = changes.next() => asked,
            };
            let text = read(&self.file);
            if text == self.text && !asked {
                continue;
            }
            self.text = text;
            let list = parse(&self.file, &self.text);
            self.tell(&health, list.as_ref());
            if let Ok(list) = list {
                info!("{}: loaded again", self.file.path.display());
                self.send.send_replace(Some(Arc::new(list)));
            }
        }
    }

    /// Says in the log what there is to say about the file, and the sum of it in the part's line.
    fn tell(&self, health: &Reporter, list: Result<&ResourceList, &LoadError>) {
        let path = self.file.path.display();
        let list = match list {
            Ok(list) => list,
            Err(e) if self.send.borrow().is_some() => {
                let what = format!("{path}: {e}; what was loaded before stays in force");
                return health.set(State::Degraded, what);
            }
            Err(e) => return health.set(State::Failed, format!("{path}: {e}; nothing of it is on offer")),
        };
        for finding in &list.findings {
            warn!("{path}: {finding}");
        }
        let mut errors = list.findings.iter().filter(|finding| finding.severity == Severity::Error);
        match (errors.next(), errors.count()) {
            (None, _) => health.set(State::Ok, format!("{path}: {} resources", list.resources.len())),
            (Some(error), 0) => health.set(State::Degraded, format!("{path}: {error}")),
            (Some(error), more) => health.set(State::Degraded, format!("{path}: {error} (and {more} more)")),
        }
    }
}

fn read(file: &ResourceListFile) -> Result<String, String> {
    fs::read_to_string(&file.path).map_err(|e| e.to_string())
}

fn parse(file: &ResourceListFile, text: &Result<String, String>) -> Result<ResourceList, LoadError> {
    let text = text.as_ref().map_err(|e| LoadError::Read(e.clone()))?;
    Ok(ResourceList::parse(text, &file.prefix)?)
}
