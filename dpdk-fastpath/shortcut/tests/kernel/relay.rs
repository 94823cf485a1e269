//! Stands in for the fast path: it carries what opens a connection, and nothing else.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use culvert_packet::flow::{FlowKey4, Tenant};
use culvert_packet::ip::Protocol;
use culvert_shortcut::{Direction, End};

use crate::frame::Segment;
use crate::node::{EPOCH, GATEWAY, Node, Pod};

/// Source port of all tunnel packets.
const TUNNEL_PORT: u16 = 54_321;

/// The time of all that is done to slots: nothing is too old.
pub(crate) const NOW: u64 = 1;

/// Address and port.
pub(crate) type Station = (Ipv4Addr, u16);

/// TCP segments that the fast path has had.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// That open a connection.
    pub(crate) opening: usize,
    /// All others.
    pub(crate) others: Vec<Segment>,
}

/// Reads the taps of pods while `work` is done. What opens a connection is given to `open`.
pub(crate) fn relay<T>(
    taps: [&Pod; 2],
    open: impl Fn(Segment) + Sync,
    work: impl FnOnce() -> T,
) -> (T, Seen) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = Seen::default();
            while !done.load(Ordering::Relaxed) {
                let frames = taps.iter().filter_map(|pod| pod.tap.read());
                let segments: Vec<_> = frames.filter_map(|frame| Segment::parse(&frame)).collect();
                if segments.is_empty() {
                    thread::sleep(Duration::from_millis(1));
                }
                for segment in segments {
                    if segment.opens() {
                        seen.opening += 1;
                        open(segment);
                    } else {
                        seen.others.push(segment);
                    }
                }
            }
            seen
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        (result, reader.join().unwrap())
    })
}

/// Hands a segment to a pod, for `to`, as it is after the last hop.
pub(crate) fn deliver(mut segment: Segment, pod: &Pod, to: Station) {
    (segment.eth.source, segment.eth.destination) = (GATEWAY.0, pod.mac.0);
    (segment.ip.destination, segment.tcp.destination_port) = (to.0.octets(), to.1);
    segment.ip.time_to_live -= 1;
    pod.tap.write(&segment.frame());
}

/// Enters one direction of a connection: what comes `from` for `to` as `key` goes as `becomes`.
pub(crate) fn enter(
    node: &Node,
    (from, to): (End, End),
    key: (Station, Station),
    becomes: (Station, Station),
) {
    enter_of(Protocol::TCP, node, (from, to), key, becomes);
}

/// The same of another protocol.
pub(crate) fn enter_of(
    protocol: Protocol,
    node: &Node,
    (from, to): (End, End),
    key: (Station, Station),
    becomes: (Station, Station),
) {
    let flow = |(source, destination)| FlowKey4::new(Tenant::DEFAULT, protocol, source, destination);
    let direction = Direction { from, key: flow(key), becomes: flow(becomes), to, tunnel_port: TUNNEL_PORT };
    assert!(node.slots.enter(EPOCH, &direction, NOW));
}

/// Enters both directions of a connection to `service` that is served by `server`, at the node of the client.
pub(crate) fn enter_translated(
    node: &Node,
    (near, far): (End, End),
    client: Station,
    service: Station,
    server: Station,
) {
    enter(node, (near, far), (client, service), (client, server));
    enter(node, (far, near), (server, client), (service, client));
}

/// Enters both directions of a connection that is not translated.
pub(crate) fn enter_plain(node: &Node, (near, far): (End, End), client: Station, server: Station) {
    enter(node, (near, far), (client, server), (client, server));
    enter(node, (far, near), (server, client), (server, client));
}

/// Where packets went in all connections of a node since the last time: where from, where to, and the bytes.
pub(crate) fn passed(node: &Node) -> Vec<(End, End, u64)> {
    let mut all = Vec::new();
    let tell = |passed: &culvert_shortcut::Passed| all.push((passed.from, passed.to, passed.bytes));
    node.slots.review(&mut 0, usize::MAX, EPOCH, NOW, tell);
    all
}
