//! The short cut as the fast path tells of it and as pods see it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use culvert_api::fastpath as api;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fastpath::{BINARY, FastPath};
use crate::netns::Netns;
use crate::pods::{Pod, VIP, tables, through_the_service};
use crate::restart::wait_for_restart;
use crate::{Case, within};

/// Requests, and as many answers.
const ROUNDS: u64 = 1000;

pub(crate) fn cases() -> Vec<Case> {
    let root = |name, body| Case { name, root: true, device: None, body };
    let device = (!has_tcx()).then_some("Linux 6.6");
    vec![
        Case { device, ..root("a_decided_connection_goes_by_the_short_cut_and_is_counted", by_short_cut) },
        Case {
            device,
            ..root("a_decided_connection_goes_on_while_there_is_no_forwarder", without_forwarder)
        },
        Case {
            device,
            ..root("connections_to_a_service_are_opened_without_a_worker_and_counted", opened_by_kernel)
        },
        Case {
            device,
            ..root("what_was_opened_in_the_last_moment_of_a_forwarder_goes_on", opened_at_the_last_moment)
        },
        Case {
            device,
            ..root("connections_that_are_opened_while_tables_change_and_after_kill_9_all_succeed", changes)
        },
        Case { device, ..root("however_many_pods_there_are_the_next_forwarder_goes_on_with_all", many) },
        Case { device, ..root("a_restart_without_short_cut_removes_what_is_left_of_it", switched_off_later) },
        Case { device, ..root("a_stop_leaves_no_program_and_no_pair", stopped) },
        root("a_short_cut_that_is_switched_off_leaves_pods_alone", switched_off),
        root("without_the_capabilities_the_workers_forward_all_and_the_reason_is_told", not_permitted),
    ]
}

/// Whether the kernel is one with tcx.
pub(crate) fn has_tcx() -> bool {
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
    let talk = Talk::open(client, server);
    talk.exchange(ROUNDS);
    before_the_end();
}

/// A connection through the service.
struct Talk {
    asking: TcpStream,
    answering: TcpStream,
}

impl Talk {
    fn open(client: &Pod, server: &Pod) -> Self {
        // The connection waits until it is accepted, so that nobody waits for one that is refused.
        let listener = listen(server);
        Self::of(ask(client, Duration::from_secs(5)).unwrap(), &listener)
    }

    fn of(asking: TcpStream, listener: &TcpListener) -> Self {
        let (answering, _) = listener.accept().unwrap();
        for stream in [&asking, &answering] {
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            stream.set_nodelay(true).unwrap();
        }
        Self { asking, answering }
    }

    /// So many requests, and as many answers.
    fn exchange(&self, rounds: u64) {
        let (mut asking, mut answering) = (&self.asking, &self.answering);
        let mut received = [0; 100];
        for round in 0..rounds {
            let request = [round as u8; 100];
            asking.write_all(&request).unwrap();
            answering.read_exact(&mut received).unwrap();
            assert_eq!(received, request);
            answering.write_all(&request).unwrap();
            asking.read_exact(&mut received).unwrap();
            assert_eq!(received, request);
        }
    }

    /// Until it goes by the short cut of this pod.
    fn take_the_short_cut(&self, pod: &Pod) {
        within(10, "the connection takes the short cut", || {
            let before = counted(&pod.netns, "culvert0")[1];
            self.exchange(10);
            (counted(&pod.netns, "culvert0")[1] >= before + 10).then_some(())
        });
    }
}

fn listen(server: &Pod) -> TcpListener {
    let address: SocketAddr = format!("{}:8080", server.ipv4).parse().unwrap();
    server.netns.within(|| TcpListener::bind(address)).unwrap()
}

/// Opens a connection to the service.
fn ask(client: &Pod, patience: Duration) -> std::io::Result<TcpStream> {
    let vip: SocketAddr = format!("{VIP}:80").parse().unwrap();
    client.netns.within(|| TcpStream::connect_timeout(&vip, patience))
}

