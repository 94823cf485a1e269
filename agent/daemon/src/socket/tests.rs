use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Instant;

use culvert_api::agent::agent_request::Call;
use culvert_api::agent::{
    NicApplyRequest, NicShowRequest, NicWatchRequest, PortListRequest, StatusRequest,
    agent_reply::Result as Answer,
};
use culvert_api::config::cni as config;
use culvert_api::fastpath::GetCountersRequest;
use tempfile::TempDir;
use tokio::sync::watch;

use super::*;
use crate::cni::Cni;
use crate::health::Health;
use crate::testing::bare_machine;

/// A served socket.
struct Bench {
    dir: TempDir,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Bench {
    async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let nics = bare_machine(dir.path()).await;
        let objects = watch::channel(Arc::default()).1;
        let stop = CancellationToken::new();
        let listener = Listener::bind(&dir.path().join("agent.sock")).unwrap();
        let service = Service {
            node: "node-a".to_owned(),
            started: Instant::now(),
            health: Health::default(),
            cni: Cni::new(None, nics.clone(), objects, config::Cni::default()),
            nics,
            fastpath: None,
            info: watch::channel(None).1,
        };
        let task = tokio::spawn(serve(listener, Arc::new(service), stop.clone()));
        Self { dir, stop, task }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).await.unwrap()
    }
}

async fn call(stream: &mut UnixStream, call: Call) -> Answer {
    stream.write_all(&frame::encode(&AgentRequest { call: Some(call) }).unwrap()).await.unwrap();
    reply(stream).await
}

async fn reply(stream: &mut UnixStream) -> Answer {
    let len = stream.read_u32().await.unwrap();
    let mut body = vec![0; len as usize];
    stream.read_exact(&mut body).await.unwrap();
    AgentReply::decode(body.as_slice()).unwrap().result.unwrap()
}

#[tokio::test]
async fn one_client_may_call_several_times_and_several_clients_at_once() {
    let bench = Bench::start().await;
    let (mut one, mut two) = (bench.connect().await, bench.connect().await);
    for stream in [&mut one, &mut two] {
        for _ in 0..2 {
            let Answer::Status(status) = call(stream, Call::Status(StatusRequest {})).await else { panic!() };
            assert_eq!(status.node, "node-a");
        }
    }
    for ask in [Call::PortList(PortListRequest {}), Call::Counters(GetCountersRequest {})] {
        let Answer::Error(error) = call(&mut one, ask).await else { panic!() };
        assert!(error.message.contains("section fastpath"), "{}", error.message);
    }
    let name = "eth9".to_owned();
    let Answer::Error(error) = call(&mut one, Call::NicShow(NicShowRequest { name })).await else { panic!() };
    assert!(error.message.contains("eth9: no PF or VF is called so"), "{}", error.message);
}

#[tokio::test]
async fn garbage_is_answered_with_an_error_and_does_no_harm_to_others() {
    let bench = Bench::start().await;
    let mut good = bench.connect().await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0, 0, 0, 2, 0xff, 0xff]] {
        let mut bad = bench.connect().await;
        bad.write_all(garbage).await.unwrap();
        assert!(matches!(reply(&mut bad).await, Answer::Error(_)), "{garbage:?}");
        assert_eq!(bad.read(&mut [0; 1]).await.unwrap_or(0), 0, "and is hung up on");
    }
    let mut empty = bench.connect().await;
    empty.write_all(&[0, 0, 0, 0]).await.unwrap();
    let Answer::Error(error) = reply(&mut empty).await else { panic!() };
    assert!(error.message.contains("does not know"), "{}", error.message);
    let mut half = bench.connect().await;
    half.write_all(&[0, 0, 0, 9, 1]).await.unwrap();
    drop(half);
    assert!(matches!(call(&mut good, Call::Status(StatusRequest {})).await, Answer::Status(_)));
}

async fn watch(bench: &Bench) -> UnixStream {
    let mut stream = bench.connect().await;
    let Answer::NicEvent(first) = call(&mut stream, Call::NicWatch(NicWatchRequest {})).await else {
        panic!()
    };
    assert_eq!(first.kind, "watching");
    stream
}

async fn apply(stream: &mut UnixStream) {
    let Answer::NicApply(_) = call(stream, Call::NicApply(NicApplyRequest {})).await else { panic!() };
}

#[tokio::test]
async fn all_who_watch_hear_what_happens_until_one_side_goes() {
    let bench = Bench::start().await;
    let (mut one, mut two, mut doer) = (watch(&bench).await, watch(&bench).await, bench.connect().await);
    for _ in 0..2 {
        apply(&mut doer).await;
        for stream in [&mut one, &mut two] {
            let Answer::NicEvent(event) = reply(stream).await else { panic!() };
            assert_eq!((event.kind.as_str(), event.state.as_str()), ("apply", "done"));
        }
    }
    drop(two);
    apply(&mut doer).await;
    assert!(matches!(reply(&mut one).await, Answer::NicEvent(_)), "another one's leaving is no matter");
    bench.stop.cancel();
    let Answer::Error(error) = reply(&mut one).await else { panic!() };
    assert!(error.message.contains("shutting down"), "{}", error.message);
    assert_eq!(one.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn who_does_not_keep_up_is_told_what_it_missed_and_hung_up_on() {
    let bench = Bench::start().await;
    let (mut slow, mut doer) = (watch(&bench).await, bench.connect().await);
    // More than the socket holds and the agent keeps.
    for _ in 0..2000 {
        apply(&mut doer).await;
    }
    let message = loop {
        match reply(&mut slow).await {
            Answer::NicEvent(_) => {}
            Answer::Error(error) => break error.message,
            other => panic!("{other:?}"),
        }
    };
    assert!(message.contains("events were missed"), "{message}");
    assert_eq!(slow.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn only_its_owner_may_open_the_socket_and_it_goes_with_the_agent() {
    let bench = Bench::start().await;
    let mode = std::fs::metadata(bench.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    bench.stop.cancel();
    bench.task.await.unwrap();
    assert!(!bench.dir.path().join("agent.sock").exists());
}

#[tokio::test]
async fn a_live_socket_is_refused_a_stale_one_replaced_and_anything_else_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("below/agent.sock");
    let first = Listener::bind(&path).unwrap();
    let error = Listener::bind(&path).unwrap_err();
    assert!(matches!(error, ListenerError::Taken(_)), "{error}");
    drop(first);

    // A listener without the lock: an agent on another machine's file system, or something that is no agent.
    let foreign = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(matches!(Listener::bind(&path).unwrap_err(), ListenerError::Taken(_)));
    drop(foreign);
    assert!(path.exists(), "stale");
    drop(Listener::bind(&path).unwrap());

    std::fs::write(&path, "precious").unwrap();
    let error = Listener::bind(&path).unwrap_err().to_string();
    assert!(error.contains("below/agent.sock") && error.contains("is no socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}
