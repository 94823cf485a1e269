//! Devices without hardware.

use std::path::{Path, PathBuf};

use super::PortError;

/// A device that one of DPDK's software drivers makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vdev {
    /// A kernel tap interface (`net_tap`): what the kernel sends there is received, what is transmitted reaches the
    /// kernel. See [the module](super) for what to know about it.
    Tap {
        /// Name of the interface, 1-15 letters, digits, `-`, `_`, `.`; must not exist in this network namespace.
        interface: String,
        /// MAC address of the interface, which is also the port's; `None`: the kernel's choice.
        mac: Option<[u8; 6]>,
    },
    /// Swallows what is transmitted and makes packets of zeroes (`net_null`).
    Null {
        /// Tells several apart.
        name: String,
        /// Length of the packets it makes, bytes; 0: it makes none.
        packet: u16,
    },
    /// Receives what it transmits (`net_ring`).
    Ring {
        /// Tells several apart.
        name: String,
    },
    /// Capture files (`net_pcap`).
    Pcap {
        /// Tells several apart.
        name: String,
        /// Packets of this file are received, once.
        receive: Option<PathBuf>,
        /// What is transmitted is written here.
        transmit: Option<PathBuf>,
    },
    /// A kernel interface, by AF_XDP sockets (`net_af_xdp`); its first `queues` queues.
    AfXdp {
        /// Name of the interface; must exist in this network namespace.
        interface: String,
        /// Queues, at least 1.
        queues: u16,
    },
    /// Memory that is shared with a program, which asks for it at a socket (`net_memif`, as server).
    Memif {
        /// Tells several apart.
        name: String,
        /// The socket; made, in a folder that must exist, and removed.
        socket: PathBuf,
    },
    /// Memory that a program or a virtual machine shares, which listens at a socket (`net_vhost`, as client); that may come
    /// later, and come back.
    VhostUser {
        /// Tells several apart.
        name: String,
        /// The socket.
        socket: PathBuf,
    },
    /// A kernel tap interface for which a thread of the kernel's moves packets (`net_virtio_user` with vhost-net).
    VhostNet {
        /// Name of the interface, 1-15 letters, digits, `-`, `_`, `.`; must not exist in this network namespace.
        interface: String,
        /// MAC address of the interface, which is also the port's.
        mac: [u8; 6],
    },
    /// Any other driver, in EAL's own terms.
    Other {
        /// Driver name and suffix, as `net_memif0`.
        name: String,
        /// `key=value`, separated by commas.
        arguments: String,
    },
}

/// A device in EAL's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) arguments: String,
}

impl Vdev {
    /// Refuses what EAL would misread: its argument syntax has no quoting.
    pub(crate) fn check(&self) -> Result<(), PortError> {
        match self {
            Self::Tap { interface, mac } => {
                interface_name(interface)?;
                match mac {
                    Some(mac) if mac[0] & 1 != 0 || *mac == [0; 6] => {
                        Err(PortError::BadMac { port: format!("tap {interface}"), mac: *mac })
                    }
                    _ => Ok(()),
                }
            }
            Self::Null { name, packet } => {
                plain(name, "name", name, 40)?;
                if *packet != 0 && *packet < 60 {
                    return Err(bad(name, "packet", &packet.to_string(), "must be 0, or at least 60"));
                }
                Ok(())
            }
            Self::Ring { name } => plain(name, "name", name, 40),
            Self::Pcap { name, receive, transmit } => {
                plain(name, "name", name, 40)?;
                for file in [receive, transmit].into_iter().flatten() {
                    path(name, file)?;
                }
                if receive.is_none() && transmit.is_none() {
                    return Err(bad(name, "path", "", "one of receive and transmit must be given"));
                }
                Ok(())
            }
            Self::Memif { name, socket } | Self::VhostUser { name, socket } => {
                plain(name, "name", name, 40)?;
                path(name, socket)
            }
            Self::VhostNet { interface, mac } => {
                interface_name(interface)?;
                match mac[0] & 1 != 0 || *mac == [0; 6] {
                    true => Err(PortError::BadMac { port: format!("tap {interface}"), mac: *mac }),
                    false => Ok(()),
                }
            }
            Self::AfXdp { interface, queues } => {
                interface_name(interface)?;
                match queues {
                    0 => Err(bad(interface, "queues", "0", "must be at least 1")),
                    _ => Ok(()),
                }
            }
            Self::Other { name, arguments } => {
                plain(name, "name", name, 60)?;
                if arguments.contains('\0') {
                    return Err(bad(name, "arguments", arguments, "must not hold a zero byte"));
                }
                Ok(())
            }
        }
    }

