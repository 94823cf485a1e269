//! What is in the kernel.

mod ioctl;
mod netlink;
mod netns;
mod pair;
mod pod;
mod programs;
mod uplink;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use self::ioctl::Interfaces;
use self::netns::Netns;
use self::pod::Pod;
use self::programs::Programs;
use self::uplink::Uplink;
use crate::error::{Failed, ShortcutError};
use crate::layout::{MAX_BUCKETS, SLOTS};
use crate::memory::Memory;

pub use self::pod::Joined;

/// The programs, and where they are. When this is dropped, or the process ends, all packets go to the fast path.
#[derive(Debug)]
pub struct Kernel {
    programs: Programs,
    memory: Arc<Memory>,
    /// The node's network namespace.
    home: Netns,
    interfaces: Interfaces,
    uplink: Option<Uplink>,
    /// Of the pairs' ends in the node.
    group: u32,
    pods: BTreeMap<u16, Pod>,
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
        })
    }

    /// What is shared with the programs.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // What stays at the node's end of a pair keeps the map.
        self.memory.globals().epoch.store(0, Ordering::Release);
        if let Err(left) = self.leave_all() {
            tracing::warn!(?left, "interfaces are left behind");
        }
    }
}
