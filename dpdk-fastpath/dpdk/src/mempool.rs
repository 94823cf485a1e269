//! Pools of packet buffers.

use std::ffi::CString;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys::{rte_mbuf, rte_mempool};

use crate::burst::Burst;
use crate::eal::Eal;
use crate::error::DpdkError;
use crate::log;
use crate::mbuf::Mbuf;

/// What a pool is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MempoolConfig {
    /// Unique name, 1-24 bytes.
    pub name: String,
    /// Number of mbufs; one less than a power of two uses memory best.
    pub mbufs: u32,
    /// Mbufs that each lcore keeps for itself, so that most allocations touch nothing shared; 0-512.
    pub cache: u32,
    /// Longest frame an mbuf holds, bytes; the headroom comes on top.
    pub frame: u16,
    /// NUMA node the memory lies on; `None`: any.
    pub socket: Option<u32>,
}

impl Default for MempoolConfig {
    fn default() -> Self {
        Self { name: "mbufs".into(), mbufs: 16383, cache: 256, frame: 2048, socket: None }
    }
}

/// Why a pool was not made.
#[derive(Debug, thiserror::Error)]
pub enum MempoolError {
    /// A field of the configuration cannot be used.
    #[error("mempool {name}: {field}: {reason}")]
    BadConfig {
        /// The pool.
        name: String,
        /// The field of [`MempoolConfig`].
        field: &'static str,
        /// The value, and what it must be.
        reason: String,
    },
    /// The memory EAL was given does not do.
    #[error(
        "mempool {name}: no memory for {mbufs} mbufs (about {megabytes} MB): give EAL more memory, or take fewer mbufs"
    )]
    NoMemory {
        /// The pool.
        name: String,
        /// Mbufs wanted.
        mbufs: u32,
        /// What they need.
        megabytes: u64,
    },
    /// DPDK refused.
    #[error(transparent)]
    Dpdk(#[from] DpdkError),
}

/// A pool of mbufs; a cheap handle to it. The pool goes when the last handle is dropped and all mbufs are back; while an
/// mbuf is still out it stays, and DPDK with it.
#[derive(Clone)]
pub struct Mempool {
    inner: Arc<Inner>,
}

struct Inner {
    pool: NonNull<rte_mempool>,
    config: MempoolConfig,
    eal: Eal,
}

