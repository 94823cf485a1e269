//! Which resource had a device last, and what was known of it: while a pod has a device, its interface and its RDMA
//! devices are in the pod's namespaces and tell nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use culvert_api::value::{PciAddress, ResourceName};
use culvert_device_plugin::Rdma;
use serde::{Deserialize, Serialize};

/// What is remembered of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Remembered {
    /// The resource that offered it; `None` if it was withdrawn from all.
    pub resource: Option<ResourceName>,
    /// Its RDMA side, as last seen.
    pub rdma: Option<Rdma>,
    /// Its partition key, as last seen.
    pub p_key: Option<String>,
}

/// What is remembered, in a file that outlives the agent.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    devices: BTreeMap<PciAddress, Remembered>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    pci: PciAddress,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rdma: Option<Rdma>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p_key: Option<String>,
}

impl Memory {
    /// What an agent before this one remembered in `folder`.
    ///
    /// # Errors
    /// When the file is there and cannot be used; [`Self::empty`] is what is left then.
    pub(super) fn load(folder: &Path) -> io::Result<Self> {
        let mut memory = Self::empty(folder);
        let text = match fs::read_to_string(&memory.path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(memory),
            Err(e) => return Err(e),
        };
        for Entry { pci, resource, rdma, p_key } in serde_json::from_str::<Vec<Entry>>(&text)? {
            let resource = resource.and_then(|name| name.parse().ok());
            memory.devices.insert(pci, Remembered { resource, rdma, p_key });
        }
        Ok(memory)
    }

    /// Nothing is remembered.
    pub(super) fn empty(folder: &Path) -> Self {
        Self { path: folder.join("resources.json"), devices: BTreeMap::new() }
    }

    pub(super) fn get(&self, pci: PciAddress) -> Option<&Remembered> {
        self.devices.get(&pci)
    }

    /// Replaces everything; the file only changes if something has.
    ///
    /// # Errors
    /// When the file cannot be written; all is remembered for as long as the agent lives.
    pub(super) fn replace(&mut self, devices: BTreeMap<PciAddress, Remembered>) -> io::Result<()> {
        if devices == self.devices {
            return Ok(());
        }
        self.devices = devices;
        let entry = |(pci, remembered): (&PciAddress, &Remembered)| {
            let Remembered { resource, rdma, p_key } = remembered.clone();
            Entry { pci: *pci, resource: resource.map(|name| name.to_string()), rdma, p_key }
        };
        let entries: Vec<Entry> = self.devices.iter().map(entry).collect();
        let fresh = self.path.with_extension("json.new");
        let mut file = File::create(&fresh)?;
        file.write_all(serde_json::to_string(&entries)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_remembered_is_there_for_the_next_agent_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = Memory::load(dir.path()).unwrap();
        let rdma = Some(Rdma { devices: vec!["mlx5_2".to_owned()], nodes: vec!["uverbs2".to_owned()] });
        let devices = BTreeMap::from([
            (
                "0000:03:00.2".parse().unwrap(),
                Remembered {
                    resource: Some("intel.com/a".parse().unwrap()),
                    rdma,
                    p_key: Some("0x8001".to_owned()),
                },
            ),
            ("0000:03:00.3".parse().unwrap(), Remembered::default()),
        ]);
        memory.replace(devices.clone()).unwrap();
        assert_eq!(Memory::load(dir.path()).unwrap().devices, devices);
        fs::write(dir.path().join("resources.json"), "[{").unwrap();
        assert!(Memory::load(dir.path()).is_err());
    }

    #[test]
    fn the_file_is_left_alone_while_nothing_changes() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = Memory::load(dir.path()).unwrap();
        let devices = BTreeMap::from([("0000:03:00.2".parse().unwrap(), Remembered::default())]);
        memory.replace(devices.clone()).unwrap();
        fs::remove_file(dir.path().join("resources.json")).unwrap();
        memory.replace(devices).unwrap();
        assert!(!dir.path().join("resources.json").exists());
    }
}
