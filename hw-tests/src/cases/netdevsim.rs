//! What the emulated NIC refuses, on a simulated one: rates, link states, 802.1ad, a switch, health reporters.

use std::fs;

use culvert_api::value::{LinkState, Mac, Rate, VfIndex, VlanId, VlanProtocol, VlanQos};
use culvert_host::devlink::{Devlink, EswitchMode};
use culvert_host::netlink::{Netlink, VfChange, VfRates, VfVlanTag};
use tokio::runtime::Runtime;

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Guest, Stop};
use crate::topology::netdevsim::Netdevsim;

pub(super) const CASES: &[Case] = &[
    Case { name: "every_setting_of_a_vf_is_kept_by_a_nic_that_has_them_all", place: Guest, run: settings },
    Case { name: "five_hundred_vfs_are_set_and_read_on_a_real_kernel", place: Guest, run: many },
    Case { name: "a_nics_switch_changes_its_mode_and_shows_representors", place: Guest, run: eswitch },
    Case { name: "a_health_reporter_in_error_is_seen", place: Guest, run: health },
];

fn vf(index: u32) -> Outcome<VfIndex> {
    Ok(VfIndex::try_from(index)?)
}

/// Settings of which none is what a new VF has, different for each VF.
fn change(index: u32) -> Outcome<VfChange> {
    Ok(VfChange {
        mac: Some(Mac::local_from(0x100 + u64::from(index))),
        vlan: Some(VfVlanTag {
            id: VlanId::try_from(100 + index)?,
            qos: VlanQos::try_from(3_u32)?,
            protocol: VlanProtocol::Dot1ad,
        }),
        spoof_check: Some(true),
        trust: Some(true),
        link_state: Some(LinkState::Enable),
        rates: Some(VfRates { min: Rate::try_from(10 + index)?, max: Rate::try_from(1000 + index)? }),
    })
}

fn settings(_: &Context) -> Outcome {
    let nic = Netdevsim::create(4)?;
    Runtime::new()?.block_on(async {
        let netlink = Netlink::open()?;
        netlink.change_vf(nic.index, vf(2)?, &change(2)?).await?;
        let view = nic.kernel_view()?;
        let of = view.get(2).cloned().unwrap_or_default();
        let mac = Mac::local_from(0x102).to_string();
        ensure!(of["mac"] == mac.as_str() || of["address"] == mac.as_str(), "mac: {of}");
        let vlan = &of["vlan_list"][0];
        ensure!(vlan["vlan"] == 102 && vlan["qos"] == 3 && vlan["protocol"] == "802.1ad", "VLAN: {of}");
        ensure!(of["rate"]["min_tx"] == 12 && of["rate"]["max_tx"] == 1002, "rates: {of}");
        ensure!(of["spoofchk"] == true && of["trust"] == true && of["link_state"] == "enable", "{of}");
        ensure!(view[1]["vlan_list"][0]["vlan"] != 101, "another VF was changed: {}", view[1]);

        // Each value and its opposite.
        let rest = VfChange {
            spoof_check: Some(false),
            trust: Some(false),
            link_state: Some(LinkState::Disable),
            vlan: Some(VfVlanTag::default()),
            rates: Some(VfRates { min: Rate::MIN, max: Rate::MIN }),
            ..VfChange::default()
        };
        netlink.change_vf(nic.index, vf(2)?, &rest).await?;
        let settings = netlink.vf_settings(nic.index).await?;
        ensure!(rest.without(&settings[2]).is_empty(), "{}", settings[2]);

        let error = netlink.change_vf(nic.index, vf(9)?, &rest).await.err();
        let error = error.ok_or_else(|| Stop::fail("a VF that does not exist was changed"))?;
        ensure!(
            error.to_string().contains("vf 9 of interface") && error.to_string().contains("vlan 0"),
            "{error}"
        );
        Ok(())
    })
}

fn many(_: &Context) -> Outcome {
    const VFS: u32 = 512;
    let nic = Netdevsim::create(VFS as u16)?;
    Runtime::new()?.block_on(async {
        let netlink = Netlink::open()?;
        let changes: Vec<_> =
            (0..VFS).map(|index| Ok((vf(index)?, change(index)?))).collect::<Outcome<_>>()?;
        let failed = netlink.change_vfs(nic.index, &changes).await?;
        ensure!(failed.is_empty(), "{failed:?}");
        let settings = netlink.vf_settings(nic.index).await?;
        ensure!(settings.len() == VFS as usize, "{} VFs were read", settings.len());
        for ((index, change), now) in changes.iter().zip(&settings) {
            ensure!(now.index == *index && change.without(now).is_empty(), "vf {index}: {now}");
        }
        let counters = netlink.vf_counters(nic.index).await?;
        ensure!(counters.len() == VFS as usize, "counters of {} VFs were read", counters.len());
        Ok(())
    })
}

fn eswitch(_: &Context) -> Outcome {
    let nic = Netdevsim::create(2)?;
    Runtime::new()?.block_on(async {
        let (netlink, devlink) = (Netlink::open()?, Devlink::open().await?);
        let devlink = devlink.ok_or_else(|| Stop::fail("the kernel has no devlink"))?;
        for (mode, representors) in [(EswitchMode::Switchdev, 2), (EswitchMode::Legacy, 0)] {
            devlink.set_eswitch_mode(&nic.devlink(), mode).await?;
            let now = devlink.eswitch_mode(&nic.devlink()).await?;
            ensure!(now == Some(mode), "the mode is {now:?} instead of {mode}");
            let links = netlink.links().await?;
            let ours =
                links.iter().filter(|l| l.port_name.as_ref().is_some_and(|name| name.starts_with("pf0vf")));
            let found: Vec<_> = ours.map(|l| (&l.port_name, &l.switch_id)).collect();
            ensure!(found.len() == representors, "representors in mode {mode}: {found:?}");
        }
        Ok(())
    })
}

fn health(_: &Context) -> Outcome {
    let nic = Netdevsim::create(1)?;
    Runtime::new()?.block_on(async {
        let devlink = Devlink::open().await?.ok_or_else(|| Stop::fail("the kernel has no devlink"))?;
        let before = devlink.failed_reporters().await?;
        ensure!(before.is_empty(), "{before:?}");
        fs::write(nic.debug("health/fail_recover"), "1")?;
        // The write fails with what the reporter's recovery fails with.
        let _ = fs::write(nic.debug("health/break_health"), "made up");
        let failed = devlink.failed_reporters().await?;
        ensure!(failed.get(&nic.devlink()).is_some_and(|names| names == &["dummy"]), "{failed:?}");
        Ok(())
    })
}
