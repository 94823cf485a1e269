//! What outlives the process that forwards.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use culvert_api::fastpath as api;
use nix::sys::signal::{Signal, kill};

use crate::fastpath::{BINARY, FastPath};
use crate::netns::Netns;
use crate::pods::{Pod, VIP, be_a_node, meet, tables};
use crate::uplinks::connected;
use crate::{Case, within};

/// The longest time without a byte that is no mistake: much more than it takes, for machines that are busy.
const GAP: Duration = Duration::from_secs(3);

pub(crate) fn cases() -> Vec<Case> {
    let root = |name, body| Case { name, root: true, device: None, body };
    vec![
        root("a_connection_outlives_kill_9_of_the_forwarder_and_so_do_tables_and_ports", || killed("")),
        root("a_standby_goes_on_where_the_forwarder_was_killed", || killed("standby: true")),
        root("a_connection_outlives_kill_9_among_many_others", || among_many("")),
        root("a_standby_goes_on_with_a_connection_among_many_others", || among_many("standby: true")),
        root("a_forwarder_that_stands_still_is_replaced_and_a_connection_outlives_that", hung),
        root("a_standby_that_stands_still_is_replaced_when_its_turn_comes", hung_standby),
        root("sighup_has_a_new_forwarder_take_over_from_one_that_forwards", replaced),
        root("an_upgrade_that_cannot_be_started_leaves_the_one_that_forwards", failed_upgrade),
        root("a_connection_over_packet_sockets_outlives_kill_9", || {
            uplink("afPacket: { interface: uplink0 }", Signal::SIGKILL);
        }),
        root("a_connection_over_packet_sockets_outlives_sighup", || {
            uplink("afPacket: { interface: uplink0 }", Signal::SIGHUP);
        }),
        root("a_connection_over_af_xdp_outlives_kill_9", || {
            uplink("afXdp: { interface: uplink0 }", Signal::SIGKILL);
        }),
        root("a_connection_over_af_xdp_outlives_sighup", || {
            uplink("afXdp: { interface: uplink0 }", Signal::SIGHUP);
        }),
        root("a_connection_over_net_tap_outlives_kill_9_once_its_interface_is_plugged_in_again", || {
            uplink("netTap: { name: cvtup0, mac: 02:00:00:00:aa:01 }", Signal::SIGKILL);
        }),
        root("a_connection_over_net_tap_outlives_sighup_once_its_interface_is_plugged_in_again", || {
            uplink("netTap: { name: cvtup0, mac: 02:00:00:00:aa:01 }", Signal::SIGHUP);
        }),
        root("udp_keeps_its_endpoint_over_a_restart", udp),
        root("flow_memory_of_another_version_is_refused_and_said_and_ports_stay", other_layout),
        root("what_ends_forwarders_again_and_again_is_thrown_away", again_and_again),
        root("the_forwarder_ends_with_its_keeper", keeper_killed),
    ]
}

fn start(more: &str) -> (FastPath, Pod, Pod) {
    let fast_path = FastPath::start_with(more);
    fast_path.replace(tables(1, &["10.244.1.3"])).unwrap();
    let (a, b) = (Pod::attach(&fast_path, "cvt-a", 2), Pod::attach(&fast_path, "cvt-b", 3));
    (fast_path, a, b)
}

/// Waits for a forwarder other than those before.
pub(crate) fn wait_for_restart(fast_path: &mut FastPath, restarts: u32) -> api::Info {
    within(60, "a new forwarder answers", || {
        let info = fast_path.try_info()?;
        let restart = info.restart.as_ref()?;
        assert!(restart.restarts <= restarts, "once more than {restarts} times: {restart:?}");
        (restart.restarts == restarts).then_some(info)
    })
}

/// Waits until that one has taken over so many flows.
fn wait_for_flows(fast_path: &mut FastPath, restarts: u32, flows: u64) -> api::Info {
    wait_for_restart(fast_path, restarts);
    within(60, "flows are taken over", || {
        let info = fast_path.try_info()?;
        // The workers' counters follow a moment later.
        (info.restart.as_ref()?.flows_kept >= flows && info.flows >= flows).then_some(info)
    })
}

