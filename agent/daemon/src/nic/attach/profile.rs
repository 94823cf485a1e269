//! What a VF is of its own, while no pod has it.

use culvert_api::config::nic::VfDriver;
use culvert_api::value::Mac;
use culvert_host::driver;
use culvert_host::netlink::{VfChange, VfSettings};

use super::super::attachment::Attachment;
use super::super::wanted::WantedVf;

/// Everything that a VF gets back when a pod returns it, whatever the pod had asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Profile {
    /// What the PF holds of it: what the policy says, else what it was before the pod had it.
    settings: VfChange,
    /// Settings that the pod had asked for, or that its programs may have changed: they are written although the PF
    /// reports the right ones.
    touched: VfChange,
    /// MAC of its interface.
    pub(super) mac: Option<Mac>,
    /// MTU of its interface.
    pub(super) mtu: Option<u32>,
    /// Its driver, if that is one that Culvert gives.
    pub(super) driver: Option<VfDriver>,
}

impl Profile {
    /// That of `attachment`'s VF; `base` is what the policy says.
    pub(super) fn new(base: Option<&WantedVf>, attachment: &Attachment) -> Self {
        let before = attachment.before.as_ref();
        // A PF cannot be told to forget a VF's MAC: without one before, the VF keeps the one that its driver made up.
        let given = before.and_then(|b| b.mac);
        let made_up = attachment.host_mac.filter(|_| attachment.settings.mac.is_some());
        let before = before.map_or_else(VfChange::default, |before| VfChange {
            mac: given.or(made_up),
            vlan: Some(before.vlan),
            spoof_check: Some(before.spoof_check),
            trust: Some(before.trust),
            link_state: Some(before.link_state),
            rates: Some(before.rates),
        });
        let settings = base.map_or_else(|| before.clone(), |base| before.overlaid(&base.settings));
        let asked = &attachment.settings;
        let touched = VfChange {
            mac: settings.mac,
            vlan: settings.vlan.filter(|_| asked.vlan.is_some()),
            spoof_check: settings.spoof_check.filter(|_| asked.spoof_check.is_some()),
            trust: settings.trust.filter(|_| asked.trust.is_some()),
            link_state: settings.link_state.filter(|_| asked.link_state.is_some()),
            rates: settings.rates.filter(|_| asked.rates.is_some()),
        };
        let interface = attachment.interface.as_ref();
        let mtu = base.and_then(|b| b.mtu).map(|mtu| mtu.get().into());
        let recorded = match attachment.driver.as_deref() {
            Some(driver::VFIO_PCI) => Some(VfDriver::VfioPci),
            Some(other) if !driver::is_userspace(other) => Some(VfDriver::Kernel),
            _ => None,
        };
        Self {
            mac: settings.mac.or(attachment.host_mac),
            settings,
            touched,
            mtu: mtu.or(interface.map(|i| i.host_mtu)),
            driver: base.map(|b| b.driver).or(recorded),
        }
    }

    /// What has to be written to the PF that holds `now` of the VF; a PF that does not say is told everything.
    pub(super) fn change(&self, now: Option<&VfSettings>) -> VfChange {
        match now {
            Some(now) => self.settings.without(now).overlaid(&self.touched),
            None => self.settings.clone(),
        }
    }
}
