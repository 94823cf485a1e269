//! Who hears of what the kernel has opened.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::layout::{Bucket, CLAIMED, Globals, MAX_BUCKETS, OPENED};
use crate::memory::Region;
use crate::slots::{Direction, direction_in};

/// One at a time listens to what the kernel has opened.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    lock: Mutex<()>,
    is_listening: AtomicBool,
    /// Whether something is to be told again.
    pub(crate) is_waiting: AtomicBool,
}

impl Listener {
    /// Whether there is something to be heard that came before this is called, and nobody has heard all of it.
    #[inline]
    pub(crate) fn has_to_listen(&self, globals: &Globals) -> bool {
        globals.has_opened.load(Ordering::SeqCst) != 0 || self.is_listening.load(Ordering::SeqCst)
    }

    pub(crate) fn listen(
        &self,
        globals: &Globals,
        opened: &[AtomicU64],
        buckets: &[Bucket],
        mut tell: impl FnMut(u32, &Direction) -> bool,
    ) {
        // Who panicked has left nothing half done.
        let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_listening.store(true, Ordering::SeqCst);
        self.is_waiting.store(false, Ordering::Relaxed);
        // The kernel says so after it has marked the bucket.
        globals.has_opened.swap(0, Ordering::SeqCst);
        for (at, word) in opened.iter().enumerate() {
            let mut bits = if word.load(Ordering::SeqCst) == 0 { 0 } else { word.swap(0, Ordering::SeqCst) };
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                let bucket = buckets.get(at * 64 + bit as usize);
                for slot in bucket.into_iter().flat_map(|bucket| &bucket.slots) {
                    let epoch = slot.epoch.load(Ordering::SeqCst);
                    if epoch == CLAIMED {
                        // The kernel is at it.
                        word.fetch_or(1 << bit, Ordering::SeqCst);
                        globals.has_opened.store(1, Ordering::SeqCst);
                    } else if epoch != 0 && slot.flags.load(Ordering::Relaxed) & OPENED != 0 {
                        if tell(epoch, &direction_in(slot)) {
                            slot.flags.fetch_and(!OPENED, Ordering::Release);
                        } else {
                            word.fetch_or(1 << bit, Ordering::SeqCst);
                            self.is_waiting.store(true, Ordering::Relaxed);
                        }
                    }
                }
            }
        }
        self.is_listening.store(false, Ordering::SeqCst);
    }
}

/// What the programs of another process, which has ended, have opened, and nobody has heard of.
#[derive(Debug)]
pub struct Unheard {
    globals: Region<Globals>,
    opened: Region<AtomicU64>,
    buckets: Region<Bucket>,
    listener: Listener,
}

impl Unheard {
    /// In these maps of that process, which is of a version with the same layout.
    ///
    /// # Errors
    /// When they are no such maps.
    pub fn in_maps([globals, opened, buckets]: [BorrowedFd<'_>; 3]) -> io::Result<Self> {
        let globals: Region<Globals> = Region::map(globals, 1)?;
        let mask = globals.values()[0].bucket_mask.load(Ordering::Relaxed);
        let count = mask.checked_add(1).filter(|count| count.is_power_of_two() && *count <= MAX_BUCKETS);
        let count = count.ok_or(io::ErrorKind::InvalidData)? as usize;
        Ok(Self {
            globals,
            opened: Region::map(opened, count.div_ceil(64))?,
            buckets: Region::map(buckets, count)?,
            listener: Listener::default(),
        })
    }

    /// As [`Slots::are_any_opened`].
    #[inline]
    pub fn are_any(&self) -> bool {
        self.listener.has_to_listen(&self.globals.values()[0])
    }

    /// Whether nothing more is opened, but for what is just being opened.
    pub fn has_ended(&self) -> bool {
        self.globals.values()[0].epoch.load(Ordering::SeqCst) == 0
    }

    /// As [`Slots::hear_of_opened`]. The epochs and the ends of directions are those of that process.
    pub fn hear(&self, tell: impl FnMut(u32, &Direction) -> bool) {
        self.listener.listen(&self.globals.values()[0], self.opened.values(), self.buckets.values(), tell);
    }
}
