//! Longest-prefix match over the nodes' pod address ranges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use culvert_packet::flow::Tenant;
use ipnet::IpNet;

use super::map::Map;

/// Where a range of pod addresses is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// On this node.
    Local,
    /// On the remote node in this slot.
    Remote(u32),
}

/// The ranges of all tenants.
#[derive(Debug, Default)]
pub(super) struct Routing {
    own: Routes,
    others: Map<Tenant, Routes>,
}

impl Routing {
    pub(super) fn new(routes: impl IntoIterator<Item = (Tenant, IpNet, Target)>) -> Self {
        let mut by_tenant = Map::<Tenant, Vec<_>>::default();
        for (tenant, net, target) in routes {
            by_tenant.entry(tenant).or_default().push((net, target));
        }
        let own = Routes::new(by_tenant.remove(&Tenant::DEFAULT).unwrap_or_default());
        let others = by_tenant.into_iter().map(|(tenant, routes)| (tenant, Routes::new(routes)));
        Self { own, others: others.collect() }
    }

    #[inline]
    pub(super) fn lookup(&self, tenant: Tenant, address: IpAddr) -> Option<Target> {
        let routes = if tenant == Tenant::DEFAULT { &self.own } else { self.others.get(&tenant)? };
        routes.lookup(address)
    }
}

/// A hash map per prefix length, longest first. Nodes' ranges have one or two lengths, so that this is one or two
/// look-ups.
#[derive(Debug, Default)]
pub(super) struct Routes {
    v4: Vec<(u32, Map<u32, Target>)>,
    v6: Vec<(u128, Map<u128, Target>)>,
}

impl Routes {
    pub(super) fn new(routes: impl IntoIterator<Item = (IpNet, Target)>) -> Self {
        let mut table = Self::default();
        for (net, target) in routes {
            match net {
                IpNet::V4(net) => {
                    insert(&mut table.v4, net.netmask().to_bits(), net.network().to_bits(), target);
                }
                IpNet::V6(net) => {
                    insert(&mut table.v6, net.netmask().to_bits(), net.network().to_bits(), target);
                }
            }
        }
        table.v4.sort_unstable_by_key(|&(mask, _)| std::cmp::Reverse(mask));
        table.v6.sort_unstable_by_key(|&(mask, _)| std::cmp::Reverse(mask));
        table
    }

    #[inline]
    pub(super) fn lookup(&self, address: IpAddr) -> Option<Target> {
        match address {
            IpAddr::V4(v4) => self.lookup4(v4),
            IpAddr::V6(v6) => self.lookup6(v6),
        }
    }

    #[inline]
    pub(super) fn lookup4(&self, address: Ipv4Addr) -> Option<Target> {
        self.v4.iter().find_map(|(mask, nets)| nets.get(&(address.to_bits() & mask))).copied()
    }

    #[inline]
    pub(super) fn lookup6(&self, address: Ipv6Addr) -> Option<Target> {
        self.v6.iter().find_map(|(mask, nets)| nets.get(&(address.to_bits() & mask))).copied()
    }
}

fn insert<N: Copy + Eq + std::hash::Hash>(
    lengths: &mut Vec<(N, Map<N, Target>)>,
    mask: N,
    net: N,
    target: Target,
) {
    let at = lengths.iter().position(|&(other, _)| other == mask).unwrap_or_else(|| {
        lengths.push((mask, Map::default()));
        lengths.len() - 1
    });
    lengths[at].1.insert(net, target);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net() -> impl Strategy<Value = IpNet> {
        // Few bits, so that ranges overlap.
        prop_oneof![
            (0_u32..64, 0_u8..=32)
                .prop_map(|(n, len)| IpNet::new(Ipv4Addr::from(n << 26 | n).into(), len).unwrap()),
            (0_u128..64, 0_u8..=128).prop_map(|(n, len)| IpNet::new(
                Ipv6Addr::from(n << 122 | n).into(),
                len
            )
            .unwrap()),
        ]
    }

    proptest! {
        #[test]
        fn the_longest_prefix_that_holds_the_address_wins(
            nets in prop::collection::hash_map(net().prop_map(|n| n.trunc()), 0_u32..100, 0..30),
            probe in net(),
        ) {
            let table = Routes::new(nets.iter().map(|(net, slot)| (*net, Target::Remote(*slot))));
            let expected = nets.iter().filter(|(net, _)| net.contains(&probe.addr())).max_by_key(|(n, _)| n.prefix_len());
            prop_assert_eq!(table.lookup(probe.addr()), expected.map(|(_, slot)| Target::Remote(*slot)));
        }
    }
}
