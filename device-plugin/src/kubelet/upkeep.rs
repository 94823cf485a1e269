//! Serves one pool and sees to it that kubelet knows: the socket is there, the plugin is registered, the list is watched.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use culvert_api::config::device_plugin::Allocation;
use culvert_api::errors::chain;
use culvert_api::kubelet::pluginregistration::registration_server::RegistrationServer;
use culvert_api::kubelet::v1beta1::device_plugin_server::DevicePluginServer;
use culvert_api::value::ResourceName;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::backoff::Backoff;
use super::connection::Connection;
use super::folder::Folder;
use super::register::register;
use super::service::{FoundService, PoolService, Word};
use super::socket::{Socket, socket_name};
use crate::memory::Keeper;
use crate::plugin::Report;
use crate::pool::Pool;
use crate::publish::Publisher;

/// Kubelet asks for the list right after it has registered a plugin. Past this time it is told again.
const LIST_DEADLINE: Duration = Duration::from_secs(2);

/// A list watched for as long as this was no accident: the next attempt needs no pause.
const STABLE: Duration = Duration::from_secs(10);

/// Kubelet comes back to a socket that it has found by itself after its own restart: it is given this long.
const RENEW: Duration = Duration::from_millis(500);

/// How long the last answers may take at shutdown.
const DRAIN: Duration = Duration::from_secs(1);

/// Who makes the first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The plugin calls kubelet.
    Call,
    /// Kubelet looks for the plugin's socket.
    Found,
}

/// What one pool needs to be offered.
pub(crate) struct Offer {
    pub(crate) resource: ResourceName,
    pub(crate) pool: watch::Receiver<Arc<Pool>>,
    pub(crate) folder: Folder,
    pub(crate) way: Way,
    pub(crate) report: Report,
    pub(crate) publisher: Publisher,
    pub(crate) allocation: Allocation,
    pub(crate) keeper: Keeper,
    /// Whether the machine has been looked at.
    pub(crate) seen: watch::Receiver<bool>,
    pub(crate) stop: CancellationToken,
}

/// Serves until told to stop; the socket is gone then.
pub(crate) async fn serve(offer: Offer) {
    let Offer { resource, pool, folder, way, report, publisher, allocation, keeper, seen, stop } = offer;
    let name = socket_name(&folder.path, &resource);
    let (socket, connections) = Socket::new(folder.path.join(&name));
    let watching = Arc::new(watch::Sender::new(0));
    let word = Arc::new(watch::Sender::new(Word::Nothing));
    let service = PoolService {
        pool,
        watching: watching.clone(),
        publisher,
        allocation,
        keeper,
        seen,
        stop: stop.clone(),
    };
    let found = (way == Way::Found).then(|| FoundService {
        resource: resource.clone(),
        endpoint: socket.path().display().to_string(),
        word: word.clone(),
    });
    let mut server = tokio::spawn(run_server(service, found, connections, stop.clone()));
    let upkeep = Upkeep {
        resource,
        name,
        way,
        socket,
        folder,
        kubelet: 0,
        watching: watching.subscribe(),
        heard: word.subscribe(),
        word,
        report,
        backoff: Backoff::new(),
    };
    // At its end the socket is removed.
    stop.run_until_cancelled(upkeep.run()).await;
    if timeout(DRAIN, &mut server).await.is_err() {
        server.abort();
    }
}

async fn run_server(
    service: PoolService,
    found: Option<FoundService>,
    connections: mpsc::Receiver<io::Result<Connection>>,
    stop: CancellationToken,
) {
    let served = Server::builder()
        .add_service(DevicePluginServer::new(service))
        .add_optional_service(found.map(RegistrationServer::new))
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), stop.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "device plugin server");
    }
}

struct Upkeep {
    resource: ResourceName,
    /// File name of the socket.
    name: String,
    way: Way,
    socket: Socket,
    folder: Folder,
    /// Creations of kubelet's socket that the last registration knew of.
    kubelet: u64,
    watching: watch::Receiver<usize>,
    heard: watch::Receiver<Word>,
    word: Arc<watch::Sender<Word>>,
    report: Report,
    backoff: Backoff,
}

/// What is expected or to be done.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Register at this time.
    Register(Instant),
    /// Kubelet is to ask for the list, by this time if it was called.
    AwaitList(Option<Instant>),
    /// Kubelet watches the list, since this time.
    Watched(Instant),
    /// Make the socket anew at this time: kubelet does not look again at one that it has found before.
    Renew(Instant),
}

