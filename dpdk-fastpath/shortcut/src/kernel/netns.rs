//! Network namespaces, and threads that go there.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;

/// A network namespace, kept alive by a descriptor.
#[derive(Debug)]
pub(super) struct Netns {
    descriptor: OwnedFd,
    id: NetnsId,
}

/// What tells network namespaces apart while they live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NetnsId {
    device: libc::dev_t,
    inode: libc::ino_t,
}

impl Netns {
    /// That of the calling thread.
    pub(super) fn current() -> io::Result<Self> {
        Self::new(File::open("/proc/thread-self/ns/net")?.into())
    }

    pub(super) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let stat = fstat(&descriptor)?;
        Ok(Self { descriptor, id: NetnsId { device: stat.st_dev, inode: stat.st_ino } })
    }

    pub(super) fn id(&self) -> NetnsId {
        self.id
    }

    /// Lets the calling thread, which must be one of [`aside`], go there.
    pub(super) fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.descriptor, CloneFlags::CLONE_NEWNET)?)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Does something on a thread of its own, which may change its network namespace: no other thread of the process does.
pub(super) fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("shortcut".into()).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| io::Error::other("a thread panicked"))
    })
}
