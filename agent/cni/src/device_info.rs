//! Device information files, from which Multus learns what device a pod has (device-info-spec 1.1.0). They lie on the
//! host, which the agent may not see.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use culvert_api::agent::DeviceInfoFile;

/// Writes the file, or removes it if it is to hold nothing. One that is there stays: Multus copies that of the device
/// plugin, which knows the same device.
pub(crate) fn put(file: &DeviceInfoFile) -> io::Result<()> {
    let path = Path::new(&file.path);
    if file.content.is_empty() {
        return match fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o444).open(path) {
        Ok(mut created) => created.write_all(&file.content),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}
