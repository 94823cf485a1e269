//! Attachments on a machine that is made up, where every operation can fail, and on the running kernel.

use culvert_api::config::nic::VfDriver;
use culvert_api::value::VfIndex;
use culvert_host::netlink::VfVlanTag;

use super::super::wanted::WantedVf;
use super::*;

mod faults;
mod kernel;
mod rules;
mod world;

const PF: &str = "0000:03:00.0";
const OWN_MAC: &str = "02:00:00:00:01:00";
const POD_MAC: &str = "02:00:00:00:99:01";

fn vf() -> PciAddress {
    "0000:04:00.0".parse().unwrap()
}

/// What a VF is of its own.
fn own(index: VfIndex) -> WantedVf {
    let first: Mac = OWN_MAC.parse().unwrap();
    let mut octets = first.octets();
    octets[5] = index.get() as u8;
    WantedVf {
        index,
        settings: VfChange {
            mac: Mac::try_from(&octets[..]).ok(),
            vlan: Some(VfVlanTag::default()),
            ..VfChange::default()
        },
        mtu: None,
        driver: VfDriver::Kernel,
        pool: None,
    }
}

/// A pod that asks for nearly everything.
fn request() -> VfAttach {
    let vlan = VfVlanTag { id: 100.try_into().unwrap(), ..VfVlanTag::default() };
    VfAttach {
        key: Key { container_id: "c1".to_owned(), ifname: "net1".parse().unwrap() },
        network: "vlan100".to_owned(),
        owner: "default/web".to_owned(),
        device: vf(),
        netns: "/run/netns/pod".into(),
        settings: VfChange { mac: Some(POD_MAC.parse().unwrap()), vlan: Some(vlan), ..VfChange::default() },
        mtu: Some(1400.try_into().unwrap()),
        addresses: vec!["10.9.0.5/24".parse().unwrap(), "fd09::5/64".parse().unwrap()],
        routes: vec![("0.0.0.0/0".parse().unwrap(), Some("10.9.0.1".parse().unwrap()))],
    }
}
