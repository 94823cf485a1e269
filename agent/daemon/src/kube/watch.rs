//! Keeps a [`Folder`] current: inotify tells of changes, a rescan finds those it missed.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use inotify::{Event, EventMask, EventStream, Inotify, WatchMask};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::folder::{Look, Others};
use super::{Folder, Snapshot};

/// A file that is complete is read at once, if none was read just before. Of a burst of changes the others are read when
/// the folder has been quiet this long,
const QUIET: Duration = Duration::from_millis(10);
/// but this long after the first of them at the latest.
const LATEST: Duration = Duration::from_millis(40);
/// How often the folder is looked through for changes that inotify did not tell of: after an overflow of its queue,
/// on network file systems, or because the folder did not exist.
const RESCAN: Duration = Duration::from_secs(1);

/// Reads `folder` and sends what it holds, now and after every change, until `stop`.
pub async fn watch(folder: Folder, send: watch::Sender<Arc<Snapshot>>, stop: CancellationToken) {
    let mut source =
        Source { folder: Some(folder), ears: None, pending: Look::default(), read: Instant::now() };
    let mut rescan = interval(RESCAN);
    rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            // The first tick comes at once: it is the first complete read.
            _ = rescan.tick() => source.listen(),
            () = source.heard() => {}
        }
        if let Some(snapshot) = source.read().await {
            send.send_replace(Arc::new(snapshot));
        }
    }
}

struct Source {
    /// Absent only while a blocking task has it.
    folder: Option<Folder>,
    ears: Option<Ears>,
    /// What the next read is to look at.
    pending: Look,
    /// When the last one was done.
    read: Instant,
}

/// An inotify watch on one folder.
struct Ears {
    events: EventStream<[u8; 4096]>,
    /// Device and inode of the folder: another folder may take its place under the same name.
    folder: (u64, u64),
}

impl Source {
    /// Makes sure that inotify watches the folder that is there now, and asks for a rescan.
    fn listen(&mut self) {
        let Some(folder) = &self.folder else { return };
        self.pending.others = self.pending.others.max(Others::Settled);
        let identity = fs::metadata(folder.path()).ok().map(|m| (m.dev(), m.ino()));
        if identity.is_some() && self.ears.as_ref().map(|e| e.folder) == identity {
            return;
        }
        self.pending.others = Others::Changed;
        self.ears = identity.and_then(|id| match Ears::open(folder.path(), id) {
            Ok(ears) => Some(ears),
            Err(e) => {
                warn!("{}: cannot watch the folder, changes are found late: {e}", folder.path().display());
                None
            }
        });
    }

    /// Waits for a change and for the quiet after it. Cancelled, it loses nothing.
    async fn heard(&mut self) {
        let Some(ears) = &mut self.ears else { return std::future::pending().await };
        let mut latest = None;
        loop {
            let next = ears.events.next();
            let event = match latest {
                None => next.await,
                Some(latest) => match timeout_at((Instant::now() + QUIET).min(latest), next).await {
                    Ok(event) => event,
                    Err(_) => return,
                },
            };
            let Some(Ok(event)) = event else {
                debug!(?event, "inotify ended");
                break;
            };
            if let Some(folder) = &self.folder {
                self.pending.add(&event, folder.path());
            }
            if event.mask.intersects(EventMask::IGNORED | EventMask::MOVE_SELF | EventMask::DELETE_SELF) {
                break;
            }
            if latest.is_none() && self.pending != Look::default() {
                let complete = event.mask.intersects(EventMask::CLOSE_WRITE | EventMask::MOVED_TO);
                if complete && self.read.elapsed() > LATEST {
                    return;
                }
                latest = Some(Instant::now() + LATEST);
            }
        }
        self.ears = None;
        self.pending.others = Others::Changed;
    }

    /// Reads the folder on a thread that may block.
    async fn read(&mut self) -> Option<Snapshot> {
        let mut folder = self.folder.take()?;
        let look = std::mem::take(&mut self.pending);
        let task = tokio::task::spawn_blocking(move || {
            let snapshot = folder.read(&look);
            (folder, snapshot)
        });
        let outcome = task.await;
        self.read = Instant::now();
        match outcome {
            Ok((folder, snapshot)) => {
                self.folder = Some(folder);
                snapshot
            }
            Err(e) => match e.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is being shut down.
                Err(_) => None,
            },
        }
    }
}

impl Ears {
    fn open(path: &Path, folder: (u64, u64)) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        // Not MODIFY: a file is read when its writer has closed it.
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::CREATE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE
            | WatchMask::ATTRIB
            | WatchMask::MOVE_SELF
            | WatchMask::DELETE_SELF;
        inotify.watches().add(path, mask)?;
        Ok(Self { events: inotify.into_event_stream([0; 4096])?, folder })
    }
}

impl Look {
    /// Takes one event in.
    fn add<N: AsRef<OsStr>>(&mut self, event: &Event<N>, folder: &Path) {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            self.others = Others::Changed;
        }
        let Some(name) = event.name.as_ref().and_then(|n| n.as_ref().to_str()) else { return };
        // A mounted ConfigMap holds links through `..data`, which is renamed when the content changes.
        if name.starts_with("..") && event.mask.contains(EventMask::MOVED_TO) {
            self.others = Others::Changed;
        }
        // A file that was just created is empty or half written; only a link may be complete.
        let created = event.mask.contains(EventMask::CREATE);
        let complete =
            || fs::symlink_metadata(folder.join(name)).is_ok_and(|m| m.is_symlink() || m.nlink() > 1);
        if Folder::is_ours(name) && (!created || complete()) {
            self.named.insert(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests;
