//! Datagrams as fast as they can be sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use super::Netns;
use crate::frame::{Outcome, Stop};

/// A thread that sends small datagrams to one address without pause, until the value is dropped.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<Outcome>>,
}

impl Flood {
    /// Bytes of a datagram.
    const LEN: usize = 18;

    /// Starts sending to `to` from inside `netns`.
    pub fn start(netns: &Netns, to: SocketAddr) -> Outcome<Self> {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let inside = culvert_host::netns::Netns::open(netns.path())?;
        let (until, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = thread::spawn(move || inside.run(|| send(to, &until, &count)).map_err(Stop::from)?);
        Ok(Self { stop, sent, thread: Some(thread) })
    }

    /// Datagrams so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A case looks at what was sent.
            let _ = thread.join();
        }
    }
}

fn send(to: SocketAddr, until: &AtomicBool, count: &AtomicU64) -> Outcome {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    while !until.load(Ordering::Relaxed) {
        // Refused at times, as when an ICMP error came back.
        if socket.send(&[0; Flood::LEN]).is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}
