//! The keeper: starts forwarders, and holds what outlives them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until, timeout};

use super::backoff::Backoff;
use super::child::{Forwarder, describe};
use super::message::{Message, Occasion, Word, listening, pair};
use super::now;
use super::service_manager::ServiceManager;
use super::watch::{Watch, pause};

/// How long one may take to be given what was kept, and to yield.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether that is what a forwarder can do without: flows, tables, and programs that forward by them.
fn is_state(name: &str) -> bool {
    [crate::flow::KEPT_AS, crate::control::KEPT_TABLES].contains(&name) || crate::shortcut::is_program(name)
}

/// Why there is no keeper.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The operating system refused something that it always grants.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn system(action: &'static str) -> impl FnOnce(io::Error) -> KeeperError {
    move |source| KeeperError::System { action, source }
}

/// The keeper.
#[derive(Debug)]
pub struct Keeper {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Whether a second forwarder waits, initialised, for the first to end.
    has_standby: bool,
    /// How long a worker may stand still; zero: for ever.
    hang: Duration,
    items: BTreeMap<String, Vec<OwnedFd>>,
    manager: ServiceManager,
}

/// What happens to the forwarders.
enum Event {
    /// We are to end.
    Stop,
    /// Another version is to take over.
    Replace,
    /// The next forwarder is due.
    Due,
    /// It is time to see whether the forwarder goes on.
    Look,
    Said(Message),
    Ended(ExitStatus),
    StandbySaid(Message),
    StandbyEnded(ExitStatus),
}

impl Keeper {
    /// A keeper of forwarders that are started as this program, with `arguments`. One that stands still for as long as
    /// `hang` is killed; with zero none is.
    ///
    /// # Errors
    /// When this program's path cannot be found out.
    pub fn new(arguments: Vec<OsString>, has_standby: bool, hang: Duration) -> Result<Self, KeeperError> {
        // By its path: what lies there later is the version that a later forwarder is of.
        let program = std::env::current_exe().map_err(system("find out the path of this program"))?;
        let manager = ServiceManager::new();
        Ok(Self { program, arguments, has_standby, hang, items: BTreeMap::new(), manager })
    }

    /// Starts a forwarder, and another whenever it ends, until SIGTERM or SIGINT. Returns the exit status of the last.
    ///
    /// SIGHUP has a new forwarder take over while the present one forwards: another version, if there is one.
    ///
    /// # Errors
    /// When the operating system grants nothing at all.
    pub fn run(mut self) -> Result<u8, KeeperError> {
        self.items = self.manager.kept();
        raise_limit();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(system("start a runtime"))?.block_on(self.attend())
    }

