//! The Unix socket of the control service: one live owner per path.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Why the control socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there.
    #[error("socket {path}: another culvert-fastpath serves it; stop that one, or configure another socket")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else than a socket lies there; it is left alone.
    #[error("socket {path}: exists and is no socket; remove it, or configure another path")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("socket {path}: cannot {action}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// A listening socket; its file is removed when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl ControlSocket {
    /// Listens at `path`, for the owner only (mode 0600), and creates its directory where that is missing. A socket
    /// that a killed process left behind is replaced.
    ///
    /// # Errors
    /// [`SocketError::InUse`] when a process still listens there.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let fail = |action| move |source| SocketError::Io { path: path.to_owned(), action, source };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(fail("create its directory"))?;
        }
        remove_stale(path)?;
        let listener = UnixListener::bind(path).map_err(fail("listen"))?;
        let socket = Self { path: path.to_owned(), listener };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(fail("set its mode"))?;
        socket.listener.set_nonblocking(true).map_err(fail("make it non-blocking"))?;
        Ok(socket)
    }

    /// A second handle of the listener, for the server.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(socket = %self.path.display(), %error, "the socket's file stays behind");
        }
    }
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let fail = |action| move |source| SocketError::Io { path: path.to_owned(), action, source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail("look at it")(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(socket = %path.display(), "removing the socket of a process that is gone");
            fs::remove_file(path).map_err(fail("remove the stale one"))
        }
        Err(error) => Err(fail("find out whether it is in use")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_socket_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/fp.sock");
        let first = ControlSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = ControlSocket::bind(&path).unwrap_err();
        assert!(matches!(error, SocketError::InUse { .. }), "{error}");
        UnixStream::connect(&path).unwrap();
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fp.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _socket = ControlSocket::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fp.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(ControlSocket::bind(&path).unwrap_err(), SocketError::NotASocket { .. }));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
