//! A UDP client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::{Netns, pattern};
use crate::ensure;
use crate::frame::{Outcome, Stop};

/// Sends one datagram of `len` bytes from a new port and returns the name of the server, who must send the same bytes back.
pub fn name(netns: &Netns, to: SocketAddr, len: usize) -> Outcome<String> {
    netns.run(|| ask(to, len))?.map_err(|stop| stop.while_doing(&format!("UDP from {to}")))
}

fn ask(to: SocketAddr, len: usize) -> Outcome<String> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    // A connected socket takes an answer only from the address that was asked.
    socket.connect(to)?;
    let question = pattern(len);
    socket.send(&question)?;
    let mut buffer = [0; 65536];
    let len = socket.recv(&mut buffer)?;
    let mut parts = buffer[..len].splitn(2, |byte| *byte == b'\n');
    let name = parts.next().unwrap_or_default().to_vec();
    ensure!(parts.next() == Some(&question[..]), "the answer, {len} bytes, does not repeat the question");
    String::from_utf8(name).map_err(Stop::from)
}
