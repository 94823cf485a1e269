//! The agent's own socket, for culvert-cni and culvert: frames of [`culvert_api::frame`] on a Unix stream socket that
//! only root may open.

mod listener;
mod service;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use culvert_api::agent::agent_request::Call;
use culvert_api::agent::{AgentReply, AgentRequest, Error, Progress, agent_reply};
use culvert_api::frame;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

pub use listener::{Listener, ListenerError};
pub use service::Service;

/// How long a client may take to send its request, and to take each frame of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest request, in bytes: a network configuration is a few hundred, garbage collection of a large node some 100,000.
const MAX_REQUEST: usize = 16 << 20;
/// How long after the stop calls that are under way may take.
const DRAIN: Duration = Duration::from_secs(10);

/// Answers clients until `stop`; what is under way then is finished first.
pub async fn serve(listener: Listener, service: Arc<Service>, stop: CancellationToken) {
    let calls = TaskTracker::new();
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            stream = listener.accept() => stream,
        };
        match stream {
            Ok(stream) => {
                let (service, stop) = (service.clone(), stop.clone());
                calls.spawn(async move {
                    if let Err(e) = converse(stream, &service, &stop).await {
                        debug!("client: {e}");
                    }
                });
            }
            Err(e) => {
                // Too many open files, most likely: some will be closed.
                warn!("cannot accept a client: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    calls.close();
    if timeout(DRAIN, calls.wait()).await.is_err() {
        warn!("{} calls were not finished in time", calls.len());
    }
}

/// One client: any number of calls, one after the other.
async fn converse(
    mut stream: UnixStream,
    service: &Arc<Service>,
    stop: &CancellationToken,
) -> io::Result<()> {
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            next = read(&mut stream) => next,
        };
        let request = match next {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                return answer(&mut stream, agent_reply::Result::Error(Error { message: e.to_string() }))
                    .await;
            }
            Err(e) => return Err(e),
        };
        if let Some(Call::NicWatch(_)) = request.call {
            return watch(stream, service, stop).await;
        }
        let (send, mut progress) = mpsc::unbounded_channel::<Progress>();
        // A task of its own: the call is carried through even when the client goes away.
        let service = service.clone();
        let call = tokio::spawn(async move { service.answer(request, send).await });
        while let Some(step) = progress.recv().await {
            answer(&mut stream, agent_reply::Result::Progress(step)).await?;
        }
        let result = call.await.unwrap_or_else(|e| {
            agent_reply::Result::Error(Error { message: format!("the agent failed at this call: {e}") })
        });
        answer(&mut stream, result).await?;
    }
}

/// Sends a client what happens to NICs, until one of the two goes away. A client that does not keep up is told so, and
/// hung up on: nobody shall take a list with holes for a whole one.
async fn watch(mut stream: UnixStream, service: &Service, stop: &CancellationToken) -> io::Result<()> {
    let mut events = service.nics.watch();
    answer(&mut stream, agent_reply::Result::NicEvent(service.watching())).await?;
    let mut nothing = [0; 1];
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => Err("the agent is shutting down".to_owned()),
            // It has nothing more to say: a byte is as good as hanging up.
            _ = stream.read(&mut nothing) => return Ok(()),
            event = events.recv() => match event {
                Ok(event) => Ok(event),
                Err(RecvError::Lagged(missed)) => {
                    Err(format!("{missed} events were missed, as this reader is too slow: watch anew"))
                }
                Err(RecvError::Closed) => Err("the agent is shutting down".to_owned()),
            },
        };
        match event {
            Ok(event) => answer(&mut stream, agent_reply::Result::NicEvent(event)).await?,
            Err(message) => return answer(&mut stream, agent_reply::Result::Error(Error { message })).await,
        }
    }
}

/// The next request; `None` when the client is done.
async fn read(stream: &mut UnixStream) -> io::Result<Option<AgentRequest>> {
    let mut header = [0; 4];
    match timeout(PATIENCE, stream.read_exact(&mut header)).await? {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let len = frame::decode_len(header)?;
    if len > MAX_REQUEST {
        let text =
            format!("request of {len} bytes: must be at most {MAX_REQUEST}; is this a Culvert client?");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut body = Vec::new();
    timeout(PATIENCE, stream.take(len as u64).read_to_end(&mut body)).await??;
    if body.len() < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    AgentRequest::decode(body.as_slice()).map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

async fn answer(stream: &mut UnixStream, result: agent_reply::Result) -> io::Result<()> {
    let frame = match frame::encode(&AgentReply { result: Some(result) }) {
        Ok(frame) => frame,
        Err(e) => {
            let error = agent_reply::Result::Error(Error { message: e.to_string() });
            frame::encode(&AgentReply { result: Some(error) })?
        }
    };
    timeout(PATIENCE, stream.write_all(&frame)).await?
}

#[cfg(test)]
mod tests;
