//! Comparing an attachment with what there is.

use super::super::attachment::{Attachment, PodInterface};
use super::super::observe::Observed;
use super::super::wanted::{Hold, WantedVf};
use super::pod::Pod;
use crate::errors::chain;
use crate::pods::Phase;

/// What is wrong with `attachment`; empty if nothing is.
pub(in super::super) async fn check(
    observed: &Observed,
    base: Option<&WantedVf>,
    attachment: &Attachment,
) -> Vec<String> {
    let mut problems = Vec::new();
    if attachment.phase != Phase::Attached {
        problems.push("is not completely attached".to_owned());
    }
    match observed.vf(attachment.vf) {
        None => problems.push(format!("device {} is gone", attachment.vf)),
        Some((pf, _)) => {
            let Hold { settings, .. } = attachment.hold();
            let wanted = base.map_or_else(|| settings.clone(), |base| base.settings.overlaid(&settings));
            if let Some(now) = pf.settings.get(&attachment.index) {
                let left = wanted.without(now);
                if !left.is_empty() {
                    problems.push(format!("device {}: the PF has {now}; to do: {left}", attachment.vf));
                }
            }
        }
    }
    if let Some(interface) = &attachment.interface {
        problems.extend(check_interface(attachment, interface).await);
    }
    problems
}

async fn check_interface(attachment: &Attachment, wanted: &PodInterface) -> Vec<String> {
    let name = &attachment.key.ifname;
    let look = async {
        let Some(pod) = Pod::of(attachment)? else {
            return Ok(vec![format!("network namespace {} is gone", attachment.netns.display())]);
        };
        let Some(link) = pod.interface(attachment).await? else {
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
        let addresses = pod.netlink.addresses().await?;
        for address in &wanted.addresses {
            if !addresses.contains(&(link.index, *address)) {
                problems.push(format!("interface {name} does not have address {address}"));
            }
        }
        Ok(problems)
    };
    look.await.unwrap_or_else(|e: super::super::apply::MachineError| vec![chain(&e)])
}