/// Sets the flag however the case ends, so that threads end that look at it.
pub(crate) struct Stopper<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A connection through the Service whose server sends without pause; returns the longest time that the client waited
/// for bytes while `meanwhile` was at work.
pub(crate) fn longest_gap(client: &Pod, server: &Pod, meanwhile: impl FnOnce()) -> Duration {
    let listener = server.netns.within(|| TcpListener::bind((&server.ipv4[..], 8080))).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stopper = Stopper(&stop);
        let serving = scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            while !stop.load(Ordering::Relaxed) {
                stream.write_all(&[7; 1 << 14]).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let mut stream = client.netns.within(|| TcpStream::connect((VIP, 80))).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        let reading = scope.spawn(move || {
            let (mut longest, mut last, mut bytes) = (Duration::ZERO, Instant::now(), [0; 1 << 16]);
            loop {
                match stream.read(&mut bytes).expect("the connection was lost") {
                    0 => return longest,
                    read => assert!(bytes[..read].iter().all(|&byte| byte == 7)),
                }
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
        });
        std::thread::sleep(Duration::from_millis(200));
        meanwhile();
        std::thread::sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
        serving.join().unwrap();
        reading.join().unwrap()
    })
}

fn killed(more: &str) {
    let (mut fast_path, a, b) = start(more);
    let standby = more.contains("standby");
    for restarts in 1..=2 {
        if standby {
            within(20, "a standby is there", || (fast_path.processes().len() == 3).then_some(()));
            // It says nothing to others when it is ready.
            std::thread::sleep(Duration::from_secs(2));
        }
        let forwarder = fast_path.processes()[1];
        let gap = longest_gap(&a, &b, || {
            kill(forwarder, Signal::SIGKILL).unwrap();
            let info = wait_for_flows(&mut fast_path, restarts, 1);
            let restart = info.restart.unwrap();
            eprintln!("{more}: gap {} ms", restart.gap_microseconds / 1000);
            assert_eq!((info.revision, info.synced), (1, true), "the tables");
            assert_eq!((&restart.reason[..], &restart.refused[..]), ("killed by SIGKILL", ""));
            assert_eq!((restart.ports_kept, restart.flows_damaged), (2, 0), "{restart:?}");
        });
        eprintln!("{more}: without a byte for {gap:?}");
        assert!(gap < GAP, "{gap:?}");
    }
    // What is new works, too, and what was kept is not kept for ever.
    fast_path.replace(tables(2, &["10.244.1.3"])).unwrap();
    assert!(longest_gap(&a, &b, || {}) < GAP);
    assert!(a.netns.ping(&b.ipv4));
    assert!(fast_path.detach("cvt-a").unwrap() && fast_path.detach("cvt-b").unwrap());
    assert!(!a.netns.ip("-o link").contains("eth0"), "the interface has left the pod");
    fast_path.stop(Signal::SIGTERM);
}

/// Services by UDP, each with as many flows as there are source ports.
const SERVICES: u16 = 20;

/// How many other connections there are. As many as a variable of the environment says, to measure with more.
fn others() -> u64 {
    std::env::var("CULVERT_TEST_FLOWS").map_or(40_000, |flows| flows.parse().unwrap())
}

