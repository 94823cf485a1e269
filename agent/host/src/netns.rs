//! Network namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use serde::{Deserialize, Serialize};

use crate::vfio::Process;

/// A network namespace, kept alive by an open file.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
}

/// Identity of a namespace: it stays the same whatever path leads there, until the next boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NetnsId {
    device: u64,
    inode: u64,
}

/// A namespace that something on the machine keeps alive.
#[derive(Debug)]
pub struct VisibleNetns {
    /// The namespace.
    pub netns: Netns,
    /// What tells it apart.
    pub id: NetnsId,
    /// A process that runs in it, if there is any: else only a name or an open file keeps it.
    pub process: Option<Process>,
}

/// Why a network namespace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// No such file, or no permission.
    #[error("cannot open network namespace {}", path.display())]
    Open {
        /// The path asked for.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file, but not of a namespace: for example one left in /run/netns by an earlier boot.
    #[error("{}: is no network namespace", .0.display())]
    NotNetns(PathBuf),
    /// setns(2) failed.
    #[error("cannot enter network namespace {}", path.display())]
    Enter {
        /// The path it was opened by.
        path: PathBuf,
        /// What the kernel said.
        source: nix::Error,
    },
    /// No thread could be started.
    #[error("cannot start a thread for network namespace {}", path.display())]
    Thread {
        /// The path it was opened by.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl NetnsError {
    /// Whether the namespace does not exist (any more).
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Open { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::NotNetns(_) => true,
            Self::Enter { .. } | Self::Thread { .. } => false,
        }
    }
}

impl Netns {
    /// Opens the namespace that `path` leads to, such as `/run/netns/blue` or `/proc/1/ns/net`.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, NetnsError> {
        let path = path.into();
        let open = |source| NetnsError::Open { path: path.clone(), source };
        let file = File::open(&path).map_err(open)?;
        let kind = fstatfs(&file).map_err(|e| open(e.into()))?.filesystem_type();
        if kind != NSFS_MAGIC {
            return Err(NetnsError::NotNetns(path));
        }
        Ok(Self { file, path })
    }

    /// The namespace of this program.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open("/proc/self/ns/net")
    }

    /// The namespace of process `pid`.
    pub fn of_process(pid: u32) -> Result<Self, NetnsError> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What tells namespaces apart.
    pub fn id(&self) -> Result<NetnsId, NetnsError> {
        let meta =
            self.file.metadata().map_err(|source| NetnsError::Open { path: self.path.clone(), source })?;
        Ok(NetnsId { device: meta.dev(), inode: meta.ino() })
    }

    /// Runs `work` in this namespace, on a thread of its own that ends with it: no other thread of the program ever
    /// changes its namespace. Sockets opened by `work` stay in the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        thread::scope(|scope| {
            let enter = move || {
                setns(&self.file, CloneFlags::CLONE_NEWNET)
                    .map_err(|source| NetnsError::Enter { path: self.path.clone(), source })?;
                Ok(work())
            };
            let worker = thread::Builder::new()
                .name("netns".to_owned())
                .spawn_scoped(scope, enter)
                .map_err(|source| NetnsError::Thread { path: self.path.clone(), source })?;
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// Folders of named namespaces: the program's own, and those of the host if it runs in a container.
const NAMED: [&str; 2] = ["/run/netns", "/proc/1/root/run/netns"];

/// Every namespace that a process runs in, that has a name, or that a process holds open, once each. One pass over
/// `/proc`; sees the processes of this pid namespace, so the agent must run in the host's.
pub fn visible() -> Vec<VisibleNetns> {
    let mut found = BTreeMap::new();
    let mut add = |path: PathBuf, process: Option<Process>| {
        // Processes, names and files may go away at any moment; files in such folders may be anything.
        let Ok(netns) = Netns::open(path) else { return };
        let Ok(id) = netns.id() else { return };
        found.entry(id).or_insert(VisibleNetns { netns, id, process });
    };
    let mut open_files = Vec::new();
    let mut seen = BTreeSet::new();
    for process in processes() {
        let folder = PathBuf::from(format!("/proc/{}", process.pid));
        // Most processes share a few namespaces: what the link says tells them apart without opening anything.
        if fs::read_link(folder.join("ns/net")).is_ok_and(|link| seen.insert(link)) {
            add(folder.join("ns/net"), Some(process));
        }
        let descriptors = fs::read_dir(folder.join("fd")).into_iter().flatten().flatten();
        open_files.extend(descriptors.map(|d| d.path()).filter(|path| may_be_netns(path)));
    }
    let named = NAMED.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    named.map(|entry| entry.path()).chain(open_files).for_each(|path| add(path, None));
    found.into_values().collect()
}

/// Sorts out sockets, pipes and the like without opening them. A namespace that was opened by a name that is gone by
/// now has the path `/`.
fn may_be_netns(descriptor: &Path) -> bool {
    let Ok(link) = fs::read_link(descriptor) else { return false };
    let link = link.to_string_lossy();
    link.starts_with("net:[") || link == "/" || NAMED.iter().any(|folder| link.starts_with(folder))
}

fn processes() -> impl Iterator<Item = Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Process { pid, name: name.trim().to_owned() }
    })
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Netns {
    /// The descriptor that netlink attributes carry; valid as long as `self` lives.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}
