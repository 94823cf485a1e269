//! Configuration of the kubelet device plugin: section `devicePlugin` of the agent's configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, SUN_PATH_MAX};
use crate::value::{PoolName, ResourcePrefix};

/// How the pools of devices are offered to kubelet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePlugin {
    /// Folder of kubelet's `kubelet.sock` and of the sockets of its plugins.
    pub kubelet_dir: PathBuf,
    /// Folder that kubelet searches for sockets of plugins on its own.
    pub plugins_registry: PathBuf,
    /// Which of the two folders is used.
    pub registration: Registration,
    /// What comes before the `/` of a resource name.
    pub resource_prefix: ResourcePrefix,
    /// Folder for Container Device Interface specifications. If given, containers get their device nodes through
    /// these, and not from kubelet; the runtime must know CDI.
    pub cdi: Option<PathBuf>,
    /// Container Device Interface devices are named in annotations, too, for runtimes that do not yet take them from
    /// kubelet (before containerd 1.7 and CRI-O 1.25, or Kubernetes 1.28).
    pub cdi_annotations: bool,
    /// Folder for device information files (device-info-spec 1.1.0), which Multus reads.
    pub device_info: Option<PathBuf>,
    /// A configuration file of sriov-network-device-plugin, whose resources are on offer beside the pools of the NIC
    /// policy.
    pub resource_list: Option<ResourceListFile>,
    /// Which free devices kubelet is advised to take.
    pub allocation: Allocations,
}

/// Which of the free devices of a pool a container gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Allocation {
    /// As close together as can be: one NUMA node, one card, one PF; from the fullest PF that still has enough.
    #[default]
    Packed,
    /// From as many PFs of one NUMA node as can be, those used least first.
    Spread,
}

/// [`Allocation`] of each pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allocations {
    /// Of pools that are not named in `pools`.
    pub default: Allocation,
    /// Of single pools.
    pub pools: BTreeMap<PoolName, Allocation>,
}

impl Allocations {
    /// That of one pool.
    pub fn of(&self, pool: &PoolName) -> Allocation {
        self.pools.get(pool).copied().unwrap_or(self.default)
    }
}

/// Where a configuration file of sriov-network-device-plugin is, and what that program is told beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceListFile {
    /// The file: `--config-file` there.
    pub path: PathBuf,
    /// Prefix of resources that name none: `--resource-prefix` there.
    pub prefix: ResourcePrefix,
}

impl ResourceListFile {
    /// Prefix of resources that name none, unless another is configured: that of sriov-network-device-plugin.
    pub const PREFIX: &str = "intel.com";
}

/// How kubelet learns of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Registration {
    /// [`Self::Watcher`] if the folder `pluginsRegistry` is there when the agent starts, else [`Self::Kubelet`].
    #[default]
    Auto,
    /// The plugin calls kubelet on `kubelet.sock`. Kubelet forgets it, and the node's capacity is 0, from kubelet's
    /// restart until the plugin calls again.
    Kubelet,
    /// Kubelet finds the plugin's socket in `pluginsRegistry`, also after its own restart: no loss of capacity.
    Watcher,
}

impl DevicePlugin {
    /// Prefix of the NIC policy's pools, unless another is configured.
    pub const PREFIX: &str = "culvert.io";