/// A connection of which the table's are taken over while its packets come.
fn among_many(more: &str) {
    let others = others();
    let (mut fast_path, a, b) = start(&format!("flows: {}\n{more}", others * 2));
    let mut all = tables(2, &["10.244.1.3"]);
    for n in 0..SERVICES {
        let mut by_udp = all.services[0].clone();
        by_udp.name = format!("udp-{n}");
        by_udp.protocol = api::Protocol::Udp.into();
        by_udp.port = (9000 + n).into();
        by_udp.backends[0].port = (9000 + n).into();
        all.services.push(by_udp);
    }
    fast_path.replace(all).unwrap();
    // Nobody reads what comes there, and nobody is told of it.
    let _sinks: Vec<_> =
        (0..SERVICES).map(|n| b.netns.within(|| UdpSocket::bind(("0.0.0.0", 9000 + n))).unwrap()).collect();
    open(&a, &mut fast_path, others);
    if more.contains("standby") {
        within(20, "a standby is there", || (fast_path.processes().len() == 3).then_some(()));
        std::thread::sleep(Duration::from_secs(2));
    }
    let forwarder = fast_path.processes()[1];
    let gap = longest_gap(&a, &b, || {
        let before = fast_path.info().flows;
        assert!(before > others, "{before} flows");
        kill(forwarder, Signal::SIGKILL).unwrap();
        let restart = wait_for_restart(&mut fast_path, 1).restart.unwrap();
        let begin = Instant::now();
        let restart = wait_for_flows(&mut fast_path, 1, others).restart.unwrap_or(restart);
        let gap = Duration::from_micros(restart.gap_microseconds);
        eprintln!("{more}: gap {gap:?}, {} flows {:?} after that", restart.flows_kept, begin.elapsed());
        assert_eq!((&restart.refused[..], restart.flows_damaged), ("", 0), "{restart:?}");
    });
    eprintln!("{more}: without a byte for {gap:?}");
    assert!(gap < GAP, "{gap:?}");
    fast_path.stop(Signal::SIGTERM);
}

/// Opens so many flows by UDP, none of which is answered. Some packets are lost, and sent again.
fn open(client: &Pod, fast_path: &mut FastPath, flows: u64) {
    let ports = flows.div_ceil(SERVICES.into()) as u16 + 64;
    assert!(ports < 60_000, "{flows} flows are too many");
    let end = Instant::now() + Duration::from_secs(60);
    for port in (2000..2000 + ports).cycle() {
        let socket = client.netns.within(|| UdpSocket::bind(("0.0.0.0", port))).unwrap();
        for n in 0..SERVICES {
            socket.send_to(b"x", (VIP, 9000 + n)).unwrap();
        }
        if port % 64 == 0 && fast_path.info().flows > flows {
            return;
        }
        assert!(Instant::now() < end, "not so many flows within a minute");
    }
}

fn hung() {
    let (mut fast_path, a, b) = start("hangSeconds: 1");
    let forwarder = fast_path.processes()[1];
    let gap = longest_gap(&a, &b, || {
        kill(forwarder, Signal::SIGSTOP).unwrap();
        let restart = wait_for_flows(&mut fast_path, 1, 1).restart.unwrap();
        assert!(restart.reason.contains("stood still for 1."), "{restart:?}");
        assert!(restart.reason.starts_with("its worker 0 "), "{restart:?}");
        assert_eq!((restart.ports_kept, &restart.refused[..]), (2, ""), "{restart:?}");
    });
    eprintln!("hung: without a byte for {gap:?}");
    // The second until it is noticed is multiplied by TCP, which waits ever longer on a machine that is busy.
    assert!(gap < 3 * GAP, "{gap:?}");
    // One that has nothing to do does not stand still.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(fast_path.info().restart.unwrap().restarts, 1);
    assert!(a.netns.ping(&b.ipv4));
    fast_path.stop(Signal::SIGTERM);
}

fn hung_standby() {
    let (mut fast_path, a, b) = start("standby: true\nhangSeconds: 1");
    within(20, "a standby is there", || (fast_path.processes().len() == 3).then_some(()));
    // It says nothing to others when it is ready.
    std::thread::sleep(Duration::from_secs(2));
    let [_, forwarder, standby] = fast_path.processes()[..] else { panic!("three processes") };
    kill(standby, Signal::SIGSTOP).unwrap();
    kill(forwarder, Signal::SIGKILL).unwrap();
    let restart = wait_for_restart(&mut fast_path, 2).restart.unwrap();
    assert!(restart.reason.starts_with("its start stood still for 6."), "{restart:?}");
    assert_eq!(restart.ports_kept, 2, "{restart:?}");
    assert!(a.netns.ping(&b.ipv4));
    fast_path.stop(Signal::SIGTERM);
}

