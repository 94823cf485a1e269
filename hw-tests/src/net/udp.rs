//! A UDP client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::Netns;
use crate::frame::{Outcome, Stop};

/// Sends one datagram of `len` bytes from a new port and returns what the server answers: its name.
pub fn name(netns: &Netns, to: SocketAddr, len: usize) -> Outcome<String> {
    netns.run(|| ask(to, len))?.map_err(|stop| stop.while_doing(&format!("UDP from {to}")))
}

fn ask(to: SocketAddr, len: usize) -> Outcome<String> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    // A connected socket takes an answer only from the address that was asked.
    socket.connect(to)?;
    socket.send(&vec![b'?'; len])?;
    let mut buffer = [0; 2048];
    let len = socket.recv(&mut buffer)?;
    String::from_utf8(buffer[..len].to_vec()).map_err(Stop::from)
}
