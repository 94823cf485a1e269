use culvert_api::fastpath::AttachPortRequest;
use culvert_api::value::Mac;

use super::*;

/// A backend that writes down what it is told, and fails for the interfaces it is told to.
#[derive(Debug, Default)]
struct Fake {
    open: Vec<(u16, usize, String)>,
    fail_open: Option<&'static str>,
    fail_close: Option<u16>,
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
        assert!(self.open.iter().all(|(slot, ..)| *slot != port.slot), "slot {} is in use", port.slot);
        self.open.push((port.slot, port.worker, interface.clone()));
        Ok(interface)
    }

    fn close(&mut self, slot: u16, device: String) -> Result<(), Refused> {
        if self.fail_close == Some(slot) {
            return Err(Refused);
        }
        let before = self.open.len();
        self.open.retain(|(open, _, interface)| (*open, interface) != (slot, &device));
        assert_eq!(self.open.len(), before - 1, "{device} was not open in slot {slot}");
        Ok(())
    }
}

const LIMIT: u16 = 4;

fn manager(workers: usize) -> PortManager<Fake> {
    let mut manager = PortManager::new(Fake::default(), LIMIT, workers);
    let mac = |last| Mac::try_from([2, 0, 0, 0, 0, last]).unwrap();
    let name = "up0".parse().unwrap();
    manager.attach_uplink(Uplink { name, mac: mac(1), kernel_mac: Some(mac(2)), mtu: 1500 }).unwrap();
    manager
}

