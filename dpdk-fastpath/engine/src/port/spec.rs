//! What a port is asked to be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use culvert_api::fastpath::AttachPortRequest;
use culvert_api::value::{IfName, IfNameError, Mac, MacError, Mtu, RangeError};

/// A pod's port, as the agent asks for it; every value can be used as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPort {
    /// Name of the port and, until it is moved into the pod, of its kernel interface.
    pub name: IfName,
    /// The pod's IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// The pod's IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Ethernet address of the pod's end.
    pub mac: Mac,
    /// Largest IP packet of the pod.
    pub mtu: Mtu,
    /// Routing domain.
    pub tenant: u32,
    /// Who holds the port, for people.
    pub owner: String,
}

/// Why a request is no [`PodPort`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecError {
    /// The name.
    #[error(transparent)]
    Name(#[from] IfNameError),
    /// Another field, named together with the port.
    #[error("port {port}: {field}")]
    Field {
        /// The port.
        port: IfName,
        /// What is wrong.
        field: FieldError,
    },
}

/// What is wrong with a field.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FieldError {
    /// The Ethernet address.
    #[error(transparent)]
    Mac(#[from] MacError),
    /// The MTU.
    #[error(transparent)]
    Mtu(#[from] RangeError),
    /// An address that is no address.
    #[error("address of {0} bytes: must be 4 or 16")]
    AddressLength(usize),
    /// An address that no pod can have.
    #[error("address {0}: must be a unicast address, neither loopback nor link-local")]
    NotUsable(IpAddr),
    /// Two of one family.
    #[error("addresses {0} and {1}: at most one of each family")]
    TwoOfOneFamily(IpAddr, IpAddr),
}

impl PodPort {
    /// The pod's addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }
}

impl TryFrom<AttachPortRequest> for PodPort {
    type Error = SpecError;

    fn try_from(request: AttachPortRequest) -> Result<Self, SpecError> {
        let AttachPortRequest { name, addresses, mac, mtu, tenant, owner } = request;
        let name: IfName = name.parse()?;
        fields(&addresses, &mac, mtu)
            .map(|(ipv4, ipv6, mac, mtu)| Self { name: name.clone(), ipv4, ipv6, mac, mtu, tenant, owner })
            .map_err(|field| SpecError::Field { port: name, field })
    }
}

type Fields = (Option<Ipv4Addr>, Option<Ipv6Addr>, Mac, Mtu);

fn fields(addresses: &[Vec<u8>], mac: &[u8], mtu: u32) -> Result<Fields, FieldError> {
    let (mut ipv4, mut ipv6) = (None, None);
    for address in addresses {
        match pod_address(address)? {
            IpAddr::V4(new) => put(&mut ipv4, new)?,
            IpAddr::V6(new) => put(&mut ipv6, new)?,
        }
    }
    Ok((ipv4, ipv6, mac.try_into()?, mtu.try_into()?))
}

fn put<A: Copy + Into<IpAddr>>(place: &mut Option<A>, new: A) -> Result<(), FieldError> {
    match place.replace(new) {
        None => Ok(()),
        Some(old) => Err(FieldError::TwoOfOneFamily(old.into(), new.into())),
    }
}

fn pod_address(bytes: &[u8]) -> Result<IpAddr, FieldError> {
    let address = if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        IpAddr::from(octets)
    } else if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
        IpAddr::from(octets)
    } else {
        return Err(FieldError::AddressLength(bytes.len()));
    };
    let usable = match address {
        IpAddr::V4(v4) => !v4.is_broadcast() && !v4.is_link_local() && v4.octets()[0] != 0,
        IpAddr::V6(v6) => !v6.is_unicast_link_local() && v6.to_ipv4_mapped().is_none(),
    };
    if usable && !address.is_unspecified() && !address.is_loopback() && !address.is_multicast() {
        Ok(address)
    } else {
        Err(FieldError::NotUsable(address))
    }
}