/// A fast path with a connection between two pods that goes by the short cut.
fn talking(more: &str) -> (FastPath, Pod, Pod, Talk) {
    let mut fast_path = FastPath::start_with(more);
    fast_path.replace(tables(1, &["10.244.1.3"])).unwrap();
    let (a, b) = (Pod::attach(&fast_path, "cvt-a", 2), Pod::attach(&fast_path, "cvt-b", 3));
    within(10, "both pods join", || (short_cut(&mut fast_path).pods == 2).then_some(()));
    let talk = Talk::open(&a, &b);
    talk.take_the_short_cut(&a);
    (fast_path, a, b, talk)
}

/// The pairs of a node, by name and index.
fn pairs(fast_path: &FastPath) -> Vec<String> {
    let all = fast_path.netns.ip("-o link show type veth");
    all.lines().map(|link| link.split('<').next().unwrap().to_owned()).collect()
}

fn without_forwarder() {
    let (mut fast_path, a, b, talk) = talking("hangSeconds: 0");
    let before = pairs(&fast_path);
    assert_eq!(before.len(), 2, "{before:?}");
    for (restarts, signal) in [(1, Signal::SIGKILL), (2, Signal::SIGHUP)] {
        let [keeper, forwarder] = fast_path.processes()[..] else { panic!("two processes") };
        // It stands still, and nobody ends it.
        kill(forwarder, Signal::SIGSTOP).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let sent = counted(&a.netns, "eth0")[1];
        talk.exchange(ROUNDS);
        assert_eq!(counted(&a.netns, "eth0")[1], sent, "nothing goes by the tap");
        if signal == Signal::SIGHUP {
            kill(forwarder, Signal::SIGCONT).unwrap();
            kill(keeper, signal).unwrap();
        } else {
            kill(forwarder, signal).unwrap();
        }
        let restart = wait_for_restart(&mut fast_path, restarts).restart.unwrap();
        assert_eq!((restart.ports_kept, &restart.refused[..]), (2, ""), "{restart:?}");
        within(10, "both pods go on", || (short_cut(&mut fast_path).pods == 2).then_some(()));
        assert_eq!(pairs(&fast_path), before, "they are the same");
        talk.take_the_short_cut(&a);
        assert_eq!(short_cut(&mut fast_path).slots, 2, "by what the new process has decided");
        within(10, "the one before has ended", || (fast_path.processes().len() == 2).then_some(()));
    }
    // What is true for the tables after a restart is true for what was decided before.
    kill(fast_path.processes()[1], Signal::SIGKILL).unwrap();
    wait_for_restart(&mut fast_path, 3);
    fast_path.replace(tables(2, &["10.244.1.4"])).unwrap();
    let mut asking = &talk.asking;
    let ended = asking.write_all(b"next").and_then(|()| asking.read(&mut [0; 1]));
    let kind = ended.expect_err("the endpoint is gone").kind();
    assert_eq!(kind, std::io::ErrorKind::ConnectionReset);
    assert!(a.netns.ping(&b.ipv4));
    fast_path.stop(Signal::SIGTERM);
}

fn opened_by_kernel() {
    /// Connections, one after the other.
    const OPENED: u64 = 100;
    let (mut fast_path, a, b, talk) = talking("");
    let new_flows = |fast_path: &FastPath| fast_path.counters().flows_created;
    let (before, sent) = (new_flows(&fast_path), counted(&a.netns, "eth0")[1]);
    for _ in 0..OPENED {
        Talk::open(&a, &b).exchange(1);
    }
    let by_workers = counted(&a.netns, "eth0")[1] - sent;
    // On a machine that is busy a worker may not look for some time.
    assert!(by_workers < OPENED / 2, "{by_workers} packets went by the tap");
    within(10, "all are counted", || (new_flows(&fast_path) == before + OPENED).then_some(()));
    talk.exchange(1);
    within(10, "their slots are free", || (short_cut(&mut fast_path).slots == 2).then_some(()));
    fast_path.stop(Signal::SIGTERM);
}

