//! Packet sockets (packet(7)): the uplink is an interface that the kernel keeps, of any NIC that it has a driver for.
//!
//! With `PACKET_VNET_HDR` a packet socket speaks as a tap does, so the transmitting end is that of a [tap](super::tap): checksums
//! that the kernel has left open are completed, and one write hands over many tunnel packets. What comes lies in a [ring], which
//! takes no call to be read. A filter in the kernel lets through
//! what is for the address of the uplink, or for several stations, and had no VLAN tag: a tagged packet would arrive without its
//! tag, as if it belonged here.
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

/// Packet sockets on one interface, which share what comes in. Each packet that has been sent tells its socket so, and with it
/// all who wait for that: those that a worker waits at send nothing.
#[derive(Debug)]
pub struct PacketSockets {
    rx: Vec<Receiver>,
    tx: Vec<OwnedFd>,
}

#[derive(Debug)]
struct Receiver {
    socket: Arc<OwnedFd>,
    ring: Ring,
}

/// When packet sockets see what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sees {
    /// First of all: one socket for each worker.
    All,
    /// What programs in the kernel that look at what an interface receives have left, such as those of the short cut: one socket
    /// for each worker and protocol.
    TheRest,
}

impl Sees {
    const fn protocols(self) -> &'static [libc::c_int] {
        match self {
            Self::All => &[libc::ETH_P_ALL],
            Self::TheRest => &[libc::ETH_P_IP, libc::ETH_P_IPV6, libc::ETH_P_ARP],
        }
    }
}

impl PacketSockets {
    /// Makes sockets for so many workers on the interface `name`, for frames to the address `mac`.
    ///
    /// # Errors
    /// When the process may make none, or the kernel is too old.
    pub fn open(
        name: &IfName,
        interface: &Interface,
        mac: Mac,
        workers: usize,
        sees: Sees,
    ) -> Result<Self, PacketSocketError> {
        let failed = |(action, source): Failed| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => PacketSocketError::NotPermitted { interface: name.clone() },
            _ => PacketSocketError::Refused { interface: name.clone(), action, source },
        };
        let filter = filter(mac, sees, mac == interface.mac);
        let mut rx = Vec::with_capacity(workers * sees.protocols().len());
        for protocol in sees.protocols() {
            rx.extend(group(interface, mac, *protocol, &filter, workers).map_err(failed)?);
        }
        let tx = (0..workers).map(|_| transmitter(interface)).collect::<Result<_, _>>().map_err(failed)?;
        Ok(Self { rx, tx })
    }

    /// What there will have been no room for.
    pub fn losses(&self) -> Losses {
        Losses::new(self.rx.iter().map(|rx| &rx.socket))
    }

    /// Receiving ends, one for each worker and then for each again if there are several protocols; and transmitting ends, one for
    /// each worker.
    pub fn ends(self, memory: &TapMemory) -> (Vec<PacketRx>, Vec<TapTx>) {
        let rx = |Receiver { socket, ring }| PacketRx::new(socket, ring, memory.clone());
        let tx = |socket| TapTx::new(Arc::new(socket), Behind::Socket);
        (self.rx.into_iter().map(rx).collect(), self.tx.into_iter().map(tx).collect())
    }
}

