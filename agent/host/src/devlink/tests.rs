use super::*;
use crate::netlink::standin::{FakeKernel, Scripted};

const FAMILY: u16 = 21;

/// A devlink socket whose kernel says `script` after it has told of its family.
async fn devlink(script: Vec<Scripted>) -> (Devlink, FakeKernel) {
    let mut family = Attributes::after(&[1, 2, 0, 0]);
    family.put_text(CTRL_ATTR_FAMILY_NAME, "devlink");
    family.put(CTRL_ATTR_FAMILY_ID, &FAMILY.to_ne_bytes());
    let mut whole = vec![Scripted::One(GENL_ID_CTRL, family.finish())];
    whole.extend(script);
    let (kernel, socket) = FakeKernel::start(whole);
    let raw = RawNetlink::from_datagram(socket).unwrap();
    (Devlink::over(raw).await.unwrap().unwrap(), kernel)
}

fn nic() -> DevlinkDevice {
    "0000:03:00.0".parse::<PciAddress>().unwrap().into()
}

fn about(command: u8, device: &DevlinkDevice, more: impl FnOnce(&mut Attributes)) -> Vec<u8> {
    let mut message = Attributes::after(&[command, 1, 0, 0]);
    message.put_text(DEVLINK_ATTR_BUS_NAME, &device.bus);
    message.put_text(DEVLINK_ATTR_DEV_NAME, &device.name);
    more(&mut message);
    message.finish()
}

#[tokio::test]
async fn a_kernel_without_devlink_and_nics_without_a_switch_are_normal() {
    let (_kernel, socket) = FakeKernel::start(vec![Scripted::Refused(Errno::ENOENT, None)]);
    assert!(Devlink::over(RawNetlink::from_datagram(socket).unwrap()).await.unwrap().is_none());
    let (devlink, _kernel) = devlink(vec![
        Scripted::Refused(Errno::EOPNOTSUPP, None),
        Scripted::Refused(Errno::ENODEV, None),
        Scripted::Refused(Errno::EPERM, Some("not for you")),
    ])
    .await;
    assert_eq!(devlink.eswitch_mode(&nic()).await.unwrap(), None);
    assert_eq!(devlink.serial(&nic()).await.unwrap(), None);
    let error = devlink.eswitch_mode(&nic()).await.unwrap_err();
    assert_eq!(error.to_string(), "pci/0000:03:00.0: cannot read its switch's mode");
    assert_eq!(error.cause.to_string(), "Operation not permitted (not for you)");
}

#[tokio::test]
async fn the_switchs_mode_is_read_and_set_byte_for_byte() {
    let mode = |number: u16| about(29, &nic(), |m| m.put(DEVLINK_ATTR_ESWITCH_MODE, &number.to_ne_bytes()));
    let (devlink, kernel) = devlink(vec![
        Scripted::One(FAMILY, mode(0)),
        Scripted::Ack,
        Scripted::One(FAMILY, mode(1)),
        Scripted::Refused(Errno::EBUSY, Some("VFs are assigned to a VM")),
    ])
    .await;
    assert_eq!(devlink.eswitch_mode(&nic()).await.unwrap(), Some(EswitchMode::Legacy));
    devlink.set_eswitch_mode(&nic(), EswitchMode::Switchdev).await.unwrap();
    assert_eq!(devlink.eswitch_mode(&nic()).await.unwrap(), Some(EswitchMode::Switchdev));
    let error = devlink.set_eswitch_mode(&nic(), EswitchMode::Legacy).await.unwrap_err();
    assert_eq!(error.to_string(), "pci/0000:03:00.0: cannot set its switch to legacy");
    assert_eq!(error.cause.to_string(), "Device or resource busy (VFs are assigned to a VM)");
    let (kind, set) = &kernel.requests()[2];
    assert_eq!(*kind, FAMILY);
    let expected = b"\x1e\x01\0\0\x08\0\x01\0pci\0\x11\0\x02\x000000:03:00.0\0\0\0\0\x06\0\x19\0\x01\0\0\0";
    assert_eq!(set, expected);
}

#[tokio::test]
async fn the_serial_number_is_asked_for_once() {
    let serial = about(51, &nic(), |m| m.put_text(DEVLINK_ATTR_INFO_SERIAL_NUMBER, "MT2117X05123  "));
    let (devlink, kernel) = devlink(vec![Scripted::One(FAMILY, serial)]).await;
    for _ in 0..2 {
        assert_eq!(devlink.serial(&nic()).await.unwrap().as_deref(), Some("MT2117X05123"));
    }
    assert_eq!(kernel.requests().len(), 2, "one of them for the family");
}

#[tokio::test]
async fn reporters_in_error_are_told_once_per_device() {
    let other: DevlinkDevice = "0000:41:00.0".parse::<PciAddress>().unwrap().into();
    let reporter = |device: &DevlinkDevice, name: &str, state: u8| {
        let bytes = about(52, device, |m| {
            m.nest(DEVLINK_ATTR_HEALTH_REPORTER, |r| {
                r.put_text(DEVLINK_ATTR_HEALTH_REPORTER_NAME, name);
                r.put(DEVLINK_ATTR_HEALTH_REPORTER_STATE, &[state]);
            });
        });
        (FAMILY, bytes)
    };
    let list = [("fw", 0), ("fw_fatal", 1), ("tx", 1), ("tx", 1)];
    let mut all: Vec<_> = list.iter().map(|(name, state)| reporter(&nic(), name, *state)).collect();
    all.push(reporter(&other, "fw", 0));
    let (devlink, _kernel) = devlink(vec![Scripted::List(all)]).await;
    let failed = devlink.failed_reporters().await.unwrap();
    assert_eq!(failed, BTreeMap::from([(nic(), vec!["fw_fatal".to_owned(), "tx".to_owned()])]));
}

#[tokio::test]
async fn a_driver_that_does_not_answer_holds_nobody_up_and_its_last_answer_counts() {
    let mode = about(29, &nic(), |m| m.put(DEVLINK_ATTR_ESWITCH_MODE, &1_u16.to_ne_bytes()));
    let (devlink, _kernel) = devlink(vec![Scripted::One(FAMILY, mode), Scripted::Nothing]).await;
    assert_eq!(devlink.eswitch_mode(&nic()).await.unwrap(), Some(EswitchMode::Switchdev));
    for _ in 0..20 {
        // The first waits, the others know that it does.
        assert_eq!(devlink.eswitch_mode(&nic()).await.unwrap(), Some(EswitchMode::Switchdev));
    }
}

#[tokio::test]
async fn this_machines_kernel_is_understood() {
    if let Some(devlink) = Devlink::open().await.unwrap() {
        assert_eq!(devlink.eswitch_mode(&nic()).await.unwrap(), None, "there is no such NIC");
        devlink.failed_reporters().await.unwrap();
    }
}
