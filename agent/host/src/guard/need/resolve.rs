//! Names of servers, without waiting for a name server that is away.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long an answer is good.
const FRESH: Duration = Duration::from_secs(60);
/// How long the first answer is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of a name.
struct Entry {
    addresses: Vec<SocketAddr>,
    asked: Instant,
    /// An answer that is under way.
    pending: Option<Receiver<Vec<SocketAddr>>>,
}

static NAMES: Mutex<BTreeMap<String, Entry>> = Mutex::new(BTreeMap::new());

/// Addresses of `host:port`: at once if that is an address, else what the last answer said, which is asked for anew in the
/// background once a minute. Empty for a name that nobody knows.
pub(super) fn resolve(host: &str) -> Vec<SocketAddr> {
    if let Ok(address) = host.parse() {
        return vec![address];
    }
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let first = !names.contains_key(host);
    let entry = names.entry(host.to_owned()).or_insert_with(|| Entry {
        addresses: Vec::new(),
        asked: Instant::now(),
        pending: Some(ask(host)),
    });
    if entry.pending.is_none() && entry.asked.elapsed() > FRESH {
        entry.asked = Instant::now();
        entry.pending = Some(ask(host));
    }
    if let Some(pending) = &entry.pending {
        let answer = if first { pending.recv_timeout(PATIENCE).ok() } else { pending.try_recv().ok() };
        if let Some(addresses) = answer {
            entry.pending = None;
            // A name server that is away does not make the API server move.
            if !addresses.is_empty() {
                entry.addresses = addresses;
            }
        }
    }
    entry.addresses.clone()
}

/// Asks in a thread of its own: the system's resolver may take half a minute, and cannot be told not to.
fn ask(host: &str) -> Receiver<Vec<SocketAddr>> {
    let (send, receive) = mpsc::channel();
    let host = host.to_owned();
    thread::spawn(move || {
        let addresses = host.to_socket_addrs().map(Iterator::collect).unwrap_or_default();
        // Nobody waits once the agent ends.
        let _ = send.send(addresses);
    });
    receive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_resolved_and_unknown_names_are_nobodys() {
        assert_eq!(resolve("10.0.0.1:6443"), ["10.0.0.1:6443".parse().unwrap()]);
        assert_eq!(resolve("[fd00::1]:6443"), ["[fd00::1]:6443".parse().unwrap()]);
        let names = resolve("localhost:6443");
        assert!(!names.is_empty() && names.iter().all(|a| a.ip().is_loopback() && a.port() == 6443));
        assert!(resolve("not a name").is_empty());
        assert_eq!(resolve("localhost:6443"), names, "the second time from memory");
    }
}
