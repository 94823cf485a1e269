//! IP addresses of interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};

use super::{Netlink, NetlinkError};

impl Netlink {
    /// All addresses of the namespace, each with the index of its interface.
    pub async fn addresses(&self) -> Result<Vec<(u32, IpNet)>, NetlinkError> {
        let request = self.handle.address().get();
        let messages = self.dump(|| request.execute()).await;
        let messages = messages.map_err(|e| NetlinkError::new("addresses", "list them", e))?;
        Ok(messages.iter().filter_map(|m| Some((m.header.index, address(m)?))).collect())
    }

    /// Adds `address` to interface `index`; one that is there already is no error. An IPv6 address is usable at once:
    /// duplicate address detection is off for it (IFA_F_NODAD), since pods get addresses that nobody else may have.
    pub async fn add_address(&self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len());
        if matches!(address, IpNet::V6(_)) {
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        match request.execute().await {
            Ok(()) => Ok(()),
            Err(e) => {
                let error =
                    NetlinkError::new(format!("interface {index}"), format!("add address {address}"), e);
                if error.errno() == Some(Errno::EEXIST) { Ok(()) } else { Err(error) }
            }
        }
    }

    /// Removes `address` from interface `index`; one that is not there is no error.
    pub async fn remove_address(&self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len());
        let message = std::mem::take(request.message_mut());
        match self.handle.address().del(message).execute().await {
            Ok(()) => Ok(()),
            Err(e) => {
                let error =
                    NetlinkError::new(format!("interface {index}"), format!("remove address {address}"), e);
                if error.is_absent() { Ok(()) } else { Err(error) }
            }
        }
    }
}

/// The interface's own address: IFA_LOCAL where there is one (on point-to-point links IFA_ADDRESS is the peer's).
fn address(message: &AddressMessage) -> Option<IpNet> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(ip) if local => Some(*ip),
            AddressAttribute::Address(ip) if !local => Some(*ip),
            _ => None,
        })
    };
    let ip: IpAddr = find(true).or_else(|| find(false))?;
    IpNet::new(ip, message.header.prefix_len).ok()
}
