//! Telling an interface's neighbours where its addresses are now.
//!
//! A pod's address may have been another pod's a moment ago, at another MAC, which neighbours and switches still know.
//! Gratuitous ARP (RFC 5227, section 3) and unsolicited neighbour advertisements (RFC 4861, section 7.2.6) put that
//! right. The kernel sends its own (`arp_notify`, `ndisc_notify`) only at the moment when an interface is brought up,
//! when a virtual function seldom has a carrier.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use culvert_api::value::Mac;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockType, SockaddrLike as _, bind, socket};
use nix::unistd;

use crate::netns::{Netns, NetnsError};

/// Addresses that could not be announced.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The interface is not there.
    #[error("interface {0}: is not there")]
    NoInterface(u32),
    /// The packet socket.
    #[error("interface {index}: cannot {action}")]
    Socket {
        /// Index of the interface.
        index: u32,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: Errno,
    },
}

/// Tells everybody on the link of interface `index` of `netns` that `addresses` are at `mac`: one frame per address.
pub fn announce(netns: &Netns, index: u32, mac: Mac, addresses: &[IpAddr]) -> Result<(), AnnounceError> {
    let send = || {
        let socket = packet_socket(index)?;
        for address in addresses {
            let sent = unistd::write(&socket, &frame(mac, *address));
            sent.map_err(|source| AnnounceError::Socket { index, action: "send to it", source })?;
        }
        Ok(())
    };
    netns.run(send)?
}

/// A socket that sends whole Ethernet frames from interface `index`, and receives none.
fn packet_socket(index: u32) -> Result<OwnedFd, AnnounceError> {
    let failed = |action| move |source| AnnounceError::Socket { index, action, source };
    let addresses = getifaddrs().map_err(failed("list the interfaces"))?;
    let links = addresses.filter_map(|i| i.address?.as_link_addr().copied());
    let link: LinkAddr = links
        .into_iter()
        .find(|link| u32::try_from(link.ifindex()) == Ok(index))
        .ok_or(AnnounceError::NoInterface(index))?;
    let open = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None);
    let open = open.map_err(failed("open a packet socket on it"))?;
    debug_assert_eq!(link.family(), Some(AddressFamily::Packet));
    bind(open.as_raw_fd(), &link).map_err(failed("bind a packet socket to it"))?;
    Ok(open)
}

fn frame(mac: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => gratuitous_arp(mac, address),
        IpAddr::V6(address) => unsolicited_advertisement(mac, address),
    }
}

/// An ARP announcement: a request for `address` by `address` itself (RFC 5227, section 2.3), in network byte order.
fn gratuitous_arp(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    const ETHERNET: u16 = 1;
    const IPV4: u16 = 0x0800;
    const REQUEST: u16 = 1;
    let mut frame = ethernet([0xff; 6], mac, 0x0806);
    frame.extend(ETHERNET.to_be_bytes());
    frame.extend(IPV4.to_be_bytes());
    frame.extend([6, 4]);
    frame.extend(REQUEST.to_be_bytes());
    frame.extend(mac.octets());
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

/// A neighbour advertisement to all nodes with the override flag (RFC 4861, sections 4.4 and 7.2.6).
fn unsolicited_advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    const ADVERTISEMENT: u8 = 136;
    const OVERRIDE: u8 = 0x20;
    const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
    const ICMPV6: u8 = 58;
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend(address.octets());
    message.extend([TARGET_LINK_LAYER_ADDRESS, 1]);
    message.extend(mac.octets());
    let length = u16::try_from(message.len()).expect("is 32 bytes");

    let mut pseudo = Vec::from(address.octets());
    pseudo.extend(ALL_NODES.octets());
    pseudo.extend(u32::from(length).to_be_bytes());
    pseudo.extend([0, 0, 0, ICMPV6]);
    pseudo.extend(&message);
    message[2..4].copy_from_slice(&internet_checksum(&pseudo).to_be_bytes());

    let mut frame = ethernet([0x33, 0x33, 0, 0, 0, 1], mac, 0x86dd);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    // A hop limit of 255 proves that no router forwarded it.
    frame.extend([ICMPV6, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

fn ethernet(destination: [u8; 6], source: Mac, protocol: u16) -> Vec<u8> {
    let mut header = Vec::from(destination);
    header.extend(source.octets());
    header.extend(protocol.to_be_bytes());
    header
}

/// RFC 1071, over an even number of bytes.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn a_gratuitous_arp_asks_everybody_for_the_address_it_comes_from() {
        let frame = frame("02:00:00:00:00:07".parse().unwrap(), "10.9.0.5".parse().unwrap());
        let expected = concat!(
            "ffffffffffff",
            "020000000007",
            "0806",
            "0001",
            "0800",
            "06",
            "04",
            "0001", //
            "020000000007",
            "0a090005",
            "000000000000",
            "0a090005"
        );
        assert_eq!(hex(&frame), expected);
    }

    #[test]
    fn an_unsolicited_advertisement_overrides_and_its_checksum_holds() {
        let mac: Mac = "02:00:00:00:00:07".parse().unwrap();
        let frame = frame(mac, "fd09::5".parse().unwrap());
        assert_eq!(hex(&frame[..22]), "333300000001020000000007".to_owned() + "86dd" + "6000000000203aff");
        let (source, message) = (&frame[22..38], &frame[54..]);
        assert_eq!(hex(source), "fd090000000000000000000000000005");
        assert_eq!((message[0], message[4], message.len()), (136, 0x20, 32));
        assert_eq!((&message[8..24], &message[24..]), (source, &[2, 1, 2, 0, 0, 0, 0, 7][..]));
        let mut summed = frame[22..54].to_vec();
        summed.extend([0, 0, 0, 32, 0, 0, 0, 58]);
        summed.extend(message);
        assert_eq!(internet_checksum(&summed), 0, "the sum over what is checked, checksum included");
    }
}
