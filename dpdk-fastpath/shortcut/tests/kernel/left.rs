//! What a process leaves in the kernel, and how the next one goes on with it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use culvert_shortcut::{End, Joined, Kernel, end_epoch_of, remove_left};

use crate::frame::Segment;
use crate::netns::Netns;
use crate::node::{MTU, Node, Pod, wire_mac};
use crate::relay::{deliver, enter_plain, enter_translated, relay};
use crate::uplinks::{By, PORTS, SERVER, SERVICE, Tunnelled, Uplink};
use crate::{Case, within};

/// Where servers listen.
const PORT: u16 = 8080;

/// Port of the client, and of the server.
const CLIENT: u16 = 3;
const SERVER_PORT: u16 = 4;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("what_is_decided_goes_on_as_long_as_somebody_has_the_programs", goes_on),
        ("another_process_goes_on_with_pairs_and_has_its_own_programs_and_slots", resumed),
        ("what_does_not_fit_is_made_anew", unfit),
        ("another_process_goes_on_with_an_uplink", uplink),
        ("what_nobody_goes_on_with_is_removed", removed),
        ("what_is_no_map_has_no_epoch", no_map),
    ]
}

/// What outlives a process.
struct Left {
    globals: OwnedFd,
    uplink: Option<OwnedFd>,
    /// Of the client and of the server.
    pods: [Vec<OwnedFd>; 2],
}

/// Ends a process as if it had been killed, while somebody has all that there is.
fn killed(node: Node) -> (Netns, Left) {
    let Node { netns, mut kernel, .. } = node;
    let own = |descriptor: BorrowedFd<'_>| descriptor.try_clone_to_owned().unwrap();
    let pod = |port| kernel.pod(port).into_iter().flatten().map(own).collect();
    let pods = [pod(CLIENT), pod(SERVER_PORT)];
    let left = Left { globals: own(kernel.globals().unwrap()), uplink: kernel.uplink().map(own), pods };
    kernel.outlive(true);
    (netns, left)
}

/// A connection between pods that has been decided.
struct Talk([TcpStream; 2]);

impl Talk {
    fn open(node: &Node, client: &Pod, server: &Pod) -> Self {
        let listening = (server.address, PORT);
        let bind = || TcpListener::bind(SocketAddrV4::new(listening.0, listening.1)).unwrap();
        let listener = server.netns.within(bind);
        let open = |syn: Segment| {
            let from = (client.address, syn.tcp.source_port);
            enter_plain(node, (End::Door(CLIENT), End::Door(SERVER_PORT)), from, listening);
            deliver(syn, server, listening);
        };
        let connect = || {
            let client = client.netns.within(|| TcpStream::connect(listening).unwrap());
            [client, listener.accept().unwrap().0]
        };
        let (streams, _) = relay([client, server], open, connect);
        streams.iter().for_each(|stream| stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap());
        Self(streams)
    }

    /// Lets it go by the short cut of this node, too.
    fn enter(&self, node: &Node, client: &Pod, server: &Pod) {
        let from = (client.address, self.0[0].local_addr().unwrap().port());
        enter_plain(node, (End::Door(CLIENT), End::Door(SERVER_PORT)), from, (server.address, PORT));
    }

    /// Bytes in both directions, although nobody reads taps.
    fn exchange(&self) {
        let [client, server] = &self.0;
        for (mut from, mut to) in [(client, server), (server, client)] {
            let mut received = [0; 10_000];
            from.write_all(&[7; 10_000]).unwrap();
            to.read_exact(&mut received).unwrap();
            assert!(received.iter().all(|byte| *byte == 7));
        }
    }
}

/// Segments of a connection that come to the fast path.
fn comes(pod: &Pod) -> bool {
    std::iter::from_fn(|| pod.tap.read()).any(|frame| Segment::parse(&frame).is_some())
}

/// A node with two pods that have joined, and a connection of theirs.
fn talking() -> (Node, Pod, Pod, Talk) {
    let mut node = Node::new(1);
    let (client, server) = (node.pod(CLIENT), node.pod(SERVER_PORT));
    let talk = Talk::open(&node, &client, &server);
    talk.exchange();
    (node, client, server, talk)
}

fn goes_on() {
    let (node, client, _server, talk) = talking();
    let (netns, Left { pods, .. }) = killed(node);
    talk.exchange();
    assert!(!comes(&client));
    drop(pods);
    (&talk.0[0]).write_all(b"more").unwrap();
    within("all comes to the tap", || comes(&client).then_some(()));
    assert!(netns.has("culvert-p3@"), "the pair is still there");
}

