//! Fields of protobuf messages, checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use culvert_api::fastpath as proto;
use culvert_api::value::Mac;
use culvert_packet::eth::EthAddr;
use ipnet::IpNet;

use super::error::Problem;

/// An address of 4 or 16 bytes, of any kind.
pub(super) fn any_address(field: &'static str, bytes: &[u8]) -> Result<IpAddr, Problem> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Ok(Ipv4Addr::from(octets).into());
    }
    match <[u8; 16]>::try_from(bytes) {
        Ok(octets) => Ok(Ipv6Addr::from(octets).into()),
        Err(_) => Err(Problem::AddressLength { field, len: bytes.len() }),
    }
}

/// An address that one station has and routers forward to.
pub(super) fn address(field: &'static str, bytes: &[u8]) -> Result<IpAddr, Problem> {
    let address = any_address(field, bytes)?;
    if is_routable(address) { Ok(address) } else { Err(Problem::AddressKind { field, address }) }
}

/// At most one such address of each IP version.
pub(super) fn addresses(field: &'static str, list: &[Vec<u8>]) -> Result<Vec<IpAddr>, Problem> {
    let list = list.iter().map(|bytes| address(field, bytes)).collect::<Result<Vec<_>, _>>()?;
    one_of_each(field, &list)?;
    Ok(list)
}

pub(super) fn one_of_each(field: &'static str, list: &[IpAddr]) -> Result<(), Problem> {
    for version in [4, 6] {
        if list.iter().filter(|address| address.is_ipv4() == (version == 4)).count() > 1 {
            return Err(Problem::TwoOfAFamily { field, version });
        }
    }
    Ok(())
}

/// A unicast MAC address.
pub(super) fn mac(field: &'static str, bytes: &[u8]) -> Result<EthAddr, Problem> {
    match Mac::try_from(bytes) {
        Ok(mac) => Ok(EthAddr(mac.octets())),
        Err(error) => Err(Problem::Mac { field, error }),
    }
}

/// A prefix; bits behind its length do not count.
pub(super) fn prefix(field: &'static str, prefix: &proto::Prefix) -> Result<IpNet, Problem> {
    net(field, any_address(field, &prefix.address)?, prefix.prefix_len).map(|net| net.trunc())
}

/// Such prefixes.
pub(super) fn prefixes(field: &'static str, list: &[proto::Prefix]) -> Result<Vec<IpNet>, Problem> {
    list.iter().map(|each| prefix(field, each)).collect()
}

/// An address with the length of its network, neither cut nor changed.
pub(super) fn net(field: &'static str, address: IpAddr, len: u32) -> Result<IpNet, Problem> {
    let wrong = Problem::PrefixLength { field, address, len };
    u8::try_from(len).ok().and_then(|len| IpNet::new(address, len).ok()).ok_or(wrong)
}

/// A number from 1 to 65535.
pub(super) fn port(field: &'static str, value: u32) -> Result<u16, Problem> {
    match u16::try_from(value) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(Problem::Range { field, value: value.into(), min: 1, max: u16::MAX.into() }),
    }
}

/// A text that is not empty.
pub(super) fn text(field: &'static str, value: &str) -> Result<(), Problem> {
    if value.is_empty() { Err(Problem::Empty { field }) } else { Ok(()) }
}

fn is_routable(address: IpAddr) -> bool {
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        return false;
    }
    match address {
        IpAddr::V4(v4) => !v4.is_link_local() && v4.octets()[0] != 0 && v4.octets()[0] < 240,
        IpAddr::V6(v6) => !v6.is_unicast_link_local() && v6.to_ipv4_mapped().is_none(),
    }
}