fn replaced() {
    let (mut fast_path, a, b) = start("");
    let [keeper, before] = fast_path.processes()[..] else { panic!("two processes") };
    let gap = longest_gap(&a, &b, || {
        kill(keeper, Signal::SIGHUP).unwrap();
        let info = wait_for_flows(&mut fast_path, 1, 1);
        let restart = info.restart.unwrap();
        eprintln!("replaced: gap {} us", restart.gap_microseconds);
        assert_eq!((&restart.reason[..], restart.flows_kept), ("replaced", 1), "{restart:?}");
    });
    eprintln!("replaced: without a byte for {gap:?}");
    assert!(gap < GAP, "{gap:?}");
    within(20, "the one before has ended", || (!fast_path.processes().contains(&before)).then_some(()));
    assert!(a.netns.ping(&b.ipv4));
    fast_path.stop(Signal::SIGTERM);
}

/// A connection to a pod of a remote node, with an uplink that the next forwarder has to open anew.
fn uplink(uplink: &str, signal: Signal) {
    let is_tap = uplink.starts_with("netTap");
    let (near, far) = if is_tap { (Netns::new("fp"), Netns::new("far")) } else { connected(uplink) };
    let (wire, node) = (near.name().to_owned(), far.name().to_owned());
    // It goes with the process, and with it all that the far node has of it but its tunnel.
    let plug_in = || {
        crate::netns::ip(&wire, &format!("link set cvtup0 netns {node}"));
    };
    let mut fast_path = FastPath::start_in(near, &format!("uplink: {{ {uplink} }}"));
    if is_tap {
        plug_in();
        be_a_node(&far);
    }
    let (pod, there) = meet(&fast_path, far);
    let [keeper, forwarder] = fast_path.processes()[..] else { panic!("two processes") };
    let (process, reason) = match signal {
        Signal::SIGHUP => (keeper, "replaced"),
        _ => (forwarder, "killed by SIGKILL"),
    };
    let gap = longest_gap(&pod, &there, || {
        kill(process, signal).unwrap();
        let restart = wait_for_flows(&mut fast_path, 1, 1).restart.unwrap();
        eprintln!("{uplink}, {signal}: gap {} us", restart.gap_microseconds);
        assert_eq!((&restart.reason[..], &restart.refused[..]), (reason, ""));
        assert_eq!(restart.ports_kept, 1, "{restart:?}");
        if is_tap {
            plug_in();
            there.netns.ip("link set cvtup0 up");
            there.netns.ip("addr add 192.168.7.2/24 dev cvtup0");
        }
    });
    eprintln!("{uplink}, {signal}: without a byte for {gap:?}");
    // TCP waits ever longer for an interface that is not there.
    assert!(gap < if is_tap { 3 * GAP } else { GAP }, "{gap:?}");
    assert!(pod.netns.ping(&there.ipv4) && there.netns.ping(&pod.ipv6));
    fast_path.stop(Signal::SIGTERM);
}

fn failed_upgrade() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("culvert-fastpath");
    fs::copy(BINARY, &program).unwrap();
    let mut fast_path = FastPath::launch("", |netns, config| {
        let mut command = netns.command(program.to_str().unwrap());
        command.arg("--config").arg(config);
        command
    });
    let instance = fast_path.info().instance;
    let keeper = fast_path.processes()[0];
    fs::remove_file(&program).unwrap();
    kill(keeper, Signal::SIGHUP).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(fast_path.info().instance, instance, "none could be started");
    fs::write(&program, "#!/bin/false\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    kill(keeper, Signal::SIGHUP).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(fast_path.info().instance, instance, "it ended at once");
    fs::remove_file(&program).unwrap();
    fs::copy(BINARY, &program).unwrap();
    kill(keeper, Signal::SIGHUP).unwrap();
    let replaced = wait_for_restart(&mut fast_path, 1);
    assert_ne!(replaced.instance, instance);
    fast_path.stop(Signal::SIGTERM);
}

