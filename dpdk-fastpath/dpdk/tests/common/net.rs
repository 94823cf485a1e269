//! The kernel's side of a tap: interfaces, namespaces and raw sockets.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, id};

use super::within;

/// Runs `ip`, and panics with what it said if it fails.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Moves this process into a network namespace of its own, where nothing else sends and which goes with the process.
/// Call it before any thread is started.
pub(crate) fn alone() {
    // SAFETY: affects only the namespace of this thread, the only one.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "{}", io::Error::last_os_error());
    silence();
}

/// No router solicitations and the like from new interfaces of this thread's namespace.
fn silence() {
    // /proc/sys/net is that of the thread that opens it.
    fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
}

/// A network namespace, removed at the end whatever happens.
pub(crate) struct Netns(String);

impl Netns {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("{name}-{}", id());
        ip(&format!("netns add {name}"));
        let netns = Self(name);
        netns.within(silence);
        netns
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// Moves an interface there and sets it up.
    pub(crate) fn take(&self, interface: &str) {
        ip(&format!("link set {interface} netns {}", self.0));
        ip(&format!("-n {} link set {interface} up", self.0));
    }

    /// Runs something on a thread that is in the namespace. A socket made there stays there.
    pub(crate) fn within<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                // SAFETY: the descriptor is open; affects only this thread.
                assert_eq!(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
                body()
            });
            thread.join().unwrap()
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

/// Index of an interface in this thread's namespace.
pub(crate) fn index(interface: &str) -> Option<u32> {
    let name = CString::new(interface).unwrap();
    // SAFETY: the name is terminated.
    Some(unsafe { libc::if_nametoindex(name.as_ptr()) }).filter(|index| *index != 0)
}

/// A packet socket on one interface.
pub(crate) struct RawSocket(OwnedFd);

impl RawSocket {
    pub(crate) fn on(interface: &str) -> Self {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: makes a descriptor, owned from here on.
        let socket = unsafe {
            let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            let fd = libc::socket(libc::AF_PACKET, kind, protocol.into());
            assert!(fd >= 0, "{}", io::Error::last_os_error());
            OwnedFd::from_raw_fd(fd)
        };
        // SAFETY: plain numbers; zero is a valid start.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index(interface).expect("the interface exists") as i32;
        let length = size_of_val(&address) as u32;
        // SAFETY: the address is of the family and length said.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        Self(socket)
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        // SAFETY: reads the frame.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    }

    /// The next frame that others sent.
    pub(crate) fn receive(&self) -> Vec<u8> {
        within(5, "a frame reaches the kernel", || self.try_receive())
    }

    pub(crate) fn try_receive(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 65536];
        // SAFETY: writes at most the length said.
        let got = unsafe { libc::recv(self.0.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), 0) };
        frame.truncate(usize::try_from(got).ok()?);
        Some(frame)
    }
}
