//! News of devices: what the kernel tells udev (`lib/kobject_uevent.c`).

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram as StdDatagram;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
use tokio::net::UnixDatagram;

/// Hears of every device that comes, goes, or gets or loses a driver.
#[derive(Debug)]
pub struct UeventMonitor {
    /// Of the netlink family; tokio's type does nothing with it that depends on the family.
    socket: UnixDatagram,
}

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uevent {
    /// "add", "remove", "bind", "unbind", "change"...
    pub action: String,
    /// "pci", "net"...; empty if events were lost.
    pub subsystem: String,
    /// Path below /sys.
    pub device: String,
}

/// Multicast group of the kernel's own messages; group 2 carries udev's.
const KERNEL_GROUP: u32 = 1;

/// The kernel builds a message in a buffer of 2 KiB (UEVENT_BUFFER_SIZE) and puts a line with the path before it.
const MESSAGE_MAX: usize = 8192;

impl UeventMonitor {
    /// Subscribes. Needs a tokio runtime.
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Self { socket: UnixDatagram::from_std(StdDatagram::from(socket))? })
    }

    /// The next piece of news. Lost messages show as one with action "lost".
    pub async fn next(&self) -> io::Result<Uevent> {
        let mut buffer = [0; MESSAGE_MAX];
        loop {
            match self.socket.recv(&mut buffer).await {
                Ok(length) => {
                    if let Some(event) = Uevent::parse(&buffer[..length]) {
                        return Ok(event);
                    }
                }
                Err(e) if e.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    // The kernel goes on dropping until all is read that it had kept (NETLINK_S_CONGESTED), and tells
                    // of that no more: who looks at the devices before would miss what happens after.
                    while self.socket.try_recv(&mut buffer).is_ok() {}
                    return Ok(Uevent::lost());
                }
                Err(e) => return Err(e),
            }
        }
    }
}

impl Uevent {
    fn lost() -> Self {
        Self { action: "lost".to_owned(), subsystem: String::new(), device: String::new() }
    }

    /// `ACTION@PATH`, then `KEY=VALUE` texts, each ended by a zero byte.
    fn parse(message: &[u8]) -> Option<Self> {
        let mut parts = message.split(|b| *b == 0).map(String::from_utf8_lossy);
        let head = parts.next()?;
        let (action, device) = head.split_once('@')?;
        let subsystem = parts.find_map(|p| p.strip_prefix("SUBSYSTEM=").map(str::to_owned))?;
        Some(Self { action: action.to_owned(), subsystem, device: device.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_message_parses_and_udevs_own_and_cut_ones_do_not() {
        let message =
            b"remove@/devices/pci0000:40/0000:41:10.0\0ACTION=remove\0DEVPATH=/x\0SUBSYSTEM=pci\0SEQNUM=7\0";
        let event = Uevent::parse(message).unwrap();
        assert_eq!((event.action.as_str(), event.subsystem.as_str()), ("remove", "pci"));
        assert_eq!(event.device, "/devices/pci0000:40/0000:41:10.0");
        assert_eq!(Uevent::parse(b"libudev\0\xfe\xed\xca\xfe"), None);
        for length in 0..60 {
            assert_eq!(Uevent::parse(&message[..length]), None, "{length}");
        }
    }
}
