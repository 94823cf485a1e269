//! What a pod gets beside another that floods.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;

use crate::fastpath::FastPath;
use crate::pods::{Pod, tables};
use crate::{Case, within};

pub(crate) fn cases() -> Vec<Case> {
    let root = |name, body| Case { name, root: true, device: None, body };
    vec![root("a_pod_with_short_packets_keeps_its_share_beside_one_with_packets_of_60_kb", shares)]
}

/// Packets of 60 KB without segmentation, which not every kernel leaves to a tap for UDP.
const MTU: u32 = 65_000;

/// A forwarder that stands still.
pub(crate) struct Halted(Pid);

impl Halted {
    pub(crate) fn new(forwarder: Pid) -> Self {
        kill(forwarder, Signal::SIGSTOP).unwrap();
        within(5, "all threads stand still", || {
            let mut tasks = fs::read_dir(format!("/proc/{forwarder}/task")).unwrap();
            tasks
                .all(|task| {
                    let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
                    stat.rsplit_once(')').unwrap().1.starts_with(" T")
                })
                .then_some(())
        });
        Self(forwarder)
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// Both have packets waiting before the worker looks: whose turn it was how often shows in the order in which they arrive.
fn shares() {
    const LONG: usize = 60_000;
    const LONGS: usize = 100;
    const SHORTS: usize = 300;
    const BUDGET: usize = 64 << 10;
    const BURST: usize = 128;
    let fast_path = FastPath::start_with("podBudgetKilobytes: 64");
    fast_path.replace(tables(1, &[])).unwrap();
    let [flooding, modest, to] = [("cvt-a", 2), ("cvt-b", 3), ("cvt-c", 4)]
        .map(|(name, n)| Pod::attach_with(&fast_path, name, n, MTU));
    let received = to.netns.within(|| UdpSocket::bind((to.ipv4.as_str(), 9))).unwrap();
    setsockopt(&received, sockopt::RcvBufForce, &(64 << 20)).unwrap();
    received.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let sender = |pod: &Pod| {
        let socket = pod.netns.within(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        setsockopt(&socket, sockopt::SndBufForce, &(64 << 20)).unwrap();
        socket.connect((to.ipv4.as_str(), 9)).unwrap();
        socket
    };
    let (long, short) = (sender(&flooding), sender(&modest));
    assert!(flooding.netns.ping(&to.ipv4) && modest.netns.ping(&to.ipv4), "the router is known");

    let halted = Halted::new(fast_path.processes()[1]);
    (0..LONGS).for_each(|_| assert_eq!(long.send(&[0; LONG]).unwrap(), LONG));
    (0..SHORTS).for_each(|_| assert_eq!(short.send(&[0; 18]).unwrap(), 18));
    drop(halted);

    let (mut longs, mut shorts) = (0, 0);
    let next = |longs: &mut usize, shorts: &mut usize| match received.recv(&mut [0; LONG]) {
        Ok(LONG) => *longs += 1,
        Ok(18) => *shorts += 1,
        other => panic!("{other:?} after {longs} long packets and {shorts} short ones"),
    };
    while shorts < SHORTS {
        next(&mut longs, &mut shorts);
    }
    // In each of these rounds one budget, which the last packet of all may overdraw.
    let most = SHORTS.div_ceil(BURST) * BUDGET / LONG + 2;
    assert!(longs <= most, "{longs} packets of 60 KB came before {SHORTS} short ones: more than {most}");
    while longs < LONGS {
        next(&mut longs, &mut shorts);
    }
    let deferred = |name| fast_path.port(name).rx_deferred;
    let turns = (LONGS * LONG / BUDGET) as u64;
    assert!(deferred("cvt-a") >= turns - 1, "{} of {turns} turns", deferred("cvt-a"));
    assert!((1..=3).contains(&deferred("cvt-b")), "{}", deferred("cvt-b"));
    fast_path.stop(Signal::SIGTERM);
}
