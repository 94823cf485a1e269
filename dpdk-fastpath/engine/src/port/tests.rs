use culvert_api::value::{Mac, Mtu};
use culvert_packet::eth::EthAddr;
use culvert_packet::flow::Tenant;

use super::*;
use crate::table::{Port, PortIndex, PortKind, Sharing, Socket};
use crate::worker::Polling;

/// A backend that writes down what it is told, and fails for the interfaces it is told to.
#[derive(Debug, Default)]
struct Fake {
    open: Vec<(PortIndex, String)>,
    /// Who polls those that were opened, in order.
    polling: Vec<Polling>,
    fail_open: Option<&'static str>,
    fail_close: Option<PortIndex>,
}

#[derive(Debug, thiserror::Error)]
#[error("no such luck")]
struct Refused;

impl Backend for Fake {
    type Device = String;
    type Error = Refused;

    fn open(&mut self, port: &NewPort<'_>) -> Result<String, Refused> {
        let interface = port.interface.to_string();
        if self.fail_open == Some(interface.as_str()) {
            return Err(Refused);
        }
        assert!(self.open.iter().all(|(index, _)| *index != port.index), "{:?} is in use", port.index);
        self.open.push((port.index, interface.clone()));
        self.polling.push(port.polling);
        Ok(interface)
    }

    fn close(&mut self, index: PortIndex, device: String) -> Result<(), Refused> {
        if self.fail_close == Some(index) {
            return Err(Refused);
        }
        let place = self.open.iter().position(|open| *open == (index, device.clone()));
        self.open.remove(place.unwrap_or_else(|| panic!("{device} was not open as {index:?}")));
        Ok(())
    }
}

const LIMIT: usize = 4;

fn mac(last: u8) -> Mac {
    Mac::try_from([2, 0, 0, 0, 0, last]).unwrap()
}

fn manager(workers: usize) -> PortManager<Fake> {
    let mut manager = PortManager::new(Fake::default(), LIMIT, workers);
    let uplink = Port::uplink("up0", EthAddr(mac(1).octets()), Mtu::MIN);
    manager.attach(uplink, mac(2)).unwrap();
    manager
}

fn pod(name: &str) -> Port {
    Port {
        name: name.into(),
        kind: PortKind::Pod,
        mac: EthAddr(mac(9).octets()),
        v4: None,
        v6: None,
        mtu: 1450,
        tenant: Tenant::DEFAULT,
        owner: "default/pod".into(),
        socket: None,
    }
}

fn attach(manager: &mut PortManager<Fake>, name: &str) -> PortIndex {
    manager.attach(pod(name), mac(9)).unwrap().index
}

fn refusal(manager: &mut PortManager<Fake>, name: &str) -> String {
    manager.attach(pod(name), mac(9)).unwrap_err().to_string()
}

fn detach(manager: &mut PortManager<Fake>, name: &str) {
    let leaving = manager.detach(name).unwrap().unwrap();
    manager.close(leaving).unwrap();
}

#[test]
fn a_name_that_no_interface_can_have_is_refused() {
    let mut manager = manager(1);
    assert!(refusal(&mut manager, "a/b").contains("port \"a/b\""));
    assert!(refusal(&mut manager, "x,remote=eth0").contains("remote=eth0"));
    assert_eq!(manager.backend().open.len(), 1);
}

#[test]
fn a_port_gets_the_number_that_is_preferred_if_it_is_free() {
    let mut manager = manager(1);
    manager.prefer(Some(PortIndex(3)));
    assert_eq!([attach(&mut manager, "p1"), attach(&mut manager, "p2")], [PortIndex(3), PortIndex(1)]);
    manager.prefer(Some(PortIndex(LIMIT as u16)));
    assert_eq!(manager.index_for("p3").unwrap(), PortIndex(2));
    detach(&mut manager, "p1");
    manager.prefer(None);
    assert_eq!(attach(&mut manager, "p3"), PortIndex(2));
}

#[test]
fn attaching_twice_keeps_the_device_and_takes_the_new_values() {
    let mut manager = manager(1);
    let index = attach(&mut manager, "p1");
    let changed = Port { owner: "default/other".into(), v4: Some([10, 0, 0, 1].into()), ..pod("p1") };
    assert_eq!(manager.index_for("p1").unwrap(), index);
    let entry = manager.attach(changed.clone(), mac(9)).unwrap();
    assert_eq!((entry.index, &entry.port), (index, &changed));
    assert_eq!(manager.backend().open.len(), 2, "the uplink and one pod");
}

#[test]
fn attaching_again_with_another_device_is_refused_and_changes_nothing() {
    let mut manager = manager(1);
    attach(&mut manager, "p1");
    let socket = Socket { sharing: Sharing::Memif, path: "/run/p1.sock".into() };
    let other = Port { socket: Some(socket), ..pod("p1") };
    let refusal = manager.attach(other, mac(9)).unwrap_err().to_string();
    assert_eq!(refusal, "port p1: is there with another device, socket or kind: detach it first");
    assert_eq!(manager.get("p1").unwrap().port, pod("p1"));
}

