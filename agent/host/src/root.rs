//! The folder that stands for the machine.

mod folder;

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use culvert_api::value::PciAddress;

pub(crate) use folder::Folder;
#[cfg(test)]
pub(crate) use folder::count;

/// A root folder with the machine's `sys`, `proc` and `dev` below it: `/`, or a made-up tree in a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoot(PathBuf);

/// A file of the machine that could not be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    /// "read", "list", or "write ... to".
    pub action: String,
    /// The file.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

impl Default for HostRoot {
    fn default() -> Self {
        Self(PathBuf::from("/"))
    }
}

impl HostRoot {
    /// The machine below `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Whether this is the machine that the program runs on.
    pub fn is_real(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// The path of `relative` (such as `sys/class/net`) on this machine.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.0.join(relative)
    }

    /// sysfs' folder of a PCI function.
    pub fn pci_device(&self, address: PciAddress) -> PathBuf {
        self.path(format!("sys/bus/pci/devices/{address}"))
    }

    /// sysfs' folder of a network interface.
    pub fn net_device(&self, name: &str) -> PathBuf {
        self.path("sys/class/net").join(name)
    }
}

impl FileError {
    /// An error of doing `action` to `path`.
    pub fn new(action: impl Into<String>, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self { action: action.into(), path: path.into(), source }
    }

    /// Whether the file is not there, or went away while it was used (sysfs says ENODEV then).
    pub fn is_absent(&self) -> bool {
        is_absent(&self.source)
    }
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(nix::errno::Errno::ENODEV as i32)
}

/// `None` for a file that does not exist, or that the driver behind it has nothing to say in (sysfs answers EINVAL or
/// EOPNOTSUPP for such attributes).
pub(crate) fn optional<T>(result: io::Result<T>, path: &Path) -> Result<Option<T>, FileError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if is_absent(&e) => Ok(None),
        Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(None),
        Err(e) => Err(FileError::new("read", path, e)),
    }
}

/// The file's text without surrounding white space; `None` as in [`optional`].
pub(crate) fn read(path: &Path) -> Result<Option<String>, FileError> {
    optional(fs::read_to_string(path).map(|text| text.trim().to_owned()), path)
}

/// Last part of where the link `path` points; `None` if there is no such link.
pub(crate) fn link_name(path: &Path) -> Result<Option<String>, FileError> {
    let target = optional(fs::read_link(path), path)?;
    Ok(target.and_then(|t| t.file_name().map(|name| name.to_string_lossy().into_owned())))
}

/// Names in a folder, sorted; empty if there is no such folder.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, FileError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if is_absent(&e) => return Ok(Vec::new()),
        Err(e) => return Err(FileError::new("list", path, e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => names.push(entry.file_name().to_string_lossy().into_owned()),
            Err(e) if is_absent(&e) => {}
            Err(e) => return Err(FileError::new("list", path, e)),
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Writes `text` in one call, as sysfs wants it, to a file that exists.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), FileError> {
    let result =
        OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    result.map_err(|e| FileError::new(format!("write {:?} to", text.trim_end()), path, e))
}
