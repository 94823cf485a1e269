//! Comparing an attachment with what there is.

use culvert_host::netlink::Route as HostRoute;

use super::super::apply::MachineError;
use super::super::attachment::{Attachment, PodInterface};
use super::attacher::{Attacher, Sight, View};
use super::ops::{Net, VfOps};
use super::{CheckError, pod};
use crate::errors::chain;
use crate::pods::{Key, Phase};

impl<O: VfOps> Attacher<O> {
    /// Compares what `key` has with what is recorded.
    ///
    /// # Errors
    /// Everything that differs.
    pub(in super::super) async fn check(&self, sight: &impl Sight, key: &Key) -> Result<(), CheckError> {
        let attachment = self.ledger.attachment(key).ok_or_else(|| CheckError::Unknown(key.clone()))?;
        let view = sight.look(attachment.vf).await?;
        let mut problems = Vec::new();
        if attachment.phase != Phase::Attached {
            problems.push("is not completely attached".to_owned());
        }
        problems.extend(check_pf(&view, &attachment));
        if let Some(interface) = &attachment.interface {
            let found = self.check_interface(&attachment, interface).await;
            problems.extend(found.unwrap_or_else(|e| vec![chain(&e)]));
        }
        if problems.is_empty() { Ok(()) } else { Err(CheckError::Differs { key: key.clone(), problems }) }
    }

    async fn check_interface(
        &self,
        attachment: &Attachment,
        wanted: &PodInterface,
    ) -> Result<Vec<String>, MachineError> {
        let name = &attachment.key.ifname;
        if self.is_orphan(attachment) {
            return Ok(vec![format!("network namespace {} is gone", attachment.netns.display())]);
        }
        let netns = self.namespace(attachment).await?.ok_or(MachineError::NoInterface(attachment.vf))?;
        let net = self.ops.enter(&netns)?;
        let Some(link) = pod::interface(&net, attachment).await? else {
            return Ok(vec![format!("interface {name} is gone")]);
        };
        let mut problems = Vec::new();
        if link.name != name.as_str() {
            problems.push(format!("interface {name} is called {}", link.name));
        }
        if link.mac != Some(wanted.mac) {
            let mac = link.mac.map_or_else(|| "none".to_owned(), |m| m.to_string());
            problems.push(format!("interface {name} has mac {mac}, not {}", wanted.mac));
        }
        if let Some(mtu) = wanted.mtu.filter(|mtu| link.mtu != u32::from(mtu.get())) {
            problems.push(format!("interface {name} has mtu {}, not {mtu}", link.mtu));
        }
        if !link.up {
            problems.push(format!("interface {name} is down"));
        }
        let addresses = net.addresses().await?;
        for address in &wanted.addresses {
            if !addresses.contains(&(link.index, *address)) {
                problems.push(format!("interface {name} does not have address {address}"));
            }
        }
        let routes = net.routes().await?;
        for (destination, gateway) in &wanted.routes {
            let route =
                HostRoute { destination: destination.trunc(), gateway: *gateway, interface: link.index };
            if !routes.contains(&route) {
                problems.push(format!("interface {name} does not have route {route}"));
            }
        }
        Ok(problems)
    }
}

/// What the PF holds of the VF that it should not.
fn check_pf(view: &View, attachment: &Attachment) -> Option<String> {
    let Some((pf, _)) = view.observed.vf(attachment.vf) else {
        return Some(format!("device {} is gone", attachment.vf));
    };
    let asked = &attachment.settings;
    let wanted = view.base.as_ref().map_or_else(|| asked.clone(), |base| base.settings.overlaid(asked));
    let now = pf.settings.get(&attachment.index)?;
    let left = wanted.without(now);
    (!left.is_empty()).then(|| format!("device {}: the PF has {now}; to do: {left}", attachment.vf))
}
