//! The short cut as the fast path tells of it and as pods see it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use culvert_api::fastpath as api;
use nix::sys::signal::Signal;

use crate::fastpath::{BINARY, FastPath};
use crate::netns::Netns;
use crate::pods::{Pod, VIP, tables, through_the_service};
use crate::{Case, within};

/// Requests, and as many answers.
const ROUNDS: u64 = 1000;

pub(crate) fn cases() -> Vec<Case> {
    let root = |name, body| Case { name, root: true, device: None, body };
    vec![
        Case {
            device: (!has_tcx()).then_some("Linux 6.6"),
            ..root("a_decided_connection_goes_by_the_short_cut_and_is_counted", by_short_cut)
        },
        root("a_short_cut_that_is_switched_off_leaves_pods_alone", switched_off),
        root("without_the_capabilities_the_workers_forward_all_and_the_reason_is_told", not_permitted),
    ]
}

/// Whether the kernel is one with tcx.
fn has_tcx() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(6))
}

fn short_cut(fast_path: &mut FastPath) -> api::ShortCut {
    fast_path.info().short_cut.unwrap()
}

fn by_short_cut() {
    let mut fast_path = FastPath::start();
    fast_path.replace(tables(1, &["10.244.1.3"])).unwrap();
    let (a, b) = (Pod::attach(&fast_path, "cvt-a", 2), Pod::attach(&fast_path, "cvt-b", 3));
    assert_eq!(short_cut(&mut fast_path).why_not, "");
    within(10, "both pods join", || (short_cut(&mut fast_path).pods == 2).then_some(()));
    let joined: Vec<_> = fast_path.ports().into_iter().map(|port| (port.name, port.short_cut)).collect();
    let expected = [("cvt-a", true), ("cvt-b", true), ("cvtup0", false)];
    assert_eq!(joined, expected.map(|(name, is_joined)| (name.to_owned(), is_joined)));
    assert!(!a.netns.ip("-o addr show dev culvert0").contains("inet"), "it has no address");

    let before = counted(&a.netns, "eth0");
    converse(&a, &b, || {
        let told = short_cut(&mut fast_path);
        assert_eq!((told.slots, told.slot_capacity), (2, 65_536), "one for each direction");
    });
    let after = counted(&a.netns, "eth0");
    for (direction, (before, after)) in ["rx", "tx"].into_iter().zip(before.into_iter().zip(after)) {
        assert!(after - before < ROUNDS / 2, "{direction} of eth0: {before} to {after}");
    }
    let beside = counted(&a.netns, "culvert0");
    assert!(beside.iter().all(|packets| *packets > ROUNDS / 2), "rx and tx of culvert0: {beside:?}");
    within(10, "what went by is counted", || {
        let (counters, port) = (fast_path.counters(), fast_path.port("cvt-a"));
        let counted = [counters.short_cut_packets, port.rx_packets, port.tx_packets];
        (counted.iter().all(|packets| *packets > ROUNDS)).then_some(())
    });
    let counters = fast_path.counters();
    // Headers of IP and TCP, and of most packets the 100 bytes inside.
    let each = counters.short_cut_bytes / counters.short_cut_packets;
    assert!((40..=200).contains(&each), "{each} bytes in each packet");
    let by_workers: u64 = counters.workers.iter().map(|worker| worker.packets).sum();
    assert!(by_workers < counters.short_cut_packets / 2, "{by_workers} packets came to workers");
    within(10, "the slots of what is over are free", || (short_cut(&mut fast_path).slots == 0).then_some(()));

    assert!(fast_path.detach("cvt-a").unwrap());
    assert_eq!(short_cut(&mut fast_path).pods, 1);
    assert!(!a.netns.ip("-o link").contains("culvert0"), "it goes with the port");
    fast_path.stop(Signal::SIGTERM);
    assert!(!b.netns.ip("-o link").contains("culvert0"), "and with the process");
}

/// Packets that an interface has received and sent.
fn counted(netns: &Netns, interface: &str) -> [u64; 2] {
    ["rx", "tx"].map(|direction| {
        let file = format!("/sys/class/net/{interface}/statistics/{direction}_packets");
        let said = netns.command("cat").arg(file).output().unwrap();
        String::from_utf8(said.stdout).unwrap().trim().parse().unwrap()
    })
}

/// Requests and answers through the service, a packet each, and something else before the end.
fn converse(client: &Pod, server: &Pod, before_the_end: impl FnOnce()) {
    let address: SocketAddr = format!("{}:8080", server.ipv4).parse().unwrap();
    let vip: SocketAddr = format!("{VIP}:80").parse().unwrap();
    let listener = server.netns.within(|| TcpListener::bind(address)).unwrap();
    // The connection waits until it is accepted, so that nobody waits for one that is refused.
    let mut asking =
        client.netns.within(|| TcpStream::connect_timeout(&vip, Duration::from_secs(5))).unwrap();
    let (mut answering, _) = listener.accept().unwrap();
    for stream in [&asking, &answering] {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.set_nodelay(true).unwrap();
    }
    let mut received = [0; 100];
    for round in 0..ROUNDS {
        let request = [round as u8; 100];
        asking.write_all(&request).unwrap();
        answering.read_exact(&mut received).unwrap();
        assert_eq!(received, request);
        answering.write_all(&request).unwrap();
        asking.read_exact(&mut received).unwrap();
        assert_eq!(received, request);
    }
    before_the_end();
}

fn switched_off() {
    let mut fast_path = FastPath::start_with("shortCut: off");
    assert_eq!(short_cut(&mut fast_path), none("switched off"));
    stays_away(&fast_path);
    fast_path.stop(Signal::SIGTERM);
}

fn not_permitted() {
    let mut fast_path = FastPath::launch("", |netns, config| {
        let mut command = netns.command("setpriv");
        command.args(["--bounding-set", "-sys_admin,-bpf", BINARY, "--config"]).arg(config);
        command
    });
    let why_not = short_cut(&mut fast_path).why_not;
    assert!(why_not.contains("CAP_BPF") || !has_tcx() && why_not.contains("6.6"), "{why_not}");
    assert_eq!(short_cut(&mut fast_path), none(&why_not));
    stays_away(&fast_path);
    fast_path.stop(Signal::SIGTERM);
}

fn none(why_not: &str) -> api::ShortCut {
    api::ShortCut { why_not: why_not.to_owned(), ..api::ShortCut::default() }
}

/// Pods reach each other, and have no interface but their own.
fn stays_away(fast_path: &FastPath) {
    fast_path.replace(tables(1, &["10.244.1.3"])).unwrap();
    let (a, b) = (Pod::attach(fast_path, "cvt-a", 2), Pod::attach(fast_path, "cvt-b", 3));
    through_the_service(&a, &b);
    assert!([&a, &b].iter().all(|pod| !pod.netns.ip("-o link").contains("culvert0")));
    assert!(fast_path.ports().iter().all(|port| !port.short_cut));
    assert_eq!(fast_path.counters().short_cut_packets, 0);
}
