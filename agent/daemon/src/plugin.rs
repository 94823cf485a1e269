//! Runs the kubelet device plugin and reports how it fares.

mod resource_list;

use culvert_api::config::device_plugin::DevicePlugin;
use culvert_device_plugin::{Device, Memory, Plugin, Statuses};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::health::{Reporter, State};
use crate::nic::ResourceConfig;
pub use resource_list::Follower;

/// What the NICs have to know of the device plugin's configuration, and who keeps its list of resources loaded, if it has
/// one.
pub fn resources(config: Option<&DevicePlugin>) -> (Option<Follower>, ResourceConfig) {
    let default = || DevicePlugin::PREFIX.parse().expect("is a DNS name");
    let prefix = config.map_or_else(default, |config| config.resource_prefix.clone());
    let file = config.and_then(|config| config.resource_list.clone());
    let (follower, list) = file.map(Follower::open).unzip();
    let list = list.unwrap_or_else(|| watch::channel(None).1);
    (follower, ResourceConfig { prefix, list })
}

/// Offers the pools that the devices name, at first those that `memory` holds, until `stop`, and tells `pools` how they
/// are; lists have ended and sockets are gone at its end.
pub async fn run(
    config: DevicePlugin,
    memory: Memory,
    devices: watch::Receiver<Vec<Device>>,
    pools: watch::Sender<Statuses>,
    health: Reporter,
    stop: CancellationToken,
) {
    let plugin = Plugin::resume(&config, memory, devices);
    let mut statuses = plugin.statuses();
    stop.run_until_cancelled(async {
        loop {
            let now = statuses.borrow_and_update().clone();
            let (state, detail) = summary(&now);
            health.set(state, detail);
            pools.send_replace(now);
            if statuses.changed().await.is_err() {
                // It ends by `stop` alone.
                return std::future::pending().await;
            }
        }
    })
    .await;
    plugin.shutdown().await;
    health.set(State::Off, "");
}

/// One line about all resources: those that kubelet does not know first.
fn summary(statuses: &Statuses) -> (State, String) {
    if statuses.is_empty() {
        return (State::Ok, "no pools".to_owned());
    }
    let waiting: Vec<String> = statuses
        .iter()
        .filter_map(|(resource, status)| Some(format!("{resource}: {}", status.waiting.as_ref()?)))
        .collect();
    if !waiting.is_empty() {
        return (State::Degraded, waiting.join("; "));
    }
    let pools: Vec<String> = statuses
        .iter()
        .map(|(resource, status)| format!("{resource}: {} of {} healthy", status.healthy, status.devices))
        .collect();
    (State::Ok, pools.join(", "))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use culvert_api::config::device_plugin::Registration;
    use culvert_device_plugin::PoolStatus;

    use super::*;
    use crate::health::Health;

    fn statuses(list: &[(&str, PoolStatus)]) -> Statuses {
        list.iter().map(|(name, status)| (name.parse().unwrap(), status.clone())).collect()
    }

    #[test]
    fn the_summary_counts_devices_and_puts_what_is_wrong_first() {
        let fine = PoolStatus { devices: 4, healthy: 3, waiting: None };
        let away = PoolStatus { waiting: Some("kubelet is away".to_owned()), ..fine.clone() };
        assert_eq!(summary(&Statuses::new()), (State::Ok, "no pools".to_owned()));
        let both = statuses(&[("culvert.io/a", fine.clone()), ("culvert.io/b", fine.clone())]);
        let text = "culvert.io/a: 3 of 4 healthy, culvert.io/b: 3 of 4 healthy";
        assert_eq!(summary(&both), (State::Ok, text.to_owned()));
        let one = statuses(&[("culvert.io/a", fine), ("culvert.io/b", away)]);
        assert_eq!(summary(&one), (State::Degraded, "culvert.io/b: kubelet is away".to_owned()));
    }

    #[tokio::test]
    async fn a_missing_kubelet_degrades_the_part_and_the_end_switches_it_off() {
        let dir = tempfile::tempdir().unwrap();
        let config = DevicePlugin {
            kubelet_dir: dir.path().join("device-plugins"),
            plugins_registry: dir.path().join("plugins_registry"),
            registration: Registration::Auto,
            resource_prefix: "culvert.io".parse().unwrap(),
            cdi: None,
            cdi_annotations: false,
            device_info: None,
            resource_list: None,
            allocation: Default::default(),
        };
        let device =
            Device { pool: Some("a".parse().unwrap()), ..Device::new("0000:03:02.0".parse().unwrap()) };
        let (_sender, devices) = watch::channel(vec![device]);
        let file = dir.path().join("devices.json");
        let memory = Memory { file, boot: "b".to_owned(), configuration: Vec::new() };
        let health = Health::default();
        let (pools, seen) = watch::channel(Statuses::new());
        let stop = CancellationToken::new();
        let task =
            tokio::spawn(run(config, memory, devices, pools, health.part("device plugin"), stop.clone()));
        let line = || health.subsystems().remove(0);
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while !line().detail.contains("no such folder") {
            assert!(std::time::Instant::now() < deadline, "{:?}", line());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(line().state, "degraded");
        assert_eq!(seen.borrow().values().map(|pool| pool.devices).collect::<Vec<_>>(), [1]);
        stop.cancel();
        task.await.unwrap();
        assert_eq!(line().state, "off");
    }
}
