//! What would make a tap fail, found out beforehand: the driver only says that it could not.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;

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