    pub(crate) fn device(&self) -> Device {
        let (name, arguments) = match self {
            Self::Tap { interface, mac } => {
                let mac = mac.map(|mac| format!(",mac={}", mac_text(mac))).unwrap_or_default();
                // No separator: the driver names a mempool "mp_" and this, of which DPDK takes 25 characters.
                (format!("net_tap{interface}"), format!("iface={interface}{mac}"))
            }
            Self::Null { name, packet: 0 } => (format!("net_null_{name}"), "no-rx=1".into()),
            Self::Null { name, packet } => (format!("net_null_{name}"), format!("size={packet}")),
            Self::Ring { name } => (format!("net_ring_{name}"), String::new()),
            Self::Pcap { name, receive, transmit } => {
                let receive = receive.iter().map(|path| format!("rx_pcap={}", path.display()));
                let transmit = transmit.iter().map(|path| format!("tx_pcap={}", path.display()));
                (format!("net_pcap_{name}"), receive.chain(transmit).collect::<Vec<_>>().join(","))
            }
            Self::Memif { name, socket } => (
                format!("net_memif_{name}"),
                format!("role=server,id=0,socket={},socket-abstract=no", socket.display()),
            ),
            Self::VhostUser { name, socket } => {
                (format!("net_vhost_{name}"), format!("iface={},client=1,queues=1", socket.display()))
            }
            Self::VhostNet { interface, mac } => (
                format!("net_virtio_user_{interface}"),
                format!(
                    "path=/dev/vhost-net,iface={interface},queues=1,queue_size=1024,mac={}",
                    mac_text(*mac)
                ),
            ),
            Self::AfXdp { interface, queues } => {
                (format!("net_af_xdp_{interface}"), format!("iface={interface},queue_count={queues}"))
            }
            Self::Other { name, arguments } => (name.clone(), arguments.clone()),
        };
        Device { name, arguments }
    }
}

pub(super) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn bad(device: &str, field: &'static str, value: &str, must: &'static str) -> PortError {
    PortError::BadDevice { device: device.to_owned(), field, value: value.to_owned(), must }
}

fn path(device: &str, path: &Path) -> Result<(), PortError> {
    let text = path.to_string_lossy();
    if text.contains([',', '=', '[', ']', '\0']) || path.to_str().is_none() {
        return Err(bad(device, "path", &text, "must be UTF-8 without , = [ ]"));
    }
    Ok(())
}

fn plain(device: &str, field: &'static str, text: &str, longest: usize) -> Result<(), PortError> {
    let fits = (1..=longest).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if fits {
        Ok(())
    } else {
        Err(bad(device, field, text, "must be a short word of letters, digits, - _ ."))
    }
}

/// The kernel allows more in names; but `%` it replaces, and `,` `=` `[` `]` mean something to EAL.
fn interface_name(name: &str) -> Result<(), PortError> {
    let fits = (1..libc::IFNAMSIZ).contains(&name.len())
        && name != "."
        && name != ".."
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if fits { Ok(()) } else { Err(bad(name, "interface", name, "must be 1-15 letters, digits, - _ .")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tap(interface: &str) -> Vdev {
        Vdev::Tap { interface: interface.into(), mac: None }
    }

    #[test]
    fn an_interface_name_the_kernel_or_eal_would_change_is_refused() {
        for bad in ["", ".", "..", "a/b", "tap%d", "a b", "a,b", "a=b", "sixteen-bytes-xx", "tüp0"] {
            let error = tap(bad).check().unwrap_err().to_string();
            assert!(error.contains("must be 1-15"), "{bad}: {error}");
        }
        for good in ["cvp0", "fifteen-bytes-x", "a.b_c-d"] {
            tap(good).check().unwrap();
        }
    }

    #[test]
    fn a_multicast_mac_is_refused() {
        let vdev = Vdev::Tap { interface: "cvp0".into(), mac: Some([1, 0, 0, 0, 0, 1]) };
        assert!(matches!(vdev.check(), Err(PortError::BadMac { .. })));
    }

    #[test]
    fn a_tap_is_named_after_its_interface() {
        let vdev = Vdev::Tap { interface: "cvp0".into(), mac: Some([2, 0, 0, 0, 0, 0xab]) };
        let device = vdev.device();
        assert_eq!(device.name, "net_tapcvp0");
        assert_eq!(device.arguments, "iface=cvp0,mac=02:00:00:00:00:ab");
    }

    #[test]
    fn a_tap_with_the_longest_interface_name_still_has_a_mempool_name() {
        let vdev = Vdev::Tap { interface: "a".repeat(15), mac: None };
        // RTE_MEMPOOL_NAMESIZE of DPDK 22.11, without the zero at the end.
        assert!(vdev.device().name.len() + "mp_".len() <= 25);
    }

    #[test]
    fn a_path_that_would_break_the_arguments_is_refused() {
        let pcap = |path: &str| Vdev::Pcap { name: "p".into(), receive: Some(path.into()), transmit: None };
        assert!(pcap("/tmp/a,iface=eth0").check().is_err());
        pcap("/tmp/a.pcap").check().unwrap();
    }
}
