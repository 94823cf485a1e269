//! Moments at which the stand-in can be made to halt, so that something happens to it right then.

use tokio::sync::watch;

/// A moment in kubelet's dealings with a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A plugin has called, or was found; it was not yet dialled back.
    BeforeDial,
    /// The plugin was dialled back and asked for its options; it was not yet told that it is registered.
    BeforeAnswer,
    /// The plugin was told that it is registered; its list was not yet asked for.
    BeforeList,
    /// The first list has come and was not yet looked at.
    InList,
    /// A device was asked for; the answer has not come.
    InAllocate,
}

impl Moment {
    /// All moments, in their order.
    pub const ALL: [Self; 5] =
        [Self::BeforeDial, Self::BeforeAnswer, Self::BeforeList, Self::InList, Self::InAllocate];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    at: Moment,
    reached: bool,
}

/// Whether and where to halt.
#[derive(Debug, Default)]
pub(super) struct Halt(watch::Sender<Option<Wanted>>);

impl Halt {
    /// Halts at the next such moment, or goes on.
    pub(super) fn set(&self, at: Option<Moment>) {
        self.0.send_replace(at.map(|at| Wanted { at, reached: false }));
    }

    /// Called at every moment: stays there until told to go on, if it is the one.
    pub(super) async fn pass(&self, moment: Moment) {
        let here = |wanted: &mut Option<Wanted>| match wanted {
            Some(wanted) if wanted.at == moment => {
                wanted.reached = true;
                true
            }
            _ => false,
        };
        if self.0.send_if_modified(here) {
            // The sender is ours: it cannot be gone.
            let _ = self.0.subscribe().wait_for(|wanted| wanted.is_none_or(|w| w.at != moment)).await;
        }
    }

    /// Waits until it has halted.
    pub(super) async fn reached(&self) {
        let _ = self.0.subscribe().wait_for(|wanted| wanted.is_some_and(|w| w.reached)).await;
    }
}
