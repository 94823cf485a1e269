//! A stand-in for the kernel at the other end of a netlink socket: it records what it is asked, byte for byte, and
//! gives the answers it was told to give.

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_MULTIPART, NLMSG_DONE, NLMSG_ERROR};

use super::attr::Attributes;
use super::raw::HEADER;

/// What the stand-in says to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scripted {
    /// It is done.
    Ack,
    /// It is refused, with words of the kernel's own or without.
    Refused(Errno, Option<&'static str>),
    /// One object, as (message type, all after the netlink header).
    One(u16, Vec<u8>),
    /// A list of objects.
    List(Vec<(u16, Vec<u8>)>),
    /// No answer, ever.
    Nothing,
}

/// The stand-in. It answers in the order of its script, and is silent afterwards.
#[derive(Debug)]
pub struct FakeKernel {
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl FakeKernel {
    /// Starts a stand-in; the socket is the one to give to what is tested.
    ///
    /// # Panics
    /// When the machine has no sockets or threads left.
    #[allow(clippy::unwrap_used)]
    pub fn start(script: Vec<Scripted>) -> (Self, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&requests);
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 17];
            for answer in script {
                // Ends with the last socket of the other side.
                let Ok(length @ HEADER..) = ours.recv(&mut buffer) else { return };
                lock(&record).push(buffer[..length].to_vec());
                let header: &[u8] = &buffer[..HEADER];
                for datagram in answer.datagrams(header) {
                    if ours.send(&datagram).is_err() {
                        return;
                    }
                }
            }
        });
        (Self { requests }, theirs)
    }

    /// What it was asked so far: type and payload of each request.
    pub fn requests(&self) -> Vec<(u16, Vec<u8>)> {
        let requests = lock(&self.requests);
        requests.iter().map(|r| (u16::from_ne_bytes([r[4], r[5]]), r[HEADER..].to_vec())).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scripted {
    /// The answer to the request with this header.
    fn datagrams(&self, request: &[u8]) -> Vec<Vec<u8>> {
        let sequence = &request[8..12];
        match self {
            Self::Ack => vec![acknowledgement(request, 0, None)],
            Self::Refused(errno, text) => vec![acknowledgement(request, -(*errno as i32), *text)],
            Self::One(kind, payload) => {
                vec![message(*kind, 0, sequence, payload), acknowledgement(request, 0, None)]
            }
            Self::Nothing => Vec::new(),
            Self::List(objects) => {
                let list = objects.iter().map(|(kind, p)| message(*kind, NLM_F_MULTIPART, sequence, p));
                list.chain([message(NLMSG_DONE, NLM_F_MULTIPART, sequence, &[0; 4])]).collect()
            }
        }
    }
}

/// As `netlink_ack` in `net/netlink/af_netlink.c` makes it with NETLINK_CAP_ACK and NETLINK_EXT_ACK.
fn acknowledgement(request: &[u8], code: i32, text: Option<&str>) -> Vec<u8> {
    let mut payload = Attributes::after(&[&code.to_ne_bytes()[..], request].concat());
    let mut flags = NLM_F_CAPPED;
    if let Some(text) = text {
        payload.put_text(1, text);
        flags |= NLM_F_ACK_TLVS;
    }
    message(NLMSG_ERROR, flags, &request[8..12], &payload.finish())
}

fn message(kind: u16, flags: u16, sequence: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = (HEADER + payload.len()) as u32;
    let fields: [&[u8]; 6] = [
        &length.to_ne_bytes(),
        &kind.to_ne_bytes(),
        &flags.to_ne_bytes(),
        sequence,
        &0_u32.to_ne_bytes(),
        payload,
    ];
    fields.concat()
}
