//! What can go wrong with netlink.

use std::io;

use nix::errno::Errno;

use super::raw::extended;
use crate::netns::NetnsError;

/// A netlink request that did not work.
#[derive(Debug, thiserror::Error)]
#[error("{object}: cannot {action}")]
pub struct NetlinkError {
    /// What was to be changed or read: "interface 4", "vf 3 of interface 2".
    pub object: String,
    /// What was tried: "set mtu 9000".
    pub action: String,
    /// Why it failed.
    #[source]
    pub cause: NetlinkCause,
}

/// Why a netlink request failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkCause {
    /// The kernel's answer.
    #[error("{}{}", errno.desc(), text.as_ref().map(|t| format!(" ({t})")).unwrap_or_default())]
    Kernel {
        /// The error number.
        errno: Errno,
        /// The kernel's own words (extended acknowledgement), where it has some.
        text: Option<String>,
    },
    /// The socket.
    #[error(transparent)]
    Socket(io::Error),
    /// The namespace.
    #[error(transparent)]
    Netns(NetnsError),
    /// An answer that makes no sense here.
    #[error("{0}")]
    Protocol(String),
}

impl NetlinkError {
    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<Errno> {
        match self.cause {
            NetlinkCause::Kernel { errno, .. } => Some(errno),
            _ => None,
        }
    }

    /// Whether the object does not exist (any more).
    pub fn is_absent(&self) -> bool {
        matches!(self.errno(), Some(Errno::ENODEV | Errno::ENOENT | Errno::ESRCH | Errno::EADDRNOTAVAIL))
    }

    /// Whether there is something of the same name already.
    pub fn is_taken(&self) -> bool {
        self.errno() == Some(Errno::EEXIST)
    }

    /// Whether the same request may work in a moment: the driver is busy, or has not yet done what it was told.
    pub fn may_pass(&self) -> bool {
        matches!(self.errno(), Some(Errno::EAGAIN | Errno::EBUSY | Errno::EINTR))
            || matches!(self.cause, NetlinkCause::Protocol(_))
    }

    pub(super) fn new(object: impl Into<String>, action: impl Into<String>, error: rtnetlink::Error) -> Self {
        let cause = match error {
            rtnetlink::Error::NetlinkError(m) => {
                let errno = Errno::from_raw(m.raw_code().wrapping_neg());
                NetlinkCause::Kernel { errno, text: extended(&m.header) }
            }
            rtnetlink::Error::RequestFailed => {
                NetlinkCause::Protocol("the netlink socket is closed".to_owned())
            }
            other => NetlinkCause::Protocol(other.to_string()),
        };
        Self { object: object.into(), action: action.into(), cause }
    }

    pub(crate) fn of(object: impl Into<String>, action: impl Into<String>, cause: NetlinkCause) -> Self {
        Self { object: object.into(), action: action.into(), cause }
    }

    pub(super) fn protocol(object: String, action: &str, what: String) -> Self {
        Self { object, action: action.to_owned(), cause: NetlinkCause::Protocol(what) }
    }

    pub(super) fn kernel(object: String, action: &str, errno: Errno) -> Self {
        Self { object, action: action.to_owned(), cause: NetlinkCause::Kernel { errno, text: None } }
    }

    pub(crate) fn open(source: io::Error) -> Self {
        Self::socket(NetlinkCause::Socket(source))
    }

    pub(super) fn netns(source: NetnsError) -> Self {
        Self::socket(NetlinkCause::Netns(source))
    }

    fn socket(cause: NetlinkCause) -> Self {
        Self { object: "netlink".to_owned(), action: "open a socket".to_owned(), cause }
    }
}
