//! Which endpoints belong to several services.

use std::net::IpAddr;

use culvert_packet::flow::{FlowKey4, Tenant};
use culvert_packet::ip::Protocol;

use super::service::ServiceKey;
use super::shared::Pages;

/// Cells, among which endpoints are spread by hash; a megabyte once there is an endpoint.
const CELLS: usize = 1 << 20;

/// How many services of the default tenant have each endpoint over TCP and IPv4. Two endpoints may share a cell: what is
/// told of one is at least what is true, and with 250,000 of them four of five are told apart from all others.
#[derive(Debug, Clone, Default)]
pub(super) struct Common {
    cells: Pages<u8, 4096>,
}

impl Common {
    /// One more service has an endpoint.
    pub(super) fn add(&mut self, service: &ServiceKey, endpoint: (IpAddr, u16)) {
        if let Some(cell) = cell(service, endpoint) {
            let count = self.cells.get_mut(cell);
            *count = count.saturating_add(1);
        }
    }

    /// One less has it.
    pub(super) fn remove(&mut self, service: &ServiceKey, endpoint: (IpAddr, u16)) {
        if let Some(cell) = cell(service, endpoint) {
            let count = self.cells.get_mut(cell);
            // How many there were beyond the largest number nobody knows.
            if *count != u8::MAX {
                *count = count.saturating_sub(1);
            }
        }
    }

    /// Whether no other service has this endpoint of a service, for sure.
    pub(super) fn is_sole(&self, service: &ServiceKey, endpoint: (IpAddr, u16)) -> bool {
        cell(service, endpoint).is_some_and(|cell| self.cells.get(cell) == Some(&1))
    }
}

fn cell(service: &ServiceKey, endpoint: (IpAddr, u16)) -> Option<usize> {
    let ServiceKey { tenant: Tenant::DEFAULT, protocol: Protocol::TCP, .. } = service else { return None };
    let (IpAddr::V4(address), port) = endpoint else { return None };
    let key = FlowKey4::new(Tenant::DEFAULT, Protocol::TCP, (address, port), (address, 0));
    Some((key.hash64() >> 32) as usize % CELLS)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn service(tenant: Tenant, protocol: Protocol) -> ServiceKey {
        ServiceKey { tenant, vip: Ipv4Addr::new(10, 96, 0, 1).into(), protocol, port: 80 }
    }

    fn endpoint(number: u32) -> (IpAddr, u16) {
        (Ipv4Addr::from_bits(0x0af4_0000 + number).into(), 8080)
    }

    #[test]
    fn an_endpoint_is_sole_while_one_service_has_it() {
        let (tcp, mut common) = (service(Tenant::DEFAULT, Protocol::TCP), Common::default());
        assert!(!common.is_sole(&tcp, endpoint(1)), "nobody has it");
        for (add, sole) in
            [(true, true), (true, false), (true, false), (false, false), (false, true), (false, false)]
        {
            let count = if add { Common::add } else { Common::remove };
            count(&mut common, &tcp, endpoint(1));
            assert_eq!(common.is_sole(&tcp, endpoint(1)), sole);
        }
    }

    #[test]
    fn what_is_not_counted_is_never_sole() {
        let mut common = Common::default();
        let other = Tenant::new(7).unwrap();
        for key in [service(Tenant::DEFAULT, Protocol::UDP), service(other, Protocol::TCP)] {
            common.add(&key, endpoint(1));
            assert!(!common.is_sole(&key, endpoint(1)));
        }
        assert!(!common.is_sole(&service(Tenant::DEFAULT, Protocol::TCP), endpoint(1)));
    }

    #[test]
    fn an_endpoint_of_more_services_than_can_be_counted_is_never_sole_again() {
        let (tcp, mut common) = (service(Tenant::DEFAULT, Protocol::TCP), Common::default());
        (0..300).for_each(|_| common.add(&tcp, endpoint(1)));
        (0..300).for_each(|_| common.remove(&tcp, endpoint(1)));
        assert!(!common.is_sole(&tcp, endpoint(1)));
        common.add(&tcp, endpoint(1));
        assert!(!common.is_sole(&tcp, endpoint(1)));
    }

    #[test]
    fn most_of_a_quarter_of_a_million_endpoints_are_sole() {
        let (tcp, mut common) = (service(Tenant::DEFAULT, Protocol::TCP), Common::default());
        (0..250_000).for_each(|number| common.add(&tcp, endpoint(number)));
        let sole = (0..250_000).filter(|number| common.is_sole(&tcp, endpoint(*number))).count();
        assert!((190_000..210_000).contains(&sole), "{sole}");
    }
}
