//! What is seen of network namespaces, and said in them, on the running kernel. Needs root; skipped with a reason
//! otherwise.

// Clippy only lets the test functions themselves unwrap.
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::{Duration, Instant};

use culvert_host::netlink::Netlink;
use culvert_host::netns::{Netns, visible};

/// A named namespace that goes away with the value.
struct Named(String);

impl Named {
    fn new(name: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let name = format!("cvns-{}-{name}", std::process::id());
        assert!(Command::new("ip").args(["netns", "add", &name]).status().unwrap().success());
        Some(Self(name))
    }

    fn open(&self) -> Netns {
        Netns::open(format!("/run/netns/{}", self.0)).unwrap()
    }

    /// Runs `ip`, which must succeed, and returns what it printed.
    fn ip(&self, arguments: &str) -> String {
        let output = Command::new("ip").args(["-n", &self.0]).args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {arguments}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[test]
fn namespaces_are_seen_once_by_name_by_process_and_by_open_file() {
    let Some(ns) = Named::new("seen") else { return };
    let id = ns.open().id().unwrap();
    let of = |id| visible().into_iter().filter(|v| v.id == id).collect::<Vec<_>>();
    assert!(matches!(&of(id)[..], [named] if named.process.is_none()));
    let own = Netns::current().unwrap().id().unwrap();
    assert!(matches!(&of(own)[..], [own] if own.process.is_some()));
    let open = ns.open();
    drop(ns);
    {
        let held = of(id);
        assert!(matches!(&held[..], [held] if held.netns.path().starts_with("/proc")), "{held:?}");
    }
    drop(open);
    assert!(of(id).is_empty());
}

#[tokio::test]
async fn neighbours_hear_of_addresses_that_are_announced() {
    let Some(ns) = Named::new("speaks") else { return };
    let Some(other) = Named::new("hears") else { return };
    ns.ip(&format!("link add v0 address 02:00:00:00:00:07 type veth peer name v1 netns {}", other.0));
    ns.ip("link set v0 up");
    other.ip("link set v1 up");
    other.ip("addr add 10.9.0.1/24 dev v1");
    other.ip("addr add fd09::1/64 dev v1 nodad");
    // Only known neighbours are changed by what they say unasked.
    other.ip("neigh add 10.9.0.5 lladdr 02:00:00:00:00:66 nud stale dev v1");
    other.ip("neigh add fd09::5 lladdr 02:00:00:00:00:66 nud stale dev v1");
    let index = Netlink::open_in(&ns.open()).unwrap().link_by_name("v0").await.unwrap().unwrap().index;
    let mac = "02:00:00:00:00:07".parse().unwrap();
    culvert_host::announce(
        &ns.open(),
        index,
        mac,
        &["10.9.0.5".parse().unwrap(), "fd09::5".parse().unwrap()],
    )
    .unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let known = other.ip("neigh show dev v1");
        let right = known.lines().filter(|l| l.contains("9") && l.contains("02:00:00:00:00:07")).count();
        if right == 2 {
            break;
        }
        assert!(Instant::now() < deadline, "{known}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let error = culvert_host::announce(&ns.open(), 999, mac, &[]).unwrap_err();
    assert_eq!(error.to_string(), "interface 999: is not there");
}