/// Opens a connection after the forwarder stands still, and before the kernel takes it for gone.
fn at_the_last_moment(fast_path: &FastPath, a: &Pod, b: &Pod) -> Talk {
    let forwarder = fast_path.processes()[1];
    within(30, "the kernel opens a connection while the forwarder stands still", || {
        let sent = counted(&a.netns, "eth0")[1];
        kill(forwarder, Signal::SIGSTOP).unwrap();
        let listener = listen(b);
        let asking = ask(a, Duration::from_millis(30)).ok();
        let by_kernel = asking.filter(|_| counted(&a.netns, "eth0")[1] == sent);
        if by_kernel.is_none() {
            kill(forwarder, Signal::SIGCONT).unwrap();
        }
        by_kernel.map(|asking| Talk::of(asking, &listener))
    })
}

fn opened_at_the_last_moment() {
    for more in ["", "shortCut: off\n"] {
        let (mut fast_path, a, b, first) = talking("hangSeconds: 0");
        let last = at_the_last_moment(&fast_path, &a, &b);
        let config = fast_path.directory().join("fastpath.yaml");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text + more).unwrap();
        kill(fast_path.processes()[1], Signal::SIGKILL).unwrap();
        last.exchange(10);
        let restart = wait_for_restart(&mut fast_path, 1).restart.unwrap();
        assert_eq!((restart.ports_kept, &restart.refused[..]), (2, ""), "{restart:?}");
        first.exchange(ROUNDS);
        last.exchange(ROUNDS);
        if more.is_empty() {
            within(10, "both pods go on", || (short_cut(&mut fast_path).pods == 2).then_some(()));
            last.take_the_short_cut(&a);
        }
        fast_path.stop(Signal::SIGTERM);
    }
}

/// Answers each connection to a pod with what it sends.
fn echo(server: &Pod, is_done: &AtomicBool) {
    let listener = listen(server);
    listener.set_nonblocking(true).unwrap();
    while !is_done.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_micros(100));
            continue;
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut bytes = [0; 8];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    }
}

fn changes() {
    // Less than there are connections: most of them are forgotten before the end, two seconds after their own.
    let mut fast_path = FastPath::start_with("flows: 16384");
    let endpoints = ["10.244.1.3", "10.244.1.4"];
    // A service that goes lets no earlier decision hold unseen.
    let with = |revision: u64| {
        let mut tables = tables(revision, &endpoints);
        if revision % 2 == 1 {
            let mut other = api::Service { port: 81, name: "other".into(), ..tables.services[0].clone() };
            other.backends.iter_mut().for_each(|backend| backend.port = 8081);
            tables.services.push(other);
        }
        tables
    };
    fast_path.replace(with(1)).unwrap();
    let attach = |(name, n)| Pod::attach(&fast_path, name, n);
    let [a, b, c] = [("cvt-a", 2), ("cvt-b", 3), ("cvt-c", 4)].map(attach);
    within(10, "all pods join", || (short_cut(&mut fast_path).pods == 3).then_some(()));
    let is_done = AtomicBool::new(false);
    let (opened, sent) = std::thread::scope(|scope| {
        scope.spawn(|| echo(&b, &is_done));
        scope.spawn(|| echo(&c, &is_done));
        let client = scope.spawn(|| {
            let sent = counted(&a.netns, "eth0")[1];
            let (begin, mut opened) = (Instant::now(), 0_u64);
            let talk = |number: u64| {
                let mut stream = ask(&a, Duration::from_secs(10))?;
                stream.set_read_timeout(Some(Duration::from_secs(10)))?;
                stream.write_all(&number.to_ne_bytes())?;
                let mut answer = [0; 8];
                stream.read_exact(&mut answer)?;
                Ok::<_, std::io::Error>(u64::from_ne_bytes(answer))
            };
            let mut failed = Vec::new();
            while begin.elapsed() < Duration::from_secs(6) {
                match talk(opened) {
                    Ok(answer) => assert_eq!(answer, opened),
                    Err(error) => failed.push((opened, error)),
                }
                opened += 1;
            }
            is_done.store(true, Ordering::Relaxed);
            assert!(failed.is_empty(), "{failed:?} of {opened}");
            (opened, counted(&a.netns, "eth0")[1] - sent)
        });
        let mut is_killed = false;
        for revision in 2.. {
            if client.is_finished() {
                break;
            }
            // Which fails while there is nobody.
            let _ = fast_path.replace(with(revision));
            std::thread::sleep(Duration::from_millis(20));
            if revision == 50 {
                kill(fast_path.processes()[1], Signal::SIGKILL).unwrap();
                is_killed = true;
            }
        }
        assert!(is_killed, "there were few changes");
        client.join().unwrap()
    });
    eprintln!("{opened} connections, {sent} packets by the tap");
    assert!(opened > 500, "{opened}");
    fast_path.stop(Signal::SIGTERM);
}

