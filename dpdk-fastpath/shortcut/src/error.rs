//! Why there is no short cut.

use std::error::Error;
use std::fmt;
use std::io;

use nix::errno::Errno;

/// What the process must be allowed to do.
const CAPABILITIES: &str = "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN";

/// Why the programs are not in the kernel.
#[derive(Debug, thiserror::Error)]
pub enum ShortcutError {
    /// The kernel is too old.
    #[error(
        "short cut: Linux {found} has no tcx, which came with 6.6: use a later kernel, or switch the short cut off"
    )]
    Old {
        /// The kernel's version.
        found: String,
    },
    /// The kernel has no BPF.
    #[error(
        "short cut: this kernel was built without the system call bpf (CONFIG_BPF_SYSCALL): use another, or switch the short \
         cut off"
    )]
    NoBpf,
    /// Not allowed.
    #[error("short cut: no permission to {action}: {CAPABILITIES}")]
    NotPermitted {
        /// What was tried.
        action: String,
    },
    /// The kernel refuses.
    #[error("short cut: cannot {action}")]
    Refused {
        /// What was tried.
        action: String,
        /// Why not.
        source: Refusal,
    },
}

/// Why an uplink is not joined.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// There is none.
    #[error("short cut: uplink {interface}: there is no interface of this name: see `ip link`")]
    Missing {
        /// The interface.
        interface: String,
    },
    /// Not allowed.
    #[error("short cut: uplink {interface}: no permission to {action}: {CAPABILITIES}")]
    NotPermitted {
        /// The interface.
        interface: String,
        /// What was tried.
        action: String,
    },
    /// The kernel refuses.
    #[error("short cut: uplink {interface}: cannot {action}")]
    Refused {
        /// The interface.
        interface: String,
        /// What was tried.
        action: String,
        /// Why not.
        source: Refusal,
    },
}

/// Why a pod is not joined, or not left.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// There is no room for it.
    #[error("short cut: port {port}: must be 0-{last}")]
    Port {
        /// Number of the port.
        port: u16,
        /// The last that there can be.
        last: usize,
    },
    /// Not allowed.
    #[error("short cut: port {port}: no permission to {action}: {CAPABILITIES}")]
    NotPermitted {
        /// Number of the port.
        port: u16,
        /// What was tried.
        action: String,
    },
    /// The kernel refuses.
    #[error("short cut: port {port}: cannot {action}")]
    Refused {
        /// Number of the port.
        port: u16,
        /// What was tried.
        action: String,
        /// Why not.
        source: Refusal,
    },
}

/// What the kernel, or who speaks to it, said.
#[derive(Debug)]
pub struct Refusal(Box<dyn Error + Send + Sync>);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Refusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// What could not be done, and why not.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) action: String,
    pub(crate) cause: Refusal,
}

impl Failed {
    /// For `map_err`.
    pub(crate) fn to<E: Into<Box<dyn Error + Send + Sync>>>(
        action: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        move |cause| Self { action: action.into(), cause: Refusal(cause.into()) }
    }

    /// The number of the system's error, if there is one in the chain.
    pub(crate) fn errno(&self) -> Option<Errno> {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&*self.cause.0);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return error.raw_os_error().map(Errno::from_raw);
            }
            if let Some(errno) = error.downcast_ref::<Errno>() {
                return Some(*errno);
            }
            cause = error.source();
        }
        None
    }

    /// Whether the process may not do this.
    fn is_forbidden(&self) -> bool {
        matches!(self.errno(), Some(Errno::EPERM | Errno::EACCES))
    }
}

impl ShortcutError {
    pub(crate) fn of(failed: Failed) -> Self {
        match failed.errno() {
            Some(Errno::ENOSYS) => Self::NoBpf,
            _ if failed.is_forbidden() => Self::NotPermitted { action: failed.action },
            _ => Self::Refused { action: failed.action, source: failed.cause },
        }
    }
}

impl UplinkError {
    pub(crate) fn of(interface: &str, failed: Failed) -> Self {
        let interface = interface.to_owned();
        match failed.errno() {
            Some(Errno::ENODEV) => Self::Missing { interface },
            _ if failed.is_forbidden() => Self::NotPermitted { interface, action: failed.action },
            _ => Self::Refused { interface, action: failed.action, source: failed.cause },
        }
    }
}

impl PodError {
    pub(crate) fn of(port: u16, failed: Failed) -> Self {
        if failed.is_forbidden() {
            Self::NotPermitted { port, action: failed.action }
        } else {
            Self::Refused { port, action: failed.action, source: failed.cause }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    fn failed(errno: Errno) -> Failed {
        Failed::to("try")(Outer(errno.into()))
    }

    #[test]
    fn what_the_system_says_is_found_below_what_others_say() {
        assert_eq!(failed(Errno::EBUSY).errno(), Some(Errno::EBUSY));
        assert_eq!(Failed::to("try")(Errno::EEXIST).errno(), Some(Errno::EEXIST));
        assert_eq!(Failed::to("try")("nobody").errno(), None);
    }

    #[test]
    fn an_error_names_its_object_and_what_to_do() {
        let capabilities = "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN";
        for (error, text) in [
            (
                ShortcutError::of(failed(Errno::EPERM)).to_string(),
                format!("short cut: no permission to try: {capabilities}"),
            ),
            (
                ShortcutError::of(failed(Errno::ENOSYS)).to_string(),
                "short cut: this kernel was built without the system call bpf (CONFIG_BPF_SYSCALL): use another, or switch \
                 the short cut off"
                    .to_owned(),
            ),
            (ShortcutError::of(failed(Errno::EINVAL)).to_string(), "short cut: cannot try".to_owned()),
            (
                UplinkError::of("eth0", failed(Errno::EACCES)).to_string(),
                format!("short cut: uplink eth0: no permission to try: {capabilities}"),
            ),
            (
                UplinkError::of("eth0", failed(Errno::ENODEV)).to_string(),
                "short cut: uplink eth0: there is no interface of this name: see `ip link`".to_owned(),
            ),
            (
                UplinkError::of("eth0", failed(Errno::EINVAL)).to_string(),
                "short cut: uplink eth0: cannot try".to_owned(),
            ),
            (
                PodError::of(7, failed(Errno::EPERM)).to_string(),
                format!("short cut: port 7: no permission to try: {capabilities}"),
            ),
            (PodError::of(7, failed(Errno::ENODEV)).to_string(), "short cut: port 7: cannot try".to_owned()),
        ] {
            assert_eq!(error, text);
        }
    }

    #[test]
    fn the_reason_stays_in_the_chain() {
        let error = PodError::of(7, failed(Errno::EBUSY));
        let reason = error.source().unwrap();
        assert_eq!(reason.to_string(), "outer");
        assert_eq!(reason.source().unwrap().to_string(), io::Error::from(Errno::EBUSY).to_string());
    }
}
