//! Files through which others learn of the devices.
//!
//! They stay when the agent ends: a container that is started again meanwhile needs them.

mod cdi;
mod device_info;
#[cfg(test)]
mod tests;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use culvert_api::config::device_plugin::DevicePlugin;

pub(crate) use cdi::cdi_name;

use crate::pool::{Member, Pool};

/// Where the files go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Publisher {
    cdi: Option<PathBuf>,
    device_info: Option<PathBuf>,
}

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
pub(crate) struct PublishError {
    path: PathBuf,
    source: io::Error,
}

impl Publisher {
    pub(crate) fn new(config: &DevicePlugin) -> Self {
        Self { cdi: config.cdi.clone(), device_info: config.device_info.clone() }
    }

    /// Whether containers get their device nodes through CDI.
    pub(crate) fn uses_cdi(&self) -> bool {
        self.cdi.is_some()
    }

    /// Brings the pool's CDI specification up to date.
    pub(crate) fn pool(&self, pool: &Pool) -> Result<(), PublishError> {
        let Some(folder) = &self.cdi else { return Ok(()) };
        let resource = pool.resource();
        let path = folder.join(format!("culvert-{}_{}.json", resource.prefix, resource.pool));
        write(&path, &cdi::specification(pool).to_string())
    }

    /// Writes the information file of a device that is being given away.
    pub(crate) fn device(&self, pool: &Pool, member: &Member) -> Result<(), PublishError> {
        let Some(folder) = &self.device_info else { return Ok(()) };
        let path = folder.join(device_info::file_name(pool.resource(), &member.device));
        write(&path, &device_info::information(&member.device).to_string())
    }
}

/// Replaces a file in one step, and only if it is to change.
fn write(path: &Path, text: &str) -> Result<(), PublishError> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    // No reader takes a file with this ending for one of his.
    let made = path.with_extension("new");
    let written = path
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&made, text))
        .and_then(|()| fs::set_permissions(&made, Permissions::from_mode(0o444)))
        .and_then(|()| fs::rename(&made, path));
    written.map_err(|source| {
        let _ = fs::remove_file(&made);
        PublishError { path: path.to_owned(), source }
    })
}
