//! What is asked of taps and interfaces (linux/if_tun.h, linux/ethtool.h).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `ETHTOOL_STSO`: cutting TCP.
const SET_TSO: u32 = 0x1f;
/// `ETHTOOL_SGRO`: merging what is received.
const SET_GRO: u32 = 0x2c;

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    value: u32,
}

/// The network namespace that a tap is in (`TUNGETDEVNETNS`, since Linux 5.2).
pub(super) fn netns_of_tap(tap: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: takes no argument.
    let netns = Errno::result(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNGETDEVNETNS) })?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(netns) })
}

/// The name of a tap, where it is.
pub(super) fn name_of_tap(tap: BorrowedFd<'_>) -> io::Result<String> {
    let mut request = request("");
    // SAFETY: the call writes one `ifreq`, which lives until it returns.
    Errno::result(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    let name = request.ifr_name.map(libc::c_char::cast_unsigned);
    let name = CStr::from_bytes_until_nul(&name).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(name.to_string_lossy().into_owned())
}

/// Interfaces of the network namespace where this was opened, wherever it is used.
#[derive(Debug)]
pub(super) struct Interfaces(OwnedFd);

impl Interfaces {
    /// For the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self(socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?))
    }

    /// Whether there is one of this index.
    pub(super) fn exists(&self, index: u32) -> bool {
        let mut request = request("");
        request.ifr_ifru.ifru_ifindex = index.cast_signed();
        // SAFETY: the call reads and writes one `ifreq`, which lives until it returns.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCGIFNAME, &raw mut request) == 0 }
    }

    /// Whether the interface of this index is up and has a carrier: that of a pair, if the other end is up, too.
    pub(super) fn is_running(&self, index: u32) -> bool {
        let running = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        let mut request = request("");
        request.ifr_ifru.ifru_ifindex = index.cast_signed();
        // SAFETY: each call reads and writes one `ifreq`, which lives until it returns; the first writes the name that the second
        // reads, the second the flags.
        unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SIOCGIFNAME, &raw mut request) == 0
                && libc::ioctl(self.0.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) == 0
                && request.ifr_ifru.ifru_flags & running == running
        }
    }

    /// Whether an interface merges segments that it receives.
    pub(super) fn set_gro(&self, interface: &str, on: bool) -> io::Result<()> {
        self.set(interface, SET_GRO, on)
    }

    /// Whether an interface takes TCP segments that are longer than its MTU.
    pub(super) fn set_tso(&self, interface: &str, on: bool) -> io::Result<()> {
        self.set(interface, SET_TSO, on)
    }

    fn set(&self, interface: &str, command: u32, on: bool) -> io::Result<()> {
        let mut value = EthtoolValue { command, value: on.into() };
        let mut request = request(interface);
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: request and value live until the call returns, which reads one of each.
        Errno::result(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) })?;
        Ok(())
    }
}

/// A request about this interface, otherwise zero.
fn request(interface: &str) -> libc::ifreq {
    // SAFETY: a C struct of numbers, pointers and unions of such; all may be zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    for (to, byte) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = byte.cast_signed();
    }
    request
}
