//! What the machine says of a PCI function's health, beyond its link.

use culvert_api::value::PciAddress;

use crate::devlink::{Devlink, DevlinkDevice};
use crate::netlink::NetlinkError;
use crate::root::{FileError, Folder, HostRoot};

/// What is known of a function's health.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthHints {
    /// Fatal errors of PCI Express Advanced Error Reporting since boot; `None` for a function that does not report.
    pub aer_fatal: Option<u64>,
    /// Its uncorrectable errors that were not fatal.
    pub aer_nonfatal: Option<u64>,
    /// devlink health reporters that are in error: `fw_fatal`, `tx`.
    pub failed_reporters: Vec<String>,
}

/// Why there are no hints.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// sysfs.
    #[error(transparent)]
    File(#[from] FileError),
    /// devlink.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

impl HealthHints {
    /// What is wrong, compared with `before`: errors that were counted since, or a reporter that is in error now.
    pub fn problem(&self, before: &Self) -> Option<String> {
        if !self.failed_reporters.is_empty() {
            return Some(format!("its driver reports an error: {}", self.failed_reporters.join(", ")));
        }
        let more =
            |now: Option<u64>, then: Option<u64>| now?.checked_sub(then.unwrap_or(0)).filter(|n| *n > 0);
        if let Some(errors) = more(self.aer_fatal, before.aer_fatal) {
            return Some(format!("{errors} fatal PCI Express errors"));
        }
        more(self.aer_nonfatal, before.aer_nonfatal)
            .map(|errors| format!("{errors} uncorrectable PCI Express errors"))
    }
}

/// Hints about the functions at `addresses`, in their order.
pub async fn health_hints(
    root: &HostRoot,
    devlink: Option<&Devlink>,
    addresses: &[PciAddress],
) -> Result<Vec<HealthHints>, HealthError> {
    let failed = match devlink {
        Some(devlink) => devlink.failed_reporters().await?,
        None => Default::default(),
    };
    addresses
        .iter()
        .map(|address| {
            let (aer_fatal, aer_nonfatal) = match Folder::open(root.pci_device(*address))? {
                Some(folder) => (aer(&folder, "fatal")?, aer(&folder, "nonfatal")?),
                None => (None, None),
            };
            let failed_reporters = failed.get(&DevlinkDevice::from(*address)).cloned().unwrap_or_default();
            Ok(HealthHints { aer_fatal, aer_nonfatal, failed_reporters })
        })
        .collect()
}

/// The total of `aer_dev_fatal` or `aer_dev_nonfatal` (`Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats`).
fn aer(folder: &Folder, severity: &str) -> Result<Option<u64>, FileError> {
    let Some(text) = folder.text(&format!("aer_dev_{severity}"))? else { return Ok(None) };
    Ok(text.lines().find_map(|line| line.strip_prefix("TOTAL_ERR_")?.split_once(' ')?.1.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeHost, ICE};

    #[tokio::test]
    async fn errors_counted_since_are_a_problem_and_those_before_are_not() {
        let mut host = FakeHost::new();
        let pf: PciAddress = "0000:03:00.0".parse().unwrap();
        host.add_pf(ICE, pf, "ens1f0", 0);
        host.set_aer(pf, "nonfatal", 3);
        let gone: PciAddress = "0000:04:00.0".parse().unwrap();
        let root = host.root();
        let look = async || health_hints(&root, None, &[pf, gone]).await.unwrap();
        let before = look().await;
        assert_eq!((before[0].aer_fatal, before[0].aer_nonfatal), (Some(0), Some(3)));
        assert_eq!(before[1], HealthHints::default());
        assert_eq!(before[0].problem(&before[0]), None);
        host.set_aer(pf, "nonfatal", 4);
        assert_eq!(
            look().await[0].problem(&before[0]).as_deref(),
            Some("1 uncorrectable PCI Express errors")
        );
        host.set_aer(pf, "fatal", 2);
        assert_eq!(look().await[0].problem(&before[0]).as_deref(), Some("2 fatal PCI Express errors"));
        // The counters of a card that was pulled and put back begin anew.
        host.set_aer(pf, "nonfatal", 0);
        host.set_aer(pf, "fatal", 0);
        assert_eq!(look().await[0].problem(&before[0]), None);
    }

    #[test]
    fn a_reporter_in_error_is_a_problem_by_its_name() {
        let hints =
            HealthHints { failed_reporters: vec!["fw_fatal".into(), "tx".into()], ..Default::default() };
        assert_eq!(hints.problem(&hints).as_deref(), Some("its driver reports an error: fw_fatal, tx"));
    }
}
