//! A forwarder, as the keeper sees it: its child, which it talks to.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::time::timeout;

use super::message::{Message, Wait, Word, receive, send};
use super::watch::Watch;

/// How long a forwarder may take to end once it is asked to.
const FAREWELL: Duration = Duration::from_secs(10);

/// A process that forwards, or is about to.
pub(super) struct Forwarder {
    pub(super) child: Child,
    pub(super) socket: UnixStream,
    pub(super) started: Instant,
    pub(super) is_ready: bool,
    pub(super) is_warm: bool,
    pub(super) watch: Watch,
    /// Its signs of life, until it is ready.
    pub(super) pulse: Option<OwnedFd>,
    /// Why it was killed by us.
    pub(super) hung: Option<String>,
}

impl Forwarder {
    /// What it says or that it ends; for ever nothing if there is none.
    pub(super) async fn next<T>(
        this: &mut Option<Self>,
        said: impl FnOnce(Message) -> T,
        ended: impl FnOnce(ExitStatus) -> T,
    ) -> T {
        let Some(Self { child, socket, .. }) = this else { return std::future::pending().await };
        tokio::select! {
            message = hear(socket) => said(message),
            // An error means that it is not our child: it was waited for, so it has ended.
            status = child.wait() => ended(status.unwrap_or_default()),
        }
    }

    pub(super) async fn say(&self, word: &Word, descriptors: &[OwnedFd]) -> io::Result<()> {
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        self.socket.async_io(Interest::WRITABLE, || send(&self.socket, word, &descriptors, Wait::No)).await
    }

    /// What it said before it ended.
    pub(super) fn last_words(&mut self) -> impl Iterator<Item = Message> {
        std::iter::from_fn(|| receive(&self.socket, Wait::No).ok().flatten())
    }

    /// Kills it if it stands still.
    pub(super) fn end_if_hung(&mut self) {
        if let (None, Some(hung)) = (&self.hung, self.watch.look()) {
            let reason = hung.to_string();
            tracing::error!(reason, "the forwarder hangs");
            self.hung = Some(reason);
            self.signal(Signal::SIGKILL);
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(id) = self.child.id() {
            // It may have ended.
            let _ = kill(Pid::from_raw(id.cast_signed()), signal);
        }
    }

    /// Has it end in order, or kills it; returns its exit status. If it is the last, it leaves nothing behind.
    pub(super) async fn stop(mut self, is_last: bool) -> u8 {
        if is_last {
            // Before the signal: one that does not hear it ends by that.
            let _ = send(&self.socket, &Word::End, &[], Wait::No);
        }
        self.signal(Signal::SIGTERM);
        match timeout(FAREWELL, self.child.wait()).await {
            Ok(Ok(status)) => status.code().map_or(1, |code| code as u8),
            Ok(Err(_)) => 1,
            Err(_) => {
                tracing::error!("the forwarder does not end within {FAREWELL:?}, and is killed");
                let _ = self.child.kill().await;
                1
            }
        }
    }
}

/// The next message; for ever nothing once the other end is gone: then it ends.
async fn hear(socket: &UnixStream) -> Message {
    match socket.async_io(Interest::READABLE, || receive(socket, Wait::No)).await {
        Ok(Some(message)) => message,
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

/// Why a forwarder ended, for people.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(number), _) => match Signal::try_from(number) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {number}"),
        },
        (None, Some(code)) => format!("exit status {code}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_how_a_forwarder_ended() {
        for (raw, said) in
            [(9, "killed by SIGKILL"), (11, "killed by SIGSEGV"), (101 << 8, "exit status 101")]
        {
            assert_eq!(describe(ExitStatus::from_raw(raw)), said);
        }
    }
}