#[test]
fn the_port_of_the_host_is_polled_by_all_and_becomes_no_pods() {
    let mut manager = manager(2);
    let host = || Port { kind: PortKind::Host, ..pod("h0") };
    assert_eq!(manager.attach(host(), mac(9)).unwrap().worker, 0);
    assert_eq!(manager.backend().polling, [Polling::ByAll, Polling::ByAll], "uplink and host");
    assert_eq!(
        manager.attach(pod("p1"), mac(9)).unwrap().worker,
        0,
        "the host's port is no load of one worker"
    );
    let refused = manager.attach(pod("h0"), mac(9)).unwrap_err().to_string();
    assert_eq!(refused, "port h0: is there with another device, socket or kind: detach it first");
    manager.attach(Port { owner: "node".into(), ..host() }, mac(9)).unwrap();
    detach(&mut manager, "h0");
    assert!(manager.get("h0").is_none());
}

#[test]
fn ports_are_spread_over_the_workers() {
    let mut manager = manager(2);
    assert_eq!(manager.backend().polling, [Polling::ByAll], "the uplink");
    for (name, worker) in [("p1", 0), ("p2", 1), ("p3", 0)] {
        assert_eq!(manager.attach(pod(name), mac(9)).unwrap().worker, worker, "{name}");
    }
    assert_eq!(manager.backend().polling[1..], [0, 1, 0].map(Polling::By));
    detach(&mut manager, "p2");
    assert_eq!(manager.attach(pod("p4"), mac(9)).unwrap().worker, 1, "where one has gone");
}

#[test]
fn a_number_is_used_again_only_after_its_port_was_closed() {
    let mut manager = manager(1);
    let index = attach(&mut manager, "p1");
    let leaving = manager.detach("p1").unwrap().unwrap();
    assert_eq!(leaving.index(), index);
    assert!(manager.get("p1").is_none());
    assert_ne!(attach(&mut manager, "p2"), index);
    manager.close(leaving).unwrap();
    assert_eq!(attach(&mut manager, "p3"), index);
}

#[test]
fn a_port_that_cannot_be_started_leaves_nothing_behind() {
    let mut manager = manager(1);
    manager.backend_mut().fail_open = Some("p1");
    assert_eq!(refusal(&mut manager, "p1"), "port p1: cannot be started");
    assert!(manager.detach("p1").unwrap().is_none());
    for name in ["p2", "p3", "p4"] {
        attach(&mut manager, name);
    }
}

#[test]
fn a_port_that_cannot_be_stopped_keeps_its_number_and_the_others_are_stopped_all_the_same() {
    let mut manager = manager(1);
    let index = attach(&mut manager, "p1");
    attach(&mut manager, "p2");
    manager.backend_mut().fail_close = Some(index);
    assert_eq!(manager.close_all().len(), 1);
    assert_eq!(manager.backend().open, [(index, "p1".to_owned())]);
    for name in ["p3", "p4", "p5"] {
        assert_ne!(attach(&mut manager, name), index);
    }
}

#[test]
fn more_ports_than_there_are_numbers_are_refused() {
    let mut manager = manager(1);
    for name in ["p1", "p2", "p3"] {
        attach(&mut manager, name);
    }
    assert_eq!(refusal(&mut manager, "p9"), "port p9: all 4 ports are in use");
    detach(&mut manager, "p2");
    attach(&mut manager, "p9");
}

#[test]
fn the_uplink_is_no_pod_and_stays() {
    let mut manager = manager(1);
    assert_eq!(manager.uplink().unwrap().index, PortIndex(0));
    assert_eq!(manager.detach("up0").unwrap_err().to_string(), "port up0: is the uplink");
    assert_eq!(refusal(&mut manager, "up0"), "port up0: is the uplink");
    assert!(manager.detach("nobody").unwrap().is_none());
    assert!(manager.close_all().is_empty());
    assert!(manager.backend().open.is_empty());
}

#[test]
fn ports_with_certain_devices_are_stopped_and_the_others_stay() {
    let mut manager = manager(1);
    for name in ["p1", "p2"] {
        attach(&mut manager, name);
    }
    assert!(manager.close_those(|device| device == "p1").is_empty());
    let left = |manager: &PortManager<Fake>| {
        manager.backend().open.iter().map(|(_, name)| name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(left(&manager), ["up0", "p2"]);
    assert!(manager.get("p1").is_none() && manager.get("p2").is_some());
    assert!(manager.close_those(|device| device == "up0").is_empty());
    assert_eq!(left(&manager), ["p2"]);
}
