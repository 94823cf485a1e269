//! Netlink requests as bytes, for what rtnetlink's types do not carry: virtual functions, devlink, next hops.
//!
//! It asks one thing at a time. The socket is a plain datagram socket to this module, so that a test can put a pair of
//! Unix sockets in its place and answer as the kernel would (`netlink::standin`).

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP,
};
use rtnetlink::sys::{Socket, SocketAddr};
use tokio::net::UnixDatagram;
use tokio::sync::Mutex;

use super::attr::{Reader, text_of};
use super::error::NetlinkCause;

/// `struct nlmsghdr`: length, type, flags, sequence number, port.
pub(super) const HEADER: usize = 16;
const ALIGN: usize = 4;
/// The text of an extended acknowledgement.
const NLMSGERR_ATTR_MSG: u16 = 1;
/// Larger than any answer: 1024 VFs with counters take 330 KiB. Pages that no answer reaches stay untouched.
const ANSWER_MAX: usize = 1 << 20;
/// The kernel answers while it is being asked; this is for sockets that something is wrong with.
const LIMIT: Duration = Duration::from_secs(10);
/// How often a dump is asked for again when something changed meanwhile.
const DUMP_ATTEMPTS: usize = 5;

/// One message of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The message's type.
    pub(crate) kind: u16,
    /// All after the netlink header.
    pub(crate) payload: Vec<u8>,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    kind: u16,
    flags: u16,
    payload: Vec<u8>,
}

impl Question {
    /// A question or an order about one object.
    pub(crate) fn one(kind: u16, payload: Vec<u8>) -> Self {
        Self { kind, flags: NLM_F_REQUEST | NLM_F_ACK, payload }
    }

    /// A question for all objects of a kind.
    pub(crate) fn all(kind: u16, payload: Vec<u8>) -> Self {
        Self { kind, flags: NLM_F_REQUEST | NLM_F_DUMP, payload }
    }

    fn bytes(&self, sequence: u32) -> Vec<u8> {
        let length = (HEADER + self.payload.len()) as u32;
        let mut bytes = Vec::with_capacity(HEADER + self.payload.len());
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&self.kind.to_ne_bytes());
        bytes.extend_from_slice(&self.flags.to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&0_u32.to_ne_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

/// A socket; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct RawNetlink(Arc<Mutex<Exchange>>);

#[derive(Debug)]
struct Exchange {
    /// Of the netlink family; tokio's type does nothing with it that depends on the family.
    socket: UnixDatagram,
    sequence: u32,
}

impl RawNetlink {
    /// Opens a socket of netlink protocol `protocol` in the thread's network namespace.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.set_non_blocking(true)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Kernels before 4.12 have no texts, and are no worse otherwise.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        Self::from_datagram(StdDatagram::from(socket.as_fd().try_clone_to_owned()?))
    }

    /// Uses `socket`, whoever is at its other end.
    pub(crate) fn from_datagram(socket: StdDatagram) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let exchange = Exchange { socket: UnixDatagram::from_std(socket)?, sequence: 0 };
        Ok(Self(Arc::new(Mutex::new(exchange))))
    }

    /// Asks, and waits for the whole answer. The exchange goes on to its end even if the caller stops waiting: what is
    /// left of an answer would stand in the way of the next.
    pub(crate) async fn ask(&self, question: Question) -> Result<Vec<Answer>, NetlinkCause> {
        let shared = Arc::clone(&self.0);
        let exchange = async move { shared.lock_owned().await.ask(&question).await };
        let joined = tokio::spawn(exchange).await;
        joined.unwrap_or_else(|_| Err(NetlinkCause::Protocol("the netlink socket is closed".to_owned())))
    }
}

impl RawNetlink {
    /// Like [`Self::ask`], on the caller's own task, which must see it through.
    pub(crate) async fn ask_here(&self, question: &Question) -> Result<Vec<Answer>, NetlinkCause> {
        self.0.lock().await.ask(question).await
    }

    /// Whether an answer is being waited for.
    pub(crate) fn is_busy(&self) -> bool {
        self.0.try_lock().is_err()
    }
}

impl Exchange {
    async fn ask(&mut self, question: &Question) -> Result<Vec<Answer>, NetlinkCause> {
        for _ in 0..DUMP_ATTEMPTS {
            self.sequence = self.sequence.wrapping_add(1);
            self.socket.send(&question.bytes(self.sequence)).await.map_err(NetlinkCause::Socket)?;
            let answer = tokio::time::timeout(LIMIT, self.answer()).await;
            let answer =
                answer.unwrap_or_else(|_| Err(NetlinkCause::Socket(io::ErrorKind::TimedOut.into())))?;
            if let Some(answers) = answer {
                return Ok(answers);
            }
        }
        Err(NetlinkCause::Kernel { errno: Errno::EINTR, text: None })
    }

    /// Reads up to the end of the answer; `None` if it is a list that changed while it was read.
    async fn answer(&mut self) -> Result<Option<Vec<Answer>>, NetlinkCause> {
        let mut buffer = vec![0; ANSWER_MAX];
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            let length = self.socket.recv(&mut buffer).await.map_err(NetlinkCause::Socket)?;
            for message in Messages(&buffer[..length]) {
                if message.sequence != self.sequence {
                    // What an earlier question that timed out was answered after all.
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_NOOP => {}
                    NLMSG_ERROR => {
                        return error(message.payload).map_or(Ok(Some(answers)), Err);
                    }
                    NLMSG_DONE => {
                        // A dump that fails half-way says so here.
                        return match error(message.payload) {
                            Some(cause) => Err(cause),
                            None => Ok((!interrupted).then_some(answers)),
                        };
                    }
                    kind => answers.push(Answer { kind, payload: message.payload.to_vec() }),
                }
            }
        }
    }
}

/// The error that an acknowledgement tells of; `None` if it tells of success.
fn error(payload: &[u8]) -> Option<NetlinkCause> {
    let code = i32::from_ne_bytes(payload.first_chunk().copied()?);
    let text = extended(payload.get(4..).unwrap_or_default());
    (code != 0).then(|| NetlinkCause::Kernel { errno: Errno::from_raw(code.wrapping_neg()), text })
}

/// The kernel's own words about an error: after the header of the message that was refused, which a capped
/// acknowledgement holds alone (NETLINK_CAP_ACK).
pub(super) fn extended(after_code: &[u8]) -> Option<String> {
    let text = Reader::after(HEADER, after_code).find(NLMSGERR_ATTR_MSG).map(text_of)?;
    (!text.is_empty()).then_some(text)
}

/// Messages of one datagram.
struct Messages<'a>(&'a [u8]);

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header: &[u8; HEADER] = self.0.first_chunk()?;
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let word =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let length = word(0) as usize;
        let message = Message {
            kind: half(4),
            flags: half(6),
            sequence: word(8),
            payload: self.0.get(HEADER..length)?,
        };
        self.0 = self.0.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some(message)
    }
}