/// What could not be done, and why.
type Failed = (&'static str, io::Error);

/// Sockets that share what comes of a protocol.
fn group(
    interface: &Interface,
    mac: Mac,
    protocol: libc::c_int,
    filter: &[libc::sock_filter],
    sockets: usize,
) -> Result<Vec<Receiver>, Failed> {
    let mut group = FANOUT_HASH_NEW;
    let mut opened: Vec<Receiver> = Vec::with_capacity(sockets);
    for _ in 0..sockets {
        let receiver = Receiver::open(interface, mac, protocol, filter)?;
        if sockets > 1 {
            set(&receiver.socket, PACKET_FANOUT, &group).map_err(|error| ("share packets", error))?;
            if opened.is_empty() {
                // The number that the kernel chose, for the others to join.
                let new: libc::c_int =
                    get(&receiver.socket, PACKET_FANOUT).map_err(|error| ("share packets", error))?;
                group = new & 0xffff;
            }
        }
        opened.push(receiver);
    }
    Ok(opened)
}

impl Receiver {
    fn open(
        interface: &Interface,
        mac: Mac,
        protocol: libc::c_int,
        filter: &[libc::sock_filter],
    ) -> Result<Self, Failed> {
        let socket = socket()?;
        let on: libc::c_int = 1;
        set(&socket, PACKET_IGNORE_OUTGOING, &on)
            .map_err(|error| ("pass over what the kernel sends", error))?;
        let ring = Ring::new(&socket, usize::from(interface.mtu.get()))?;
        set_at(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &BUFFER)
            .map_err(|error| ("have large buffers", error))?;
        // Which the call does not write to.
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        set_at(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
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
        set(&socket, libc::PACKET_ADD_MEMBERSHIP, &membership)
            .map_err(|error| ("receive what is for us", error))?;
        bind(&socket, interface, protocol).map_err(|error| ("be bound", error))?;
        Ok(Self { socket: Arc::new(socket), ring })
    }
}

fn transmitter(interface: &Interface) -> Result<OwnedFd, Failed> {
    let socket = socket()?;
    set_at(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &BUFFER)
        .map_err(|error| ("have large buffers", error))?;
    bind(&socket, interface, 0).map_err(|error| ("be bound", error))?;
    Ok(socket)
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

/// Lets through frames to `mac` and to several stations, without a VLAN tag (classic BPF, linux/filter.h). `own` says whether
/// `mac` is that of the interface.
///
/// Where sockets see [the rest](Sees::TheRest), a tag is gone by then; but the kernel takes a frame that had one for another
/// host's (`skb_vlan_tag_present` in `__netif_receive_skb_core`). It does so with all frames to an address that no interface has,
/// of which the program that came before has left none with a tag.
fn filter(mac: Mac, sees: Sees, own: bool) -> Vec<libc::sock_filter> {
    /// `SKF_AD_OFF`, from which on a load is of what the kernel knows of the packet.
    const KNOWN: i32 = -0x1000;
    /// `SKF_AD_PKTTYPE` and `SKF_AD_VLAN_TAG_PRESENT`.
    const KIND: u32 = (KNOWN + 4) as u32;
    const VLAN_TAG_PRESENT: u32 = (KNOWN + 48) as u32;
    /// `PACKET_OTHERHOST`.
    const OTHERS: u32 = libc::PACKET_OTHERHOST as u32;
    const LOAD: u32 = libc::BPF_LD | libc::BPF_ABS;
    const IS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const HAS: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let line = |code: u32, k, jt, jf| libc::sock_filter { code: code as u16, jt, jf, k };
    let [a, b, c, d, e, f] = mac.octets();
    let (known, wrong) = match sees {
        Sees::All => (VLAN_TAG_PRESENT, 1),
        Sees::TheRest => (KIND, OTHERS),
    };
    // Nothing is wrong with an address apart.
    let unicast = if sees == Sees::TheRest && !own { u32::MAX } else { wrong };
    vec![
        line(LOAD | libc::BPF_B, 0, 0, 0),
        line(HAS, 1, 6, 0),
        line(LOAD | libc::BPF_W, 0, 0, 0),
        line(IS, u32::from_be_bytes([a, b, c, d]), 0, 6),
        line(LOAD | libc::BPF_H, 4, 0, 0),
        line(IS, u16::from_be_bytes([e, f]).into(), 0, 4),
        line(LOAD | libc::BPF_B, known, 0, 0),
        line(IS, unicast, 2, 3),
        line(LOAD | libc::BPF_B, known, 0, 0),
        line(IS, wrong, 0, 1),
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

    /// What a classic BPF program of this module's kind returns for a frame, with what the kernel knows of it: kind and tag.
    fn passes(program: &[libc::sock_filter], frame: &[u8], (kind, tagged): (u8, bool)) -> bool {
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
                _ if k == (-0x1000_i32 + 4) as u32 => a = kind.into(),
                _ if k == (-0x1000_i32 + 48) as u32 => a = tagged.into(),
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

    const HOST: u8 = libc::PACKET_HOST;
    const OTHERHOST: u8 = libc::PACKET_OTHERHOST;

    #[test]
    fn frames_for_others_and_with_a_tag_are_left_to_the_kernel() {
        let mac = "02:00:00:00:00:07".parse().unwrap();
        for own in [false, true] {
            let program = filter(mac, Sees::All, own);
            for (to, tagged, expected) in [
                ([2, 0, 0, 0, 0, 7], false, true),
                ([2, 0, 0, 0, 0, 7], true, false),
                ([2, 0, 0, 0, 0, 8], false, false),
                ([2, 0, 0, 9, 0, 7], false, false),
                ([0xff; 6], false, true),
                ([0xff; 6], true, false),
                ([0x33, 0x33, 0xff, 0, 0, 1], false, true),
            ] {
                let known = (if own { HOST } else { OTHERHOST }, tagged);
                assert_eq!(passes(&program, &to, known), expected, "{to:?} {tagged}");
            }
        }
    }

    #[test]
    fn behind_programs_a_frame_that_had_a_tag_is_told_by_whose_the_kernel_takes_it_for() {
        let mac = "02:00:00:00:00:07".parse().unwrap();
        for (own, to, kind, expected) in [
            (true, [2, 0, 0, 0, 0, 7], HOST, true),
            (true, [2, 0, 0, 0, 0, 7], OTHERHOST, false),
            // Of those with a tag none is left.
            (false, [2, 0, 0, 0, 0, 7], OTHERHOST, true),
            (false, [2, 0, 0, 0, 0, 8], OTHERHOST, false),
            (true, [2, 0, 0, 9, 0, 7], OTHERHOST, false),
            (false, [0xff; 6], libc::PACKET_BROADCAST, true),
            (false, [0xff; 6], OTHERHOST, false),
            (true, [0x33, 0x33, 0xff, 0, 0, 1], libc::PACKET_MULTICAST, true),
            (true, [0x33, 0x33, 0xff, 0, 0, 1], OTHERHOST, false),
        ] {
            let program = filter(mac, Sees::TheRest, own);
            assert_eq!(passes(&program, &to, (kind, false)), expected, "{own} {to:?} {kind}");
        }
    }
}