// SAFETY: a mempool made with default flags may be used from any thread at once (multi-producer, multi-consumer ring).
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Mempool {
    /// Makes a pool.
    pub fn create(eal: &Eal, config: &MempoolConfig) -> Result<Self, MempoolError> {
        let name = check(config)?;
        // SAFETY: constant.
        let headroom = unsafe { dpdk_sys::shim_headroom() };
        let room = config.frame.checked_add(headroom).ok_or_else(|| {
            bad(config, "frame", format!("{}: must be 64-{}", config.frame, u16::MAX - headroom))
        })?;
        let socket = config.socket.map_or(-1, |socket| socket as i32);
        // SAFETY: EAL is running; the name is terminated and is copied.
        let (pool, errno) = unsafe {
            let pool =
                dpdk_sys::rte_pktmbuf_pool_create(name.as_ptr(), config.mbufs, config.cache, 0, room, socket);
            (pool, dpdk_sys::shim_errno())
        };
        match NonNull::new(pool) {
            Some(pool) => {
                Ok(Self { inner: Arc::new(Inner { pool, config: config.clone(), eal: eal.clone() }) })
            }
            None if errno == libc::ENOMEM => Err(MempoolError::NoMemory {
                name: config.name.clone(),
                mbufs: config.mbufs,
                // 128 bytes of mbuf, 64 of mempool header.
                megabytes: (u64::from(config.mbufs) * (u64::from(room) + 192)).div_ceil(1 << 20),
            }),
            None => Err(DpdkError::new(&format!("mempool {}", config.name), "create", errno).into()),
        }
    }

    /// The pool's name.
    pub fn name(&self) -> &str {
        &self.inner.config.name
    }

    /// Mbufs in all.
    pub fn size(&self) -> u32 {
        self.inner.config.mbufs
    }

    /// Longest frame an mbuf holds, bytes.
    pub fn frame(&self) -> u16 {
        self.inner.config.frame
    }

    /// Mbufs free, those in the lcores' caches included. A snapshot, and slow: for accounting, not for packets.
    pub fn available(&self) -> u32 {
        // SAFETY: the pool lives as long as `inner`.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.inner.pool.as_ptr()) }
    }

    /// Mbufs in packets, bursts and device queues.
    pub fn in_use(&self) -> u32 {
        self.size().saturating_sub(self.available())
    }

    /// One empty mbuf; `None` if the pool is empty. For a burst of them, [`alloc_burst`](Self::alloc_burst).
    pub fn alloc(&self) -> Option<Mbuf> {
        let mut mbuf: *mut rte_mbuf = std::ptr::null_mut();
        // SAFETY: the pool lives; there is room for one pointer.
        if unsafe { dpdk_sys::shim_alloc_bulk(self.as_ptr(), &raw mut mbuf, 1) } != 0 {
            return None;
        }
        // SAFETY: a fresh mbuf: one segment, no other owner.
        NonNull::new(mbuf).map(|mbuf| unsafe { Mbuf::from_raw(mbuf) })
    }

    /// An mbuf that holds `packet`; `None` if the pool is empty or the packet longer than a frame.
    pub fn alloc_with(&self, packet: &[u8]) -> Option<Mbuf> {
        use culvert_packet::buf::PacketBuf;

        let mut mbuf = self.alloc()?;
        mbuf.append(packet.len())?.copy_from_slice(packet);
        Some(mbuf)
    }

    /// Adds `n` empty mbufs to `burst`: all or, if the pool or the burst has less room, none (`false`).
    pub fn alloc_burst<const N: usize>(&self, burst: &mut Burst<N>, n: usize) -> bool {
        let free = burst.free_slots();
        if n > free.len() {
            return false;
        }
        // SAFETY: the pool lives; the burst has room for n pointers.
        if unsafe { dpdk_sys::shim_alloc_bulk(self.as_ptr(), free.as_mut_ptr().cast(), n as u32) } != 0 {
            return false;
        }
        // SAFETY: the call wrote n fresh mbufs: one segment each, no other owner.
        unsafe { burst.grow(n) };
        true
    }

    pub(crate) fn as_ptr(&self) -> *mut rte_mempool {
        self.inner.pool.as_ptr()
    }
}

impl fmt::Debug for Mempool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mempool({}, {} of {} free)", self.name(), self.available(), self.size())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: the pool lives.
        let available = unsafe { dpdk_sys::rte_mempool_avail_count(self.pool.as_ptr()) };
        if available == self.config.mbufs {
            // SAFETY: all mbufs are back, and without a handle nobody can take one.
            unsafe { dpdk_sys::rte_mempool_free(self.pool.as_ptr()) };
            return;
        }
        // Mbufs do not keep their pool alive (that would cost an atomic per packet), so the pool stays for them.
        let out = self.config.mbufs.saturating_sub(available);
        let line = format!("mempool {}: {out} mbufs still in use; it stays allocated", self.config.name);
        log::write(log::LogLevel::Warning, &line);
        self.eal.keep_forever();
    }
}

fn bad(config: &MempoolConfig, field: &'static str, reason: String) -> MempoolError {
    MempoolError::BadConfig { name: config.name.clone(), field, reason }
}

fn check(config: &MempoolConfig) -> Result<CString, MempoolError> {
    let name = CString::new(config.name.as_str())
        .ok()
        .filter(|name| (1..=24).contains(&name.as_bytes().len()))
        .ok_or_else(|| bad(config, "name", "must be 1-24 bytes".into()))?;
    if config.mbufs == 0 {
        return Err(bad(config, "mbufs", "0: must be at least 1".into()));
    }
    // A cache fills up to one and a half times its size.
    if config.cache > 512 || u64::from(config.cache) * 3 > u64::from(config.mbufs) * 2 {
        let most = (config.mbufs / 3 * 2).min(512);
        return Err(bad(
            config,
            "cache",
            format!("{}: must be 0-{most} with {} mbufs", config.cache, config.mbufs),
        ));
    }
    if config.frame < 64 {
        return Err(bad(config, "frame", format!("{}: must be at least 64", config.frame)));
    }
    Ok(name)
}
