//! What outlives the agent: the devices last offered, and what containers were given.
//!
//! Kubelet fails the admission of every pod that comes while a plugin is away, and bare pods never recover. So a restarted
//! agent offers at once what it offered before, and looks at the machine then; devices are given after that look only.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use culvert_api::errors::chain;
use culvert_api::hash::fnv1a;
use culvert_api::value::{PciAddress, ResourceName};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::Device;

#[cfg(test)]
mod tests;

/// Of the format; another one is not read.
const MAGIC: &str = "culvert-devices-1";

/// Changes come in bunches: they are written when this has passed since the first.
const QUIET: Duration = Duration::from_millis(20);

/// Where the plugin remembers what must outlive it, and what that depends on.
#[derive(Debug, Clone)]
pub struct Memory {
    /// The file.
    pub file: PathBuf,
    /// The boot's id: after a reboot devices are made anew.
    pub boot: String,
    /// Files that decide which devices are offered as what: with any other content the devices do not count.
    pub configuration: Vec<PathBuf>,
}

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// The devices last offered; none if they do not count any more.
    pub(crate) devices: Vec<Device>,
    /// Device nodes that containers were given, by resource and device. Kubelet gives them to a restarted container again,
    /// also after a reboot, though the device may have other nodes by then.
    pub(crate) given: Given,
}

type Given = BTreeMap<String, BTreeMap<PciAddress, Vec<String>>>;

/// Why nothing can be remembered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecallError {
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("{}: damaged", .0.display())]
    Damaged(PathBuf),
}

#[derive(Serialize, Deserialize)]
struct Content<D, G> {
    boot: String,
    configuration: String,
    devices: D,
    given: G,
}

impl Memory {
    /// What was remembered last.
    pub(crate) fn recall(&self) -> Result<Remembered, RecallError> {
        let damaged = || RecallError::Damaged(self.file.clone());
        let bytes = fs::read(&self.file).map_err(|error| RecallError::Read(self.file.clone(), error))?;
        let text = String::from_utf8(bytes).map_err(|_| damaged())?;
        let (head, body) = text.split_once('\n').ok_or_else(damaged)?;
        if head != Self::head(body) {
            return Err(damaged());
        }
        let content: Content<Vec<Device>, Given> = serde_json::from_str(body).map_err(|_| damaged())?;
        let counts = content.boot == self.boot && content.configuration == self.configuration();
        Ok(Remembered { devices: if counts { content.devices } else { Vec::new() }, given: content.given })
    }

    /// Remembers: after a crash at any moment this is there, or what was before.
    pub(crate) fn store(&self, Remembered { devices, given }: &Remembered) -> io::Result<()> {
        let (boot, configuration) = (self.boot.clone(), self.configuration());
        let body = serde_json::to_string(&Content { boot, configuration, devices, given })?;
        let made = self.file.with_extension("new");
        let folder = self.file.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        let mut file = File::create(&made)?;
        file.write_all(format!("{}\n{body}", Self::head(&body)).as_bytes())?;
        file.sync_all()?;
        fs::rename(&made, &self.file)?;
        File::open(folder)?.sync_all()
    }

    fn head(body: &str) -> String {
        format!("{MAGIC} {:016x}", fnv1a(&[body.as_bytes()]))
    }

    /// What stands for the configuration. A file that is not there is like an empty one.
    fn configuration(&self) -> String {
        let mut bytes = env!("CARGO_PKG_VERSION").as_bytes().to_vec();
        for file in &self.configuration {
            bytes.push(0);
            bytes.extend(fs::read(file).unwrap_or_default());
        }
        format!("{:016x}", fnv1a(&[&bytes]))
    }
}

/// The plugin's own copy of what is remembered; cheap to clone. A task of its own writes changes down.
#[derive(Debug, Clone)]
pub(crate) struct Keeper(Arc<watch::Sender<Remembered>>);

impl Keeper {
    /// Begins with what was remembered. The future writes, and ends when all clones are gone and all is written.
    pub(crate) fn open(memory: Option<Memory>) -> (Self, impl Future<Output = ()> + Send) {
        let remembered = memory.as_ref().map(recall).unwrap_or_default();
        let (sender, changes) = watch::channel(remembered);
        (Self(Arc::new(sender)), keep(memory, changes))
    }

    /// The devices last offered.
    pub(crate) fn devices(&self) -> Vec<Device> {
        self.0.borrow().devices.clone()
    }

    /// These are the devices on offer now.
    pub(crate) fn offered(&self, devices: Vec<Device>) {
        self.0.send_if_modified(|now| {
            let news = now.devices != devices;
            now.devices = devices;
            news
        });
    }

    /// A container was given a device by these nodes.
    pub(crate) fn gave(&self, resource: &ResourceName, device: PciAddress, nodes: Vec<String>) {
        self.0.send_if_modified(|now| {
            let given = now.given.entry(resource.to_string()).or_default();
            let news = given.get(&device) != Some(&nodes);
            given.insert(device, nodes);
            news
        });
    }

    /// The nodes by which a container was last given a device, if that is known.
    pub(crate) fn given(&self, resource: &ResourceName, device: PciAddress) -> Option<Vec<String>> {
        self.0.borrow().given.get(&resource.to_string())?.get(&device).cloned()
    }
}

fn recall(memory: &Memory) -> Remembered {
    match memory.recall() {
        Ok(remembered) => {
            tracing::info!("{} devices remembered", remembered.devices.len());
            remembered
        }
        Err(RecallError::Read(_, error)) if error.kind() == io::ErrorKind::NotFound => Remembered::default(),
        Err(error) => {
            tracing::warn!("no devices remembered: {}", chain(&error));
            Remembered::default()
        }
    }
}

async fn keep(memory: Option<Memory>, mut changes: watch::Receiver<Remembered>) {
    let mut failed = false;
    while changes.changed().await.is_ok() {
        let Some(memory) = memory.clone() else { continue };
        sleep(QUIET).await;
        let now = changes.borrow_and_update().clone();
        let file = memory.file.display().to_string();
        let Ok(stored) = spawn_blocking(move || memory.store(&now)).await else { return };
        if let (Err(error), false) = (&stored, failed) {
            tracing::warn!(file, %error, "cannot be written; a restart of the agent will take longer");
        }
        failed = stored.is_err();
    }
}
