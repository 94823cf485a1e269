//! memif: a pod's port is memory that is shared with a program in the pod, VPP or one with DPDK's net_memif.
//!
//! The fast path listens at a socket (the server, or master), whose folder the pod has as a volume; a program that comes as
//! client, interface 0, gets memory of its own. It may go and come back. DPDK's driver connects when its port is started, and
//! does not try again by itself. Packets are copied once in each direction, with their checksums and no longer than the MTU.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use culvert_api::value::IfName;
use culvert_dpdk::Vdev;

/// Why nobody can be listened for at a socket.
#[derive(Debug, thiserror::Error)]
pub enum MemifError {
    /// No folder.
    #[error(
        "socket {socket}: its folder does not exist: make it, or mount it where culvert-fastpath runs, too"
    )]
    NoFolder {
        /// The socket.
        socket: PathBuf,
    },
    /// Somebody listens there.
    #[error("socket {socket}: another process listens there: end it, or take another path")]
    InUse {
        /// The socket.
        socket: PathBuf,
    },
    /// Something is in the way.
    #[error("socket {socket}: what is there cannot be removed")]
    NotRemoved {
        /// The socket.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The device of a port that a program finds at `socket`.
pub(super) fn device(name: &IfName, socket: &Path) -> Result<Vdev, MemifError> {
    if !socket.parent().is_some_and(Path::is_dir) {
        return Err(MemifError::NoFolder { socket: socket.to_owned() });
    }
    match UnixStream::connect(socket) {
        Ok(_) => return Err(MemifError::InUse { socket: socket.to_owned() }),
        // A listener for packets (SOCK_SEQPACKET), as memif has one.
        Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => {
            return Err(MemifError::InUse { socket: socket.to_owned() });
        }
        // That of a process that was killed.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(socket)
                .map_err(|source| MemifError::NotRemoved { socket: socket.to_owned(), source })?;
        }
        Err(_) => {}
    }
    Ok(Vdev::Memif { name: name.to_string(), socket: socket.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd as _, OwnedFd};
    use std::os::unix::net::UnixListener;

    use nix::sys::socket::AddressFamily::Unix;
    use nix::sys::socket::SockType::SeqPacket;
    use nix::sys::socket::{Backlog, SockFlag, UnixAddr, bind, listen};

    use super::*;

    #[test]
    fn the_socket_of_a_process_that_is_gone_is_replaced_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (name, socket) = ("p1".parse().unwrap(), folder.path().join("p1.sock"));
        let refusal = || device(&name, &socket).unwrap_err().to_string();
        let packets = || {
            let listener = nix::sys::socket::socket(Unix, SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
            bind(listener.as_raw_fd(), &UnixAddr::new(&socket).unwrap()).unwrap();
            listen(&listener, Backlog::new(1).unwrap()).unwrap();
            listener
        };
        let stream = || OwnedFd::from(UnixListener::bind(&socket).unwrap());
        for listener in [&packets as &dyn Fn() -> OwnedFd, &stream] {
            let listener = listener();
            assert!(
                refusal().ends_with("p1.sock: another process listens there: end it, or take another path")
            );
            drop(listener);
            device(&name, &socket).unwrap();
            assert!(!socket.exists());
        }
        let nowhere = Path::new("/nowhere/p1.sock");
        let refusal = device(&name, nowhere).unwrap_err().to_string();
        assert!(refusal.starts_with("socket /nowhere/p1.sock: its folder does not exist"), "{refusal}");
    }
}