/// How many pods are more than a few.
const MANY: u8 = 40;

fn many() {
    let mut fast_path = FastPath::start();
    fast_path.replace(tables(1, &["10.244.1.3"])).unwrap();
    let attach = |n: u8| Pod::attach(&fast_path, &format!("cvt-{n}"), n);
    let pods: Vec<_> = (2..2 + MANY).map(attach).collect();
    let all = u32::from(MANY);
    within(60, "all pods join", || (short_cut(&mut fast_path).pods == all).then_some(()));
    let talk = Talk::open(&pods[0], &pods[1]);
    talk.take_the_short_cut(&pods[0]);
    let before = pairs(&fast_path);
    // A port between them: the others keep their numbers.
    assert!(fast_path.detach("cvt-10").unwrap());
    let forwarder = fast_path.processes()[1];
    kill(forwarder, Signal::SIGKILL).unwrap();
    let begin = Instant::now();
    within(10, "the process ends", || kill(forwarder, None).is_err().then_some(()));
    let ended = begin.elapsed();
    let restart = wait_for_restart(&mut fast_path, 1).restart.unwrap();
    assert_eq!(restart.ports_kept, all - 1, "{restart:?}");
    within(60, "all pods go on", || (short_cut(&mut fast_path).pods == all - 1).then_some(()));
    // Each of three programs would take some 10 ms, and more on a machine that is busy.
    assert!(ended < Duration::from_millis(30) * MANY.into(), "it took {ended:?} to end");
    eprintln!("{MANY} pods: ended after {ended:?}, all there after {:?}", begin.elapsed());
    let after = pairs(&fast_path);
    assert!(after.len() + 1 == before.len() && after.iter().all(|pair| before.contains(pair)), "{after:?}");
    talk.take_the_short_cut(&pods[0]);
    fast_path.stop(Signal::SIGTERM);
}

fn switched_off_later() {
    let (mut fast_path, a, b, talk) = talking("");
    let config = fast_path.directory().join("fastpath.yaml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text + "shortCut: off\n").unwrap();
    kill(fast_path.processes()[1], Signal::SIGKILL).unwrap();
    wait_for_restart(&mut fast_path, 1);
    assert_eq!(short_cut(&mut fast_path), none("switched off"));
    let sent = counted(&a.netns, "eth0")[1];
    talk.exchange(ROUNDS);
    assert!(counted(&a.netns, "eth0")[1] - sent >= ROUNDS, "all goes by the tap");
    within(10, "nothing is left", || {
        let pods = [&a, &b].iter().all(|pod| !pod.netns.ip("-o link").contains("culvert0"));
        (pods && pairs(&fast_path).is_empty()).then_some(())
    });
    within(10, "no program is left", || (programs(&fast_path) == 0).then_some(()));
    fast_path.stop(Signal::SIGTERM);
}

fn stopped() {
    let (fast_path, a, b, _talk) = talking("");
    let keeper = fast_path.processes()[0];
    assert_eq!(held(keeper), 6, "three of each pod");
    fast_path.stop(Signal::SIGTERM);
    for pod in [&a, &b] {
        let left = pod.netns.ip("-o link");
        assert!(!left.contains("culvert0") && !left.contains("eth0"), "{left}");
    }
}

/// Programs on interfaces that a process, or all of a fast path, have descriptors of.
fn held(process: Pid) -> usize {
    let all = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let is_link = |path: PathBuf| fs::read_link(path).is_ok_and(|to| to.ends_with("anon_inode:bpf_link"));
    all.filter(|entry| is_link(entry.as_ref().unwrap().path())).count()
}

fn programs(fast_path: &FastPath) -> usize {
    fast_path.processes().into_iter().map(held).sum()
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
