//! Network interfaces.

use std::fmt;

use culvert_api::value::Mac;
use futures::TryStreamExt as _;
use nix::errno::Errno;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{
    InfoData, InfoVxlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, Prop, State,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::{Netlink, NetlinkError};
use crate::netns::Netns;

/// A network interface as the kernel describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// The interface index: stays the same when the interface is renamed.
    pub index: u32,
    /// The interface name.
    pub name: String,
    /// Other names that it can be found by.
    pub alt_names: Vec<String>,
    /// Hardware address; `None` if there is none, or one that is no unicast address.
    pub mac: Option<Mac>,
    /// Hardware address that the device itself has, where the driver tells.
    pub permanent_mac: Option<Mac>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Administratively up (IFF_UP).
    pub up: bool,
    /// Whether there is a carrier (IFF_LOWER_UP).
    pub carrier: bool,
    /// Promiscuous mode set by an administrator (IFF_PROMISC).
    pub promiscuous: bool,
    /// All multicast frames wanted (IFF_ALLMULTI).
    pub all_multicast: bool,
    /// Operational state, RFC 2863.
    pub state: OperState,
    /// Index of the bridge, bond or VRF it belongs to.
    pub controller: Option<u32>,
    /// Index of the interface it stands on (VLAN, macvlan, a tunnel bound to one) or of its veth peer, if that is in this namespace.
    pub lower: Option<u32>,
    /// What sort of virtual interface it is: "bond", "bridge", "openvswitch"...; `None` for a device.
    pub kind: Option<String>,
    /// Name of the device on its bus: the PCI address of a NIC function (Linux 5.14 and later).
    pub parent: Option<String>,
    /// Name of its port of the NIC's switch: `p0`, or `pf0vf3` for the representor of a VF.
    pub port_name: Option<String>,
    /// Which switch that is, in hexadecimal digits.
    pub switch_id: Option<String>,
}

/// Operational state of an interface, RFC 2863 and `Documentation/networking/operstates.rst`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OperState {
    /// The driver does not say.
    #[default]
    Unknown,
    /// Some part is missing.
    NotPresent,
    /// Not able to carry frames.
    Down,
    /// Down because of the interface below.
    LowerLayerDown,
    /// Testing.
    Testing,
    /// Up, but waiting for something such as 802.1X.
    Dormant,
    /// Carries frames.
    Up,
}

/// What to change of an interface; absent fields stay as they are. All of it goes into one message: the kernel
/// sets MAC, MTU and name before it brings the interface up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// New name; before Linux 6.2 the interface must be down.
    pub name: Option<String>,
    /// New hardware address.
    pub mac: Option<Mac>,
    /// New MTU in bytes.
    pub mtu: Option<u32>,
    /// Promiscuous mode.
    pub promiscuous: Option<bool>,
    /// All multicast frames.
    pub all_multicast: Option<bool>,
    /// Administrative state.
    pub up: Option<bool>,
}

impl Netlink {
    /// The interface called `name`, or `None`.
    pub async fn link_by_name(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let request = self.handle.link().get().match_name(name);
        one(request, || format!("interface {name}")).await
    }

    /// The interface with this index, or `None`.
    pub async fn link(&self, index: u32) -> Result<Option<Link>, NetlinkError> {
        let request = self.handle.link().get().match_index(index);
        one(request, || format!("interface {index}")).await
    }

