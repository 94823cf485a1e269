use tempfile::TempDir;

use super::super::record::{Lease, Phase};
use super::*;

fn record(container: &str) -> Record {
    Record {
        key: Key { container_id: container.to_owned(), ifname: "eth0".parse().unwrap() },
        network: "n".to_owned(),
        pod: None,
        netns: "/run/netns/x".into(),
        boot: "boot".to_owned(),
        created: 1,
        phase: Phase::Attaching,
        tenant: None,
        socket: None,
        lease: Lease {
            port: "cv1".parse().unwrap(),
            addresses: vec!["10.1.0.2".parse().unwrap()],
            gateways: vec![],
            mac: "02:00:00:00:00:01".parse().unwrap(),
            mtu: 1450,
        },
    }
}

fn open(dir: &TempDir) -> Store {
    Store::open(dir.path()).unwrap()
}

#[test]
fn records_outlive_the_agent() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let (a, b) = (record("a"), record("b"));
    store.reserve(|_| Ok::<_, StoreError>(a.clone())).unwrap();
    store.reserve(|_| Ok::<_, StoreError>(b.clone())).unwrap();
    store.put(&Record { phase: Phase::Attached, ..a.clone() }).unwrap();
    store.remove(&b.key).unwrap();
    store.remove(&b.key).unwrap();
    assert_eq!(open(&dir).all(), [Record { phase: Phase::Attached, ..a }]);
}

#[test]
fn what_was_being_written_when_the_agent_died_does_not_count_and_is_tidied_up() {
    let dir = TempDir::new().unwrap();
    open(&dir).put(&record("a")).unwrap();
    let unfinished = dir.path().join("attachments/cvx.new");
    fs::write(&unfinished, "{").unwrap();
    assert_eq!(open(&dir).all().len(), 1);
    assert!(!unfinished.exists());
}

#[test]
fn a_damaged_record_is_reported_by_file_and_the_others_are_read() {
    let dir = TempDir::new().unwrap();
    open(&dir).put(&record("a")).unwrap();
    fs::write(dir.path().join("attachments/bad.json"), "{}").unwrap();
    let store = open(&dir);
    assert_eq!(store.all().len(), 1);
    assert!(
        store.damaged()[0].contains("bad.json") && store.damaged()[0].contains("missing field"),
        "{store:?}"
    );
}

#[test]
fn a_reservation_that_is_refused_or_cannot_be_written_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    #[derive(Debug)]
    struct Refused;
    impl From<StoreError> for Refused {
        fn from(_: StoreError) -> Self {
            Self
        }
    }
    store.reserve(|_| Err::<Record, _>(Refused)).unwrap_err();
    fs::remove_dir(dir.path().join("attachments")).unwrap();
    let error = store.reserve(|_| Ok::<_, StoreError>(record("a"))).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot write ") && error.to_string().contains("attachments"),
        "{error}"
    );
    assert!(store.all().is_empty());
}

#[test]
fn records_of_an_earlier_boot_are_forgotten() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    store.put(&record("a")).unwrap();
    store.put(&Record { boot: "before".to_owned(), ..record("b") }).unwrap();
    store.forget_other_boots("boot").unwrap();
    assert_eq!(open(&dir).all(), [record("a")]);
}
