//! Against a stand-in for the kernel that answers with recorded bytes: for what the emulated NIC has not.

use nix::errno::Errno;
use proptest::prelude::*;

use super::*;
use crate::netlink::standin::{FakeKernel, Scripted};
use crate::netlink::{Netlink, NetlinkCause};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;

fn vf(index: u32) -> VfIndex {
    VfIndex::try_from(index).unwrap()
}

fn rate(mbps: u32) -> Rate {
    Rate::try_from(mbps).unwrap()
}

fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}

fn tag(id: u32, qos: u32, protocol: VlanProtocol) -> VfVlanTag {
    VfVlanTag { id: VlanId::try_from(id).unwrap(), qos: VlanQos::try_from(qos).unwrap(), protocol }
}

fn netlink(script: Vec<Scripted>) -> (Netlink, FakeKernel) {
    let (kernel, socket) = FakeKernel::start(script);
    (Netlink::open().unwrap().with_stand_in(socket).unwrap(), kernel)
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (4 + value.len()) as u16;
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn numbers(kind: u16, numbers: &[u32]) -> Vec<u8> {
    attribute(kind, &numbers.iter().flat_map(|n| n.to_ne_bytes()).collect::<Vec<_>>())
}

/// What the kernel says of a VF with these settings, in the order of `rtnl_fill_vfinfo`.
fn entry(now: &VfSettings, counters: Option<u64>) -> Vec<u8> {
    let index = u32::from(now.index);
    let mut address = index.to_ne_bytes().to_vec();
    address.extend(now.mac.map_or([0; 6], Mac::octets));
    address.resize(36, 0);
    let (id, qos) = (u32::from(now.vlan.id), u32::from(now.vlan.qos));
    let (first, second): (u16, u16) = match now.vlan.protocol {
        VlanProtocol::Dot1q => (0x0081, 0),
        VlanProtocol::Dot1ad => (0xa888, 0),
    };
    let mut list: Vec<u8> = [index, id, qos].iter().flat_map(|n| n.to_ne_bytes()).collect();
    list.extend([first.to_ne_bytes(), second.to_ne_bytes()].concat());
    let state = match now.link_state {
        LinkState::Auto => 0,
        LinkState::Enable => 1,
        LinkState::Disable => 2,
    };
    let mut value = attribute(1, &address);
    value.extend(attribute(13, &[0xff; 32]));
    value.extend(numbers(2, &[index, id, qos]));
    value.extend(numbers(6, &[index, now.rates.min.get(), now.rates.max.get()]));
    value.extend(numbers(3, &[index, now.rates.max.get()]));
    value.extend(numbers(4, &[index, now.spoof_check.into()]));
    value.extend(numbers(5, &[index, state]));
    value.extend(numbers(7, &[index, u32::MAX]));
    value.extend(numbers(9, &[index, now.trust.into()]));
    value.extend(attribute(12 | 0x8000, &attribute(1, &list)));
    if let Some(base) = counters {
        let stats = [0, 1, 2, 3, 4, 5, 7, 8];
        let stats = stats.map(|kind| attribute(kind, &(base + u64::from(kind)).to_ne_bytes()));
        value.extend(attribute(8 | 0x8000, &stats.concat()));
    }
    attribute(1 | 0x8000, &value)
}

/// A PF's answer. The list's length wraps where it is too long, as the kernel's does.
fn listed(entries: &[Vec<u8>]) -> Scripted {
    let mut payload = vec![0; 16];
    payload.extend(attribute(3, b"ens1f0\0"));
    payload.extend(numbers(21, &[entries.len() as u32]));
    let list = entries.concat();
    payload.extend(((4 + list.len()) as u16).to_ne_bytes());
    payload.extend((22_u16 | 0x8000).to_ne_bytes());
    payload.extend(list);
    payload.extend(attribute(25, &[]));
    Scripted::One(RTM_NEWLINK, payload)
}

fn plain(index: u32) -> VfSettings {
    VfSettings {
        index: vf(index),
        mac: Some(Mac::local_from(u64::from(index))),
        vlan: VfVlanTag::default(),
        spoof_check: true,
        trust: false,
        link_state: LinkState::Auto,
        rates: VfRates { min: rate(0), max: rate(0) },
    }
}

/// Everything at once, with what igb refuses.
fn everything() -> VfChange {
    VfChange {
        mac: Some(mac("02:00:00:00:00:01")),
        vlan: Some(tag(100, 3, VlanProtocol::Dot1ad)),
        spoof_check: Some(false),
        trust: Some(true),
        link_state: Some(LinkState::Enable),
        rates: Some(VfRates { min: rate(10), max: rate(1000) }),
    }
}

fn after(change: &VfChange, index: u32) -> VfSettings {
    VfSettings {
        index: vf(index),
        mac: change.mac,
        vlan: change.vlan.unwrap(),
        spoof_check: change.spoof_check.unwrap(),
        trust: change.trust.unwrap(),
        link_state: change.link_state.unwrap(),
        rates: change.rates.unwrap(),
    }
}

#[tokio::test]
async fn all_settings_of_a_vf_go_in_one_message_and_are_read_back_in_one() {
    let change = everything();
    let (netlink, kernel) = netlink(vec![Scripted::Ack, listed(&[entry(&after(&change, 2), None)])]);
    netlink.change_vf(7, vf(2), &change).await.unwrap();
    let requests = kernel.requests();
    assert_eq!(requests.iter().map(|r| r.0).collect::<Vec<_>>(), [RTM_SETLINK, RTM_GETLINK]);
    // struct ifinfomsg of interface 7; IFLA_VFINFO_LIST with one IFLA_VF_INFO.
    let expected = bytes(
        "00000000 07000000 00000000 00000000  7c001600 78000100
         28000100 02000000 020000000001 0000000000000000000000000000000000000000000000000000
         18000c00 14000100 02000000 64000000 03000000 88a80000
         10000600 02000000 0a000000 e8030000
         0c000400 02000000 00000000
         0c000500 02000000 01000000
         0c000900 02000000 01000000",
    );
    assert_eq!(requests[0].1, expected);
    // RTEXT_FILTER_VF | RTEXT_FILTER_SKIP_STATS
    assert_eq!(requests[1].1, bytes("00000000 07000000 00000000 00000000  08001d00 09000000"));
}

#[tokio::test]
async fn a_vlan_of_802_1q_goes_in_the_attribute_that_every_driver_knows() {
    let change = VfChange { vlan: Some(tag(100, 0, VlanProtocol::Dot1q)), ..VfChange::default() };
    let now = VfSettings { vlan: tag(100, 0, VlanProtocol::Dot1q), ..plain(0) };
    let (netlink, kernel) = netlink(vec![Scripted::Ack, listed(&[entry(&now, None)])]);
    netlink.change_vf(7, vf(0), &change).await.unwrap();
    let expected =
        "00000000 07000000 00000000 00000000 18001600 14000100 10000200 00000000 64000000 00000000";
    assert_eq!(kernel.requests()[0].1, bytes(expected));
}

#[tokio::test]
async fn what_a_driver_refuses_is_named_with_the_kernels_own_words_and_the_rest_is_done() {
    let refuses = Scripted::Refused(Errno::EOPNOTSUPP, Some("802.1ad is not supported"));
    let script = vec![
        refuses.clone(),
        Scripted::Ack,
        refuses,
        Scripted::Refused(Errno::EINVAL, None),
        Scripted::Ack,
        Scripted::Refused(Errno::EOPNOTSUPP, None),
        Scripted::Ack,
        listed(&[entry(&plain(0), None)]),
    ];
    let (netlink, kernel) = netlink(script);
    let error = netlink.change_vf(7, vf(0), &everything()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "vf 0 of interface 7: cannot set vlan 100 qos 3 proto 802.1ad, set spoofchk off, set link state enable"
    );
    assert_eq!(
        error.cause.to_string(),
        "Operation not supported on transport endpoint (802.1ad is not supported)"
    );
    assert_eq!(error.errno(), Some(Errno::EOPNOTSUPP));
    let kinds: Vec<u16> = kernel.requests().iter().map(|r| r.0).collect();
    assert_eq!(kinds, [RTM_SETLINK; 7].into_iter().chain([RTM_GETLINK]).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_vf_that_is_being_reset_is_asked_again() {
    let again = || Scripted::Refused(Errno::EAGAIN, None);
    let change = VfChange { trust: Some(true), ..VfChange::default() };
    let now = VfSettings { trust: true, ..plain(0) };
    let script = vec![again(), again(), again(), Scripted::Ack, listed(&[entry(&now, None)])];
    let (netlink, kernel) = netlink(script);
    netlink.change_vf(7, vf(0), &change).await.unwrap();
    assert_eq!(kernel.requests().len(), 5);
}

#[tokio::test]
async fn a_driver_that_takes_a_value_and_keeps_another_is_found_out() {
    let change = VfChange { rates: Some(VfRates { min: rate(0), max: rate(15) }), ..VfChange::default() };
    let now = VfSettings { rates: VfRates { min: rate(0), max: rate(10) }, ..plain(0) };
    let (netlink, _kernel) = netlink(vec![Scripted::Ack, listed(&[entry(&now, None)])]);
    let error = netlink.change_vf(7, vf(0), &change).await.unwrap_err();
    assert_eq!(error.to_string(), "vf 0 of interface 7: cannot set min rate 0 max rate 15 Mbit/s");
    let NetlinkCause::Protocol(what) = error.cause else { panic!("{:?}", error.cause) };
    assert!(what.starts_with("the driver took it, but reports ") && what.contains("max rate 10"), "{what}");
}

#[tokio::test]
async fn many_vfs_take_few_messages_and_one_list() {
    let changes: Vec<_> = (0..300)
        .map(|i| {
            let mac = Some(Mac::local_from(0x1000 + u64::from(i)));
            (vf(i), VfChange { mac, ..everything() })
        })
        .collect();
    let entries: Vec<_> = changes.iter().map(|(v, c)| entry(&after(c, u32::from(*v)), None)).collect();
    let (netlink, kernel) = netlink(vec![Scripted::Ack, Scripted::Ack, Scripted::Ack, listed(&entries)]);
    assert!(netlink.change_vfs(7, &changes).await.unwrap().is_empty());
    let requests = kernel.requests();
    assert_eq!(requests.len(), 4);
    assert!(requests.iter().all(|(_, payload)| payload.len() <= usize::from(u16::MAX)));
}

#[tokio::test]
async fn of_several_vfs_only_the_one_that_fails_is_an_error() {
    let change = VfChange { trust: Some(true), ..VfChange::default() };
    let done = VfSettings { trust: true, ..plain(0) };
    let script = vec![
        Scripted::Refused(Errno::EINVAL, None),
        Scripted::Ack,
        Scripted::Refused(Errno::EINVAL, None),
        listed(&[entry(&done, None), entry(&plain(1), None)]),
    ];
    let (netlink, _kernel) = netlink(script);
    let failed = netlink.change_vfs(7, &[(vf(0), change.clone()), (vf(1), change)]).await.unwrap();
    let failed: Vec<_> = failed.values().map(ToString::to_string).collect();
    assert_eq!(failed, ["vf 1 of interface 7: cannot set trust on"]);
}

#[tokio::test]
async fn five_hundred_vfs_with_counters_are_read_although_their_list_is_too_long_for_its_length() {
    let entries: Vec<_> = (0..512).map(|i| entry(&plain(i), Some(u64::from(i) * 100))).collect();
    let (netlink, kernel) = netlink(vec![listed(&entries), listed(&entries)]);
    let counters = netlink.vf_counters(7).await.unwrap();
    assert_eq!(counters.len(), 512);
    let expected = VfCounters {
        rx_packets: 51_100,
        tx_packets: 51_101,
        rx_bytes: 51_102,
        tx_bytes: 51_103,
        broadcast: 51_104,
        multicast: 51_105,
        rx_dropped: 51_107,
        tx_dropped: 51_108,
    };
    assert_eq!(counters[&vf(511)], expected);
    let settings = netlink.vf_settings(7).await.unwrap();
    assert_eq!(settings, (0..512).map(plain).collect::<Vec<_>>());
    // The counters are only asked for where they are wanted.
    let masks: Vec<u8> = kernel.requests().iter().map(|(_, payload)| payload[20]).collect();
    assert_eq!(masks, [1, 9]);
}

#[tokio::test]
async fn a_pf_that_is_gone_is_absent_and_one_without_vfs_has_none() {
    let (netlink, _kernel) =
        netlink(vec![Scripted::Refused(Errno::ENODEV, None), Scripted::One(RTM_NEWLINK, vec![0; 16])]);
    let error = netlink.vf_settings(7).await.unwrap_err();
    assert!(error.is_absent(), "{error}");
    assert_eq!(netlink.vf_settings(7).await.unwrap(), []);
}

proptest! {
    #[test]
    fn any_answer_is_read_without_a_panic(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
        for attributes in wire::vfs(&payload) {
            VfSettings::read(attributes.clone());
            VfCounters::read(attributes);
        }
    }

    #[test]
    fn a_cut_answer_has_no_more_vfs_than_the_whole(cut in 0_usize..2000) {
        let entries: Vec<_> = (0..8).map(|i| entry(&plain(i), Some(0))).collect();
        let Scripted::One(_, payload) = listed(&entries) else { unreachable!() };
        let read: Vec<_> = wire::vfs(&payload[..cut.min(payload.len())]).into_iter().filter_map(VfSettings::read).collect();
        prop_assert!(read.len() <= 8);
        for settings in read {
            prop_assert_eq!(&settings, &plain(settings.index.get().into()));
        }
    }
}