    async fn attend(mut self) -> Result<u8, KeeperError> {
        let listen = |kind| signal(kind).map_err(system("listen for signals"));
        let (mut terminate, mut interrupt, mut hangup) = (
            listen(SignalKind::terminate())?,
            listen(SignalKind::interrupt())?,
            listen(SignalKind::hangup())?,
        );
        // What a service manager kept may be why a forwarder never gets ready.
        let mut has_been_ready = !self.items.is_empty();
        let mut backoff = Backoff::default();
        let mut occasion = Occasion::default();
        let mut active = Some(self.start("--kept", Some(&occasion)).await?);
        let mut standby: Option<Forwarder> = None;
        let mut due: Option<Instant> = None;
        let mut replacing = false;
        let mut looks = looks(self.hang);
        loop {
            let event = tokio::select! {
                _ = terminate.recv() => Event::Stop,
                _ = interrupt.recv() => Event::Stop,
                _ = hangup.recv() => Event::Replace,
                event = Forwarder::next(&mut active, Event::Said, Event::Ended) => event,
                event = Forwarder::next(&mut standby, Event::StandbySaid, Event::StandbyEnded) => event,
                () = wait_until(due) => Event::Due,
                () = next_look(&mut looks) => Event::Look,
            };
            match event {
                Event::Stop => {
                    self.manager.stopping();
                    drop(standby);
                    // Whether what the service manager has is for another one, it does not say.
                    let is_last = !self.manager.is_there();
                    return Ok(match active {
                        Some(forwarder) => forwarder.stop(is_last).await,
                        None => 0,
                    });
                }
                Event::Replace => {
                    tracing::info!(program = %self.program.display(), "a new forwarder is to take over");
                    standby = self.start_standby().await;
                    replacing = standby.is_some();
                }
                Event::Said(Message { word, descriptors }) => match word {
                    Word::Store(name) => self.store(name, descriptors),
                    Word::Forget(name) => {
                        self.forget(&name);
                        if let Some(forwarder) = &active {
                            // One that does not hear it has ended.
                            let _ = forwarder.say(&Word::Forgotten(name), &[]).await;
                        }
                    }
                    Word::Pulse => {
                        if let Some(forwarder) = &mut active {
                            forwarder.pulse = descriptors.into_iter().next();
                        }
                    }
                    Word::Ready => {
                        if let Some(forwarder) = &mut active {
                            forwarder.is_ready = true;
                            forwarder.watch.ready(forwarder.pulse.take());
                        }
                        has_been_ready = true;
                        self.manager.ready();
                        if self.has_standby && standby.is_none() {
                            standby = self.start_standby().await;
                        }
                    }
                    Word::Yielded => {
                        if let Some(mut before) = active.take() {
                            // It has nothing left that is worth an end in order, and some drivers let go of what they
                            // hold only when their process ends.
                            tokio::spawn(async move { before.child.kill().await });
                        }
                        occasion.restarts += 1;
                        occasion.since = now();
                        occasion.reason = "replaced".to_owned();
                        replacing = false;
                        active = self.successor(standby.take(), &occasion).await;
                        due = active.is_none().then(|| Instant::now() + backoff.ended(Duration::ZERO));
                    }
                    _ => {}
                },
                Event::Ended(status) => {
                    let Some(mut forwarder) = active.take() else { continue };
                    occasion.since = now();
                    for Message { word, descriptors } in forwarder.last_words() {
                        match word {
                            Word::Store(name) => self.store(name, descriptors),
                            Word::Forget(name) => self.forget(&name),
                            _ => {}
                        }
                    }
                    if !has_been_ready {
                        // It has said why.
                        return Ok(status.code().map_or(1, |code| code as u8));
                    }
                    occasion.restarts += 1;
                    occasion.reason = forwarder.hung.take().unwrap_or_else(|| describe(status));
                    replacing = false;
                    let wait = backoff.ended(forwarder.started.elapsed());
                    occasion.discarded = if backoff.is_suspicious() { self.discard() } else { String::new() };
                    tracing::error!(
                        reason = occasion.reason,
                        restarts = occasion.restarts,
                        wait_ms = wait.as_millis(),
                        "the forwarder has ended and is started again"
                    );
                    due = Some(Instant::now() + wait);
                }
                Event::Due => {
                    replacing = false;
                    active = self.successor(standby.take(), &occasion).await;
                    due = active.is_none().then(|| Instant::now() + backoff.ended(Duration::ZERO));
                }
                Event::Look => {
                    if let Some(forwarder) = &mut active {
                        forwarder.end_if_hung();
                    }
                }
                Event::StandbySaid(Message { word: Word::Warm, .. }) => {
                    if let Some(forwarder) = &mut standby {
                        forwarder.is_warm = true;
                    }
                    if let (true, Some(forwarder)) = (replacing, &active) {
                        let _ = forwarder.say(&Word::Yield, &[]).await;
                    }
                }
                Event::StandbySaid(_) => {}
                Event::StandbyEnded(status) => {
                    standby = None;
                    let reason = describe(status);
                    tracing::error!(reason, replacing, "the forwarder that was to be the next has ended");
                    replacing = false;
                }
            }
        }
    }

