//! The tap of a pod, as the fast path makes it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;

/// `struct virtio_net_hdr`, which is in front of each frame.
const VNET_HEADER: usize = 10;

/// `TUN_F_CSUM`, `TUN_F_TSO4`, `TUN_F_TSO6` and `TUN_F_TSO_ECN` (linux/if_tun.h).
const OFFLOADS: libc::c_ulong = 0x0f;

/// A tap whose frames may be as long as TCP makes them.
pub(crate) struct Tap(File);

impl Tap {
    /// In the network namespace of the calling thread.
    pub(crate) fn new(name: &str) -> Self {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .unwrap();
        // SAFETY: a C struct of numbers, pointers and unions of such; all may be zero.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, byte) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
            *to = byte.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        // SAFETY: the request lives until the first call returns; the second takes a number.
        let done = unsafe {
            libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request)
                | libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, OFFLOADS)
        };
        assert_eq!(done, 0, "{name}: {}", std::io::Error::last_os_error());
        Self(file)
    }

    /// The next frame that the pod has sent, without checksums that the NIC would have written; `None` if there is none now.
    pub(crate) fn read(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; VNET_HEADER + 65_550];
        match (&self.0).read(&mut frame) {
            Ok(len) => Some(frame[VNET_HEADER..len].to_vec()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Hands a frame to the pod, complete with checksums.
    pub(crate) fn write(&self, frame: &[u8]) {
        let frame = [&[0; VNET_HEADER], frame].concat();
        (&self.0).write_all(&frame).unwrap();
    }
}

/// Lets a packet socket have `struct virtio_net_hdr` in front of each frame, as taps have.
pub(crate) fn take_vnet_headers(socket: &impl AsRawFd) {
    let on = 1_i32;
    // SAFETY: the kernel reads as many bytes as it is told, of what lives until it returns.
    let set = unsafe {
        let size = size_of_val(&on) as libc::socklen_t;
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_VNET_HDR,
            (&raw const on).cast(),
            size,
        )
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
