//! What keeper and forwarder say to each other.
//!
//! One packet of a `SOCK_SEQPACKET` pair for each message: a word, its operands, each on a line of its own, and descriptors
//! (`SCM_RIGHTS`, unix(7)). The two may be of different versions: a word that is not known is passed over, and operands
//! are only ever added at the end.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Most descriptors of one message: the queues of a port.
pub(super) const MOST_DESCRIPTORS: usize = 64;

/// Longest message, in bytes.
const LONGEST: usize = 4096;

/// Why a forwarder is started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occasion {
    /// Which start this is; 0 is the keeper's first.
    pub restarts: u32,
    /// How the forwarder before it ended, for people; empty if there was none.
    pub reason: String,
    /// When that was, by `CLOCK_MONOTONIC` in nanoseconds; 0 if there was none.
    pub since: u64,
    /// Why what was kept of flows and tables is not there, for people; empty if it is, or never was.
    pub discarded: String,
}

/// What one says to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// Keeper: these descriptors were kept under this name.
    Kept(String),
    /// Keeper: that was all; forward.
    Go(Occasion),
    /// Keeper: another is about to take over; stop forwarding.
    Yield,
    /// Keeper: end, and leave nothing behind: nobody follows.
    End,
    /// Keeper: nothing is kept under this name now.
    Forgotten(String),
    /// Forwarder: keep these descriptors under this name, in place of others.
    Store(String),
    /// Forwarder: keep nothing under this name.
    Forget(String),
    /// Forwarder: initialised, as far as that is possible without what was kept.
    Warm,
    /// Forwarder: these are my signs of life, a [`Pulse`](super::Pulse).
    Pulse,
    /// Forwarder: packets are forwarded.
    Ready,
    /// Forwarder: they are no longer, and nothing that was kept is used.
    Yielded,
}

impl Word {
    fn to_text(&self) -> String {
        match self {
            Self::Kept(name) => format!("kept\n{name}"),
            Self::Go(Occasion { restarts, reason, since, discarded }) => {
                // Each on one line.
                let [reason, discarded] = [reason, discarded].map(|text| text.replace('\n', " "));
                format!("go\n{restarts}\n{since}\n{reason}\n{discarded}")
            }
            Self::Yield => "yield".to_owned(),
            Self::End => "end".to_owned(),
            Self::Forgotten(name) => format!("forgotten\n{name}"),
            Self::Store(name) => format!("store\n{name}"),
            Self::Forget(name) => format!("forget\n{name}"),
            Self::Warm => "warm".to_owned(),
            Self::Pulse => "pulse".to_owned(),
            Self::Ready => "ready".to_owned(),
            Self::Yielded => "yielded".to_owned(),
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.split('\n');
        let word = lines.next()?;
        let mut operand = || lines.next().map(str::to_owned);
        Some(match word {
            "kept" => Self::Kept(operand()?),
            "go" => Self::Go(Occasion {
                restarts: operand()?.parse().ok()?,
                since: operand()?.parse().ok()?,
                reason: operand()?,
                discarded: operand()?,
            }),
            "yield" => Self::Yield,
            "end" => Self::End,
            "forgotten" => Self::Forgotten(operand()?),
            "store" => Self::Store(operand()?),
            "forget" => Self::Forget(operand()?),
            "warm" => Self::Warm,
            "pulse" => Self::Pulse,
            "ready" => Self::Ready,
            "yielded" => Self::Yielded,
            _ => return None,
        })
    }
}

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) word: Word,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// Whether to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Yes,
    /// [`io::ErrorKind::WouldBlock`] instead.
    No,
}

/// The keeper's and the forwarder's end of a new connection.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// An end to be waited at together with other things. It is no stream, but tokio has nothing that fits better.
pub(super) fn listening(socket: OwnedFd) -> io::Result<tokio::net::UnixStream> {
    let socket = std::os::unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(socket)
}

