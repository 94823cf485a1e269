//! Opening the socket: for root only, and by one agent at a time.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// The socket, as long as it is served. Removed when this is dropped.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
    /// Held, not used: its lock tells a second agent that there is one.
    _lock: File,
}

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// Another agent serves it.
    #[error("socket {}: another culvert-agent is serving it; stop that one first, or set another socket", .0.display())]
    Taken(PathBuf),
    /// There is something else under that name.
    #[error("socket {}: the path exists and is no socket; remove it, or set another socket", .0.display())]
    Occupied(PathBuf),
    /// The kernel refused.
    #[error("socket {}: cannot {action}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path concerned.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Listener {
    /// Opens the socket at `path`. One that a dead agent left behind is replaced.
    pub fn bind(path: &Path) -> Result<Self, ListenerError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| ListenerError::Io { action, path, source }
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed("make the folder", folder))?;
        }
        let lock = lock(path)?;
        match fs::symlink_metadata(path) {
            Ok(meta) if !meta.file_type().is_socket() => {
                return Err(ListenerError::Occupied(path.to_owned()));
            }
            // An agent that does not know of the lock, or has another file system's view of it.
            Ok(_) if BlockingStream::connect(path).is_ok() => {
                return Err(ListenerError::Taken(path.to_owned()));
            }
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(failed("look at it", path)(e)),
        }
        // Under another name until nobody but root can connect, then in place of what is there, in one step.
        let new = suffixed(path, ".new");
        match fs::remove_file(&new) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed("tidy up", &new)(e)),
            _ => {}
        }
        let listener = UnixListener::bind(&new).map_err(failed("bind", &new))?;
        fs::set_permissions(&new, Permissions::from_mode(0o600)).map_err(failed("set the mode", &new))?;
        fs::rename(&new, path).map_err(failed("put it in place", path))?;
        Ok(Self { listener, path: path.to_owned(), _lock: lock })
    }

    /// The next client.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Nothing to be done about a failure: the next agent replaces what is left.
        let _ = fs::remove_file(&self.path);
    }
}

/// Takes the lock that goes with the socket. The kernel releases it when the process ends, however it ends.
fn lock(path: &Path) -> Result<File, ListenerError> {
    let path_of_lock = suffixed(path, ".lock");
    let failed = |source| ListenerError::Io { action: "lock", path: path_of_lock.clone(), source };
    let file =
        OpenOptions::new().create(true).write(true).truncate(false).open(&path_of_lock).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ListenerError::Taken(path.to_owned())),
        Err(TryLockError::Error(e)) => Err(failed(e)),
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
