//! Established TCP connections: `/proc/net/tcp` and `tcp6` (`Documentation/networking/proc_net_tcp.rst`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::root::{FileError, HostRoot, read};

/// TCP_ESTABLISHED of `net/tcp_states.h`.
const ESTABLISHED: &str = "01";

/// Local addresses of connections to one of `servers`.
pub(super) fn local_addresses(
    root: &HostRoot,
    servers: &BTreeMap<SocketAddr, String>,
) -> Result<BTreeSet<IpAddr>, FileError> {
    let mut found = BTreeSet::new();
    if servers.is_empty() {
        return Ok(found);
    }
    for file in ["proc/net/tcp", "proc/net/tcp6"] {
        let text = read(&root.path(file))?.unwrap_or_default();
        for line in text.lines().skip(1) {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let (Some(local), Some(remote), Some(ESTABLISHED)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let (Some(local), Some(remote)) = (socket_address(local), socket_address(remote)) else {
                continue;
            };
            if servers.contains_key(&remote) {
                found.insert(local.ip());
            }
        }
    }
    Ok(found)
}

/// `0100007F:0050`: 32-bit words of the address as the machine would print them, in network order in memory; then the port.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word =
        |at: usize| Some(u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let octets = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            let ip = Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?);
            // A socket for both families.
            ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeHost;

    #[test]
    fn the_local_address_of_an_established_connection_to_a_server_is_found() {
        let host = FakeHost::new();
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n";
        host.file(
            "proc/net/tcp",
            &format!(
                "{head}   0: 0500000A:A2C4 0100000A:192B 01 00000000:00000000 00:00000000 00000000     0\n\
                 \x20  1: 0600000A:A2C5 0100000A:192B 06 00000000:00000000 00:00000000 00000000     0\n\
                 \x20  2: 0700000A:A2C5 0100000A:0050 01 00000000:00000000 00:00000000 00000000     0\n   3: x\n"
            ),
        );
        host.file(
            "proc/net/tcp6",
            &format!(
                "{head}   0: 0000000000000000FFFF00000800000A:A2C4 0000000000000000FFFF00000100000A:192B 01\n"
            ),
        );
        let servers = BTreeMap::from([("10.0.0.1:6443".parse().unwrap(), String::new())]);
        let found = local_addresses(&host.root(), &servers).unwrap();
        assert_eq!(found, BTreeSet::from(["10.0.0.5".parse().unwrap(), "10.0.0.8".parse().unwrap()]));
    }
}
