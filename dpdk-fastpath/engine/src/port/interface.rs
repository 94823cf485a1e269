//! Kernel interfaces that packets are exchanged with while the kernel keeps them.

use std::io;
use std::os::fd::AsRawFd;

use culvert_api::value::{IfName, Mac, Mtu};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// An Ethernet interface of this network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Its address.
    pub mac: Mac,
    /// Largest IP packet.
    pub mtu: Mtu,
    /// Receive queues, and transmit queues if there are fewer.
    pub queues: usize,
}

/// Why an interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// There is none.
    #[error(
        "interface {interface}: there is none of this name in the network namespace of culvert-fastpath: see `ip link`"
    )]
    Missing {
        /// The name.
        interface: IfName,
    },
    /// Nothing goes through it.
    #[error("interface {interface}: is down: set it up (`ip link set {interface} up`)")]
    Down {
        /// The name.
        interface: IfName,
    },
    /// Not a kind that has Ethernet frames.
    #[error("interface {interface}: has no Ethernet address: name an Ethernet interface")]
    NotEthernet {
        /// The name.
        interface: IfName,
    },
    /// Packets that are too short or too long.
    #[error("interface {interface}: {reason}: change it (`ip link set {interface} mtu 1500`)")]
    Mtu {
        /// The name.
        interface: IfName,
        /// What is wrong with the MTU.
        reason: String,
    },
    /// The kernel refuses.
    #[error("interface {interface}: its {what} cannot be read")]
    Unreadable {
        /// The name.
        interface: IfName,
        /// What was asked for.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl Interface {
    /// Looks at the interface `name` (netdevice(7)).
    ///
    /// # Errors
    /// When there is none, it is down, or no Ethernet interface.
    pub fn find(name: &IfName) -> Result<Self, InterfaceError> {
        let unreadable = |what| {
            move |source: io::Error| match source.raw_os_error() {
                Some(libc::ENODEV) => InterfaceError::Missing { interface: name.clone() },
                _ => InterfaceError::Unreadable { interface: name.clone(), what, source },
            }
        };
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
            .map_err(|error| unreadable("number")(error.into()))?;
        let ask = |number, what| {
            let mut request = request(name);
            // SAFETY: these calls read and write one `ifreq`, which lives until they return.
            let result = unsafe { libc::ioctl(socket.as_raw_fd(), number, &raw mut request) };
            nix::errno::Errno::result(result).map_err(|error| unreadable(what)(error.into()))?;
            Ok::<_, InterfaceError>(request.ifr_ifru)
        };
        let index = ask(libc::SIOCGIFINDEX, "number")?;
        let flags = ask(libc::SIOCGIFFLAGS, "state")?;
        let mtu = ask(libc::SIOCGIFMTU, "MTU")?;
        let hardware = ask(libc::SIOCGIFHWADDR, "address")?;
        // SAFETY: each call has just written this member.
        let (index, flags, mtu, hardware) =
            unsafe { (index.ifru_ifindex, flags.ifru_flags, mtu.ifru_mtu, hardware.ifru_hwaddr) };
        if i32::from(flags) & libc::IFF_UP == 0 {
            return Err(InterfaceError::Down { interface: name.clone() });
        }
        let octets = std::array::from_fn(|n| hardware.sa_data[n].cast_unsigned());
        let mac = match Mac::try_from(octets) {
            Ok(mac) if hardware.sa_family == libc::ARPHRD_ETHER => mac,
            _ => return Err(InterfaceError::NotEthernet { interface: name.clone() }),
        };
        let mtu = Mtu::try_from(mtu.cast_unsigned())
            .map_err(|error| InterfaceError::Mtu { interface: name.clone(), reason: error.to_string() })?;
        Ok(Self { index: index.cast_unsigned(), mac, mtu, queues: queues(name) })
    }
}

/// Queues that are in use in both directions; one where the kernel does not say.
fn queues(name: &IfName) -> usize {
    let Ok(folder) = std::fs::read_dir(format!("/sys/class/net/{name}/queues")) else { return 1 };
    let names: Vec<_> = folder.flatten().map(|entry| entry.file_name()).collect();
    let count = |kind: &str| names.iter().filter(|name| name.to_string_lossy().starts_with(kind)).count();
    count("rx-").min(count("tx-")).max(1)
}

/// A request about this interface, otherwise zero.
pub(super) fn request(name: &IfName) -> libc::ifreq {
    // SAFETY: a C struct of numbers and unions of such; all may be zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // Shorter than the field, so that a zero ends it.
    for (to, byte) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
        *to = byte as libc::c_char;
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_ethernet_interface_is_refused_by_name_and_reason() {
        let refusal = |name: &str| Interface::find(&name.parse().unwrap()).unwrap_err().to_string();
        assert!(refusal("cvt-none").starts_with("interface cvt-none: there is none of this name"));
        assert_eq!(refusal("lo"), "interface lo: has no Ethernet address: name an Ethernet interface");
    }
}
