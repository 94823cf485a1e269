//! What the control thread does: it serves clients, and looks after what is due.

use std::pin::pin;
use std::time::{Duration, Instant};

use culvert_api::fastpath::fast_path_server::FastPathServer;
use culvert_api::frame::MAX_FRAME;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;

use super::{AppError, system};
use crate::control::{Call, ControlSocket, FastPath, Service};

/// Calls that wait while the control thread is busy.
const WAITING_CALLS: usize = 64;

/// How long clients may take to finish when the process ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// Flow-control windows of the control socket, in bytes: tables of 250,000 endpoints are sent without waiting.
const WINDOW: u32 = 16 << 20;

/// Serves clients and time, as the thread that owns the fast path, until `until` comes to an end.
///
/// # Errors
/// What `until` says, or why it could not be waited for.
pub fn serve(
    fast_path: &mut FastPath,
    socket: &ControlSocket,
    until: impl Future<Output = Result<(), AppError>>,
) -> Result<(), AppError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(system("start the control thread's runtime"))?;
    runtime.block_on(async {
        let listener = socket.listener().map_err(system("listen on the control socket"))?;
        let listener =
            tokio::net::UnixListener::from_std(listener).map_err(system("listen on the control socket"))?;
        let (service, calls) = Service::new(WAITING_CALLS);
        let service = FastPathServer::new(service)
            .max_decoding_message_size(MAX_FRAME)
            .max_encoding_message_size(MAX_FRAME);
        let stop = CancellationToken::new();
        let server = tonic::transport::Server::builder()
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .add_service(service)
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.clone().cancelled_owned());
        let server = tokio::spawn(server);
        tracing::info!("ready");
        let outcome = attend(fast_path, calls, until).await;
        stop.cancel();
        match tokio::time::timeout(FAREWELL, server).await {
            Ok(Ok(served)) => outcome.and(served.map_err(AppError::from)),
            // A client that does not hang up is cut off, and a panic of the server has been printed.
            Ok(Err(_)) | Err(_) => outcome,
        }
    })
}

/// The control thread's loop.
async fn attend(
    fast_path: &mut FastPath,
    mut calls: mpsc::Receiver<Call>,
    until: impl Future<Output = Result<(), AppError>>,
) -> Result<(), AppError> {
    let mut until = pin!(until);
    loop {
        let next = fast_path.turn(Instant::now())?;
        tokio::select! {
            outcome = &mut until => return outcome,
            call = calls.recv() => match call {
                Some(call) => call(fast_path),
                // Nobody can call any more: the server is gone.
                None => return Ok(()),
            },
            () = tokio::time::sleep_until(next.into()) => {}
        }
    }
}

/// Waits for SIGTERM or SIGINT.
pub(super) async fn told_to_stop() -> Result<(), AppError> {
    let listen = |kind| signal(kind).map_err(system("listen for signals"));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}
