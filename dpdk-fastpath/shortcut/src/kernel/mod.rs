//! What is in the kernel.

mod ioctl;
mod left;
mod link;
mod netlink;
mod netns;
mod pair;
mod pod;
mod programs;
mod uplink;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use self::ioctl::Interfaces;
use self::link::Attachment;
use self::netns::Netns;
use self::pod::Pod;
use self::programs::Programs;
use crate::drops::Drops;
use crate::error::{Failed, ShortcutError};
use crate::layout::{MAX_BUCKETS, SLOTS};
use crate::memory::Memory;

pub use self::left::remove_left;
pub use self::pod::Joined;

/// The programs, and where they are. When this is dropped all packets go to the fast path, unless another process is to [go
/// on](Self::outlive): then decided connections do, as long as somebody has the descriptors of the programs.
#[derive(Debug)]
pub struct Kernel {
    programs: Programs,
    memory: Arc<Memory>,
    /// The node's network namespace.
    home: Netns,
    interfaces: Interfaces,
    uplink: Option<Attachment>,
    /// Of the pairs' ends in the node.
    group: u32,
    pods: BTreeMap<u16, Pod>,
    /// Whether what is there stays when this is dropped.
    outlives: bool,
}

impl Kernel {
    /// Loads the programs, with at least so many slots, or as many as there can be. The node's network namespace is that of
    /// the calling thread.
    ///
    /// # Errors
    /// When the kernel is too old, or the process may not.
    pub fn load(slots: u32) -> Result<Self, ShortcutError> {
        let buckets = slots.div_ceil(SLOTS as u32).clamp(1, MAX_BUCKETS).next_power_of_two();
        let programs = Programs::load(buckets)?;
        let memory = Arc::new(programs.memory(buckets)?);
        memory.globals().bucket_mask.store(buckets - 1, Ordering::Relaxed);
        let home = Netns::current().map_err(Failed::to("find the network namespace of the process"));
        let interfaces = Interfaces::open().map_err(Failed::to("open a socket"));
        Ok(Self {
            programs,
            memory,
            home: home.map_err(ShortcutError::of)?,
            interfaces: interfaces.map_err(ShortcutError::of)?,
            uplink: None,
            group: pair::new_group(),
            pods: BTreeMap::new(),
            outlives: false,
        })
    }

    /// Whether another process is to go on with what is there when this is dropped.
    pub fn outlive(&mut self, does: bool) {
        self.outlives = does;
    }

    /// The descriptor of the map by which another process [ends](crate::end_epoch_of) the epoch.
    ///
    /// # Errors
    /// When there is none: never.
    pub fn globals(&self) -> io::Result<BorrowedFd<'_>> {
        self.programs.map("globals")
    }

    /// The descriptors of the maps in which another process finds what was [opened](crate::Unheard).
    ///
    /// # Errors
    /// When there are none: never.
    pub fn opened(&self) -> io::Result<[BorrowedFd<'_>; 3]> {
        Ok([self.programs.map("globals")?, self.programs.map("opened")?, self.programs.map("buckets")?])
    }

    /// What is shared with the programs.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Packets that the programs have dropped.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn dropped(&self) -> Result<Drops, ShortcutError> {
        self.programs.dropped()
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if self.outlives {
            return;
        }
        // Before what others still have of it goes.
        self.memory.globals().epoch.store(0, Ordering::Release);
        if let Err(left) = self.leave_all() {
            tracing::warn!(?left, "interfaces are left behind");
        }
    }
}
