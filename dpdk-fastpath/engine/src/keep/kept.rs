//! The forwarder's side.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use tokio::io::Interest;

use super::message::{Message, Occasion, Wait, Word, listening, receive, send};
use super::{Pulse, now};

/// Why a forwarder does not get what was kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The keeper is gone.
    #[error("the keeper is gone")]
    Gone,
    /// Standard input is no connection to a keeper.
    #[error("standard input is no connection to a keeper: start culvert-fastpath without --kept")]
    NoKeeper(#[source] io::Error),
}

/// What outlives a forwarder is handed over here. A cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Keep {
    socket: Option<Arc<OwnedFd>>,
    /// Whether the keeper has asked to yield, and nobody was told yet.
    asked: Arc<AtomicBool>,
    /// Whether it has said that nobody follows.
    is_last: Arc<AtomicBool>,
}

/// How long the keeper may take to let something go.
const PATIENCE: Duration = Duration::from_secs(1);

/// What another forwarder left.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// Why this one was started.
    pub occasion: Occasion,
    /// What was kept, by name.
    pub items: BTreeMap<String, Vec<OwnedFd>>,
}

impl Inheritance {
    /// Takes what was kept under this name, if that is one descriptor.
    pub fn take(&mut self, name: &str) -> Option<OwnedFd> {
        self.take_all(name).pop()
    }

    /// Takes all that was kept under this name.
    pub fn take_all(&mut self, name: &str) -> Vec<OwnedFd> {
        self.items.remove(name).unwrap_or_default()
    }

    /// How long it is since the last forwarder ended; `None` if there was none.
    pub fn gap(&self) -> Option<Duration> {
        let since = self.occasion.since;
        (since > 0).then(|| Duration::from_nanos(now().saturating_sub(since)))
    }
}

/// What the keeper wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Another forwarder takes over.
    Yield,
    /// The end: nobody follows.
    End,
    /// Nothing any more: it is gone.
    Gone,
}

impl Keep {
    /// Nobody keeps anything.
    pub fn nobody() -> Self {
        Self::default()
    }

    /// The keeper at the other end of standard input.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn by_standard_input() -> io::Result<Self> {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Self { socket: Some(Arc::new(socket)), ..Self::default() })
    }

    /// Whether anything is kept.
    pub fn is_kept(&self) -> bool {
        self.socket.is_some()
    }

    /// Waits until the keeper says go, and returns what it has kept; at once, and nothing, if there is no keeper.
    ///
    /// # Errors
    /// When it is gone.
    pub fn wait(&self) -> Result<Inheritance, KeepError> {
        let mut inheritance = Inheritance::default();
        let Some(socket) = &self.socket else { return Ok(inheritance) };
        loop {
            let message = receive(socket, Wait::Yes).map_err(KeepError::NoKeeper)?;
            match message.ok_or(KeepError::Gone)? {
                Message { word: Word::Kept(name), descriptors } => {
                    inheritance.items.insert(name, descriptors);
                }
                Message { word: Word::Go(occasion), .. } => {
                    return Ok(Inheritance { occasion, ..inheritance });
                }
                _ => {}
            }
        }
    }

    /// Has descriptors kept under a name, in place of others of that name.
    pub fn store(&self, name: &str, descriptors: &[BorrowedFd<'_>]) {
        self.say(&Word::Store(name.to_owned()), descriptors);
    }

    /// Lets nothing be kept under a name any longer.
    pub fn forget(&self, name: &str) {
        self.say(&Word::Forget(name.to_owned()), &[]);
    }

    /// The same; when this returns, the keeper has closed what it had.
    pub fn close(&self, name: &str) {
        self.forget(name);
        let Some(socket) = &self.socket else { return };
        let end = Instant::now() + PATIENCE;
        loop {
            match receive(socket, Wait::No) {
                Ok(Some(Message { word: Word::Forgotten(forgotten), .. })) if forgotten == name => return,
                Ok(Some(Message { word, .. })) => self.note(&word),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => {
                    let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
                    // Whatever comes of it, the socket is looked at again.
                    let _ = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&wait));
                }
                Ok(None) | Err(_) => {
                    tracing::warn!(name, "the keeper does not let this go");
                    return;
                }
            }
        }
    }

    /// Remembers what is not waited for now.
    fn note(&self, word: &Word) {
        match word {
            Word::Yield => self.asked.store(true, Ordering::Relaxed),
            Word::End => self.is_last.store(true, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Whether nobody will go on with what is there: the keeper has said so, or there is none.
    pub fn is_last(&self) -> bool {
        let Some(socket) = &self.socket else { return true };
        while let Ok(Some(Message { word, .. })) = receive(socket, Wait::No) {
            self.note(&word);
        }
        self.is_last.load(Ordering::Relaxed)
    }

    /// All is initialised that can be.
    pub fn warm(&self) {
        self.say(&Word::Warm, &[]);
    }

    /// From now on this shows whether they go on.
    pub fn watch(&self, pulse: &Pulse) {
        self.say(&Word::Pulse, &[pulse.as_fd()]);
    }

    /// Packets are forwarded.
    pub fn ready(&self) {
        self.say(&Word::Ready, &[]);
    }

    /// They are no longer; nothing that is kept is used any more.
    pub fn yielded(&self) {
        self.say(&Word::Yielded, &[]);
    }

    fn say(&self, word: &Word, descriptors: &[BorrowedFd<'_>]) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = send(socket, word, descriptors, Wait::Yes) {
            // Packets go on; only the next restart will find less.
            tracing::warn!(%error, ?word, "not said to the keeper");
        }
    }

    /// Waits for what the keeper wants; for ever if there is none.
    ///
    /// # Errors
    /// When the socket cannot be waited for.
    pub async fn wish(&self) -> io::Result<Wish> {
        let Some(socket) = &self.socket else { return std::future::pending().await };
        let socket = listening(socket.try_clone()?)?;
        loop {
            let next = || match self.asked.swap(false, Ordering::Relaxed) {
                true => Ok(Some(Message { word: Word::Yield, descriptors: Vec::new() })),
                false => receive(&socket, Wait::No),
            };
            match socket.async_io(Interest::READABLE, next).await {
                Ok(Some(Message { word: Word::Yield, .. })) => return Ok(Wish::Yield),
                Ok(Some(Message { word, .. })) => {
                    self.note(&word);
                    if word == Word::End {
                        return Ok(Wish::End);
                    }
                }
                Ok(None) | Err(_) => return Ok(Wish::Gone),
            }
        }
    }
}
