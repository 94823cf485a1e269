//! Watches the folder that kubelet and its plugins share.
//!
//! Kubelet's restart is told by the creation of its socket. Its inode number says nothing: ext4 gives the new file the
//! number of the old one more often than not.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use inotify::{Event, EventMask, EventStream, Inotify, WatchMask};
use tokio::sync::watch;
use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;

/// Name of kubelet's own socket.
const KUBELET_SOCKET: &str = "kubelet.sock";

/// How often the folder is looked at when inotify tells of changes, and when it cannot.
const SLOW: Duration = Duration::from_secs(10);
const FAST: Duration = Duration::from_millis(500);

/// Counts of what has happened in the folder; a reader compares them with those it has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Events {
    /// Times that kubelet's socket was created.
    pub(crate) kubelet: u64,
    /// Times that something was removed, or may have been.
    pub(crate) removals: u64,
}

/// A folder under watch.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    pub(crate) events: watch::Receiver<Events>,
}

impl Folder {
    /// Starts to watch; ends with the token. The folder may come later.
    pub(crate) fn watch(path: &Path, stop: CancellationToken) -> Self {
        let (sender, events) = watch::channel(Events::default());
        let mut watcher = Watcher {
            path: path.to_owned(),
            kubelet: identity(&path.join(KUBELET_SOCKET)),
            events: sender,
            warned: false,
        };
        tokio::spawn(async move { stop.run_until_cancelled(watcher.run()).await });
        Self { path: path.to_owned(), events }
    }

    /// Path of kubelet's socket.
    pub(crate) fn kubelet_socket(&self) -> PathBuf {
        self.path.join(KUBELET_SOCKET)
    }
}

/// Device, inode and time of creation of a file.
type Identity = (u64, u64, i64, i64);

/// What tells one socket from its successor at the same path. Sockets are not written to: the time of modification is
/// that of creation.
pub(super) fn identity(path: &Path) -> Option<Identity> {
    let about = std::fs::symlink_metadata(path).ok()?;
    Some((about.dev(), about.ino(), about.mtime(), about.mtime_nsec()))
}

struct Watcher {
    path: PathBuf,
    /// Kubelet's socket, as last seen.
    kubelet: Option<Identity>,
    events: watch::Sender<Events>,
    warned: bool,
}

impl Watcher {
    async fn run(&mut self) {
        loop {
            match self.open() {
                Ok(mut stream) => {
                    self.warned = false;
                    // Between the last look and the watch anything may have happened.
                    self.look();
                    self.follow(&mut stream).await;
                }
                Err(error) => {
                    if !self.warned {
                        tracing::warn!(folder = %self.path.display(), %error, "cannot watch the folder; looking at it every half second");
                        self.warned = true;
                    }
                    tokio::time::sleep(FAST).await;
                    self.look();
                }
            }
        }
    }

    fn open(&self) -> io::Result<EventStream<Vec<u8>>> {
        let inotify = Inotify::init()?;
        let mask = WatchMask::CREATE
            | WatchMask::MOVED_TO
            | WatchMask::DELETE
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        inotify.watches().add(&self.path, mask)?;
        inotify.into_event_stream(vec![0; 16 * 1024])
    }

    /// Returns when the folder is no longer the one that the watch was set on.
    async fn follow(&mut self, stream: &mut EventStream<Vec<u8>>) {
        let mut look = interval_at(Instant::now() + SLOW, SLOW);
        loop {
            tokio::select! {
                event = stream.next() => match event {
                    Some(Ok(event)) if !event.mask.intersects(EventMask::IGNORED | EventMask::MOVE_SELF) => self.note(&event),
                    _ => return,
                },
                _ = look.tick() => self.look(),
            }
        }
    }

    fn note(&mut self, event: &Event<std::ffi::OsString>) {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            self.look();
        } else if event.mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM) {
            self.events.send_modify(|e| e.removals += 1);
        } else if event.name.as_deref() == Some(OsStr::new(KUBELET_SOCKET)) {
            self.kubelet = identity(&self.path.join(KUBELET_SOCKET));
            self.events.send_modify(|e| e.kubelet += 1);
        }
    }

    /// Finds out without an event.
    fn look(&mut self) {
        let now = identity(&self.path.join(KUBELET_SOCKET));
        let created = now.is_some() && now != self.kubelet;
        self.kubelet = now;
        self.events.send_modify(|e| {
            e.kubelet += u64::from(created);
            e.removals += 1;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use super::*;

    async fn wait(folder: &mut Folder, what: &str, held: impl Fn(&Events) -> bool) {
        let event = tokio::time::timeout(Duration::from_secs(5), folder.events.wait_for(held)).await;
        event.unwrap_or_else(|_| panic!("not seen: {what}")).unwrap();
    }

    #[tokio::test]
    async fn kubelets_socket_is_seen_when_created_and_others_when_removed() {
        let dir = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let mut folder = Folder::watch(dir.path(), stop.clone());
        wait(&mut folder, "the first look", |e| e.removals == 1).await;

        let _plugin = UnixListener::bind(dir.path().join("plugin.sock")).unwrap();
        let _kubelet = UnixListener::bind(folder.kubelet_socket()).unwrap();
        wait(&mut folder, "kubelet.sock", |e| e.kubelet == 1).await;
        fs::remove_file(dir.path().join("plugin.sock")).unwrap();
        wait(&mut folder, "removal", |e| e.removals == 2).await;
        assert_eq!(folder.events.borrow().kubelet, 1, "other names do not count");

        fs::rename(folder.kubelet_socket(), dir.path().join("k")).unwrap();
        fs::rename(dir.path().join("k"), folder.kubelet_socket()).unwrap();
        wait(&mut folder, "kubelet.sock by rename", |e| e.kubelet == 2).await;
        stop.cancel();
    }

    #[tokio::test]
    async fn a_folder_that_comes_late_or_is_replaced_is_watched_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device-plugins");
        let stop = CancellationToken::new();
        let mut folder = Folder::watch(&path, stop.clone());
        for round in 1..=2 {
            fs::create_dir(&path).unwrap();
            let _kubelet = UnixListener::bind(folder.kubelet_socket()).unwrap();
            wait(&mut folder, "kubelet.sock", |e| e.kubelet == round).await;
            fs::remove_dir_all(&path).unwrap();
        }
        stop.cancel();
    }
}