    /// Longest path of either folder: room for a `/` and the shortest name of a socket in it.
    pub const DIR_MAX: usize = SUN_PATH_MAX - 30;
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RawDevicePlugin {
    kubelet_dir: PathBuf,
    plugins_registry: Option<PathBuf>,
    registration: Registration,
    resource_prefix: ResourcePrefix,
    cdi: Option<RawCdi>,
    device_info: Option<RawDeviceInfo>,
    resource_list: Option<PathBuf>,
    resource_list_prefix: ResourcePrefix,
    allocation: Allocation,
    pools: BTreeMap<PoolName, RawPool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawPool {
    allocation: Allocation,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawCdi {
    dir: PathBuf,
    annotations: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawDeviceInfo {
    dir: PathBuf,
}

impl Default for RawCdi {
    fn default() -> Self {
        Self { dir: PathBuf::from("/var/run/cdi"), annotations: false }
    }
}

impl Default for RawDeviceInfo {
    fn default() -> Self {
        Self { dir: PathBuf::from("/var/run/k8s.cni.cncf.io/devinfo/dp") }
    }
}

impl Default for RawDevicePlugin {
    fn default() -> Self {
        Self {
            kubelet_dir: PathBuf::from("/var/lib/kubelet/device-plugins"),
            plugins_registry: None,
            registration: Registration::default(),
            resource_prefix: DevicePlugin::PREFIX.parse().expect("is a DNS name"),
            cdi: None,
            device_info: None,
            resource_list: None,
            resource_list_prefix: ResourceListFile::PREFIX.parse().expect("is a DNS name"),
            allocation: Allocation::default(),
            pools: BTreeMap::new(),
        }
    }
}

impl RawDevicePlugin {
    pub(super) fn validate(self) -> Result<DevicePlugin, ConfigError> {
        let Self { kubelet_dir, plugins_registry, registration, resource_prefix, cdi, device_info, .. } =
            self;
        let pools = self.pools.into_iter().map(|(pool, raw)| (pool, raw.allocation)).collect();
        let allocation = Allocations { default: self.allocation, pools };
        let cdi_annotations = cdi.as_ref().is_some_and(|cdi| cdi.annotations);
        let resource_list =
            self.resource_list.map(|path| ResourceListFile { path, prefix: self.resource_list_prefix });
        // Kubelet keeps the two folders side by side below its root directory.
        let plugins_registry =
            plugins_registry.unwrap_or_else(|| kubelet_dir.with_file_name("plugins_registry"));
        check_dir("devicePlugin.kubeletDir", &kubelet_dir)?;
        check_dir("devicePlugin.pluginsRegistry", &plugins_registry)?;
        if kubelet_dir == plugins_registry {
            let reason = "is kubeletDir, too; kubelet searches another folder for plugins";
            return Err(ConfigError::value(
                "devicePlugin.pluginsRegistry",
                plugins_registry.display(),
                reason,
            ));
        }
        let (cdi, device_info) = (cdi.map(|c| c.dir), device_info.map(|d| d.dir));
        for (key, path) in [
            ("devicePlugin.cdi.dir", cdi.as_ref()),
            ("devicePlugin.deviceInfo.dir", device_info.as_ref()),
            ("devicePlugin.resourceList", resource_list.as_ref().map(|list| &list.path)),
        ] {
            if let Some(path) = path.filter(|path| !path.is_absolute()) {
                return Err(ConfigError::value(key, path.display(), "must be an absolute path"));
            }
        }
        Ok(DevicePlugin {
            kubelet_dir,
            plugins_registry,
            registration,
            resource_prefix,
            cdi,
            cdi_annotations,
            device_info,
            resource_list,
            allocation,
        })
    }
}

fn check_dir(key: &str, path: &Path) -> Result<(), ConfigError> {
    if path.is_absolute() && path.as_os_str().len() <= DevicePlugin::DIR_MAX {
        return Ok(());
    }
    let reason = format!(
        "must be an absolute path of at most {} bytes, to which the names of sockets are added",
        DevicePlugin::DIR_MAX
    );
    Err(ConfigError::value(key, path.display(), reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(yaml: &str) -> Result<DevicePlugin, ConfigError> {
        super::super::parse::<RawDevicePlugin>(yaml)?.validate()
    }

    #[test]
    fn an_empty_section_means_kubelets_own_folders() {
        let config = load("{}").unwrap();
        assert_eq!(config.kubelet_dir, Path::new("/var/lib/kubelet/device-plugins"));
        assert_eq!(config.plugins_registry, Path::new("/var/lib/kubelet/plugins_registry"));
        assert_eq!(config.registration, Registration::Auto);
        assert_eq!(config.resource_prefix.as_str(), "culvert.io");
        assert_eq!((config.cdi, config.device_info), (None, None));
    }

    #[test]
    fn the_registry_lies_beside_the_kubelet_folder_unless_given() {
        let config = load("kubeletDir: /srv/k/device-plugins\nregistration: watcher").unwrap();
        assert_eq!(config.plugins_registry, Path::new("/srv/k/plugins_registry"));
        assert_eq!(config.registration, Registration::Watcher);
    }

    #[test]
    fn files_for_others_are_written_where_it_is_asked_for() {
        let config = load("{cdi: {}, deviceInfo: {dir: /run/d}}").unwrap();
        assert_eq!(config.cdi.as_deref(), Some(Path::new("/var/run/cdi")));
        assert_eq!((config.cdi_annotations, config.resource_list), (false, None));
        assert_eq!(config.device_info.as_deref(), Some(Path::new("/run/d")));
        assert!(load("cdi: {annotations: true}").unwrap().cdi_annotations);
    }

    #[test]
    fn a_resource_list_has_the_prefix_of_the_program_that_it_was_written_for_unless_given() {
        let list = |yaml| load(yaml).unwrap().resource_list.unwrap();
        let plain = list("resourceList: /etc/pcidp/config.json");
        assert_eq!(plain.path, Path::new("/etc/pcidp/config.json"));
        assert_eq!(plain.prefix.as_str(), "intel.com");
        let other = list("{resourceList: /etc/pcidp/node-a, resourceListPrefix: openshift.io}");
        assert_eq!(other.prefix.as_str(), "openshift.io");
    }

    #[test]
    fn pools_have_the_allocation_of_all_unless_they_have_their_own() {
        let config = load("{allocation: spread, pools: {a: {allocation: packed}}}").unwrap();
        let of = |pool: &str| config.allocation.of(&pool.parse().unwrap());
        assert_eq!((of("a"), of("b")), (Allocation::Packed, Allocation::Spread));
        assert_eq!(load("{}").unwrap().allocation, Allocations::default());
    }

    #[test]
    fn bad_values_are_refused_by_key_and_value() {
        let long = format!("kubeletDir: /{}", "x".repeat(DevicePlugin::DIR_MAX));
        for (yaml, text) in [
            (
                "kubeletDir: device-plugins",
                "devicePlugin.kubeletDir device-plugins: must be an absolute path",
            ),
            (&long, "must be an absolute path of at most 77 bytes"),
            ("{kubeletDir: /a, pluginsRegistry: /a}", "devicePlugin.pluginsRegistry /a: is kubeletDir, too"),
            ("resourcePrefix: kubernetes.io", "kubernetes.io belongs to Kubernetes"),
            ("registration: often", "often"),
            ("allocation: dense", "dense"),
            ("pools: {a/b: {allocation: spread}}", "a/b"),
            ("cdi: {dir: cdi}", "devicePlugin.cdi.dir cdi: must be an absolute path"),
            ("resourceList: c.json", "devicePlugin.resourceList c.json: must be an absolute path"),
            ("resourceListPrefix: Intel", "resource prefix \"Intel\""),
            ("kubeletdir: /a", "kubeletdir"),
        ] {
            let error = load(yaml).unwrap_err().to_string();
            assert!(error.contains(text), "{yaml}: {error}");
        }
    }
}
