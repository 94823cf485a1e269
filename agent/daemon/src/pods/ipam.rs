//! Which addresses a pod gets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::tables::NodeAddresses;

/// What a pod would like to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Addresses it must have.
    pub fixed: Vec<Fixed>,
    /// Addresses it may have if they are free: those it had before.
    pub preferred: Vec<IpAddr>,
}

/// An address that a pod must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// The address, in the network that it is in; the overlay has no use for the length of the prefix.
    pub address: IpNet,
    /// Who said so: "annotation culvert.io/addresses", "CNI_ARGS IP".
    pub source: &'static str,
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// Not one of this node's.
    #[error("address {address} ({origin}): not in this node's pod ranges {}", list(cidrs))]
    Outside {
        /// The address.
        address: IpAddr,
        /// Who wants it.
        origin: &'static str,
        /// The ranges.
        cidrs: Vec<IpNet>,
    },
    /// The network's own, the gateway's, or the broadcast address.
    #[error("address {address} ({origin}): is the network's own, its gateway's or its broadcast address")]
    Reserved {
        /// The address.
        address: IpAddr,
        /// Who wants it.
        origin: &'static str,
    },
    /// Somebody has it.
    #[error("address {address} ({origin}): is in use by {holder}")]
    Taken {
        /// The address.
        address: IpAddr,
        /// Who wants it.
        origin: &'static str,
        /// Who has it.
        holder: String,
    },
    /// Two of one family.
    #[error("addresses {first} and {second} ({origin}): a pod has one address of each family")]
    TwoOfFamily {
        /// One.
        first: IpAddr,
        /// The other.
        second: IpAddr,
        /// Who wants them.
        origin: &'static str,
    },
    /// All are given out.
    #[error("pod range {cidr}: all {used} addresses are in use")]
    Exhausted {
        /// The range.
        cidr: IpNet,
        /// How many there are in use.
        used: usize,
    },
}

impl IpamError {
    /// Whether the same wish may be granted later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Taken { .. } | Self::Exhausted { .. })
    }
}

/// Chooses one address of each of `cidrs`: the fixed one, else a preferred one that is free, else the next free one
/// after `last`, so that an address rests as long as possible before it is given out again.
///
/// `used` says who holds an address.
pub(super) fn assign(
    wish: &Wish,
    cidrs: &[IpNet],
    used: &BTreeMap<IpAddr, String>,
    last: &[IpAddr],
) -> Result<Vec<IpAddr>, IpamError> {
    for (index, fixed) in wish.fixed.iter().enumerate() {
        check(fixed, cidrs, used)?;
        let second = fixed.address.addr();
        let mut earlier = wish.fixed[..index].iter().map(|f| f.address.addr());
        if let Some(first) = earlier.find(|first| first.is_ipv4() == second.is_ipv4()) {
            return Err(IpamError::TwoOfFamily { first, second, origin: fixed.source });
        }
    }
    cidrs.iter().map(|cidr| choose(wish, cidr, used, last)).collect()
}

fn choose(
    wish: &Wish,
    cidr: &IpNet,
    used: &BTreeMap<IpAddr, String>,
    last: &[IpAddr],
) -> Result<IpAddr, IpamError> {
    if let Some(fixed) = wish.fixed.iter().find(|f| cidr.contains(&f.address.addr())) {
        return Ok(fixed.address.addr());
    }
    let free = |a: &IpAddr| is_usable(cidr, *a) && !used.contains_key(a);
    if let Some(address) = wish.preferred.iter().find(|a| free(a)) {
        return Ok(*address);
    }
    let last = last.iter().copied().find(|a| cidr.contains(a));
    next_free(cidr, used, last.unwrap_or_else(|| cidr.network())).ok_or_else(|| IpamError::Exhausted {
        cidr: *cidr,
        used: used.keys().filter(|a| cidr.contains(*a)).count(),
    })
}

fn check(fixed: &Fixed, cidrs: &[IpNet], used: &BTreeMap<IpAddr, String>) -> Result<(), IpamError> {
    let (address, origin) = (fixed.address.addr(), fixed.source);
    let Some(cidr) = cidrs.iter().find(|c| c.contains(&address)) else {
        return Err(IpamError::Outside { address, origin, cidrs: cidrs.to_vec() });
    };
    if !is_usable(cidr, address) {
        return Err(IpamError::Reserved { address, origin });
    }
    match used.get(&address) {
        Some(holder) => Err(IpamError::Taken { address, origin, holder: holder.clone() }),
        None => Ok(()),
    }
}

/// Whether a pod may have `address`. The first one of an IPv6 range is the routers' anycast address (RFC 4291, section
/// 2.6.1).
fn is_usable(cidr: &IpNet, address: IpAddr) -> bool {
    let broadcast = matches!(cidr, IpNet::V4(_)) && address == cidr.broadcast();
    cidr.contains(&address)
        && address != cidr.network()
        && address != NodeAddresses::gateway(cidr)
        && !broadcast
}

/// The first free address after `last`, from the start of the range again when its end is reached. Looks at one
/// address more than there are in use at most.
fn next_free(cidr: &IpNet, used: &BTreeMap<IpAddr, String>, last: IpAddr) -> Option<IpAddr> {
    let mut address = last;
    // Three more that are nobody's: network, gateway, broadcast.
    for _ in 0..used.len() + 4 {
        address = if address == cidr.broadcast() { cidr.network() } else { successor(address) };
        if is_usable(cidr, address) && !used.contains_key(&address) {
            return Some(address);
        }
    }
    None
}

pub(super) fn successor(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(a) => IpAddr::V4(u32::from(a).wrapping_add(1).into()),
        IpAddr::V6(a) => IpAddr::V6(u128::from(a).wrapping_add(1).into()),
    }
}

fn list(cidrs: &[IpNet]) -> String {
    cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
