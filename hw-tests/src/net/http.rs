//! An HTTP client: quick enough for loops, strict enough to notice a byte that changed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::{Netns, pattern};
use crate::ensure;
use crate::frame::{Outcome, Stop};

/// How long one request may take: less than it takes TCP to send its first segment a second time would be too short
/// for a busy machine.
const LIMIT: Duration = Duration::from_secs(10);

/// Asks the server at `to` for its name, from inside `netns`.
pub fn name(netns: &Netns, to: SocketAddr) -> Outcome<String> {
    netns.run(|| name_here(to))?
}

/// The same, from a source port of the caller's choice, which may have had another connection.
pub fn name_from(netns: &Netns, port: u16, to: SocketAddr) -> Outcome<String> {
    name_over(connect_from(netns, port, to)?)
}

/// Connects to the server at `to`, which will not wait for more than half a minute for the question, from such a port.
pub fn connect_from(netns: &Netns, port: u16, to: SocketAddr) -> Outcome<TcpStream> {
    let connect = || connected_from(port, to);
    netns.run(connect)?.map_err(|stop| stop.while_doing(&format!("a connection to {to} by port {port}")))
}

/// Asks the server at the other end for its name.
pub fn name_over(stream: TcpStream) -> Outcome<String> {
    let (port, to) = (stream.local_addr()?.port(), stream.peer_addr()?);
    let answer = ask(stream, to, "/").map(|body| text(&body));
    answer.map_err(|stop| stop.while_doing(&format!("GET / from {to} by port {port}")))
}

/// As [`name`], from the namespace of the calling thread.
pub(super) fn name_here(to: SocketAddr) -> Outcome<String> {
    get_here(to, "/").map(|body| text(&body))
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).trim_end().to_owned()
}

/// Downloads `len` bytes and compares each with what was sent.
pub fn download(netns: &Netns, to: SocketAddr, len: usize) -> Outcome {
    let body = get(netns, to, &format!("/bytes/{len}"))?;
    ensure!(body.len() == len, "download of {len} bytes from {to}: got {}", body.len());
    let same = body.iter().zip(pattern(len)).position(|(got, sent)| *got != sent);
    ensure!(
        same.is_none(),
        "download of {len} bytes from {to}: byte {} changed on the way",
        same.unwrap_or(0)
    );
    Ok(())
}

/// Sends one request over a connection of its own and returns the body.
pub fn get(netns: &Netns, to: SocketAddr, path: &str) -> Outcome<Vec<u8>> {
    netns.run(|| get_here(to, path))?
}

fn get_here(to: SocketAddr, path: &str) -> Outcome<Vec<u8>> {
    request(to, path).map_err(|stop| stop.while_doing(&format!("GET {path} from {to}")))
}

fn request(to: SocketAddr, path: &str) -> Outcome<Vec<u8>> {
    ask(TcpStream::connect_timeout(&to, LIMIT)?, to, path)
}

fn connected_from(port: u16, to: SocketAddr) -> Outcome<TcpStream> {
    let (family, any): (_, IpAddr) = match to {
        SocketAddr::V4(_) => (AddressFamily::Inet, Ipv4Addr::UNSPECIFIED.into()),
        SocketAddr::V6(_) => (AddressFamily::Inet6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    // It limits connect too: socket(7).
    setsockopt(&socket, sockopt::SendTimeout, &TimeVal::new(LIMIT.as_secs() as i64, 0))?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any, port)))?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(socket.into())
}

fn ask(mut stream: TcpStream, to: SocketAddr, path: &str) -> Outcome<Vec<u8>> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", host(to.ip()))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    ensure!(line.starts_with("HTTP/1.1 200 "), "answered {line:?}");
    let mut length = None;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        if line.trim_end().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok();
        }
    }
    let length: u64 = length.ok_or_else(|| Stop::fail("the answer has no length"))?;
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    ensure!(body.len() as u64 == length, "the answer ended after {} of {length} bytes", body.len());
    Ok(body)
}

fn host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}
