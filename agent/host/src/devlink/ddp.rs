//! Dynamic Device Personalization: the package of packet parser and pipeline that a NIC runs.

use super::{DEVLINK_CMD_INFO_GET, Devlink, DevlinkDevice, GENLMSGHDR};
use crate::netlink::NetlinkError;
use crate::netlink::attr::{Reader, text_of};

const DEVLINK_ATTR_INFO_VERSION_RUNNING: u16 = 101;
const DEVLINK_ATTR_INFO_VERSION_NAME: u16 = 103;
const DEVLINK_ATTR_INFO_VERSION_VALUE: u16 = 104;

/// What ice calls the package's name (`Documentation/networking/devlink/ice.rst`).
const PACKAGE: &str = "fw.app.name";

impl Devlink {
    /// Name of the package that is loaded, such as "ICE OS Default Package"; `None` if the driver does not tell, as i40e.
    pub async fn ddp_package(&self, device: &DevlinkDevice) -> Result<Option<String>, NetlinkError> {
        let question = self.question(DEVLINK_CMD_INFO_GET, device, |_| {});
        let answers = self.patiently(device, "read its DDP package", question).await?;
        Ok(answers.iter().flatten().find_map(|answer| package(&answer.payload)))
    }
}

fn package(payload: &[u8]) -> Option<String> {
    Reader::after(GENLMSGHDR, payload)
        .filter(|(kind, _)| *kind == DEVLINK_ATTR_INFO_VERSION_RUNNING)
        .find_map(|(_, version)| {
            let text = |kind| Reader::new(version).find(kind).map(text_of);
            let name = text(DEVLINK_ATTR_INFO_VERSION_NAME)?;
            text(DEVLINK_ATTR_INFO_VERSION_VALUE).filter(|value| name == PACKAGE && !value.is_empty())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attr::Attributes;

    #[test]
    fn the_package_is_found_among_the_running_versions_only() {
        let versions = |kind: u16, versions: &[(&str, &str)]| {
            let mut message = Attributes::after(&[DEVLINK_CMD_INFO_GET, 1, 0, 0]);
            for (name, value) in versions {
                message.nest(kind, |version| {
                    version.put_text(DEVLINK_ATTR_INFO_VERSION_NAME, name);
                    version.put_text(DEVLINK_ATTR_INFO_VERSION_VALUE, value);
                });
            }
            message.finish()
        };
        let all = [("fw.mgmt", "7.1.3"), ("fw.app.name", "ICE COMMS Package"), ("fw.app", "1.3.40.0")];
        let running = versions(DEVLINK_ATTR_INFO_VERSION_RUNNING, &all);
        assert_eq!(package(&running).as_deref(), Some("ICE COMMS Package"));
        for length in 0..running.len() {
            let _ = package(&running[..length]);
        }
        assert_eq!(package(&versions(DEVLINK_ATTR_INFO_VERSION_RUNNING, &all[..1])), None);
        let stored = DEVLINK_ATTR_INFO_VERSION_RUNNING + 1;
        assert_eq!(package(&versions(stored, &all)), None);
    }
}
