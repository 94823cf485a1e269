//! A device's life: claimed, made, running, stopped, closed, removed.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::sync::{Arc, Mutex, PoisonError};

use dpdk_sys::shim_port_config;

use super::vdev::Device;
use super::{PortError, tap};
use crate::eal::Eal;
use crate::error::{DpdkError, call};
use crate::log;
use crate::mempool::Mempool;

/// Numbers of the ports that have a [`Port`](super::Port).
#[derive(Default)]
pub(crate) struct Claims(HashSet<u16>);

/// A device of ours; closed, and removed if we made it, when dropped.
pub(super) struct OwnedDevice {
    pub(super) id: u16,
    pub(super) name: String,
    /// The bus that it was plugged into by us.
    bus: Option<&'static CStr>,
    finished: bool,
    /// Where its receive queues take mbufs from. A stopped device still holds some; so the pools stay until it is closed.
    pools: Mutex<Vec<Mempool>>,
    eal: Eal,
}

impl OwnedDevice {
    /// Takes the port of a device that is there.
    pub(super) fn claim(eal: &Eal, name: &str) -> Result<Self, PortError> {
        let text = c_name(name)?;
        let mut claims = eal.devices();
        Self::claim_locked(eal, &mut claims, name, &text, None)
    }

    /// Makes a device of software.
    pub(super) fn make(eal: &Eal, device: &Device) -> Result<Self, PortError> {
        Self::plug(eal, c"vdev", device)
    }

    /// Takes a device of this address on the PCI bus.
    pub(super) fn take(eal: &Eal, address: &str) -> Result<Self, PortError> {
        Self::plug(eal, c"pci", &Device { name: address.to_owned(), arguments: String::new() })
    }

    fn plug(eal: &Eal, bus: &'static CStr, device: &Device) -> Result<Self, PortError> {
        let name = c_name(&device.name)?;
        let arguments = c_name(&device.arguments)?;
        let mut claims = eal.devices();
        if number(eal, &name).is_some() {
            return Err(PortError::Owned { port: device.name.clone() });
        }
        let _no_signals = device.name.starts_with(tap::DRIVER).then(tap::NoSignals::new);
        call(&device.name, "create the device", || {
            // SAFETY: EAL is running; the texts are terminated and copied; the lock of `devices` is held.
            unsafe { dpdk_sys::rte_eal_hotplug_add(bus.as_ptr(), name.as_ptr(), arguments.as_ptr()) }
        })?;
        Self::claim_locked(eal, &mut claims, &device.name, &name, Some(bus))
    }

    fn claim_locked(
        eal: &Eal,
        claims: &mut Claims,
        name: &str,
        text: &CString,
        bus: Option<&'static CStr>,
    ) -> Result<Self, PortError> {
        let Some(id) = number(eal, text) else {
            return Err(PortError::NoSuchPort { port: name.to_owned() });
        };
        if !claims.0.insert(id) {
            return Err(PortError::Owned { port: name.to_owned() });
        }
        let (name, pools) = (name.to_owned(), Mutex::default());
        Ok(Self { id, name, bus, finished: false, pools, eal: eal.clone() })
    }

    /// Closes and removes the device; goes on after an error, and returns all of them.
    pub(super) fn finish(&mut self) -> Vec<DpdkError> {
        self.finished = true;
        let mut errors = Vec::new();
        let mut claims = self.eal.devices();
        // SAFETY: EAL is running. The port is ours (Claims), and stopped: `Started` keeps this device alive.
        let closed = call(&self.name, "close", || unsafe { dpdk_sys::rte_eth_dev_close(self.id) });
        errors.extend(closed.err());
        if let Some(bus) = self.bus {
            let removed = CString::new(self.name.as_str()).map_or(Ok(()), |name| {
                call(&self.name, "remove the device", || {
                    // SAFETY: EAL is running; the texts are terminated; the lock of `devices` is held.
                    unsafe { dpdk_sys::rte_eal_hotplug_remove(bus.as_ptr(), name.as_ptr()) }
                })
            });
            errors.extend(removed.err());
        }
        claims.0.remove(&self.id);
        errors
    }

    /// Configures it with its queues; writes what the device makes of the numbers of descriptors.
    pub(super) fn setup(&self, config: &mut shim_port_config, pool: &Mempool) -> Result<(), DpdkError> {
        // Also keeps two taps from hiding signals at once.
        let _lock = self.eal.devices();
        let _no_signals = self.name.starts_with(tap::DRIVER).then(tap::NoSignals::new);
        // SAFETY: EAL is running; the port is ours and stopped; the pool lives, and `uses` keeps it alive.
        let result = call(&self.name, "configure", || unsafe {
            dpdk_sys::shim_port_setup(self.id, config, pool.as_ptr())
        });
        self.uses(pool, result.is_ok());
        result
    }

    /// `pool` is the one its queues use now (`only`), or, if they were set up half-way, one more of those they may use.
    fn uses(&self, pool: &Mempool, only: bool) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if only {
            pools.clear();
        }
        pools.push(pool.clone());
    }
}

impl Drop for OwnedDevice {
    fn drop(&mut self) {
        if !self.finished {
            report(&self.finish());
        }
    }
}

/// The device while it runs; stopped when dropped. Each queue holds it: so a port that is polled is started.
pub(super) struct Started {
    device: Arc<OwnedDevice>,
    finished: bool,
}

impl Started {
    /// Starts a device whose queues are set up.
    pub(super) fn start(device: &Arc<OwnedDevice>) -> Result<Self, DpdkError> {
        // SAFETY: EAL is running, and the port is ours.
        call(&device.name, "start", || unsafe { dpdk_sys::rte_eth_dev_start(device.id) })?;
        Ok(Self { device: device.clone(), finished: false })
    }

    #[inline]
    pub(super) fn id(&self) -> u16 {
        self.device.id
    }

    /// Stops it. The last one who holds it calls this, hence nobody polls it.
    pub(super) fn finish(&mut self) -> Result<(), DpdkError> {
        self.finished = true;
        // SAFETY: EAL is running; the port is ours and no queue handle is left.
        call(&self.device.name, "stop", || unsafe { dpdk_sys::rte_eth_dev_stop(self.device.id) })
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if !self.finished {
            report(self.finish().err().as_slice());
        }
    }
}

/// Whether a device has a port.
pub(crate) fn exists(eal: &Eal, device: &str) -> bool {
    c_name(device).is_ok_and(|name| number(eal, &name).is_some())
}

/// Number of a device's port.
fn number(_eal: &Eal, device: &CStr) -> Option<u16> {
    let mut id = 0;
    // SAFETY: EAL is running; the text is terminated.
    let found = unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(device.as_ptr(), &raw mut id) };
    (found == 0).then_some(id)
}

/// For a drop, which cannot return errors.
fn report(errors: &[DpdkError]) {
    for error in errors {
        log::write(log::LogLevel::Error, &error.to_string());
    }
}

fn c_name(text: &str) -> Result<CString, PortError> {
    CString::new(text).map_err(|_| PortError::NoSuchPort { port: text.to_owned() })
}
