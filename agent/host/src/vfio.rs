//! Who has VFs open through vfio.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use culvert_api::value::PciAddress;

use crate::root::{FileError, HostRoot, link_name, names, read};

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// Its name, as `ps` shows it.
    pub name: String,
}

impl fmt::Display for Process {
    /// `process testpmd (pid 77)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} (pid {})", self.name, self.pid)
    }
}

/// The process that holds the group of the function at `address` open, if there is one.
pub fn user_of(root: &HostRoot, address: PciAddress) -> Result<Option<Process>, FileError> {
    let group = link_name(&root.pci_device(address).join("iommu_group"))?.and_then(|n| n.parse().ok());
    let Some(group) = group else { return Ok(None) };
    Ok(open_groups(root)?.remove(&group))
}

/// Processes that hold `/dev/vfio/GROUP` open, by group number. One pass over `/proc/*/fd`; sees the processes of this
/// pid namespace, so the agent must run in the host's.
pub fn open_groups(root: &HostRoot) -> Result<BTreeMap<u32, Process>, FileError> {
    let mut groups = BTreeMap::new();
    for name in names(&root.path("proc"))? {
        let Ok(pid) = name.parse::<u32>() else { continue };
        // A process may end at any moment, and kernel threads have no descriptors.
        let Ok(descriptors) = fs::read_dir(root.path(format!("proc/{pid}/fd"))) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let Some(group) = target.to_str().and_then(group_of) else { continue };
            let name = read(&root.path(format!("proc/{pid}/comm")))?.unwrap_or_default();
            groups.insert(group, Process { pid, name });
        }
    }
    Ok(groups)
}

/// `/dev/vfio/11` or `/dev/vfio/noiommu-0`; not the container `/dev/vfio/vfio`.
fn group_of(target: &str) -> Option<u32> {
    let name = target.strip_prefix("/dev/vfio/")?;
    name.strip_prefix("noiommu-").unwrap_or(name).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeHost;

    #[test]
    fn the_process_that_holds_a_group_is_found_and_other_files_are_ignored() {
        let host = FakeHost::new();
        host.add_process(1, "systemd", &["/dev/null", "socket:[5]"]);
        host.add_process(77, "dpdk-testpmd\n", &["/dev/vfio/vfio", "/dev/vfio/11", "/dev/vfio/noiommu-3"]);
        host.file("proc/version", "");
        let groups = open_groups(&host.root()).unwrap();
        let testpmd = Process { pid: 77, name: "dpdk-testpmd".to_owned() };
        assert_eq!(groups, BTreeMap::from([(3, testpmd.clone()), (11, testpmd)]));
    }
}
