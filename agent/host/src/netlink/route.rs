//! Routes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::{Netlink, NetlinkError};

/// A unicast route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    /// Where it leads; a prefix of length 0 is the default route.
    pub destination: IpNet,
    /// The next hop; without one the destination is on the link itself.
    pub gateway: Option<IpAddr>,
    /// Index of the interface that packets leave by.
    pub interface: u32,
}

impl Route {
    /// A route to `destination` on the link itself.
    pub fn on_link(destination: IpNet, interface: u32) -> Self {
        Self { destination, gateway: None, interface }
    }

    /// The default route of the gateway's family.
    pub fn default_via(gateway: IpAddr, interface: u32) -> Self {
        let destination = match gateway {
            IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
            IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
        };
        Self { destination, gateway: Some(gateway), interface }
    }

    /// Whether it leads everywhere.
    pub fn is_default(&self) -> bool {
        self.destination.prefix_len() == 0
    }

    fn message(&self, protocol: RouteProtocol) -> Result<RouteMessage, String> {
        let mut builder = RouteMessageBuilder::<IpAddr>::new()
            .protocol(protocol)
            .destination_prefix(self.destination.network(), self.destination.prefix_len())
            .map_err(|e| e.to_string())?
            .output_interface(self.interface);
        builder = match self.gateway {
            Some(gateway) => builder.gateway(gateway).map_err(|e| e.to_string())?,
            None => builder.scope(RouteScope::Link),
        };
        Ok(builder.build())
    }
}

impl Netlink {
    /// All unicast routes of the main table, IPv4 and IPv6.
    pub async fn routes(&self) -> Result<Vec<Route>, NetlinkError> {
        self.routes_that(|_| true).await
    }

    /// Those that `protocol` made (`rtm_protocol`, rtnetlink(7)).
    pub async fn routes_of(&self, protocol: u8) -> Result<Vec<Route>, NetlinkError> {
        self.routes_that(|made_by| u8::from(made_by) == protocol).await
    }

    async fn routes_that(&self, wanted: impl Fn(RouteProtocol) -> bool) -> Result<Vec<Route>, NetlinkError> {
        let mut routes = Vec::new();
        let families =
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
        for request in families {
            let request = self.handle.route().get(request);
            let messages = self.dump(|| request.execute()).await;
            let messages = messages.map_err(|e| NetlinkError::new("routes", "list them", e))?;
            let messages = messages.iter().filter(|m| wanted(m.header.protocol));
            messages.for_each(|m| collect(m, &mut routes));
        }
        Ok(routes)
    }

    /// Adds `route`, as one that an administrator made; the same one being there already is no error.
    pub async fn add_route(&self, route: &Route) -> Result<(), NetlinkError> {
        self.add_route_of(RouteProtocol::Static.into(), route).await
    }

    /// Adds `route` as one that `protocol` made; the same one being there already, whoever made it, is no error.
    pub async fn add_route_of(&self, protocol: u8, route: &Route) -> Result<(), NetlinkError> {
        let action = format!("add route {route}");
        let message =
            route.message(protocol.into()).map_err(|e| NetlinkError::protocol(object(route), &action, e))?;
        match self.handle.route().add(message).execute().await {
            Ok(()) => Ok(()),
            Err(e) => {
                let error = NetlinkError::new(object(route), action, e);
                let same = error.errno() == Some(Errno::EEXIST) && self.routes().await?.contains(route);
                if same { Ok(()) } else { Err(error) }
            }
        }
    }

    /// Removes `route`, if an administrator made it; one that is not there is no error.
    pub async fn remove_route(&self, route: &Route) -> Result<(), NetlinkError> {
        self.remove_route_of(RouteProtocol::Static.into(), route).await
    }

    /// Removes `route`, if `protocol` made it; one that is not there is no error.
    pub async fn remove_route_of(&self, protocol: u8, route: &Route) -> Result<(), NetlinkError> {
        let action = format!("remove route {route}");
        let message =
            route.message(protocol.into()).map_err(|e| NetlinkError::protocol(object(route), &action, e))?;
        match self.handle.route().del(message).execute().await {
            Ok(()) => Ok(()),
            Err(e) => {
                let error = NetlinkError::new(object(route), action, e);
                if error.is_absent() { Ok(()) } else { Err(error) }
            }
        }
    }
}

fn object(route: &Route) -> String {
    format!("interface {}", route.interface)
}

/// Adds the route that `message` tells of, once per next hop of a multipath route.
fn collect(message: &RouteMessage, routes: &mut Vec<Route>) {
    let header = &message.header;
    let main = u32::from(RouteHeader::RT_TABLE_MAIN);
    let mut table = u32::from(header.table);
    let (mut destination, mut gateway, mut interface) = (None, None, None);
    let mut hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::MultiPath(paths) => {
                for path in paths {
                    let via = path.attributes.iter().find_map(|a| match a {
                        RouteAttribute::Gateway(address) => ip(address),
                        _ => None,
                    });
                    hops.push((via, path.interface_index));
                }
            }
            _ => {}
        }
    }
    if table != main || header.kind != RouteType::Unicast {
        return;
    }
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return,
    };
    let Ok(destination) = IpNet::new(destination.unwrap_or(any), header.destination_prefix_length) else {
        return;
    };
    hops.extend(interface.map(|index| (gateway, index)));
    routes.extend(hops.into_iter().map(|(gateway, interface)| Route { destination, gateway, interface }));
}

pub(super) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        self.gateway.map_or(Ok(()), |gateway| write!(f, " via {gateway}"))
    }
}