fn request(name: &str, address: &str) -> AttachPortRequest {
    let bytes = match address.parse().unwrap() {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    AttachPortRequest {
        name: name.into(),
        addresses: vec![bytes],
        mac: vec![2, 0, 0, 0, 0, 9],
        mtu: 1450,
        tenant: 0,
        owner: format!("default/{name}"),
    }
}

fn pod(name: &str, address: &str) -> PodPort {
    request(name, address).try_into().unwrap()
}

fn detach(manager: &mut PortManager<Fake>, name: &str) {
    let leaving = manager.detach(name).unwrap().unwrap();
    manager.close(leaving).unwrap();
}

fn refusal(change: impl FnOnce(&mut AttachPortRequest)) -> String {
    let mut request = request("p1", "10.0.0.1");
    change(&mut request);
    PodPort::try_from(request).unwrap_err().to_string()
}

#[test]
fn a_request_that_makes_no_sense_is_refused_by_port_field_and_value() {
    assert!(refusal(|r| r.name = "a/b".into()).starts_with("interface name \"a/b\""));
    assert_eq!(
        refusal(|r| r.mac = vec![1; 6]),
        "port p1: mac 01:01:01:01:01:01: is a multicast address; the first octet must be even"
    );
    assert_eq!(refusal(|r| r.mac = vec![2; 5]), "port p1: mac of 5 bytes: must be 6");
    assert_eq!(refusal(|r| r.mtu = 1279), "port p1: mtu 1279: must be 1280-65535");
    assert_eq!(refusal(|r| r.addresses.push(vec![1; 5])), "port p1: address of 5 bytes: must be 4 or 16");
    assert_eq!(
        refusal(|r| r.addresses.push(vec![10, 0, 0, 2])),
        "port p1: addresses 10.0.0.1 and 10.0.0.2: at most one of each family"
    );
    for useless in [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "169.254.0.1",
        "::",
        "::1",
        "fe80::1",
        "ff02::1",
        "::ffff:1.2.3.4",
    ] {
        let error = refusal(|r| r.addresses = request("p1", useless).addresses);
        assert!(error.contains("must be a unicast address"), "{useless}: {error}");
    }
}

#[test]
fn attaching_twice_keeps_the_port_and_takes_the_new_addresses() {
    let mut manager = manager(1);
    let slot = manager.attach(pod("p1", "10.0.0.1")).unwrap().slot;
    let again = manager.attach(pod("p1", "fd00::1")).unwrap();
    assert_eq!(again.slot, slot);
    assert_eq!(again.role, Role::Pod(pod("p1", "fd00::1")));
    assert_eq!(manager.backend().open.len(), 2, "the uplink and one pod");
    manager.attach(pod("p2", "10.0.0.1")).unwrap();
}

#[test]
fn an_address_of_another_pod_is_refused_within_a_tenant_and_fine_in_another() {
    let mut manager = manager(1);
    manager.attach(pod("p1", "10.0.0.1")).unwrap();
    let error = manager.attach(pod("p2", "10.0.0.1")).unwrap_err().to_string();
    assert_eq!(error, "port p2: address 10.0.0.1 belongs to port p1 already");
    assert_eq!(manager.pods().count(), 1);
    manager.attach(PodPort { tenant: 7, ..pod("p2", "10.0.0.1") }).unwrap();
}

#[test]
fn ports_are_spread_over_the_workers() {
    let mut manager = manager(2);
    for (name, address, worker) in [("p1", "10.0.0.1", 1), ("p2", "10.0.0.2", 0), ("p3", "10.0.0.3", 1)] {
        assert_eq!(manager.attach(pod(name, address)).unwrap().worker, worker, "{name}");
    }
    detach(&mut manager, "p1");
    assert_eq!(manager.attach(pod("p4", "10.0.0.4")).unwrap().worker, 1, "where one has gone");
}

#[test]
fn a_slot_is_used_again_only_after_its_port_was_closed() {
    let mut manager = manager(1);
    let slot = manager.attach(pod("p1", "10.0.0.1")).unwrap().slot;
    let leaving = manager.detach("p1").unwrap().unwrap();
    assert_eq!(manager.pods().count(), 0);
    assert_ne!(manager.attach(pod("p2", "10.0.0.2")).unwrap().slot, slot);
    manager.close(leaving).unwrap();
    assert_eq!(manager.attach(pod("p3", "10.0.0.3")).unwrap().slot, slot);
}

#[test]
fn a_port_that_cannot_be_started_leaves_nothing_behind() {
    let mut manager = manager(1);
    manager.backend().fail_open = Some("p1");
    let error = manager.attach(pod("p1", "10.0.0.1")).unwrap_err();
    assert_eq!(error.to_string(), "port p1: cannot be started");
    assert!(manager.detach("p1").unwrap().is_none());
    manager.attach(pod("p2", "10.0.0.1")).unwrap();
}

#[test]
fn a_port_that_cannot_be_stopped_keeps_its_slot_and_the_others_are_stopped_all_the_same() {
    let mut manager = manager(1);
    let slot = manager.attach(pod("p1", "10.0.0.1")).unwrap().slot;
    manager.attach(pod("p2", "10.0.0.2")).unwrap();
    manager.backend().fail_close = Some(slot);
    assert_eq!(manager.close_all().len(), 1);
    let open: Vec<_> = manager.backend().open.iter().map(|(_, _, interface)| interface.clone()).collect();
    assert_eq!(open, ["p1"]);
    for (name, address) in [("p3", "10.0.0.3"), ("p4", "10.0.0.4"), ("p5", "10.0.0.5")] {
        assert_ne!(manager.attach(pod(name, address)).unwrap().slot, slot);
    }
}

#[test]
fn more_ports_than_there_are_slots_are_refused() {
    let mut manager = manager(1);
    for n in 1..LIMIT {
        manager.attach(pod(&format!("p{n}"), &format!("10.0.0.{n}"))).unwrap();
    }
    let error = manager.attach(pod("p9", "10.0.0.9")).unwrap_err().to_string();
    assert_eq!(error, "port p9: all 4 ports are in use");
    detach(&mut manager, "p2");
    manager.attach(pod("p9", "10.0.0.9")).unwrap();
}

#[test]
fn the_uplink_is_no_pod_and_stays() {
    let mut manager = manager(1);
    assert_eq!(manager.uplink().unwrap().0, 0);
    assert!(matches!(manager.detach("up0"), Err(ManagerError::IsUplink { .. })));
    assert!(matches!(manager.attach(pod("up0", "10.0.0.1")), Err(ManagerError::IsUplink { .. })));
    assert!(manager.detach("nobody").unwrap().is_none());
    assert!(manager.close_all().is_empty());
    assert!(manager.backend().open.is_empty());
}
