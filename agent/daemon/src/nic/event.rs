//! What happens to NICs and to those who use them: told once, to the log, the counters, `culvert nic watch` and
//! `culvert nic show`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use culvert_api::agent::NicEvent;
use culvert_api::value::{PciAddress, PoolName, VfIndex};
use culvert_device_plugin::{Device, Health};
use tokio::sync::broadcast;
use tracing::{debug, info, warn};

use super::attach::VfAttach;
use super::attachment::Attachment;
use super::measure::Measurements;
use super::step::{Object, Step};
use crate::pods::Key;

#[cfg(test)]
mod tests;

/// How many events a reader may be behind before it is told that it missed some.
const BACKLOG: usize = 256;
/// How many past events are kept for `culvert nic show`.
const REMEMBERED: usize = 4096;

/// Something that happened. Made by one of the functions below, told by [`Events::tell`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    kind: Kind,
    state: &'static str,
    object: Option<Object>,
    vf: Option<PciAddress>,
    pool: Option<PoolName>,
    pod: Option<String>,
    key: Option<Key>,
    /// Why a request was refused: one of few words, a label of the counter.
    reason: Option<&'static str>,
    took: Option<Duration>,
    text: String,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A pod gets a VF.
    Attach,
    /// A VF is taken back.
    Detach,
    /// A device may or may not be given to pods.
    Health,
    /// The link of a PF.
    Link,
    /// One step of a plan.
    Step,
    /// A plan as a whole.
    Apply,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome<'a> {
    /// It is about to be done.
    Begun,
    /// It is done.
    Done,
    /// It failed; why.
    Failed(&'a str),
}

impl Kind {
    /// The word that people, JSON and metrics know it by.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Attach => "attach",
            Self::Detach => "detach",
            Self::Health => "health",
            Self::Link => "link",
            Self::Step => "step",
            Self::Apply => "apply",
        }
    }
}

impl Event {
    fn new(kind: Kind, state: &'static str, text: String) -> Self {
        let (object, vf, pool, pod, key, reason, took) = (None, None, None, None, None, None, None);
        Self { kind, state, object, vf, pool, pod, key, reason, took, text }
    }

    /// A pod has its VF.
    pub(super) fn attached(attachment: &Attachment, took: Duration) -> Self {
        let Attachment { owner, key, interface, settings, .. } = attachment;
        let mut text = format!("goes to {owner} as {}", key.ifname);
        if let Some(interface) = interface {
            let addresses: Vec<_> = interface.addresses.iter().map(ToString::to_string).collect();
            text += &format!(", mac {}", interface.mac);
            if !addresses.is_empty() {
                text += &format!(", {}", addresses.join(", "));
            }
        }
        if let Some(vlan) = settings.vlan {
            text += &format!(", vlan {}", vlan.id);
        }
        Self { took: Some(took), ..Self::of(attachment, Kind::Attach, "done", text) }
    }

    /// A pod does not get the VF that it asks for; `reason` is a word for the counter, `why` says it to people.
    pub(super) fn refused(request: &VfAttach, reason: &'static str, why: &str, took: Duration) -> Self {
        let VfAttach { key, owner, device, .. } = request;
        let text = format!("{owner}: {why}");
        let (pod, key) = (Some(owner.clone()), Some(key.clone()));
        let (vf, reason, took) = (Some(*device), Some(reason), Some(took));
        Self { vf, pod, key, reason, took, ..Self::new(Kind::Attach, "refused", text) }
    }

    /// A VF was taken back from its pod, or `failed`, why it could not be.
    pub(super) fn detached(attachment: &Attachment, failed: Option<String>, took: Duration) -> Self {
        let (state, text) = match failed {
            None => ("done", format!("comes back from {}", attachment.owner)),
            Some(why) => ("failed", why),
        };
        Self { took: Some(took), ..Self::of(attachment, Kind::Detach, state, text) }
    }

    fn of(attachment: &Attachment, kind: Kind, state: &'static str, text: String) -> Self {
        let Attachment { pf, index, vf, owner, key, .. } = attachment;
        let (object, vf) = (Some(Object::vf(*pf, *index)), Some(*vf));
        let (pod, key) = (Some(owner.clone()), Some(key.clone()));
        Self { object, vf, pod, key, ..Self::new(kind, state, text) }
    }

    /// A device may be given to pods, or not, and why.
    pub(super) fn health(device: &Device) -> Self {
        match &device.health {
            Health::Healthy => Self::device(device, "healthy", "can be given to pods".to_owned()),
            Health::Unhealthy(why) => Self::device(device, "unhealthy", why.clone()),
        }
    }

    /// A device is there no more.
    pub(super) fn gone(device: &Device) -> Self {
        Self::device(device, "gone", "is gone from the machine or from the policy".to_owned())
    }

    fn device(device: &Device, state: &'static str, text: String) -> Self {
        let object = device.pf.map(|pf| Object { pf, vf: device.vf });
        let (vf, pool) = (Some(device.pci), device.pool.clone());
        Self { object, vf, pool, ..Self::new(Kind::Health, state, text) }
    }

    /// The link of the PF's `interface` is in this `state`.
    pub(super) fn link(pf: PciAddress, interface: &str, state: &'static str) -> Self {
        let text = format!("link of {interface}: {state}");
        Self { object: Some(Object::pf(pf)), ..Self::new(Kind::Link, state, text) }
    }

