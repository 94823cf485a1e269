//! Whether a queue of an interface is some AF_XDP socket's.
//!
//! net_af_xdp is not to find that out: each of its attempts that fails costs the 2048 packet buffers that it had put aside
//! for the socket, and after a few there are none left.

use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{
    set_xdp_rx_ring_size, set_xdp_umem_completion_ring_size, set_xdp_umem_fill_ring_size, set_xdp_umem_reg,
};
use rustix::net::xdp::{SocketAddrXdp, SocketAddrXdpFlags, XdpUmemReg, XdpUmemRegFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

use crate::flow::Zeroed;

/// Bytes of packet memory: the kernel takes whole pages.
const PAGE: u32 = 4096;

/// How long the kernel takes to free a queue that a socket has had that nothing was done with: an RCU grace period and more.
const RELEASE: Duration = Duration::from_millis(50);

/// Asks for the queue without copies, which the kernel refuses if somebody has it, and else if the interface's driver cannot
/// do that. Then nothing has changed. Where it can, the queue is this socket's, and free again a moment after that is
/// closed.
pub(super) fn is_taken(interface: u32, queue: u32) -> Result<bool, Errno> {
    let Some(memory) = Zeroed::<u8>::new(PAGE as usize) else { return Err(Errno::NOMEM) };
    let socket = socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let registered = XdpUmemReg {
        addr: memory.as_ptr() as u64,
        len: PAGE.into(),
        chunk_size: PAGE,
        headroom: 0,
        flags: XdpUmemRegFlags::empty(),
        tx_metadata_len: 0,
    };
    set_xdp_umem_reg(&socket, registered)?;
    set_xdp_umem_fill_ring_size(&socket, 1)?;
    set_xdp_umem_completion_ring_size(&socket, 1)?;
    set_xdp_rx_ring_size(&socket, 1)?;
    match bind(&socket, &SocketAddrXdp::new(SocketAddrXdpFlags::XDP_ZEROCOPY, interface, queue)) {
        Ok(()) => {
            drop(socket);
            thread::sleep(RELEASE);
            Ok(false)
        }
        Err(Errno::OPNOTSUPP) => Ok(false),
        Err(Errno::BUSY) => Ok(true),
        Err(other) => Err(other),
    }
}
