//! What kubelet is not bothered with: trouble that is over before anybody could act on it.
//!
//! A VF has no driver for some milliseconds while it is bound anew, and a carrier may blink. Kubelet would take each such
//! moment for lost capacity, and pods would fail admission for good.

use std::collections::BTreeMap;
use std::time::Duration;

use culvert_api::value::PciAddress;
use culvert_device_plugin::{Device, Health};
use tokio::time::Instant;

/// How long a device is troubled before that is told. Together with the time it takes to notice it stays well below the
/// second within which kubelet should hear of a loss.
pub(super) const PATIENCE: Duration = Duration::from_millis(300);

/// Remembers what was told of each device.
#[derive(Debug, Default)]
pub(super) struct Damper {
    told: BTreeMap<PciAddress, Device>,
    /// Healthy to kubelet, and troubled since.
    troubled: BTreeMap<PciAddress, Instant>,
}

impl Damper {
    /// What to tell now that the devices are as `seen`. A device that was healthy stays as it was told until its trouble
    /// has lasted; everything else is told as it is.
    pub(super) fn tell(&mut self, seen: Vec<Device>, now: Instant) -> Vec<Device> {
        let mut seen: BTreeMap<PciAddress, Device> = seen.into_iter().map(|d| (d.pci, d)).collect();
        let mut troubled = BTreeMap::new();
        for (pci, told) in std::mem::take(&mut self.told) {
            if told.health != Health::Healthy || !is_trouble(&told, seen.get(&pci)) {
                continue;
            }
            let since = self.troubled.get(&pci).copied().unwrap_or(now);
            if now.duration_since(since) < PATIENCE {
                troubled.insert(pci, since);
                seen.insert(pci, told);
            }
        }
        self.troubled = troubled;
        self.told = seen;
        self.told.values().cloned().collect()
    }

    /// When to look again, if there is trouble that was not yet told.
    pub(super) fn due(&self) -> Option<Instant> {
        self.troubled.values().min().map(|since| *since + PATIENCE)
    }
}

/// Whether a device that was healthy is worse off. One that was given to another pool follows the configuration at once.
fn is_trouble(told: &Device, seen: Option<&Device>) -> bool {
    seen.is_none_or(|seen| {
        seen.health != Health::Healthy && seen.pool == told.pool && seen.prefix == told.prefix
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(health: &str) -> Device {
        let health = if health.is_empty() { Health::Healthy } else { Health::Unhealthy(health.to_owned()) };
        Device {
            pool: Some("a".parse().unwrap()),
            driver: Some("iavf".to_owned()),
            health,
            ..Device::new("0000:03:02.0".parse().unwrap())
        }
    }

    #[test]
    fn a_short_moment_without_driver_is_not_told_and_a_long_one_is() {
        let mut damper = Damper::default();
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let fine = vec![device("")];
        let bare = vec![Device { driver: None, ..device("to be done: bind") }];
        assert_eq!(damper.tell(fine.clone(), after(0)), fine);
        assert_eq!(damper.tell(bare.clone(), after(10)), fine, "driver and all are as they were told");
        assert_eq!(damper.due(), Some(after(10) + PATIENCE));
        assert_eq!(damper.tell(fine.clone(), after(100)), fine);
        assert_eq!(damper.due(), None);

        assert_eq!(damper.tell(bare.clone(), after(1000)), fine, "the clock starts anew");
        assert_eq!(damper.tell(bare.clone(), after(1299)), fine);
        assert_eq!(damper.tell(bare.clone(), after(1300)), bare);
        assert_eq!(damper.due(), None, "there is nothing left to wait for");
        assert_eq!(damper.tell(fine.clone(), after(1301)), fine, "back at once");
    }

    #[test]
    fn a_device_that_vanished_for_a_moment_is_still_told() {
        let mut damper = Damper::default();
        let start = Instant::now();
        damper.tell(vec![device("")], start);
        assert_eq!(damper.tell(Vec::new(), start), [device("")]);
        assert_eq!(damper.tell(Vec::new(), start + PATIENCE), []);
    }

    #[test]
    fn one_troubled_device_does_not_hold_back_news_of_others() {
        let mut damper = Damper::default();
        let start = Instant::now();
        let other = |health: &str| Device { pci: "0000:03:02.1".parse().unwrap(), ..device(health) };
        damper.tell(vec![device(""), other("no carrier")], start);
        assert_eq!(damper.tell(vec![device("no carrier"), other("")], start), [device(""), other("")]);
    }

    #[test]
    fn what_was_never_healthy_or_is_withdrawn_is_told_at_once() {
        let mut damper = Damper::default();
        let now = Instant::now();
        assert_eq!(damper.tell(vec![device("not ready")], now), [device("not ready")]);
        assert_eq!(damper.tell(vec![device("still not")], now), [device("still not")]);
        damper.tell(vec![device("")], now);
        let withdrawn = Device { pool: None, ..device("not ready") };
        assert_eq!(damper.tell(vec![withdrawn.clone()], now), [withdrawn]);
    }
}
