//! The environment abstraction layer: DPDK's start and end.

mod config;
mod preflight;

use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use config::is_address;
pub use config::{EalConfig, Hugepages, Iova, Pci};
pub use preflight::HugepageError;

use crate::error::{DpdkError, because};
use crate::lcore;
use crate::log;
use crate::port::{self, Claims};

/// Why EAL did not start.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// DPDK can be started once in a process's life, and not again after it ended or failed.
    #[error("EAL was already initialised in this process; it can be only once")]
    AlreadyInitialised,
    /// A field of the configuration cannot be used.
    #[error("{field}: {reason}")]
    BadConfig {
        /// The field of [`EalConfig`].
        field: &'static str,
        /// The value, and what it must be.
        reason: String,
    },
    /// Hugepages are required and cannot be had.
    #[error("hugepages: {0}")]
    Hugepages(#[source] HugepageError),
    /// EAL started, but one of the devices did not; EAL was ended again.
    #[error("device {device}: it was not created{}", because(.log))]
    Device {
        /// The device.
        device: String,
        /// What DPDK logged as an error meanwhile.
        log: Vec<String>,
    },
    /// `rte_eal_init` failed.
    #[error(transparent)]
    Init(#[from] DpdkError),
}

/// DPDK, running. A cheap handle: everything made from it keeps it alive; when the last is dropped, DPDK ends.
#[derive(Clone)]
pub struct Eal {
    inner: Arc<Inner>,
}

struct Inner {
    hugepages: bool,
    fallback: Option<HugepageError>,
    /// Creating and removing devices, one at a time: EAL's device lists expect it. Holds which ports have an owner.
    devices: Mutex<Claims>,
}

/// Whether `rte_eal_init` was ever called.
static INITIALISED: AtomicBool = AtomicBool::new(false);

impl Eal {
    /// Checks the configuration and the machine, then starts DPDK and pins this thread to the control CPU.
    ///
    /// Once per process. A refused configuration, or missing hugepages, leave everything as it was: the caller may try
    /// again. A failure of DPDK itself does not.
    pub fn init(config: &EalConfig) -> Result<Self, EalError> {
        config.check().map_err(|(field, reason)| EalError::BadConfig { field, reason })?;
        if !lcore::usable(config.control_cpu) {
            let reason = format!("{}: not online, or not allowed to this process", config.control_cpu);
            return Err(EalError::BadConfig { field: "control_cpu", reason });
        }
        let found = match config.hugepages {
            Hugepages::Off => None,
            _ => Some(preflight::hugepages(Path::new("/"), config.megabytes, config.in_memory)),
        };
        let (hugepages, fallback) = match (config.hugepages, found) {
            (_, None) => (false, None),
            (_, Some(Ok(()))) => (true, None),
            (Hugepages::Preferred, Some(Err(error))) => (false, Some(error)),
            (_, Some(Err(error))) => return Err(EalError::Hugepages(error)),
        };
        if let (false, Some(total)) = (hugepages, preflight::less_memory(Path::new("/"), config.megabytes)) {
            let reason = format!("{}: this machine has {total}", config.megabytes);
            return Err(EalError::BadConfig { field: "megabytes", reason });
        }
        if INITIALISED.swap(true, Ordering::SeqCst) {
            return Err(EalError::AlreadyInitialised);
        }
        log::install(config.log_level);
        let log = start(&config.arguments(hugepages))?;
        let eal = Self { inner: Arc::new(Inner { hugepages, fallback, devices: Mutex::default() }) };
        // EAL goes on without the devices it could not make.
        match config.vdevs.iter().map(|vdev| vdev.device().name).find(|device| !port::exists(&eal, device)) {
            Some(device) => Err(EalError::Device { device, log }),
            None => Ok(eal),
        }
    }

    /// Whether memory is in hugepages.
    pub fn hugepages(&self) -> bool {
        self.inner.hugepages
    }

    /// Why memory is in ordinary pages although hugepages are preferred.
    pub fn fallback(&self) -> Option<&HugepageError> {
        self.inner.fallback.as_ref()
    }

    /// The release of the library, as "DPDK 22.11.4".
    pub fn version() -> String {
        // SAFETY: rte_version returns a constant text.
        unsafe { CStr::from_ptr(dpdk_sys::rte_version()) }.to_string_lossy().into_owned()
    }

    pub(crate) fn devices(&self) -> MutexGuard<'_, Claims> {
        // Claims are single inserts and removes: never half done, so poison does not matter.
        self.inner.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up ever ending DPDK, since something of it is still in use.
    pub(crate) fn keep_forever(&self) {
        std::mem::forget(self.clone());
    }
}

impl fmt::Debug for Eal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Eal").field("hugepages", &self.inner.hugepages).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: EAL is initialised, and as the last handle is gone, nothing of it is in use.
        let result = unsafe { dpdk_sys::rte_eal_cleanup() };
        if result != 0 {
            log::write(log::LogLevel::Warning, &DpdkError::new("EAL", "clean up", -result).to_string());
        }
    }
}

/// Starts EAL; what it logged as errors comes back.
fn start(arguments: &[String]) -> Result<Vec<String>, DpdkError> {
    // EAL keeps pointers into its arguments for as long as it runs, and reorders the array: both are given away.
    let mut argv: Vec<*mut c_char> = Vec::with_capacity(arguments.len() + 1);
    for argument in arguments {
        let text =
            CString::new(argument.as_str()).map_err(|_| DpdkError::new("EAL", "initialise", libc::EINVAL))?;
        argv.push(text.into_raw());
    }
    argv.push(std::ptr::null_mut());
    let argc = arguments.len() as i32;
    let argv = argv.leak();
    // SAFETY: argv holds argc terminated texts and a null; all of it lives for ever. Called once per process.
    let (result, log) = log::capture(|| unsafe { dpdk_sys::rte_eal_init(argc, argv.as_mut_ptr()) });
    if result >= 0 {
        return Ok(log);
    }
    // SAFETY: reads a variable of this thread.
    let errno = unsafe { dpdk_sys::shim_errno() };
    Err(DpdkError {
        log,
        ..DpdkError::new("EAL", format!("initialise with `{}`", arguments[1..].join(" ")), errno)
    })
}