fn udp() {
    let mut with_udp = tables(1, &["10.244.1.3", "10.244.1.4"]);
    with_udp.services[0].protocol = api::Protocol::Udp.into();
    let mut fast_path = FastPath::start();
    fast_path.replace(with_udp).unwrap();
    let pods = ["cvt-a", "cvt-b", "cvt-c"].iter().zip(2..).map(|(name, n)| Pod::attach(&fast_path, name, n));
    let [a, b, c] = &pods.collect::<Vec<_>>()[..] else { panic!("three pods") };
    let servers = [b, c].map(|pod| {
        let socket = pod.netns.within(|| UdpSocket::bind((&pod.ipv4[..], 8080))).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    });
    let clients: Vec<_> = (0..8).map(|_| a.netns.within(|| UdpSocket::bind("0.0.0.0:0")).unwrap()).collect();
    // Which server each client's packet gets to.
    let served_by = || -> Vec<usize> {
        let one = |client: &UdpSocket| {
            within(5, "a server gets the packet", || {
                client.send_to(b"x", (VIP, 80)).unwrap();
                std::thread::sleep(Duration::from_millis(20));
                let mut received = servers.iter().map(|server| {
                    let mut got = false;
                    while let Ok((_, from)) = server.recv_from(&mut [0; 8]) {
                        got |= from.port() == client.local_addr().unwrap().port();
                    }
                    got
                });
                received.position(|got| got)
            })
        };
        clients.iter().map(one).collect()
    };
    let before = served_by();
    kill(fast_path.processes()[1], Signal::SIGKILL).unwrap();
    wait_for_restart(&mut fast_path, 1);
    assert_eq!(served_by(), before);
    let restart = wait_for_flows(&mut fast_path, 1, 8).restart.unwrap();
    assert_eq!((restart.flows_kept, restart.flows_damaged), (8, 0), "{restart:?}");
    assert_eq!(fast_path.counters().flows_created, 8, "no flow was opened anew");
    fast_path.stop(Signal::SIGTERM);
}

/// The keeper's file in memory of this name, to be written to.
fn kept(fast_path: &FastPath, name: &str) -> fs::File {
    let keeper = fast_path.processes()[0];
    let all = fs::read_dir(format!("/proc/{keeper}/fd")).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &std::path::PathBuf| {
        fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains(&format!("memfd:{name} ")))
    };
    let path = all.into_iter().find(named).expect("the keeper has it");
    fs::File::options().read(true).write(true).open(path).unwrap()
}

fn other_layout() {
    let (mut fast_path, a, b) = start("");
    assert!(longest_gap(&a, &b, || {}) < GAP);
    kept(&fast_path, "flows").write_all_at(&[0xff], 8).unwrap();
    kill(fast_path.processes()[1], Signal::SIGKILL).unwrap();
    let restart = wait_for_restart(&mut fast_path, 1).restart.unwrap();
    assert!(restart.refused.contains("flow memory is of layout 0x"), "{restart:?}");
    assert_eq!((restart.flows_kept, restart.ports_kept), (0, 2));
    assert!(longest_gap(&a, &b, || {}) < GAP, "new connections");

    kept(&fast_path, "tables").write_all_at(&[9], 8).unwrap();
    kill(fast_path.processes()[1], Signal::SIGKILL).unwrap();
    let info = wait_for_restart(&mut fast_path, 2);
    assert_eq!((info.revision, info.synced), (0, false));
    let restart = info.restart.unwrap();
    assert!(restart.refused.contains("ledger of tables: is of version 9"), "{restart:?}");
    fast_path.replace(tables(1, &["10.244.1.3"])).unwrap();
    assert!(longest_gap(&a, &b, || {}) < GAP, "once the agent has said it all again");
    fast_path.stop(Signal::SIGTERM);
}

fn again_and_again() {
    let (mut fast_path, a, b) = start("");
    assert!(longest_gap(&a, &b, || {}) < GAP);
    for restarts in 1..=3 {
        kill(fast_path.processes()[1], Signal::SIGKILL).unwrap();
        let restart = wait_for_restart(&mut fast_path, restarts).restart.unwrap();
        let thrown_away = restart.refused.contains("ended soon after its start, several times");
        // Not if the machine is so slow that they lived long.
        assert!(thrown_away == (restarts == 3) || restart.gap_microseconds > 5_000_000, "{restart:?}");
        assert_eq!(restart.ports_kept, 2);
    }
    fast_path.stop(Signal::SIGTERM);
}

fn keeper_killed() {
    let (fast_path, ..) = start("");
    let [keeper, forwarder] = fast_path.processes()[..] else { panic!("two processes") };
    kill(keeper, Signal::SIGKILL).unwrap();
    within(20, "it ends", || kill(forwarder, None).is_err().then_some(()));
}