    /// Step `number` of `total` of a plan.
    pub(super) fn step(
        step: &Step,
        number: usize,
        total: usize,
        outcome: Outcome<'_>,
        took: Duration,
    ) -> Self {
        let action = &step.action;
        let (state, text, took) = match outcome {
            Outcome::Begun => ("begun", format!("{action} ({number} of {total})"), None),
            Outcome::Done => ("done", action.to_string(), Some(took)),
            Outcome::Failed(why) => ("failed", format!("cannot {action}: {why}"), Some(took)),
        };
        Self { object: Some(step.object), took, ..Self::new(Kind::Step, state, text) }
    }

    /// A plan has been carried out.
    pub(super) fn applied(done: usize, failed: usize, took: Duration) -> Self {
        let state = if failed == 0 { "done" } else { "failed" };
        let text = format!("the policy is carried out: {done} steps done, {failed} failed");
        Self { took: Some(took), ..Self::new(Kind::Apply, state, text) }
    }

    /// What it is about.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// What became of it.
    pub(super) fn state(&self) -> &'static str {
        self.state
    }

    /// Why it was refused.
    pub(super) fn reason(&self) -> Option<&'static str> {
        self.reason
    }

    /// How long it took.
    pub(super) fn took(&self) -> Option<Duration> {
        self.took
    }

    fn concerns(&self, pf: PciAddress, vf: Option<(VfIndex, PciAddress)>) -> bool {
        match vf {
            None => self.object.is_some_and(|object| object.pf == pf),
            Some((index, address)) => self.object == Some(Object::vf(pf, index)) || self.vf == Some(address),
        }
    }

    /// One line, with what programs look for in fields of their own.
    fn log(&self) {
        let (kind, state, text) = (self.kind.as_str(), self.state, &self.text);
        let pf = self.object.map(|o| tracing::field::display(o.pf));
        let index = self.object.and_then(|o| o.vf).map(|vf| u32::from(vf.get()));
        let vf = self.vf.map(tracing::field::display);
        let pool = self.pool.as_ref().map(tracing::field::display);
        let (pod, reason) = (self.pod.as_deref(), self.reason);
        let interface = self.key.as_ref().map(|key| tracing::field::display(&key.ifname));
        let container = self.key.as_ref().map(|key| key.container_id.as_str());
        macro_rules! line {
            ($level:ident) => {
                $level!(pf, index, vf, pool, pod, interface, container, reason, "{kind} {state}: {text}")
            };
        }
        match state {
            "refused" | "failed" | "unhealthy" | "gone" | "no carrier" | "down" => line!(warn),
            "begun" => line!(debug),
            _ => line!(info),
        }
    }

    fn message(&self, at: SystemTime) -> NicEvent {
        let text = |value: Option<String>| value.unwrap_or_default();
        NicEvent {
            unix_milliseconds: at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64),
            kind: self.kind.as_str().to_owned(),
            state: self.state.to_owned(),
            pf: text(self.object.map(|o| o.pf.to_string())),
            index: self.object.and_then(|o| o.vf).map(|vf| vf.get().into()),
            vf: text(self.vf.map(|vf| vf.to_string())),
            pool: text(self.pool.as_ref().map(ToString::to_string)),
            pod: text(self.pod.clone()),
            container: text(self.key.as_ref().map(|key| key.container_id.clone())),
            interface: text(self.key.as_ref().map(|key| key.ifname.to_string())),
            reason: self.reason.unwrap_or_default().to_owned(),
            seconds: self.took.map(|took| took.as_secs_f64()),
            text: self.text.clone(),
        }
    }
}

/// Where events are told, and had from. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Events {
    watchers: broadcast::Sender<NicEvent>,
    past: Arc<Mutex<VecDeque<(SystemTime, Event)>>>,
    measurements: Measurements,
}

impl Events {
    /// Nobody watches yet.
    pub(super) fn new(measurements: Measurements) -> Self {
        Self { watchers: broadcast::Sender::new(BACKLOG), past: Arc::default(), measurements }
    }

    /// Tells of `event` everywhere.
    pub(super) fn tell(&self, event: Event) {
        event.log();
        self.measurements.count(&event);
        let at = SystemTime::now();
        // An error only says that nobody watches.
        let _ = self.watchers.send(event.message(at));
        let mut past = self.past();
        if past.len() == REMEMBERED {
            past.pop_front();
        }
        past.push_back((at, event));
    }

    /// All events from now on.
    pub(super) fn watch(&self) -> broadcast::Receiver<NicEvent> {
        self.watchers.subscribe()
    }

    /// What happened to a PF, its VFs included, or to one of its VFs, oldest first; at most `limit` events.
    pub(super) fn history(
        &self,
        pf: PciAddress,
        vf: Option<(VfIndex, PciAddress)>,
        limit: usize,
    ) -> Vec<NicEvent> {
        let past = self.past();
        let found = past.iter().rev().filter(|(_, event)| event.concerns(pf, vf)).take(limit);
        let mut found: Vec<_> = found.map(|(at, event)| event.message(*at)).collect();
        found.reverse();
        found
    }

    /// What has been counted.
    pub(super) fn measurements(&self) -> &Measurements {
        &self.measurements
    }

    fn past(&self) -> MutexGuard<'_, VecDeque<(SystemTime, Event)>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
