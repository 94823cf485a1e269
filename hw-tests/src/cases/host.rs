//! What culvert-host finds on a kernel that has everything, and does to the emulated NIC.

use std::fs::File;
use std::time::Duration;

use culvert_api::value::{LinkState, Mac, PciAddress, VfIndex, VlanId, VlanQos};
use culvert_host::guard::Claims;
use culvert_host::inventory::{self, Inventory};
use culvert_host::netlink::{LinkChange, Netlink, VfChange, VfVlanTag};
use culvert_host::{HostRoot, driver, vfio};
use tokio::runtime::Runtime;

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Guest, Stop, wait_for};
use crate::net::Netns;
use crate::topology::sriov::Pf;

pub(super) const CASES: &[Case] = &[
    Case { name: "what_the_node_lives_on_is_found_through_bonds_vlans_and_vrfs", place: Guest, run: guard },
    Case {
        name: "the_inventory_tells_where_a_nic_is_and_whose_its_interfaces_are",
        place: Guest,
        run: inventory,
    },
    Case { name: "vfs_are_made_without_drivers_set_in_one_message_and_bound", place: Guest, run: vfs },
];

/// Interfaces above NICs; for each a line of what claims `nic0` then.
const UPPERS: &[(&str, &str, &str)] = &[
    (
        "bond and VLAN",
        "link add bond0 type bond mode active-backup
         link set nic0 down
         link set nic0 master bond0
         link set bond0 up
         link add bond0.5 link bond0 type vlan id 5
         link set bond0.5 up
         address add 10.0.0.5/24 dev bond0.5
         route add default via 10.0.0.1",
        "the IPv4 default route via bond0.5 (table 254), address 10.0.0.5/24 via bond0.5",
    ),
    (
        "team",
        "link add team0 type team
         link set nic0 down
         link set nic0 master team0
         link set team0 up
         address add fd00::5/64 dev team0 nodad",
        "address fd00::5/64 via team0",
    ),
    (
        "VRF",
        "link add vrf0 type vrf table 10
         link set vrf0 up
         link set nic0 master vrf0
         address add 10.0.0.5/24 dev nic0
         route add default via 10.0.0.1 table 10",
        "the IPv4 default route (table 10), address 10.0.0.5/24",
    ),
    (
        "ipvlan",
        "link add ipvl0 link nic0 type ipvlan mode l2
         link set ipvl0 up
         address add 10.0.0.5/24 dev ipvl0",
        "address 10.0.0.5/24 via ipvl0",
    ),
    (
        "tunnel",
        "address add 10.0.0.5/24 dev nic0
         link add gre1 type gre local 10.0.0.5 remote 10.0.0.6 dev nic0
         link set gre1 up
         route add default dev gre1",
        "the IPv4 default route via gre1 (table 254), address 10.0.0.5/24",
    ),
];