    /// All interfaces of the namespace.
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let skip = vec![LinkExtentMask::SkipStats];
        let request = self.handle.link().get().set_filter_mask(AddressFamily::Unspec, skip);
        let messages = self.dump(|| request.execute()).await;
        let messages = messages.map_err(|e| NetlinkError::new("interfaces", "list them", e))?;
        Ok(messages.into_iter().map(Link::from).collect())
    }

    /// Changes interface `index`, in one message.
    pub async fn change_link(&self, index: u32, change: &LinkChange) -> Result<(), NetlinkError> {
        if *change == LinkChange::default() {
            return Ok(());
        }
        let set = self.handle.link().set(change.message(index)).execute().await;
        set.map_err(|e| NetlinkError::new(format!("interface {index}"), change.to_string(), e))
    }

    /// Gives interface `index` more names, all or none of them.
    pub async fn add_alt_names(&self, index: u32, names: &[&str]) -> Result<(), NetlinkError> {
        if names.is_empty() {
            return Ok(());
        }
        let done = self.handle.link().property_add(index).alt_ifname(names).execute().await;
        let action = || format!("add alternative name {}", names.join(", "));
        done.map_err(|e| NetlinkError::new(format!("interface {index}"), action(), e))
    }

    /// Takes these alternative names from interface `index`; one that it does not have is no error.
    pub async fn remove_alt_names(&self, index: u32, names: &[&str]) -> Result<(), NetlinkError> {
        for name in names {
            let done = self.handle.link().property_del(index).alt_ifname(&[name]).execute().await;
            if let Err(e) = done {
                let action = format!("remove alternative name {name}");
                let error = NetlinkError::new(format!("interface {index}"), action, e);
                // The kernel says EINVAL for a name that is another interface's, or a main name.
                if error.errno() != Some(Errno::ENOENT) {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Moves interface `index` into `netns` as `name`. The kernel takes it down; addresses and routes are lost.
    ///
    /// A `name` taken in `netns` fails with EEXIST. The interface may then be in `netns` already, under its old name:
    /// give names that nobody else uses, and rename afterwards.
    pub async fn move_link(&self, index: u32, name: &str, netns: &Netns) -> Result<(), NetlinkError> {
        let message = LinkMessageBuilder::<LinkUnspec>::new()
            .index(index)
            .name(name.to_owned())
            .setns_by_fd(netns.raw_fd())
            .build();
        let object = || format!("interface {index}");
        let action = || format!("move it to {} as {name}", netns.path().display());
        let set = self.handle.link().set(message).execute().await;
        set.map_err(|e| NetlinkError::new(object(), action(), e))
    }

    /// Deletes interface `index`; one that does not exist is no error.
    pub async fn delete_link(&self, index: u32) -> Result<(), NetlinkError> {
        match self.handle.link().del(index).execute().await {
            Ok(()) => Ok(()),
            Err(e) => {
                let error = NetlinkError::new(format!("interface {index}"), "delete it", e);
                if error.is_absent() { Ok(()) } else { Err(error) }
            }
        }
    }
}

async fn one(
    request: rtnetlink::LinkGetRequest,
    object: impl Fn() -> String,
) -> Result<Option<Link>, NetlinkError> {
    match request.execute().try_next().await {
        Ok(message) => Ok(message.map(Link::from)),
        Err(e) => {
            let error = NetlinkError::new(object(), "read it", e);
            if error.errno() == Some(Errno::ENODEV) { Ok(None) } else { Err(error) }
        }
    }
}

impl LinkChange {
    fn message(&self, index: u32) -> LinkMessage {
        let mut builder = LinkMessageBuilder::<LinkUnspec>::new().index(index);
        if let Some(name) = &self.name {
            builder = builder.name(name.clone());
        }
        if let Some(mac) = self.mac {
            builder = builder.address(mac.octets().to_vec());
        }
        if let Some(mtu) = self.mtu {
            builder = builder.mtu(mtu);
        }
        if let Some(on) = self.promiscuous {
            builder = builder.promiscuous(on);
        }
        if let Some(on) = self.all_multicast {
            builder = builder.allmulticast(on);
        }
        match self.up {
            Some(true) => builder.up().build(),
            Some(false) => builder.down().build(),
            None => builder.build(),
        }
    }
}

impl fmt::Display for LinkChange {
    /// `set name eth0, mtu 1500, up`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on_off = |on: bool| if on { "on" } else { "off" };
        let words = [
            self.name.as_ref().map(|n| format!("name {n}")),
            self.mac.map(|m| format!("mac {m}")),
            self.mtu.map(|m| format!("mtu {m}")),
            self.promiscuous.map(|p| format!("promisc {}", on_off(p))),
            self.all_multicast.map(|a| format!("allmulticast {}", on_off(a))),
            self.up.map(|up| if up { "up" } else { "down" }.to_owned()),
        ];
        write!(f, "set {}", words.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            promiscuous: flags.contains(LinkFlags::Promisc),
            all_multicast: flags.contains(LinkFlags::Allmulti),
            ..Self::default()
        };
        let (mut lower_is_elsewhere, mut tunnel_over) = (false, None);
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::PropList(props) => {
                    link.alt_names = props.into_iter().filter_map(alt_name).collect();
                }
                LinkAttribute::Address(octets) => link.mac = Mac::try_from(&octets[..]).ok(),
                LinkAttribute::PermAddress(octets) => link.permanent_mac = Mac::try_from(&octets[..]).ok(),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::OperState(state) => link.state = state.into(),
                LinkAttribute::Controller(index) => link.controller = Some(index).filter(|i| *i != 0),
                LinkAttribute::Link(index) => link.lower = Some(index).filter(|i| *i != 0),
                LinkAttribute::LinkNetNsId(_) => lower_is_elsewhere = true,
                LinkAttribute::ParentDevName(name) => link.parent = Some(name),
                LinkAttribute::PhysPortName(name) => link.port_name = Some(name),
                LinkAttribute::PhysSwitchId(id) => {
                    link.switch_id = Some(id.id[..id.len].iter().map(|b| format!("{b:02x}")).collect());
                }
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        match info {
                            LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
                            LinkInfo::Data(InfoData::Vxlan(data)) => tunnel_over = vxlan_lower(&data),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        if lower_is_elsewhere {
            link.lower = None;
        } else if link.lower.is_none() {
            link.lower = tunnel_over;
        }
        link
    }
}

/// The interface that a VXLAN interface was bound to; it is not in IFLA_LINK.
fn vxlan_lower(data: &[InfoVxlan]) -> Option<u32> {
    data.iter()
        .find_map(|d| if let InfoVxlan::Link(index) = d { Some(*index).filter(|i| *i != 0) } else { None })
}

fn alt_name(prop: Prop) -> Option<String> {
    if let Prop::AltIfName(name) = prop { Some(name) } else { None }
}

impl fmt::Display for OperState {
    /// As in `operstate` of sysfs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::NotPresent => "notpresent",
            Self::Down => "down",
            Self::LowerLayerDown => "lowerlayerdown",
            Self::Testing => "testing",
            Self::Dormant => "dormant",
            Self::Up => "up",
        })
    }
}

impl From<State> for OperState {
    fn from(state: State) -> Self {
        match state {
            State::NotPresent => Self::NotPresent,
            State::Down => Self::Down,
            State::LowerLayerDown => Self::LowerLayerDown,
            State::Testing => Self::Testing,
            State::Dormant => Self::Dormant,
            State::Up => Self::Up,
            _ => Self::Unknown,
        }
    }
}
