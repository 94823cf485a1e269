//! A plugin's socket, which kubelet removes at its start and which must then come again.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use culvert_api::hash::fnv1a;
use culvert_api::value::ResourceName;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::connection::Connection;
use super::folder::identity;

/// Longest path of a Unix socket, unix(7).
const SUN_PATH_MAX: usize = 107;

/// Why a socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum BindError {
    #[error("{path}: another process serves this socket; is a second agent running?")]
    Served { path: PathBuf },
    #[error("{path}: is no socket; remove it")]
    NoSocket { path: PathBuf },
    #[error("{folder}: no such folder; is kubelet installed, and is this its device plugin folder?")]
    NoFolder { folder: PathBuf },
    #[error("{path}: cannot listen")]
    Listen { path: PathBuf, source: io::Error },
}

/// File name for a resource's socket in `folder`: readable, unless that would be too long a path.
pub(super) fn socket_name(folder: &Path, resource: &ResourceName) -> String {
    let name = format!("culvert-{}_{}.sock", resource.prefix, resource.pool);
    if folder.as_os_str().len() + 1 + name.len() <= SUN_PATH_MAX {
        return name;
    }
    format!("culvert-{:016x}.sock", fnv1a(&[name.as_bytes()]))
}

/// Removes sockets of an agent that died, for pools that may no longer exist.
pub(crate) async fn remove_stale(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|n| n.starts_with("culvert-") && n.ends_with(".sock"));
        if ours && is_socket(&entry.path()) && !is_served(&entry.path()).await {
            let removed = std::fs::remove_file(entry.path());
            tracing::debug!(socket = %entry.path().display(), ?removed, "stale");
        }
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket())
}

async fn is_served(path: &Path) -> bool {
    UnixStream::connect(path).await.is_ok()
}

/// Listens at a path and hands all connections to one server, however often the socket is made anew: connections
/// that are open outlive the socket they came through.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    connections: mpsc::Sender<io::Result<Connection>>,
    bound: Option<Bound>,
}

#[derive(Debug)]
struct Bound {
    identity: Option<(u64, u64, i64, i64)>,
    accept: JoinHandle<()>,
}

impl Socket {
    /// Nothing is bound yet; the receiver is what a server takes.
    pub(super) fn new(path: PathBuf) -> (Self, mpsc::Receiver<io::Result<Connection>>) {
        let (connections, receiver) = mpsc::channel(1);
        (Self { path, connections, bound: None }, receiver)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the socket at the path is ours.
    pub(super) fn in_place(&self) -> bool {
        self.bound
            .as_ref()
            .is_some_and(|bound| bound.identity.is_some() && bound.identity == identity(&self.path))
    }

    /// Listens at the path, over a socket that nobody serves any more.
    pub(super) async fn bind(&mut self) -> Result<(), BindError> {
        self.close();
        let path = || self.path.clone();
        if let Some(folder) = self.path.parent().filter(|folder| !folder.is_dir()) {
            return Err(BindError::NoFolder { folder: folder.to_owned() });
        }
        if std::fs::symlink_metadata(&self.path).is_ok() {
            if !is_socket(&self.path) {
                return Err(BindError::NoSocket { path: path() });
            }
            if is_served(&self.path).await {
                return Err(BindError::Served { path: path() });
            }
            std::fs::remove_file(&self.path).map_err(|source| BindError::Listen { path: path(), source })?;
        }
        let listener =
            UnixListener::bind(&self.path).map_err(|source| BindError::Listen { path: path(), source })?;
        let connections = self.connections.clone();
        let accept = tokio::spawn(accept(listener, connections));
        self.bound = Some(Bound { identity: identity(&self.path), accept });
        Ok(())
    }

    /// Stops to listen and removes the socket, if it is still ours.
    pub(super) fn close(&mut self) {
        let in_place = self.in_place();
        if let Some(bound) = self.bound.take() {
            bound.accept.abort();
        }
        if in_place && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(socket = %self.path.display(), %error, "cannot be removed");
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.close();
    }
}

async fn accept(listener: UnixListener, connections: mpsc::Sender<io::Result<Connection>>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if connections.send(Ok(stream.into())).await.is_err() {
                    return;
                }
            }
            // Out of descriptors or memory: waiting is all that can be done.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn socket_names_are_readable_until_the_path_would_be_too_long() {
        let resource = "culvert.io/tenant-a".parse().unwrap();
        let folder = Path::new("/var/lib/kubelet/device-plugins");
        assert_eq!(socket_name(folder, &resource), "culvert-culvert.io_tenant-a.sock");
        let long = format!("{}.io/{}", "x".repeat(60), "y".repeat(60)).parse().unwrap();
        let name = socket_name(folder, &long);
        assert_eq!(name.len(), 29, "{name}");
        assert_ne!(
            name,
            socket_name(folder, &format!("{}.io/{}", "x".repeat(60), "z".repeat(60)).parse().unwrap())
        );
    }

    #[tokio::test]
    async fn a_socket_of_a_dead_process_is_taken_over_and_that_of_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (mut socket, _connections) = Socket::new(path.clone());
        socket.bind().await.unwrap();
        assert!(socket.in_place());

        let (mut second, _connections) = Socket::new(path.clone());
        assert!(matches!(second.bind().await, Err(BindError::Served { .. })));
        drop(second);
        assert!(socket.in_place(), "the second must leave the first alone");
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_removed_or_replaced_socket_is_noticed_and_a_foreign_one_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.sock");
        let (mut socket, _connections) = Socket::new(path.clone());
        socket.bind().await.unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!socket.in_place());
        let _foreign = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(!socket.in_place());
        drop(socket);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.sock");
        fs::write(&path, "precious").unwrap();
        let (mut socket, _connections) = Socket::new(path.clone());
        let error = socket.bind().await.unwrap_err().to_string();
        assert!(error.ends_with("p.sock: is no socket; remove it"), "{error}");
        drop(socket);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn stale_sockets_go_and_served_or_foreign_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        drop(std::os::unix::net::UnixListener::bind(at("culvert-culvert.io_old.sock")).unwrap());
        drop(std::os::unix::net::UnixListener::bind(at("other.sock")).unwrap());
        let _live = std::os::unix::net::UnixListener::bind(at("culvert-culvert.io_live.sock")).unwrap();
        fs::write(at("culvert-file.sock"), "").unwrap();
        remove_stale(dir.path()).await;
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["culvert-culvert.io_live.sock", "culvert-file.sock", "other.sock"]);
    }
}
