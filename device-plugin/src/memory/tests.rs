use tempfile::TempDir;

use super::*;
use crate::testing::{device, pci};
use crate::{Health, IommuGroup};

fn memory() -> (TempDir, Memory) {
    let dir = tempfile::tempdir().unwrap();
    let configuration = vec![dir.path().join("agent.yaml"), dir.path().join("list.json")];
    fs::write(&configuration[0], "one").unwrap();
    let file = dir.path().join("state/devices.json");
    (dir, Memory { file, boot: "b".to_owned(), configuration })
}

fn remembered() -> Remembered {
    let troubled = Device {
        health: Health::Unhealthy("no carrier".to_owned()),
        iommu_group: Some(IommuGroup { number: 7, no_iommu: true }),
        numa: Some(1),
        ..device("0000:03:02.0", "a")
    };
    let nodes = BTreeMap::from([(pci("0000:03:02.0"), vec!["/dev/vfio/7".to_owned()])]);
    Remembered {
        devices: vec![troubled, device("0000:03:02.1", "b")],
        given: BTreeMap::from([("culvert.io/a".to_owned(), nodes)]),
    }
}

#[test]
fn what_is_stored_comes_back_whole() {
    let (_dir, memory) = memory();
    assert!(matches!(memory.recall(), Err(RecallError::Read(_, e)) if e.kind() == io::ErrorKind::NotFound));
    for remembered in [remembered(), Remembered::default(), remembered()] {
        memory.store(&remembered).unwrap();
        assert_eq!(memory.recall().unwrap(), remembered);
    }
}

#[test]
fn with_another_boot_or_configuration_only_what_was_given_counts() {
    let (_dir, mut memory) = memory();
    memory.store(&remembered()).unwrap();
    let void = Remembered { devices: Vec::new(), ..remembered() };
    memory.boot = "c".to_owned();
    assert_eq!(memory.recall().unwrap(), void);
    memory.boot = "b".to_owned();
    assert_eq!(memory.recall().unwrap(), remembered());
    fs::write(&memory.configuration[0], "two").unwrap();
    assert_eq!(memory.recall().unwrap(), void);
    fs::write(&memory.configuration[0], "one").unwrap();
    fs::write(&memory.configuration[1], "a list").unwrap();
    assert_eq!(memory.recall().unwrap(), void);
}

#[test]
fn a_file_that_is_cut_short_or_changed_anywhere_is_not_believed() {
    let (_dir, memory) = memory();
    memory.store(&remembered()).unwrap();
    let whole = fs::read(&memory.file).unwrap();
    for at in 0..whole.len() {
        fs::write(&memory.file, &whole[..at]).unwrap();
        assert!(matches!(memory.recall(), Err(RecallError::Damaged(_))), "cut at {at}");
        for bit in [1, 0x80] {
            let mut changed = whole.clone();
            changed[at] ^= bit;
            fs::write(&memory.file, &changed).unwrap();
            assert!(matches!(memory.recall(), Err(RecallError::Damaged(_))), "changed at {at}");
        }
    }
}

#[tokio::test]
async fn all_that_was_told_is_written_when_the_keeper_ends() {
    let (_dir, memory) = memory();
    let (keeper, writer) = Keeper::open(Some(memory.clone()));
    let writer = tokio::spawn(writer);
    let a = "culvert.io/a".parse().unwrap();
    keeper.offered(remembered().devices);
    keeper.gave(&a, pci("0000:03:02.0"), vec!["/dev/vfio/7".to_owned()]);
    drop(keeper);
    writer.await.unwrap();
    assert_eq!(memory.recall().unwrap(), remembered());

    let (keeper, _) = Keeper::open(Some(memory));
    assert_eq!(keeper.devices(), remembered().devices);
    assert_eq!(keeper.given(&a, pci("0000:03:02.0")).unwrap(), ["/dev/vfio/7"]);
    assert_eq!(keeper.given(&a, pci("0000:03:02.1")), None);
}
