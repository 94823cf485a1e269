//! Packet sockets (packet(7)): the uplink is an interface that the kernel keeps, of any NIC that it has a driver for.
//!
//! With `PACKET_VNET_HDR` a packet socket speaks as a tap does, so the transmitting end is that of a [tap](super::tap): checksums
//! that the kernel has left open are completed, and one write hands over many tunnel packets. What comes lies in a [ring], which
//! takes no call to be read. A filter in the kernel lets
//! through what is for the address of the uplink, or for several stations, and has no VLAN tag: a tagged packet would
//! arrive without its tag, as if it belonged here.
//!
//! The kernel goes on to look at what it receives. So an address that the fast path has on the underlay is none of the
//! kernel's; and it takes the kernel the least time if the MAC address is none of its own, either.

mod losses;
mod ring;
mod rx;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use culvert_api::value::{IfName, Mac};
use nix::errno::Errno;
use zerocopy::FromBytes;

pub use self::losses::Losses;
use self::ring::Ring;
pub use self::rx::PacketRx;
use super::interface::Interface;
use super::tap::{Behind, TapMemory, TapTx};

/// Bytes that the kernel keeps for one socket in each direction: what comes while a worker does something else.
const BUFFER: libc::c_int = 4 << 20;

/// `PACKET_VNET_HDR`: frames have a `struct virtio_net_hdr` in front.
const PACKET_VNET_HDR: libc::c_int = 15;
/// `PACKET_FANOUT`: sockets of a group share what comes in.
const PACKET_FANOUT: libc::c_int = 18;
/// `PACKET_FANOUT_HASH`, by addresses and ports, with `PACKET_FANOUT_FLAG_UNIQUEID`: the kernel numbers the group.
const FANOUT_HASH_NEW: libc::c_int = 0x2000 << 16;
/// `PACKET_IGNORE_OUTGOING`: what the kernel sends is not for us.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// Why there are no packet sockets.
#[derive(Debug, thiserror::Error)]
pub enum PacketSocketError {
    /// Not allowed.
    #[error(
        "packet socket on {interface}: no permission: run as root, or with CAP_NET_RAW and CAP_NET_ADMIN"
    )]
    NotPermitted {
        /// The interface.
        interface: IfName,
    },
    /// The kernel refuses.
    #[error("packet socket on {interface}: cannot {action}; Linux 4.20 or later is needed")]
    Refused {
        /// The interface.
        interface: IfName,
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Packet sockets on one interface, which share what comes in.
#[derive(Debug)]
pub struct PacketSockets(Vec<Pair>);

/// A worker's two sockets. Each packet that has been sent tells its socket so, and with it all who wait for that: the one that
/// a worker waits at sends nothing.
#[derive(Debug)]
struct Pair {
    rx: Arc<OwnedFd>,
    ring: Ring,
    tx: OwnedFd,
}

impl PacketSockets {
    /// Makes so many on the interface `name`, for frames to the address `mac`.
    ///
    /// # Errors
    /// When the process may make none, or the kernel is too old.
    pub fn open(
        name: &IfName,
        interface: &Interface,
        mac: Mac,
        sockets: usize,
    ) -> Result<Self, PacketSocketError> {
        let mut opened: Vec<Pair> = Vec::with_capacity(sockets);
        let mut group = FANOUT_HASH_NEW;
        for _ in 0..sockets {
            let failed = |(action, source): (_, io::Error)| match source.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => {
                    PacketSocketError::NotPermitted { interface: name.clone() }
                }
                _ => PacketSocketError::Refused { interface: name.clone(), action, source },
            };
            let pair = Pair::open(interface, mac).map_err(failed)?;
            if sockets > 1 {
                set(&pair.rx, PACKET_FANOUT, &group).map_err(|e| failed(("share packets", e)))?;
                if opened.is_empty() {
                    // The number that the kernel chose, for the others to join.
                    let new: libc::c_int =
                        get(&pair.rx, PACKET_FANOUT).map_err(|e| failed(("share packets", e)))?;
                    group = new & 0xffff;
                }
            }
            opened.push(pair);
        }
        Ok(Self(opened))
    }

    /// What there will have been no room for.
    pub fn losses(&self) -> Losses {
        Losses::new(self.0.iter().map(|pair| &pair.rx))
    }

    /// Receiving and transmitting ends, one of each for each socket.
    pub fn ends(self, memory: &TapMemory) -> (Vec<PacketRx>, Vec<TapTx>) {
        let ends = self.0.into_iter().map(|Pair { rx, ring, tx }| {
            let rx = PacketRx::new(rx, ring, memory.clone());
            (rx, TapTx::new(Arc::new(tx), Behind::Socket))
        });
        ends.unzip()
    }
}

