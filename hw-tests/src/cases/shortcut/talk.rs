//! A TCP connection whose two ends the case holds.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use super::{CULVERT0, PATIENCE, PORT};
use crate::ensure;
use crate::frame::{Outcome, Stop, wait_for};
use crate::net::{Netns, pattern};

/// How long one end waits for the other: TCP tries again after a while, and then after longer ones.
const LIMIT: Duration = Duration::from_secs(30);

/// Bytes of each direction, where it does not matter how many.
const SOME: usize = 100_000;

/// The connection.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) client: TcpStream,
    pub(super) server: TcpStream,
}

/// What a pod sent and received over an interface.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packets {
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// Those of an interface; `None` if the pod has none of that name.
pub(super) fn packets(pod: &Netns, interface: &str) -> Outcome<Option<Packets>> {
    let text = pod.run(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
    let mut lines = text.lines().filter_map(|line| line.trim_start().split_once(':'));
    let Some((_, counts)) = lines.find(|(name, _)| *name == interface) else { return Ok(None) };
    let counts: Vec<u64> = counts.split_whitespace().filter_map(|count| count.parse().ok()).collect();
    // Eight figures of what was received, the first two being bytes and packets, then those of what was sent.
    match counts[..] {
        [_, received, _, _, _, _, _, _, _, sent, ..] => Ok(Some(Packets { sent, received })),
        _ => Err(Stop::fail(format!("{interface}: {text}"))),
    }
}

impl Talk {
    /// Connects to `to`, which is where `server` listens, or leads there.
    pub(super) fn open(client: &Netns, to: SocketAddr, server: &Netns) -> Outcome<Self> {
        let listener = server.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))??;
        let client = client.run(|| TcpStream::connect_timeout(&to, LIMIT))??;
        let (server, _) = listener.accept()?;
        for end in [&client, &server] {
            end.set_read_timeout(Some(LIMIT))?;
            end.set_write_timeout(Some(LIMIT))?;
            end.set_nodelay(true)?;
        }
        Ok(Self { client, server })
    }

    /// Sends `len` bytes each way at the same time, and compares each byte.
    pub(super) fn exchange(&self, len: usize) -> Outcome {
        thread::scope(|scope| {
            let there = scope.spawn(|| pass(&self.client, &self.server, len));
            let back = pass(&self.server, &self.client, len);
            join(there)?.map_err(|stop| stop.while_doing("to the server"))?;
            back.map_err(|stop| stop.while_doing("to the client"))
        })
    }

    /// Talks until the short cut carries what `pod` sends, which is one of the ends.
    pub(super) fn take_the_short_cut(&self, pod: &Netns) -> Outcome {
        let sent = || Ok::<_, Stop>(packets(pod, CULVERT0)?.map(|packets| packets.sent));
        wait_for("the connection goes by the short cut", PATIENCE, || {
            let before = sent()?;
            self.exchange(1000)?;
            Ok(before.zip(sent()?).is_some_and(|(before, after)| after > before).then_some(()))
        })
    }

    /// Talks as long as something else is done, and once more.
    pub(super) fn meanwhile(&self, work: impl FnOnce() -> Outcome) -> Outcome {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let talking = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    self.exchange(SOME)?;
                }
                self.exchange(SOME)
            });
            let worked = work();
            over.store(true, Ordering::Relaxed);
            join(talking)?.and(worked)
        })
    }

    /// Exchanges `len` bytes, and fails unless of twenty packets of each of these pods nineteen went by the short cut.
    pub(super) fn exchange_by_the_short_cut(&self, len: usize, pods: &[&Netns]) -> Outcome {
        let count = || -> Outcome<Vec<[u64; 2]>> {
            let of = |pod: &&Netns| -> Outcome<[u64; 2]> {
                let all =
                    |interface| Ok::<_, Stop>(packets(pod, interface)?.map_or(0, |p| p.sent + p.received));
                Ok([all(CULVERT0)?, all("eth0")?])
            };
            pods.iter().map(of).collect()
        };
        for pod in pods {
            self.take_the_short_cut(pod)?;
        }
        let before = count()?;
        self.exchange(len)?;
        for (pod, (before, after)) in pods.iter().zip(before.into_iter().zip(count()?)) {
            let [short, other] = [after[0] - before[0], after[1] - before[1]];
            ensure!(
                short >= 19 * other && short > (len >> 16) as u64,
                "{}: {short} packets went by the short cut, {other} by the fast path",
                pod.name()
            );
        }
        Ok(())
    }
}

/// Sends `len` bytes from one end to the other.
fn pass(mut from: &TcpStream, mut to: &TcpStream, len: usize) -> Outcome {
    let sent = pattern(len);
    thread::scope(|scope| {
        let writing = scope.spawn(|| from.write_all(&sent));
        let mut got = vec![0; len];
        let read = to.read_exact(&mut got);
        join(writing)??;
        read?;
        let changed = got.iter().zip(&sent).position(|(got, sent)| got != sent);
        ensure!(changed.is_none(), "byte {} of {len} changed on the way", changed.unwrap_or(0));
        Ok(())
    })
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> Outcome<T> {
    thread.join().map_err(|_| Stop::fail("a thread panicked"))
}