impl Upkeep {
    async fn run(mut self) {
        let mut step = self.first_step();
        loop {
            if !self.socket.in_place() {
                if let Err(error) = self.socket.bind().await {
                    self.wait_because(&chain(&error));
                    let pause = self.backoff.next();
                    self.pause(Instant::now() + pause).await;
                    continue;
                }
                step = self.first_step();
            }
            step = self.take(step).await;
        }
    }

    fn first_step(&self) -> Step {
        match self.way {
            Way::Call => Step::Register(Instant::now()),
            Way::Found => Step::AwaitList(None),
        }
    }

    /// Takes a step, or waits for something to happen.
    async fn take(&mut self, step: Step) -> Step {
        let restarted = self.folder.events.borrow_and_update().kubelet != self.kubelet;
        let watched = *self.watching.borrow_and_update() > 0;
        match step {
            _ if restarted && self.way == Way::Call => {
                self.backoff.reset();
                return self.register().await;
            }
            Step::Register(at) if at <= Instant::now() => return self.register().await,
            Step::AwaitList(_) | Step::Renew(_) if watched => {
                if self.report.waiting(None) {
                    tracing::info!(resource = %self.resource, "kubelet watches the list");
                }
                return Step::Watched(Instant::now());
            }
            Step::AwaitList(Some(deadline)) if deadline <= Instant::now() => {
                let seconds = LIST_DEADLINE.as_secs();
                self.wait_because(&format!(
                    "registered, but kubelet has not asked for the list in {seconds} s"
                ));
                return self.again();
            }
            Step::AwaitList(None) => {
                let word = self.heard.borrow_and_update().clone();
                match word {
                    Word::Nothing => self
                        .wait_because(&format!("kubelet has not yet found {}", self.socket.path().display())),
                    Word::Registered => return Step::AwaitList(Some(Instant::now() + LIST_DEADLINE)),
                    Word::Refused(text) => {
                        self.wait_because(&format!("kubelet refuses {}: {text}", self.resource));
                        return self.again();
                    }
                }
            }
            Step::Watched(since) if !watched => {
                if since.elapsed() >= STABLE {
                    self.backoff.reset();
                }
                self.wait_because("kubelet has stopped to watch the list");
                return self.again();
            }
            Step::Renew(at) if at <= Instant::now() => {
                self.word.send_replace(Word::Nothing);
                self.socket.close();
                return Step::AwaitList(None);
            }
            Step::Register(_) | Step::AwaitList(Some(_)) | Step::Watched(_) | Step::Renew(_) => {}
        }
        let alarm = match step {
            Step::Register(at) | Step::Renew(at) => Some(at),
            Step::AwaitList(deadline) => deadline,
            Step::Watched(_) => None,
        };
        tokio::select! {
            _ = self.folder.events.changed() => {}
            _ = self.watching.changed() => {}
            _ = self.heard.changed() => {}
            () = wait_until(alarm) => {}
        }
        step
    }

    /// How to be known again, after a pause.
    fn again(&mut self) -> Step {
        let pause = self.backoff.next();
        match self.way {
            Way::Call => Step::Register(Instant::now() + pause),
            Way::Found => Step::Renew(Instant::now() + pause.max(RENEW)),
        }
    }

    /// Registers, unless kubelet restarts meanwhile: then the answer is worth nothing.
    async fn register(&mut self) -> Step {
        let kubelet = self.folder.events.borrow_and_update().kubelet;
        self.kubelet = kubelet;
        let mut events = self.folder.events.clone();
        let socket = self.folder.kubelet_socket();
        let outcome = tokio::select! {
            outcome = register(&socket, &self.name, &self.resource) => outcome,
            Ok(_) = events.wait_for(|e| e.kubelet != kubelet) => return Step::Register(Instant::now()),
        };
        match outcome {
            Ok(()) => Step::AwaitList(Some(Instant::now() + LIST_DEADLINE)),
            Err(error) => {
                self.wait_because(&chain(&error));
                Step::Register(Instant::now() + self.backoff.next())
            }
        }
    }

    /// Waits until `at`, or until something happens in the folder.
    async fn pause(&mut self, at: Instant) {
        tokio::select! {
            () = sleep_until(at) => {}
            _ = self.folder.events.changed() => {}
        }
    }

    fn wait_because(&self, reason: &str) {
        if self.report.waiting(Some(reason)) {
            tracing::info!(resource = %self.resource, reason, "waiting for kubelet");
        }
    }
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}
