//! Flows of UDP.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use super::talk::packets;
use super::{CULVERT0, PATIENCE, directly, serve, start};
use crate::ensure;
use crate::frame::{Context, Outcome, Stop, wait_for};
use crate::net::{Netns, pattern, udp};
use crate::topology::{Family, POD_PORT, Topology};

/// Bytes of a datagram: none, fewer than a TCP header has more than one of UDP, and as many as fit.
const LENGTHS: [usize; 5] = [0, 1, 11, 500, 1422 - NAME];

/// What the answer has besides: the name of a pod, and a line end.
const NAME: usize = 6;

/// A client with one port, which asks servers that answer with their name and the question.
struct Client<'a> {
    pod: &'a Netns,
    socket: UdpSocket,
}

impl<'a> Client<'a> {
    fn new(pod: &'a Netns, to: SocketAddr) -> Outcome<Self> {
        let socket = pod.run(|| {
            UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
                socket.connect(to)?;
                socket.set_read_timeout(Some(Duration::from_secs(2)))?;
                Ok(socket)
            })
        })??;
        Ok(Self { pod, socket })
    }

    /// Asks once; returns the name.
    fn ask(&self, len: usize) -> Outcome<String> {
        let question = pattern(len);
        self.socket.send(&question)?;
        let mut answer = [0; 2000];
        let len = self.socket.recv(&mut answer)?;
        let name = answer[..len].strip_suffix(&question[..]).and_then(|name| name.strip_suffix(b"\n"));
        let name = name.ok_or_else(|| Stop::fail(format!("{len} bytes do not repeat the question")))?;
        String::from_utf8(name.to_vec()).map_err(Stop::from)
    }

    /// Packets that went by the short cut, and by the fast path.
    fn packets(&self) -> Outcome<[u64; 2]> {
        let of = |interface| Ok::<_, Stop>(packets(self.pod, interface)?.map_or(0, |p| p.sent + p.received));
        Ok([of(CULVERT0)?, of("eth0")?])
    }

    /// Asks until this pod's short cut carries both the question and the answer.
    fn take_the_short_cut(&self) -> Outcome {
        wait_for("datagrams go by the short cut", PATIENCE, || {
            let before = self.packets()?[0];
            self.ask(100)?;
            Ok((self.packets()?[0] >= before + 2).then_some(()))
        })
    }

    /// Asks for this server many times, and fails unless all went by the short cut.
    fn ask_by_the_short_cut(&self, server: &str) -> Outcome {
        const ROUNDS: usize = 20;
        self.take_the_short_cut()?;
        let before = self.packets()?;
        for len in LENGTHS.into_iter().cycle().take(ROUNDS * LENGTHS.len()) {
            let name = self.ask(len).map_err(|stop| stop.while_doing(&format!("{len} bytes")))?;
            ensure!(name == server, "{name} has answered instead of {server}");
        }
        let after = self.packets()?;
        let [short, other] = [after[0] - before[0], after[1] - before[1]];
        let all = 2 * (ROUNDS * LENGTHS.len()) as u64;
        // Neighbours may be asked for, too.
        ensure!(
            short >= all && other < 10,
            "of {all} datagrams {short} went by the short cut, {other} besides"
        );
        Ok(())
    }
}

pub(super) fn carried(context: &Context) -> Outcome {
    let net = start(context)?;
    let client = net.pod("client").netns();
    for server in ["pod-c", "pod-b"] {
        serve(&net, &[server], POD_PORT)?;
        let service = Topology::web_address(Family::V4);
        for to in [service, SocketAddr::new(directly(&net, server).ip(), POD_PORT)] {
            let asked = Client::new(client, to).and_then(|client| client.ask_by_the_short_cut(server));
            asked.map_err(|stop| stop.while_doing(&format!("{server} at {to}")))?;
        }
    }
    Ok(())
}

pub(super) fn moved(context: &Context) -> Outcome {
    let net = start(context)?;
    serve(&net, &["pod-c"], POD_PORT)?;
    let client = Client::new(net.pod("client").netns(), Topology::web_address(Family::V4))?;
    client.ask_by_the_short_cut("pod-c")?;
    for server in ["pod-b", "pod-c"] {
        serve(&net, &[server], POD_PORT)?;
        // What the case read of the tables is what the fast path has; its workers have it a moment later.
        sleep(Duration::from_millis(100));
        let name = client.ask(100)?;
        ensure!(name == server, "the next datagram went to {name} instead of {server}");
        client.ask_by_the_short_cut(server)?;
    }
    Ok(())
}

pub(super) fn refused(context: &Context) -> Outcome {
    let net = start(context)?;
    for server in ["pod-c", "pod-b"] {
        // Served by the case, for a while.
        serve(&net, &[server], super::PORT)?;
        let listener = net.pod(server).netns().run(|| UdpSocket::bind(("0.0.0.0", super::PORT)))??;
        let client = Client::new(net.pod("client").netns(), Topology::web_address(Family::V4))?;
        wait_for("datagrams go by the short cut", PATIENCE, || {
            let before = client.packets()?[0];
            client.socket.send(b"question")?;
            listener.recv(&mut [0; 100])?;
            Ok((client.packets()?[0] > before).then_some(()))
        })?;
        drop(listener);
        wait_for(&format!("{server} refuses a datagram"), PATIENCE, || {
            let before = client.packets()?[0];
            // It tells of an error first.
            let sent = client.socket.send(b"question").and_then(|_| client.socket.recv(&mut [0; 100]));
            let by_the_short_cut = client.packets()?[0] > before;
            match sent {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    Ok(by_the_short_cut.then_some(()))
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                other => Err(Stop::fail(format!("{server}: {other:?}"))),
            }
        })?;
    }
    Ok(())
}

pub(super) fn silent(context: &Context) -> Outcome {
    let net = start(context)?;
    serve(&net, &["pod-c"], POD_PORT)?;
    let to = Topology::web_address(Family::V4);
    let client = Client::new(net.pod("client").netns(), to)?;
    let slots =
        || Ok::<_, Stop>(net.node.control()?.info()?.short_cut.map_or(0, |short_cut| short_cut.slots));
    for _ in 0..200 {
        udp::name(client.pod, to, 40)?;
    }
    ensure!(client.packets()?[0] == 0 && slots()? == 0, "questions by one datagram each have slots");
    client.take_the_short_cut()?;
    ensure!(slots()? == 2, "{} slots for a flow", slots()?);
    wait_for("a silent flow has no slots", PATIENCE, || Ok((slots()? == 0).then_some(())))?;
    let known = |flow: &culvert_api::fastpath::Flow| flow.destination_port == u32::from(to.port());
    ensure!(net.node.control()?.flows()?.iter().any(known), "with its slots the flow went");
    client.ask_by_the_short_cut("pod-c")
}
