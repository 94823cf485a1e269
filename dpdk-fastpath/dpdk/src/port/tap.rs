//! Getting on with net_tap: what would make it fail, found out beforehand, since the driver only says that it could not;
//! and what it must not do to the rest of the process.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::mem::MaybeUninit;

use super::PortError;

/// Bit of CAP_NET_ADMIN in a capability mask (linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;

/// Whether a tap named `interface` can be made in this network namespace. (Attaching to one that exists would succeed,
/// and take it away from its owner.)
pub(super) fn preflight(interface: &str) -> Result<(), PortError> {
    let interface = interface.to_owned();
    match OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Err(PortError::TunNotPermitted { interface, missing: "to open /dev/net/tun" });
        }
        Err(_) => return Err(PortError::NoTun { interface }),
    }
    if !capable(CAP_NET_ADMIN) {
        return Err(PortError::TunNotPermitted { interface, missing: "to make interfaces" });
    }
    if index(&interface).is_some() {
        return Err(PortError::InterfaceExists { interface });
    }
    Ok(())
}

/// Index of an interface in this network namespace.
fn index(interface: &str) -> Option<u32> {
    let name = CString::new(interface).ok()?;
    // SAFETY: the name is terminated.
    Some(unsafe { libc::if_nametoindex(name.as_ptr()) }).filter(|index| *index != 0)
}

fn capable(capability: u32) -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> capability & 1 == 1)
}

/// Name of the driver.
pub(super) const DRIVER: &str = "net_tap";

/// Receive descriptors a tap gets. The driver takes that many mbufs out of the pool for each queue, and uses one of them
/// at a time, since it does not receive scattered here.
pub(super) const RX_DESCRIPTORS: u16 = 4;

/// While this lives, net_tap finds no real-time signal that it could use, so taps opened meanwhile do without.
///
/// Otherwise each packet that arrives at a tap raises a signal somewhere in the process: measured, that costs a third of
/// the packet rate, interrupts the control thread tens of thousands of times a second, and when the signal queue
/// overflows the kernel sends SIGIO instead, which ends a process that does not handle it. Without signals an idle poll
/// costs a system call.
pub(super) struct NoSignals(Vec<(i32, libc::sigaction)>);

impl NoSignals {
    pub(super) fn new() -> Self {
        let mut changed = Vec::new();
        for signal in libc::SIGRTMIN()..=libc::SIGRTMAX() {
            let mut before = MaybeUninit::uninit();
            // SAFETY: only reads the disposition, into room for it.
            if unsafe { libc::sigaction(signal, std::ptr::null(), before.as_mut_ptr()) } != 0 {
                continue;
            }
            // SAFETY: the call succeeded, so it was written.
            let before: libc::sigaction = unsafe { before.assume_init() };
            if before.sa_sigaction != libc::SIG_DFL {
                continue;
            }
            let ignore = libc::sigaction { sa_sigaction: libc::SIG_IGN, ..before };
            // SAFETY: ignoring a signal that has no handler runs no code of ours.
            if unsafe { libc::sigaction(signal, &raw const ignore, std::ptr::null_mut()) } == 0 {
                changed.push((signal, before));
            }
        }
        Self(changed)
    }
}

impl Drop for NoSignals {
    fn drop(&mut self) {
        for (signal, before) in &self.0 {
            // SAFETY: puts back what was there.
            unsafe { libc::sigaction(*signal, before, std::ptr::null_mut()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disposition(signal: i32) -> usize {
        let mut action = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: only reads the disposition, which is written on success.
        unsafe {
            assert_eq!(libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()), 0);
            action.assume_init().sa_sigaction
        }
    }

    #[test]
    fn signals_are_hidden_from_the_driver_for_a_while_and_those_in_use_left_alone() {
        let used = libc::SIGRTMIN() + 3;
        extern "C" fn handler(_: i32) {}
        // SAFETY: the handler does nothing, and nobody raises the signal.
        unsafe { libc::signal(used, handler as *const () as usize) };
        let before: Vec<_> = (libc::SIGRTMIN()..=libc::SIGRTMAX()).map(disposition).collect();
        {
            let _hidden = NoSignals::new();
            assert!((libc::SIGRTMIN()..=libc::SIGRTMAX()).all(|signal| disposition(signal) != libc::SIG_DFL));
            assert_eq!(disposition(used), handler as *const () as usize);
        }
        assert_eq!((libc::SIGRTMIN()..=libc::SIGRTMAX()).map(disposition).collect::<Vec<_>>(), before);
    }
}