/// What could not be done, and why.
type Failed = (&'static str, io::Error);

impl Pair {
    fn open(interface: &Interface, mac: Mac) -> Result<Self, Failed> {
        let (rx, tx) = (socket()?, socket()?);
        let on: libc::c_int = 1;
        set(&rx, PACKET_IGNORE_OUTGOING, &on).map_err(|error| ("pass over what the kernel sends", error))?;
        let ring = Ring::new(&rx, usize::from(interface.mtu.get()))?;
        for (socket, option) in [(&rx, libc::SO_RCVBUFFORCE), (&tx, libc::SO_SNDBUFFORCE)] {
            set_at(socket, libc::SOL_SOCKET, option, &BUFFER)
                .map_err(|error| ("have large buffers", error))?;
        }
        let mut filter = filter(mac);
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        set_at(&rx, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
            .map_err(|error| ("have a filter", error))?;
        // Neighbour discovery asks at multicast addresses, of which the NIC knows only the kernel's own.
        let promiscuous =
            if interface.mac == mac { libc::PACKET_MR_ALLMULTI } else { libc::PACKET_MR_PROMISC };
        let membership = libc::packet_mreq {
            mr_ifindex: interface.index.cast_signed(),
            mr_type: promiscuous as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set(&rx, libc::PACKET_ADD_MEMBERSHIP, &membership)
            .map_err(|error| ("receive what is for us", error))?;
        bind(&rx, interface, libc::ETH_P_ALL).map_err(|error| ("be bound", error))?;
        bind(&tx, interface, 0).map_err(|error| ("be bound", error))?;
        Ok(Self { rx: Arc::new(rx), ring, tx })
    }
}

/// A socket whose frames have a vnet header. It receives nothing yet.
fn socket() -> Result<OwnedFd, Failed> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: takes numbers. With protocol 0 nothing is received before it is bound to another.
    let socket = Errno::result(unsafe { libc::socket(libc::AF_PACKET, kind, 0) });
    let socket = socket.map_err(|error| ("be opened", error.into()))?;
    // SAFETY: the descriptor was just opened, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let on: libc::c_int = 1;
    set(&socket, PACKET_VNET_HDR, &on).map_err(|error| ("leave checksums to us", error))?;
    Ok(socket)
}

/// Binds a socket to an interface, and to the protocol that it receives; none, if that is 0.
fn bind(socket: &OwnedFd, interface: &Interface, protocol: libc::c_int) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (protocol as u16).to_be(),
        sll_ifindex: interface.index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address lives until the call returns, which reads as many bytes as said.
    Errno::result(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    Ok(())
}

/// Lets through frames to `mac` and to several stations, without a VLAN tag (classic BPF, linux/filter.h).
fn filter(mac: Mac) -> [libc::sock_filter; 10] {
    /// `SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT`.
    const VLAN_TAG_PRESENT: u32 = (-0x1000_i32 + 48) as u32;
    const LOAD: u32 = libc::BPF_LD | libc::BPF_ABS;
    const IS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const HAS: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let line = |code: u32, k, jt, jf| libc::sock_filter { code: code as u16, jt, jf, k };
    let [a, b, c, d, e, f] = mac.octets();
    [
        line(LOAD | libc::BPF_B, VLAN_TAG_PRESENT, 0, 0),
        line(IS, 0, 0, 6),
        line(LOAD | libc::BPF_B, 0, 0, 0),
        line(HAS, 1, 5, 0),
        line(LOAD | libc::BPF_W, 0, 0, 0),
        line(IS, u32::from_be_bytes([a, b, c, d]), 0, 2),
        line(LOAD | libc::BPF_H, 4, 0, 0),
        line(IS, u16::from_be_bytes([e, f]).into(), 1, 0),
        line(RETURN, 0, 0, 0),
        line(RETURN, u32::MAX, 0, 0),
    ]
}

fn set<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    set_at(socket, libc::SOL_PACKET, option, value)
}

fn set_at<T>(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value lives until the call returns, which reads as many bytes as said; what a filter points to lives as
    // long as that, too.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), len) };
    Errno::result(result)?;
    Ok(())
}

fn get<T: FromBytes>(socket: &OwnedFd, option: libc::c_int) -> io::Result<T> {
    let mut value = T::new_zeroed();
    let mut len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: value and length live until the call returns, which writes no more than the length says, and any
    // bytes make a value.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, (&raw mut value).cast(), &raw mut len)
    };
    Errno::result(result)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a classic BPF program of this module's kind returns for a frame.
    fn passes(program: &[libc::sock_filter], frame: &[u8], tagged: bool) -> bool {
        let (mut at, mut a) = (0, 0_u32);
        loop {
            let libc::sock_filter { code, jt, jf, k } = program[at];
            let from = k as usize;
            let code = u32::from(code);
            let mut jump = 0;
            match code & 7 {
                libc::BPF_RET => return k != 0,
                libc::BPF_JMP if code & 0xf0 == libc::BPF_JSET => jump = if a & k != 0 { jt } else { jf },
                libc::BPF_JMP => jump = if a == k { jt } else { jf },
                _ if k > u32::MAX / 2 => a = tagged.into(),
                _ => {
                    let size = match code & 0x18 {
                        libc::BPF_B => 1,
                        libc::BPF_H => 2,
                        _ => 4,
                    };
                    a = frame[from..from + size].iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
                }
            }
            at += 1 + usize::from(jump);
        }
    }

    #[test]
    fn frames_for_others_and_with_a_tag_are_left_to_the_kernel() {
        let program = filter("02:00:00:00:00:07".parse().unwrap());
        for (to, tagged, expected) in [
            ([2, 0, 0, 0, 0, 7], false, true),
            ([2, 0, 0, 0, 0, 7], true, false),
            ([2, 0, 0, 0, 0, 8], false, false),
            ([2, 0, 0, 9, 0, 7], false, false),
            ([0xff; 6], false, true),
            ([0xff; 6], true, false),
            ([0x33, 0x33, 0xff, 0, 0, 1], false, true),
        ] {
            assert_eq!(passes(&program, &to, tagged), expected, "{to:?} {tagged}");
        }
    }
}
