//! The server that runs in a pod: it says its name over HTTP and over UDP.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::pattern;

/// Most bytes that `/bytes/N` gives and that a PUT takes.
const MOST_BYTES: usize = 1 << 30;

/// Serves until the process ends: over HTTP `/` gives `name`, `/bytes/N` gives N bytes of [`pattern`], and a PUT what
/// `sha256sum` says of its body; every UDP datagram is answered with `name`, a line end and the datagram. Listens on `port`
/// of all IPv6 and IPv4 addresses.
///
/// # Errors
/// When the port is taken.
pub fn serve(name: &str, port: u16) -> io::Result<()> {
    let tcp = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    let udp = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
    let reply = name.to_owned();
    thread::spawn(move || answer_datagrams(&udp, &reply));
    println!("serving");
    for stream in tcp.incoming() {
        let name = name.to_owned();
        // A client that goes away early is its own affair.
        thread::spawn(move || stream.and_then(|stream| answer(&stream, &name)));
    }
    Ok(())
}

fn answer_datagrams(udp: &UdpSocket, name: &str) {
    let mut buffer = [0; 65536];
    loop {
        // Errors are those of an earlier reply, such as "port unreachable": the next datagram is not concerned.
        if let Ok((len, from)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(&[name.as_bytes(), b"\n", &buffer[..len]].concat(), from);
        }
    }
}

/// Answers requests until the client closes the connection (RFC 9112, as much of it as tests need).
fn answer(mut stream: &TcpStream, name: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let (mut close, mut length) = (request.contains("HTTP/1.0"), 0);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header_field = header.trim_end().to_ascii_lowercase();
            close |= header_field == "connection: close";
            if let Some(value) = header_field.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            if header.trim_end().is_empty() {
                break;
            }
        }
        let (status, body) = match request.strip_prefix("PUT ") {
            Some(_) if length <= MOST_BYTES => {
                let mut body = vec![0; length];
                reader.read_exact(&mut body)?;
                ("200 OK", sha256sum(&body)?)
            }
            Some(_) => ("413 Content Too Large", Vec::new()),
            None => respond(&request, name),
        };
        let end = if close { "Connection: close\r\n" } else { "" };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{end}\r\n", body.len())?;
        stream.write_all(&body)?;
        if close {
            return Ok(());
        }
    }
}

/// What `sha256sum` prints of some bytes.
fn sha256sum(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(bytes));
    let output = child.wait_with_output()?;
    written?;
    Ok(output.stdout)
}

fn respond(request: &str, name: &str) -> (&'static str, Vec<u8>) {
    let path = request.split_whitespace().nth(1).unwrap_or_default();
    let bytes = path.strip_prefix("/bytes/").map(str::parse);
    match bytes {
        None if path == "/" => ("200 OK", format!("{name}\n").into_bytes()),
        Some(Ok(len)) if len <= MOST_BYTES => ("200 OK", pattern(len)),
        _ => ("404 Not Found", b"there is / and /bytes/N\n".to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::respond;

    #[test]
    fn the_name_and_bytes_are_served_and_nothing_else() {
        assert_eq!(respond("GET / HTTP/1.1", "a"), ("200 OK", b"a\n".to_vec()));
        assert_eq!(respond("GET /bytes/10 HTTP/1.1", "a").1.len(), 10);
        for bad in
            ["GET /bytes/x HTTP/1.1", "GET /bytes/99999999999 HTTP/1.1", "GET /etc/passwd HTTP/1.1", ""]
        {
            assert_eq!(respond(bad, "a").0, "404 Not Found", "{bad}");
        }
    }
}