    /// The next forwarder: the one that waits, or a new one; `None` if it cannot be started now.
    async fn successor(&self, standby: Option<Forwarder>, occasion: &Occasion) -> Option<Forwarder> {
        if let Some(mut forwarder) = standby.filter(|forwarder| forwarder.is_warm) {
            forwarder.started = Instant::now();
            forwarder.watch = self.watch(&forwarder.child);
            self.hand_over(&forwarder, occasion).await;
            return Some(forwarder);
        }
        self.start("--kept", Some(occasion)).await.inspect_err(|error| self.tell(error)).ok()
    }

    /// One that is to be the next; `None` if it cannot be started.
    async fn start_standby(&self) -> Option<Forwarder> {
        self.start("--standby", None).await.inspect_err(|error| self.tell(error)).ok()
    }

    fn tell(&self, error: &KeeperError) {
        let error = crate::control::chain(error);
        tracing::error!(program = %self.program.display(), error, "no forwarder can be started");
    }

    async fn start(&self, part: &str, occasion: Option<&Occasion>) -> Result<Forwarder, KeeperError> {
        let (ours, theirs) = pair().map_err(system("make a socket"))?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg(part).stdin(Stdio::from(theirs));
        for variable in ServiceManager::VARIABLES {
            command.env_remove(variable);
        }
        // The terminal's Ctrl-C is for the keeper alone.
        command.process_group(0).kill_on_drop(true);
        let child = command.spawn().map_err(system("start a forwarder"))?;
        let socket = listening(ours).map_err(system("wait for a socket"))?;
        let started = Instant::now();
        let watch = self.watch(&child);
        let forwarder = Forwarder {
            child,
            socket,
            started,
            is_ready: false,
            is_warm: false,
            watch,
            pulse: None,
            hung: None,
        };
        if let Some(occasion) = occasion {
            self.hand_over(&forwarder, occasion).await;
        }
        Ok(forwarder)
    }

    fn watch(&self, child: &Child) -> Watch {
        // One that has ended has no number any more, and 0 is none.
        Watch::new(child.id().unwrap_or_default(), self.hang)
    }

    /// Gives a forwarder all that is kept. One that does not take it will end, or be ended.
    async fn hand_over(&self, forwarder: &Forwarder, occasion: &Occasion) {
        let all = async {
            for (name, descriptors) in &self.items {
                forwarder.say(&Word::Kept(name.clone()), descriptors).await?;
            }
            forwarder.say(&Word::Go(occasion.clone()), &[]).await
        };
        match timeout(PATIENCE, all).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the forwarder does not take what was kept"),
            Err(_) => {
                tracing::error!(
                    "the forwarder does not take what was kept within {PATIENCE:?}, and is ended"
                );
                forwarder.signal(Signal::SIGKILL);
            }
        }
    }

    fn store(&mut self, name: String, descriptors: Vec<OwnedFd>) {
        self.manager.store(&name, &descriptors);
        self.items.insert(name, descriptors);
    }

    fn forget(&mut self, name: &str) {
        self.manager.forget(name);
        self.items.remove(name);
    }

    /// Throws away what may be the reason why forwarders end.
    fn discard(&mut self) -> String {
        let (state, kept) = std::mem::take(&mut self.items).into_iter().partition(|(name, _)| is_state(name));
        self.items = kept;
        let state: BTreeMap<String, _> = state;
        state.keys().for_each(|name| self.manager.forget(name));
        // The kernel takes its time to take programs off interfaces. If there is no thread, it is waited for.
        let _ = thread::Builder::new().name("discard".into()).spawn(move || drop(state));
        let reason = "the forwarder ended soon after its start, several times".to_owned();
        tracing::error!(reason, "flows and tables are not kept");
        reason
    }
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// When to see whether the forwarder goes on, if a worker may not stand still for longer than that.
fn looks(hang: Duration) -> Option<Interval> {
    (!hang.is_zero()).then(|| {
        let mut looks = interval(pause(hang));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks
    })
}

async fn next_look(looks: &mut Option<Interval>) {
    match looks {
        Some(looks) => drop(looks.tick().await),
        None => std::future::pending().await,
    }
}

/// There is a descriptor for each queue of each port: as many as the system grants.
fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of descriptors stays as it is");
    }
}
