use super::super::model::attachment;
use super::super::step::Action;
use super::*;
use crate::pods::Phase;

const PF: &str = "0000:03:00.0";
const VF: &str = "0000:04:00.1";

fn vf(index: u32) -> Object {
    Object::vf(PF.parse().unwrap(), index.try_into().unwrap())
}

fn given() -> Attachment {
    let mut given = attachment("abc", VF, Phase::Attached);
    given.index = 1.try_into().unwrap();
    given
}

#[test]
fn who_watches_hears_of_pod_and_vf() {
    let events = Events::new(Measurements::default());
    let mut watch = events.watch();
    events.tell(Event::attached(&given(), Duration::from_millis(20)));
    let seen = watch.try_recv().unwrap();
    assert_eq!((seen.kind.as_str(), seen.state.as_str()), ("attach", "done"));
    assert_eq!((seen.pf.as_str(), seen.index, seen.vf.as_str()), (PF, Some(1), VF));
    assert_eq!((seen.pod.as_str(), seen.container.as_str()), ("default/abc", "abc"));
    assert_eq!((seen.interface.as_str(), seen.seconds), ("net1", Some(0.02)));
    assert!(seen.text.contains("default/abc") && seen.unix_milliseconds > 1_700_000_000_000, "{seen:?}");
}

#[test]
fn history_is_of_one_object_and_its_newest_events_come_last() {
    let events = Events::new(Measurements::default());
    let step = |object, text: &str| {
        let action = Action::LinkUp { interface: 1, name: text.to_owned() };
        Event::step(&Step { object, action }, 1, 1, Outcome::Done, Duration::ZERO)
    };
    events.tell(step(Object::pf(PF.parse().unwrap()), "pf"));
    events.tell(step(vf(0), "other"));
    events.tell(step(vf(1), "first"));
    // Before a VF was found by its index it is known by its address.
    events.tell(Event::health(&Device::new(VF.parse().unwrap())));
    events.tell(Event::detached(&given(), Some("stuck".to_owned()), Duration::ZERO));
    let (pf, vf) = (PF.parse().unwrap(), (1.try_into().unwrap(), VF.parse().unwrap()));
    let kinds = |list: &[NicEvent]| list.iter().map(|e| e.kind.clone()).collect::<Vec<_>>();
    assert_eq!(kinds(&events.history(pf, Some(vf), 10)), ["step", "health", "detach"]);
    assert_eq!(kinds(&events.history(pf, Some(vf), 2)), ["health", "detach"]);
    assert_eq!(kinds(&events.history(pf, None, 10)), ["step", "step", "step", "detach"]);
    assert!(events.history("0000:05:00.0".parse().unwrap(), None, 10).is_empty());
}

#[test]
fn what_is_remembered_is_bounded() {
    let events = Events::new(Measurements::default());
    for _ in 0..REMEMBERED + 10 {
        events.tell(Event::link(PF.parse().unwrap(), "ens1f0", "up"));
    }
    assert_eq!(events.history(PF.parse().unwrap(), None, usize::MAX).len(), REMEMBERED);
}

#[test]
fn what_happens_is_counted_by_outcome_and_reason() {
    let events = Events::new(Measurements::default());
    events.tell(Event::attached(&given(), Duration::from_millis(20)));
    events.tell(Event::detached(&given(), Some("stuck".to_owned()), Duration::from_secs(1)));
    events.tell(Event::applied(3, 1, Duration::from_secs(2)));
    let refused = VfAttach {
        key: given().key,
        network: "n".to_owned(),
        owner: "default/x".to_owned(),
        device: VF.parse().unwrap(),
        netns: "/run/netns/x".into(),
        settings: Default::default(),
        mtu: None,
        addresses: Vec::new(),
        routes: Vec::new(),
    };
    events.tell(Event::refused(&refused, "in-use", "taken", Duration::ZERO));
    let step = Step { object: vf(1), action: Action::NumVfs(4) };
    events.tell(Event::step(&step, 1, 2, Outcome::Begun, Duration::ZERO));
    events.tell(Event::step(&step, 1, 2, Outcome::Failed("busy"), Duration::ZERO));
    events.measurements().orphans(3);
    let mut registry = prometheus_client::registry::Registry::default();
    events.measurements().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "nic_attach_seconds_count{outcome=\"done\"} 1",
        "nic_attach_seconds_count{outcome=\"refused\"} 1",
        "nic_attach_refused_total{reason=\"in-use\"} 1",
        "nic_detach_seconds_sum{outcome=\"failed\"} 1.0",
        "nic_apply_seconds_count{outcome=\"failed\"} 1",
        "nic_orphans 3",
        "nic_steps_total{outcome=\"failed\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
    }
    assert!(!text.contains("begun"), "a step counts when it has ended:\n{text}");
}
