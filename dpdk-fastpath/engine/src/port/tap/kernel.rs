//! What is said to the kernel about a tap (linux/if_tun.h, netdevice(7)).

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use culvert_api::value::{IfName, Mac};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::port::interface::request;

/// Asks the kernel to leave to us: checksums; cutting TCP over IPv4 and IPv6, with ECN; cutting UDP.
const TUN_F_CSUM: libc::c_uint = 0x01;
const TUN_F_TSO4: libc::c_uint = 0x02;
const TUN_F_TSO6: libc::c_uint = 0x04;
const TUN_F_TSO_ECN: libc::c_uint = 0x08;
/// Since Linux 6.2.
const TUN_F_USO: libc::c_uint = 0x20 | 0x40;

nix::ioctl_write_int!(tun_set_if, b'T', 202);
nix::ioctl_write_int!(tun_set_offload, b'T', 208);
nix::ioctl_write_ptr!(tun_set_header_size, b'T', 216, libc::c_int);
nix::ioctl_write_ptr!(tun_set_little_endian, b'T', 220, libc::c_int);

/// What a tap is to leave to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offloads {
    /// Checksums and cutting.
    All,
    /// Checksums only: behind it is a wire.
    Checksum,
}

/// Makes the tap `name` with this many queues, a descriptor each; it goes when the last of them is closed. Frames have a
/// header of `header` bytes in front.
pub(super) fn create(
    name: &IfName,
    header: usize,
    offloads: Offloads,
    queues: usize,
) -> io::Result<Vec<OwnedFd>> {
    let several = if queues > 1 { libc::IFF_MULTI_QUEUE } else { 0 };
    let first = attach(name, several | libc::IFF_TUN_EXCL)?;
    resume(&first, header, offloads)?;
    let mut descriptors = vec![first];
    for _ in 1..queues {
        descriptors.push(attach(name, several)?);
    }
    Ok(descriptors)
}

/// A queue of the tap `name`, which is made if there is none.
fn attach(name: &IfName, flags: libc::c_int) -> io::Result<OwnedFd> {
    let queue = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    let mut request = request(name);
    request.ifr_ifru.ifru_flags =
        (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | flags) as libc::c_short;
    // SAFETY: the request lives until the call returns; the kernel reads and writes no more than one `ifreq`. The macro
    // passes the pointer's number, as TUNSETIFF takes it.
    unsafe { tun_set_if(queue.as_raw_fd(), (&raw mut request) as libc::c_ulong) }?;
    Ok(queue.into())
}

/// Sets a tap up that is there: the same again if it was, or as this version wants it.
pub(super) fn resume(tap: &OwnedFd, header: usize, offloads: Offloads) -> io::Result<()> {
    let (header, yes) = (header as libc::c_int, 1);
    // SAFETY: both numbers live until the calls return, which read them only.
    unsafe {
        tun_set_header_size(tap.as_raw_fd(), &raw const header)?;
        tun_set_little_endian(tap.as_raw_fd(), &raw const yes)?;
    }
    offload(tap, offloads)
}

fn offload(tap: &OwnedFd, offloads: Offloads) -> io::Result<()> {
    // SAFETY: takes a number.
    let set = |flags: libc::c_uint| unsafe { tun_set_offload(tap.as_raw_fd(), flags.into()) };
    match offloads {
        Offloads::Checksum => set(TUN_F_CSUM)?,
        Offloads::All => {
            let tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
            // An older kernel refuses what it does not know.
            set(tcp | TUN_F_USO).or_else(|_| set(tcp))?
        }
    };
    Ok(())
}

/// Whether a UDP packet that is written may be one for the kernel to cut (`VIRTIO_NET_HDR_GSO_UDP_L4`, since Linux 6.2), at
/// taps and packet sockets alike. Only a tap could be asked: so it is the release that counts.
pub(super) fn cuts_udp() -> bool {
    fs::read_to_string("/proc/sys/kernel/osrelease").is_ok_and(|release| is_since(&release, (6, 2)))
}

/// Whether a release, such as `6.1.0-31-amd64`, is this version or a later one.
fn is_since(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= version)
}

/// Gives the interface its address and MTU, and sets it up.
pub(super) fn configure(name: &IfName, mac: Mac, mtu: u16) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let call = |number, request: &mut libc::ifreq| {
        // SAFETY: these calls read and write one `ifreq`, which lives until they return.
        nix::errno::Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), number, &raw mut *request) })
    };
    let mut hardware = request(name);
    let mut address = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: [0; 14] };
    for (to, octet) in address.sa_data.iter_mut().zip(mac.octets()) {
        *to = octet as libc::c_char;
    }
    hardware.ifr_ifru.ifru_hwaddr = address;
    call(libc::SIOCSIFHWADDR, &mut hardware)?;
    let mut length = request(name);
    length.ifr_ifru.ifru_mtu = mtu.into();
    call(libc::SIOCSIFMTU, &mut length)?;
    let mut flags = request(name);
    call(libc::SIOCGIFFLAGS, &mut flags)?;
    // SAFETY: SIOCGIFFLAGS has just written this member.
    flags.ifr_ifru.ifru_flags = unsafe { flags.ifr_ifru.ifru_flags } | libc::IFF_UP as libc::c_short;
    call(libc::SIOCSIFFLAGS, &mut flags)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        for (release, since) in [
            ("6.1.0-31-amd64\n", false),
            ("6.2.0", true),
            ("6.12.38+deb13-amd64", true),
            ("5.15.0-1", false),
            ("10.0-rc1", true),
            ("6.x", false),
            ("", false),
        ] {
            assert_eq!(is_since(release, (6, 2)), since, "{release}");
        }
    }
}