fn guard(_: &Context) -> Outcome {
    for (what, lines, expected) in UPPERS {
        let node = Netns::create("guard")?;
        node.ip("link add nic0 type veth peer name far
                 link set far up
                 link set nic0 up")?;
        node.ip(lines).map_err(|stop| stop.while_doing(what))?;
        let inside = culvert_host::netns::Netns::open(node.path())?;
        Runtime::new()?.block_on(async {
            let netlink = Netlink::open_in(&inside)?;
            let nic = netlink.link_by_name("nic0").await?.ok_or_else(|| Stop::fail("there is no nic0"))?;
            let claims = Claims::read(&netlink).await?.of(nic.index).join(", ");
            ensure!(claims == *expected, "{what}: {claims}");
            Ok(())
        })?;
    }
    Ok(())
}

fn inventory(_: &Context) -> Outcome {
    let root = HostRoot::default();
    let pfs = [Pf::find(0)?, Pf::find(1)?];
    Runtime::new()?.block_on(async {
        let netlink = Netlink::open()?;
        for pf in &pfs {
            driver::set_num_vfs(&root, pf.pci.parse()?, 0)?;
            driver::set_num_vfs(&root, pf.pci.parse()?, 2)?;
        }
        let interfaces = || async {
            let found = Inventory::scan_with(&root, &netlink.links().await?)?;
            let named = found.pfs.iter().flat_map(|pf| &pf.vfs).filter(|vf| vf.interface.is_some());
            Ok::<_, Stop>((named.count() == 4, found.pfs))
        };
        // udev may still be at work on the names.
        let mut tries = 0;
        let found = loop {
            let (ready, found) = interfaces().await?;
            if ready && found == Inventory::scan(&root)?.pfs {
                break found;
            }
            tries += 1;
            ensure!(
                tries < 200,
                "sysfs and netlink do not agree: {found:#?}\n{:#?}",
                Inventory::scan(&root)?.pfs
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        for (number, pf) in pfs.iter().enumerate() {
            let address: PciAddress = pf.pci.parse()?;
            let found = found.iter().find(|f| f.pci.address == address);
            let found = found.ok_or_else(|| Stop::fail(format!("{address} is not found")))?;
            ensure!(found.pci.numa_node == Some(number as u16), "{:?}", found.pci);
            ensure!(found.pci.root_port.is_some() && found.pci.root_complex.is_some(), "{:?}", found.pci);
            for vf in &found.vfs {
                // What is taken from the PF is what the kernel says of the VF.
                let folder = root.pci_device(vf.pci.address);
                let text = |file: &str| std::fs::read_to_string(folder.join(file));
                let numa = vf.pci.numa_node.map(|n| n.to_string());
                ensure!(numa.as_deref() == Some(text("numa_node")?.trim()), "{:?}", vf.pci);
                let id = format!("{}:{}", text("vendor")?.trim(), text("device")?.trim()).replace("0x", "");
                ensure!(vf.pci.id.to_string() == id, "{:?} is {id}", vf.pci);
                let real = std::fs::canonicalize(&folder)?;
                let port = vf.pci.root_port.map(|port| port.to_string()).unwrap_or_default();
                ensure!(real.components().any(|part| part.as_os_str() == port.as_str()), "{real:?}, {port}");
            }
        }
        for pf in &pfs {
            driver::set_num_vfs(&root, pf.pci.parse()?, 0)?;
        }
        Ok(())
    })
}

fn vfs(_: &Context) -> Outcome {
    const VFS: u16 = 3;
    let root = HostRoot::default();
    let address: PciAddress = Pf::find(0)?.pci.parse()?;
    let scan = || -> Outcome<inventory::Pf> {
        inventory::Pf::scan(&root, address)?.ok_or_else(|| Stop::fail(format!("{address} is no PF")))
    };
    let index = scan()?.interface().map(|i| i.index).ok_or_else(|| Stop::fail("the PF has no interface"))?;
    let vf = |index: u16| Ok::<_, Stop>(VfIndex::try_from(u32::from(index))?);
    Runtime::new()?.block_on(async {
        let netlink = Netlink::open()?;
        driver::set_num_vfs(&root, address, 0)?;
        netlink.change_link(index, &LinkChange { up: Some(true), ..LinkChange::default() }).await?;
        driver::set_autoprobe(&root, address, false)?;
        driver::set_num_vfs(&root, address, VFS)?;
        driver::set_autoprobe(&root, address, true)?;
        let made = scan()?.vfs;
        ensure!(made.len() == usize::from(VFS) && made.iter().all(|vf| vf.pci.driver.is_none()), "{made:?}");

        let mac: Mac = "02:00:00:00:01:02".parse()?;
        let (id, qos) = (VlanId::try_from(100_u32)?, VlanQos::try_from(3_u32)?);
        let change = VfChange {
            mac: Some(mac),
            vlan: Some(VfVlanTag { id, qos, ..VfVlanTag::default() }),
            spoof_check: Some(false),
            trust: Some(true),
            ..VfChange::default()
        };
        netlink.change_vf(index, vf(2)?, &change).await?;
        // What this NIC cannot do is named; what it can is done all the same.
        let id = VlanId::try_from(200_u32)?;
        let impossible = VfChange {
            vlan: Some(VfVlanTag { id, ..VfVlanTag::default() }),
            link_state: Some(LinkState::Enable),
            ..VfChange::default()
        };
        for (number, refused) in [(1, "set link state enable"), (VFS, "set vlan 200, set link state enable")]
        {
            let error = netlink.change_vf(index, vf(number)?, &impossible).await.err();
            let text = error.map(|e| e.to_string()).unwrap_or_default();
            ensure!(text == format!("vf {number} of interface {index}: cannot {refused}"), "{text}");
        }
        let settings = netlink.vf_settings(index).await?;
        ensure!(settings[1].vlan.id == id, "{}", settings[1]);
        ensure!(netlink.vf_counters(index).await?.len() == usize::from(VFS), "counters of each VF");
        Ok(())
    })?;

    // A driver takes the MAC when it probes, and an open group is seen.
    let target = scan()?.vfs[2].pci.clone();
    let bears = |mac: &str| {
        driver::bind_kernel(&root, target.address)?;
        wait_for(&format!("vf 2 bears {mac}"), Duration::from_secs(10), || {
            let found = scan()?.vfs[2].interface.clone();
            Ok(found.and_then(|i| i.mac).filter(|found| found.to_string() == mac).map(|_| ()))
        })
    };
    bears("02:00:00:00:01:02")?;
    driver::bind_vfio(&root, target.address)?;
    let group = scan()?.vfs[2].pci.iommu_group.ok_or_else(|| Stop::fail("no IOMMU group"))?.number;
    let file = File::open(format!("/dev/vfio/{group}"))?;
    let user = vfio::open_groups(&root)?.remove(&group);
    ensure!(user.as_ref().is_some_and(|user| user.pid == std::process::id()), "group {group}: {user:?}");
    drop(file);
    bears("02:00:00:00:01:02")?;
    driver::set_num_vfs(&root, address, 0)?;
    ensure!(scan()?.vfs.is_empty(), "VFs are left");
    Ok(())
}
