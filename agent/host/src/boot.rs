//! Which boot of the machine this is.

use crate::root::{FileError, HostRoot, read};

/// The kernel's random id of this boot; empty where a made-up tree has none.
pub fn boot_id(root: &HostRoot) -> Result<String, FileError> {
    Ok(read(&root.path("proc/sys/kernel/random/boot_id"))?.unwrap_or_default())
}
