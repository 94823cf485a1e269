//! News from the kernel that come faster than they are read. Needs root.

#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Write as _;
use std::time::Duration;

use culvert_host::netlink::{LinkEvent, LinkMonitor};
use culvert_host::uevent::UeventMonitor;
use support::Namespace;

const PATIENCE: Duration = Duration::from_secs(20);

/// More news than a socket's buffer holds, at once: on a runtime with one thread nothing is read meanwhile.
fn flood(ns: &Namespace) {
    let mut batch = String::new();
    for number in 0..400 {
        writeln!(batch, "link add b{number} type bridge").unwrap();
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), batch).unwrap();
    ns.ip(&format!("-batch {}", file.path().display()));
}

#[tokio::test]
async fn a_link_monitor_that_is_overrun_says_so_and_goes_on() {
    let ns = Namespace::new();
    let mut monitor = LinkMonitor::open_in(&ns.open()).unwrap();
    flood(&ns);
    let overrun = async { while monitor.next().await.unwrap() != LinkEvent::Overrun {} };
    tokio::time::timeout(PATIENCE, overrun).await.expect("an overrun is told");
    ns.ip("link add last type bridge");
    let goes_on = async {
        while !matches!(monitor.next().await.unwrap(), LinkEvent::Changed(link) if link.name == "last") {}
    };
    tokio::time::timeout(PATIENCE, goes_on).await.expect("news after an overrun are told");
}

#[tokio::test]
async fn a_uevent_monitor_that_is_overrun_says_so_and_goes_on() {
    let ns = Namespace::new();
    let runtime = tokio::runtime::Handle::current();
    let opened = ns.open().run(|| {
        let _entered = runtime.enter();
        UeventMonitor::open()
    });
    let monitor = opened.unwrap().unwrap();
    flood(&ns);
    let overrun = async { while monitor.next().await.unwrap().action != "lost" {} };
    tokio::time::timeout(PATIENCE, overrun).await.expect("an overrun is told");
    ns.ip("link add last type bridge");
    let goes_on = async { while !monitor.next().await.unwrap().device.ends_with("/net/last") {} };
    tokio::time::timeout(PATIENCE, goes_on).await.expect("news after an overrun are told");
}