/// Sends a message.
pub(super) fn send(
    socket: impl AsFd,
    word: &Word,
    descriptors: &[BorrowedFd<'_>],
    wait: Wait,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let text = word.to_text();
    let fits = descriptors.is_empty() || control.push(SendAncillaryMessage::ScmRights(descriptors));
    if !fits || descriptors.len() > MOST_DESCRIPTORS || text.len() > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too long for one message"));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        match sendmsg(&socket, &[IoSlice::new(text.as_bytes())], &mut control, flags) {
            Err(Errno::AGAIN) if wait == Wait::Yes => {
                poll(&mut [PollFd::new(&socket, PollFlags::OUT)], None)?;
            }
            sent => return Ok(sent.map(drop)?),
        }
    }
}

/// The next message that is understood; `None` once the other end is gone.
pub(super) fn receive(socket: impl AsFd, wait: Wait) -> io::Result<Option<Message>> {
    let flags = match wait {
        Wait::Yes => RecvFlags::CMSG_CLOEXEC,
        Wait::No => RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    };
    loop {
        let mut text = [0; LONGEST];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(&socket, &mut [IoSliceMut::new(&mut text)], &mut control, flags)?;
        if received.bytes == 0 {
            return Ok(None);
        }
        let rights = |message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        };
        let descriptors = control.drain().filter_map(rights).flatten().collect();
        let word = str::from_utf8(&text[..received.bytes]).ok().and_then(Word::from_text);
        if let Some(word) = word {
            return Ok(Some(Message { word, descriptors }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Seek as _, Write as _};

    use super::*;

    #[test]
    fn every_word_is_understood_by_the_other_end() {
        let (keeper, forwarder) = pair().unwrap();
        let occasion = Occasion {
            restarts: 3,
            reason: "killed by SIGKILL".to_owned(),
            since: 17,
            discarded: String::new(),
        };
        for word in [
            Word::Kept("tap.eth0".to_owned()),
            Word::Go(occasion),
            Word::Yield,
            Word::End,
            Word::Forgotten("flows".to_owned()),
            Word::Store("flows".to_owned()),
            Word::Forget("flows".to_owned()),
            Word::Warm,
            Word::Ready,
            Word::Yielded,
        ] {
            send(&keeper, &word, &[], Wait::Yes).unwrap();
            assert_eq!(receive(&forwarder, Wait::Yes).unwrap().unwrap().word, word);
        }
        let nothing = receive(&forwarder, Wait::No).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        drop(keeper);
        assert!(receive(&forwarder, Wait::Yes).unwrap().is_none());
    }

    #[test]
    fn descriptors_arrive_with_their_word_and_in_order() {
        let (keeper, forwarder) = pair().unwrap();
        let mut files = ["first", "second"].map(|text| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.rewind().unwrap();
            file
        });
        let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        send(&forwarder, &Word::Store("a".to_owned()), &descriptors, Wait::Yes).unwrap();
        files.iter_mut().for_each(|file| file.set_len(3).unwrap());
        drop(files);
        let message = receive(&keeper, Wait::Yes).unwrap().unwrap();
        let texts: Vec<_> = message
            .descriptors
            .into_iter()
            .map(|descriptor| {
                let mut text = String::new();
                File::from(descriptor).read_to_string(&mut text).unwrap();
                text
            })
            .collect();
        assert_eq!(texts, ["fir", "sec"]);
    }

    #[test]
    fn what_a_later_version_says_is_passed_over_or_read_as_far_as_it_is_known() {
        let (keeper, forwarder) = pair().unwrap();
        for text in ["dance\nwith me", "go\nmany\n0\n\n", "yield\nsoftly"] {
            rustix::net::send(&keeper, text.as_bytes(), SendFlags::empty()).unwrap();
        }
        assert_eq!(receive(&forwarder, Wait::Yes).unwrap().unwrap().word, Word::Yield);
        assert!(receive(&forwarder, Wait::No).is_err());
    }

    #[test]
    fn a_reason_of_several_lines_is_one_operand() {
        let (keeper, forwarder) = pair().unwrap();
        let go = Word::Go(Occasion { reason: "one\ntwo".to_owned(), ..Occasion::default() });
        send(&keeper, &go, &[], Wait::Yes).unwrap();
        let word = receive(&forwarder, Wait::Yes).unwrap().unwrap().word;
        assert_eq!(word, Word::Go(Occasion { reason: "one two".to_owned(), ..Occasion::default() }));
    }
}