fn resumed() {
    let (node, client, server, talk) = talking();
    let pairs = |netns: &Netns| {
        let all = netns.ip("-o link show type veth");
        all.lines().map(|link| link.split('<').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let before = pairs(&node.netns);
    let (netns, Left { globals, pods, .. }) = killed(node);
    let mut node = Node::within(netns, 1, 1);
    talk.exchange();
    assert!(!node.kernel.is_joined(CLIENT) && !comes(&client));
    end_epoch_of(globals.as_fd()).unwrap();
    (&talk.0[0]).write_all(&[7; 10_000]).unwrap();
    within("all comes to the tap", || comes(&client).then_some(()));
    for ((port, pod), left) in [CLIENT, SERVER_PORT].into_iter().zip([&client, &server]).zip(pods) {
        let Node { netns, kernel, .. } = &mut node;
        let joined = netns.within(|| kernel.resume_pod(port, pod.tap.as_fd(), left));
        assert_eq!(joined.unwrap(), Joined::Joined);
        assert!(node.kernel.is_joined(port));
    }
    assert_eq!(pairs(&node.netns), before, "they are the same");
    talk.enter(&node, &client, &server);
    let mut received = [0; 10_000];
    (&talk.0[1]).read_exact(&mut received).unwrap();
    talk.exchange();
    // Of the process before nothing is needed any more.
    drop(globals);
    talk.exchange();
    let Node { netns, kernel, .. } = node;
    drop(kernel);
    assert!(!netns.has("culvert") && !client.netns.has("culvert"), "they go with the last process");
}

fn unfit() {
    type Change = fn(&Netns, &Pod, &mut [Vec<OwnedFd>; 2]);
    let changes: [(&str, Change); 7] = [
        ("nothing is left", |_, _, left| left[0].clear()),
        ("another version", |_, _, left| drop(left[0].pop())),
        ("in another order", |_, _, left| left[0].reverse()),
        ("another pod's", |_, _, left| left.reverse()),
        ("no programs", |_, _, left| left[0].fill_with(|| std::fs::File::open("/dev/null").unwrap().into())),
        ("the pair is gone", |_, pod, _| drop(pod.netns.ip("link del culvert0"))),
        ("the tap has changed", |_, pod, _| drop(pod.netns.ip("link set tap0 mtu 1500"))),
    ];
    for (what, change) in changes {
        let (node, client, server, talk) = talking();
        let (netns, Left { globals, mut pods, .. }) = killed(node);
        end_epoch_of(globals.as_fd()).unwrap();
        change(&netns, &client, &mut pods);
        let mut node = Node::within(netns, 1, 4096);
        for ((port, pod), left) in [CLIENT, SERVER_PORT].into_iter().zip([&client, &server]).zip(pods) {
            let Node { netns, kernel, .. } = &mut node;
            let joined = netns.within(|| kernel.resume_pod(port, pod.tap.as_fd(), left));
            assert_eq!(joined.unwrap(), Joined::Joined, "{what}");
        }
        talk.enter(&node, &client, &server);
        talk.exchange();
    }
}

fn uplink() {
    let Uplink { node, pod, tap, at_uplink, in_pod } = Uplink::new();
    let (netns, Left { globals, uplink, pods, .. }) = killed(node);
    let uplink = uplink.unwrap();
    let there = |interface: &str| netns.within(|| Kernel::has_left_uplink(interface, &uplink));
    assert!(there("wire") && !there("lo") && !there("nope"));
    let node = Node::within(netns, 1, 4096);
    let mut connected = Uplink { node, pod, tap, at_uplink, in_pod };
    let mut segment = connected.segment(PORTS[0]);
    segment.ip.identification = 7;
    let frame = Tunnelled::default().frame(&segment);
    // The end of what is seen is what goes by the short cut as well, so that is looked at later.
    connected.tap.write(&frame);
    within("the pod has it", || connected.pod_has(7).then_some(()));
    end_epoch_of(globals.as_fd()).unwrap();
    connected.tap.write(&frame);
    within("the socket has it", || connected.socket_has(7).then_some(()));
    let Uplink { node, pod, .. } = &mut connected;
    let Node { netns, kernel, .. } = node;
    netns.within(|| kernel.resume_uplink("wire", wire_mac(1), false, uplink)).unwrap();
    let [left, _] = pods;
    assert_eq!(netns.within(|| kernel.resume_pod(3, pod.tap.as_fd(), left)).unwrap(), Joined::Joined);
    connected.node.set_way(2, MTU);
    for port in PORTS {
        let client = (connected.pod.address, port);
        enter_translated(&connected.node, (End::Door(3), End::Way(0)), client, SERVICE, SERVER);
    }
    assert_eq!(connected.seen(&frame), By::Pod);
    let Uplink { node: Node { netns: _netns, kernel, .. }, tap, at_uplink, .. } = connected;
    drop(kernel);
    tap.write(&frame);
    within("it goes with the last process", || crate::uplinks::has(&at_uplink, 7).then_some(()));
}

fn removed() {
    let (node, client, server, _talk) = talking();
    let other = Pod::new(&node, 9);
    other.netns.ip("link add culvert-p9 type veth peer name other");
    let (netns, Left { globals, pods, .. }) = killed(node);
    end_epoch_of(globals.as_fd()).unwrap();
    netns.within(|| remove_left(pods.into_iter()));
    assert!(!netns.has("culvert") && !client.netns.has("culvert") && !server.netns.has("culvert"));
    assert!(other.netns.has("culvert-p9@"));
}

fn no_map() {
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(end_epoch_of(file.as_fd()).is_err());
}
