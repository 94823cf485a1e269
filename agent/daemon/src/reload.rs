//! Configuration files, read again while the agent runs: when they change, and when SIGHUP says so.
//!
//! One [`follow`] per file. What cannot be used is refused, and what was loaded before stays in force: the part's line of
//! `culvert status` says so until the file is good again. Kubernetes replaces a mounted file by swapping a link beside it,
//! editors by renaming another file onto it: the file's folder is watched, and its content compared.

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;
use inotify::{EventStream, Inotify, WatchMask};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::errors::chain;
use crate::health::{Reporter, State};

#[cfg(test)]
mod tests;

/// A file that is written in several pieces is read when it has been quiet this long.
const QUIET: Duration = Duration::from_millis(50);
/// How often the file is looked at for changes that inotify did not tell of: behind a link to another folder, on network
/// file systems.
const RESCAN: Duration = Duration::from_secs(2);

/// Reads `file` with `read` after every change and after SIGHUP, and hands what it says to `accept`, until `stop`. Both may
/// refuse it; what `accept` has to say of it otherwise is added to the line. What is in force at the beginning was made of `loaded`, the file's text; the same text again is no news,
/// except after SIGHUP.
///
/// `accept` usually sends to a [`tokio::sync::watch`] channel, which the owner of the configuration listens to.
pub async fn follow<T, E, F>(
    file: PathBuf,
    loaded: String,
    read: impl Fn(&str) -> Result<T, E>,
    mut accept: impl FnMut(T) -> F,
    health: Reporter,
    stop: CancellationToken,
) where
    E: Error,
    F: Future<Output = Result<String, String>>,
{
    let mut changes = Changes::of(&file);
    let mut last = Ok(loaded);
    health.set(State::Ok, file.display().to_string());
    loop {
        let asked = tokio::select! {
            () = stop.cancelled() => return,
            asked = changes.next() => asked,
        };
        let text = fs::read_to_string(&file).map_err(|e| e.to_string());
        if text == last && !asked {
            continue;
        }
        let outcome = match &text {
            Err(reason) => Err(format!("cannot be read: {reason}")),
            Ok(text) => match read(text) {
                Err(e) => Err(chain(&e)),
                Ok(value) => accept(value).await,
            },
        };
        last = text;
        match outcome {
            Ok(note) => {
                let note = if note.is_empty() { note } else { format!("; {note}") };
                info!("{}: loaded again{note}", file.display());
                health.set(State::Ok, format!("{}{note}", file.display()));
            }
            Err(reason) => health.set(
                State::Degraded,
                format!("{}: {reason}; what was loaded before stays in force", file.display()),
            ),
        }
    }
}

/// Tells when a file may have changed.
pub(crate) struct Changes {
    folder: Option<EventStream<[u8; 4096]>>,
    hangup: Option<Signal>,
    rescan: Interval,
}

impl Changes {
    pub(crate) fn of(file: &Path) -> Self {
        let parent = file.parent().filter(|p| *p != OsStr::new("")).unwrap_or(Path::new("."));
        let folder = watch(parent)
            .map_err(|e| warn!("{}: cannot be watched, changes are found late: {e}", parent.display()));
        let hangup = signal(SignalKind::hangup()).map_err(|e| warn!("cannot listen for SIGHUP: {e}"));
        let mut rescan = interval(RESCAN);
        rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { folder: folder.ok(), hangup: hangup.ok(), rescan }
    }

    /// Waits until the file may have changed; true if SIGHUP asks to read it whether or not it has.
    pub(crate) async fn next(&mut self) -> bool {
        let Self { folder, hangup, rescan } = self;
        tokio::select! {
            heard = next(folder.as_mut(), async |f| f.next().await) => {
                // The kernel's queue was full, or the folder is gone: the rescan goes on.
                if !matches!(heard, Some(Ok(_))) {
                    *folder = None;
                }
                sleep(QUIET).await;
                false
            }
            asked = next(hangup.as_mut(), async |h| h.recv().await) => asked.is_some(),
            _ = rescan.tick() => false,
        }
    }
}

fn watch(folder: &Path) -> io::Result<EventStream<[u8; 4096]>> {
    let inotify = Inotify::init()?;
    let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::CREATE | WatchMask::DELETE;
    inotify.watches().add(folder, mask | WatchMask::ONLYDIR)?;
    inotify.into_event_stream([0; 4096])
}

/// What `source` says next; nothing ever if there is none.
async fn next<S, T>(source: Option<&mut S>, next: impl AsyncFnOnce(&mut S) -> T) -> T {
    match source {
        Some(source) => next(source).await,
        None => std::future::pending().await,
    }
}
