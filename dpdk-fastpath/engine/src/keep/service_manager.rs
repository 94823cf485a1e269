//! systemd, if it started us: it keeps descriptors for the time between one keeper and the next (sd_notify(3),
//! sd_listen_fds(3)).

use std::collections::BTreeMap;
use std::env;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::cmsg_space;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::message::MOST_DESCRIPTORS;

/// The service manager, if there is one.
#[derive(Debug)]
pub(super) struct ServiceManager {
    socket: Option<UnixDatagram>,
}

impl ServiceManager {
    /// What it tells us by, and nobody whom we start.
    pub(super) const VARIABLES: [&str; 4] = ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"];

    /// Whoever started us, if that is a service manager.
    pub(super) fn new() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").map(|path| {
            let address = match path.as_bytes() {
                [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
                _ => SocketAddr::from_pathname(&path)?,
            };
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&address)?;
            Ok::<_, io::Error>(socket)
        });
        let socket = socket.and_then(|socket| {
            socket.inspect_err(|error| tracing::warn!(%error, "NOTIFY_SOCKET cannot be used")).ok()
        });
        Self { socket }
    }

    /// Whether there is one, which may have another keeper follow this one.
    pub(super) fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// What it kept. To be called once, before anything else is opened or taken.
    pub(super) fn kept(&self) -> BTreeMap<String, Vec<OwnedFd>> {
        let mut kept = BTreeMap::<_, Vec<_>>::new();
        match sd_notify::listen_fds_with_names() {
            Ok(descriptors) => {
                for (descriptor, name) in descriptors {
                    // SAFETY: the service manager passed it to this process, by number, for us to own; nobody else in
                    // this process looks for such descriptors, and this is done once.
                    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
                    kept.entry(name).or_default().push(descriptor);
                }
            }
            Err(error) => tracing::warn!(%error, "LISTEN_FDS cannot be used"),
        }
        kept
    }

    /// Has descriptors kept under a name, in place of others of that name.
    pub(super) fn store(&self, name: &str, descriptors: &[OwnedFd]) {
        self.forget(name);
        // FDPOLL=0: a tap whose pod is gone hangs up, which is not for the service manager to act on.
        self.say(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), descriptors);
    }

    /// Lets nothing be kept under a name any longer.
    pub(super) fn forget(&self, name: &str) {
        self.say(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[]);
    }

    /// Packets are forwarded.
    pub(super) fn ready(&self) {
        self.say("READY=1", &[]);
    }

    /// We were told to end.
    pub(super) fn stopping(&self) {
        self.say("STOPPING=1", &[]);
    }

    fn say(&self, text: &str, descriptors: &[OwnedFd]) {
        let Some(socket) = &self.socket else { return };
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            // As many as came in one message.
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let sent = sendmsg(socket, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL);
        if let Err(error) = sent {
            tracing::warn!(%error, text, "not said to the service manager");
        }
    }
}
