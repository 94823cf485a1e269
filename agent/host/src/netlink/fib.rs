//! All routes of a namespace: every table, every next hop.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::errno::Errno;
use nix::libc::{AF_INET, AF_INET6};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteType, RouteVia};

use super::attr::{Attributes, Reader, u32_at};
use super::raw::Question;
use super::route::ip;
use super::{Netlink, NetlinkError};

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
/// `struct rtmsg`.
const RTMSG: usize = 12;
const RTM_GETNEXTHOP: u16 = 106;
/// `struct nhmsg` of `linux/nexthop.h`.
const NHMSG: usize = 8;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
/// `struct nexthop_grp`: an id, then weights.
const NEXTHOP_GRP: usize = 8;

/// A unicast route of any table, the local one excepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FibRoute {
    /// Number of the table: 254 is the main one; VRFs have their own.
    pub table: u32,
    /// Where it leads; a prefix of length 0 is a default route.
    pub destination: IpNet,
    /// Where packets go next.
    pub hops: Vec<Hop>,
}

/// A next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// Index of the interface that packets leave by.
    pub interface: u32,
    /// The router; without one the destination is on the link itself.
    pub gateway: Option<IpAddr>,
}

impl Netlink {
    /// All unicast routes, IPv4 and IPv6, of all tables but the local one, with the next hops of next hop objects.
    pub async fn fib(&self) -> Result<Vec<FibRoute>, NetlinkError> {
        let mut found = Vec::new();
        let families =
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
        for request in families {
            let request = self.handle.route().get(request);
            let messages = self.dump(|| request.execute()).await;
            let messages = messages.map_err(|e| NetlinkError::new("routes", "list them", e))?;
            found.extend(messages.iter().filter_map(read));
        }
        // The kernel also tells the hops of an object's route, unless net.ipv4.nexthop_compat_mode is 0.
        if found.iter().any(|(route, object)| route.hops.is_empty() && object.is_some()) {
            let objects = self.next_hops().await?;
            for (route, object) in &mut found {
                if let Some(hops) = object.and_then(|id| objects.get(&id)).filter(|_| route.hops.is_empty()) {
                    route.hops.clone_from(hops);
                }
            }
        }
        Ok(found.into_iter().map(|(route, _)| route).collect())
    }

    /// Index of the interface that packets to `address` leave by; `None` if there is no route.
    pub async fn interface_towards(&self, address: IpAddr) -> Result<Option<u32>, NetlinkError> {
        let mut header = [0; RTMSG];
        let octets = match address {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        header[0] = if address.is_ipv4() { AF_INET as u8 } else { AF_INET6 as u8 };
        header[1] = octets.len() as u8 * 8;
        let mut request = Attributes::after(&header);
        request.put(RTA_DST, &octets);
        match self.raw.ask(Question::one(RTM_GETROUTE, request.finish())).await {
            Ok(answers) => Ok(answers
                .iter()
                .filter(|a| a.kind == RTM_NEWROUTE)
                .find_map(|answer| u32_at(Reader::after(RTMSG, &answer.payload).find(RTA_OIF)?, 0))),
            Err(cause) => {
                let error = NetlinkError::of(format!("address {address}"), "find its route", cause);
                let none = [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EACCES, Errno::EINVAL];
                if error.errno().is_some_and(|e| none.contains(&e)) { Ok(None) } else { Err(error) }
            }
        }
    }

    /// Hops of all next hop objects, by id; none before Linux 5.3.
    async fn next_hops(&self) -> Result<BTreeMap<u32, Vec<Hop>>, NetlinkError> {
        let answers = match self.raw.ask(Question::all(RTM_GETNEXTHOP, vec![0; NHMSG])).await {
            Ok(answers) => answers,
            Err(cause) => {
                let error = NetlinkError::of("next hops", "list them", cause);
                return if error.errno() == Some(Errno::EOPNOTSUPP) {
                    Ok(BTreeMap::new())
                } else {
                    Err(error)
                };
            }
        };
        Ok(next_hops(answers.iter().map(|a| a.payload.as_slice())))
    }
}

/// Resolves groups, which hold ids of other objects.
fn next_hops<'a>(objects: impl Iterator<Item = &'a [u8]>) -> BTreeMap<u32, Vec<Hop>> {
    let (mut hops, mut groups) = (BTreeMap::new(), Vec::new());
    for object in objects {
        let attributes = Reader::after(NHMSG, object);
        let find = |kind| attributes.clone().find(kind);
        let Some(id) = find(NHA_ID).and_then(|value| u32_at(value, 0)) else { continue };
        if let Some(members) = find(NHA_GROUP) {
            let members: Vec<u32> = members.chunks(NEXTHOP_GRP).filter_map(|m| u32_at(m, 0)).collect();
            groups.push((id, members));
        } else if let Some(interface) = find(NHA_OIF).and_then(|value| u32_at(value, 0)) {
            let gateway = find(NHA_GATEWAY).and_then(|value| match value.len() {
                4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
                _ => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
            });
            hops.insert(id, vec![Hop { interface, gateway }]);
        }
    }
    for (id, members) in groups {
        let all = members.iter().filter_map(|member| hops.get(member)).flatten().copied().collect();
        hops.insert(id, all);
    }
    hops
}

/// The route that `message` tells of, and its next hop object.
fn read(message: &RouteMessage) -> Option<(FibRoute, Option<u32>)> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut table = u32::from(message.header.table);
    let (mut destination, mut gateway, mut interface, mut object) = (None, None, None, None);
    let mut hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::NhId(id) => object = Some(*id),
            RouteAttribute::MultiPath(paths) => hops.extend(paths.iter().map(|path| Hop {
                interface: path.interface_index,
                gateway: path.attributes.iter().find_map(router),
            })),
            other => gateway = gateway.or_else(|| router(other)),
        }
    }
    let any: IpAddr = match message.header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let destination =
        IpNet::new(destination.unwrap_or(any), message.header.destination_prefix_length).ok()?;
    hops.extend(interface.map(|interface| Hop { interface, gateway }));
    Some((FibRoute { table, destination, hops }, object))
}

/// The router that an attribute names; RTA_VIA names one of the other family.
fn router(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(attributes: impl FnOnce(&mut Attributes)) -> Vec<u8> {
        let mut message = Attributes::after(&[0; NHMSG]);
        attributes(&mut message);
        message.finish()
    }

    #[test]
    fn groups_of_next_hop_objects_stand_for_the_hops_of_their_members() {
        let single = |id: u32, interface: u32| {
            object(|m| {
                m.put_u32s(NHA_ID, &[id]);
                m.put_u32s(NHA_OIF, &[interface]);
                m.put(NHA_GATEWAY, &[10, 0, 0, id as u8]);
            })
        };
        let group = object(|m| {
            m.put_u32s(NHA_ID, &[9]);
            m.put_u32s(NHA_GROUP, &[1, 0, 2, 0, 77, 0]);
        });
        let blackhole = object(|m| {
            m.put_u32s(NHA_ID, &[3]);
            m.put(4, &[]);
        });
        let all = [group, single(1, 4), single(2, 5), blackhole];
        let hops = next_hops(all.iter().map(Vec::as_slice));
        let hop = |interface, last| Hop { interface, gateway: Some([10, 0, 0, last].into()) };
        assert_eq!(hops[&9], [hop(4, 1), hop(5, 2)]);
        assert_eq!(hops.keys().copied().collect::<Vec<_>>(), [1, 2, 9]);
    }
}
