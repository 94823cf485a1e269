//! What would make EAL fail, found out beforehand and said in plain words.

use std::fs;
use std::path::{Path, PathBuf};

/// Why hugepages cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HugepageError {
    /// Too few are free.
    #[error(
        "{wanted_mb} MB of hugepages are wanted, {free_mb} MB are free of {reserved_mb} MB reserved: \
         reserve more (`sysctl -w vm.nr_hugepages={pages}`), or set hugepages to preferred or off"
    )]
    TooFew {
        /// What the configuration asks for.
        wanted_mb: u64,
        /// Free, all page sizes together.
        free_mb: u64,
        /// Free and used.
        reserved_mb: u64,
        /// 2 MB pages that would do.
        pages: u64,
    },
    /// The kernel has none.
    #[error("this kernel has no hugepages ({}: no such folder): set hugepages to preferred or off", .folder.display())]
    NotSupported {
        /// Where they should be listed.
        folder: PathBuf,
    },
    /// No place for them as files.
    #[error(
        "hugetlbfs is not mounted: mount it (`mount -t hugetlbfs none /dev/hugepages`), or keep memory anonymous \
         (in-memory), which needs no mount"
    )]
    NotMounted,
}

/// Whether `megabytes` of hugepages can be had on the machine whose root folder is `root`, as files or anonymous.
pub(super) fn hugepages(root: &Path, megabytes: u32, in_memory: bool) -> Result<(), HugepageError> {
    let folder = root.join("sys/kernel/mm/hugepages");
    let Ok(entries) = fs::read_dir(&folder) else {
        return Err(HugepageError::NotSupported { folder });
    };
    let (mut free_kb, mut reserved_kb) = (0, 0);
    for entry in entries.flatten() {
        let name = entry.file_name();
        let size_kb = name.to_str().and_then(|name| name.strip_prefix("hugepages-")?.strip_suffix("kB"));
        let Some(size_kb) = size_kb.and_then(|size| size.parse::<u64>().ok()) else { continue };
        free_kb += size_kb * number(&entry.path().join("free_hugepages"));
        reserved_kb += size_kb * number(&entry.path().join("nr_hugepages"));
    }
    let wanted_mb = u64::from(megabytes);
    if free_kb < wanted_mb * 1024 {
        let used_mb = (reserved_kb - free_kb.min(reserved_kb)) / 1024;
        return Err(HugepageError::TooFew {
            wanted_mb,
            free_mb: free_kb / 1024,
            reserved_mb: reserved_kb / 1024,
            pages: (wanted_mb + used_mb).div_ceil(2),
        });
    }
    if !in_memory {
        let mounts = fs::read_to_string(root.join("proc/self/mounts")).unwrap_or_default();
        if !mounts.lines().any(|line| line.split(' ').nth(2) == Some("hugetlbfs")) {
            return Err(HugepageError::NotMounted);
        }
    }
    Ok(())
}

/// Memory of the machine whose root folder is `root`, if it is less than `megabytes`.
pub(super) fn less_memory(root: &Path, megabytes: u32) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.strip_suffix("kB"))?;
    let total_mb = total.trim().parse::<u64>().ok()? / 1024;
    (total_mb < u64::from(megabytes)).then_some(total_mb)
}

fn number(path: &Path) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with `free` of `reserved` 2 MB pages.
    fn machine(free: u32, reserved: u32, mounts: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let pages = root.path().join("sys/kernel/mm/hugepages/hugepages-2048kB");
        fs::create_dir_all(&pages).unwrap();
        fs::write(pages.join("free_hugepages"), format!("{free}\n")).unwrap();
        fs::write(pages.join("nr_hugepages"), format!("{reserved}\n")).unwrap();
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        fs::write(root.path().join("proc/self/mounts"), mounts).unwrap();
        root
    }

    #[test]
    fn too_few_free_hugepages_are_refused_with_the_number_that_would_do() {
        let root = machine(10, 40, "");
        let error = hugepages(root.path(), 64, true).unwrap_err();
        assert_eq!(
            error,
            HugepageError::TooFew { wanted_mb: 64, free_mb: 20, reserved_mb: 80, pages: 32 + 30 }
        );
        assert!(error.to_string().contains("sysctl -w vm.nr_hugepages=62"), "{error}");
        assert_eq!(hugepages(root.path(), 20, true), Ok(()));
    }

    #[test]
    fn a_mount_is_needed_only_for_hugepages_as_files() {
        let root = machine(40, 40, "proc /proc proc rw 0 0\n");
        assert_eq!(hugepages(root.path(), 64, true), Ok(()));
        assert_eq!(hugepages(root.path(), 64, false), Err(HugepageError::NotMounted));
        let root = machine(40, 40, "none /dev/hugepages hugetlbfs rw,relatime,pagesize=2M 0 0\n");
        assert_eq!(hugepages(root.path(), 64, false), Ok(()));
    }

    #[test]
    fn more_memory_than_the_machine_has_is_noticed() {
        let root = machine(0, 0, "");
        fs::write(root.path().join("proc/meminfo"), "MemTotal:       1048576 kB\nMemFree:  5 kB\n").unwrap();
        assert_eq!(less_memory(root.path(), 1025), Some(1024));
        assert_eq!(less_memory(root.path(), 1024), None);
    }

    #[test]
    fn a_kernel_without_hugepages_is_told_apart_from_too_few() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(hugepages(root.path(), 64, true), Err(HugepageError::NotSupported { .. })));
    }
}
