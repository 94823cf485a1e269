//! What a forwarder leaves of the short cut, held by the keeper: descriptors of programs, so that the kernel goes on with what was
//! decided while there is no forwarder, and of the map by which the next one ends that.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use culvert_shortcut::{Unheard, remove_left};

use crate::keep::{Inheritance, Keep};

/// The name under which maps are kept that tell of connections the kernel has opened; it ends with the version of their layout.
pub(super) const OPENED: &str = "shortcut.opened.1";

/// The names under which they are kept; of a pod's programs, what these begin with.
pub(super) const GLOBALS: &str = "shortcut.globals";
pub(super) const UPLINK: &str = "shortcut.uplink";
const POD: &str = "shortcut.pod.";

/// The name under which the programs of a port are kept.
pub(super) fn kept_as(port: &str) -> String {
    format!("{POD}{port}")
}

/// Whether programs are kept under this name, which forward what was decided.
pub(crate) fn is_program(name: &str) -> bool {
    name == UPLINK || name.starts_with(POD)
}

/// What another forwarder has left, as far as nobody goes on with it yet.
#[derive(Debug, Default)]
pub struct Remains {
    pub(super) globals: Option<OwnedFd>,
    /// What it has opened, if that can be read.
    pub(super) unheard: Option<Arc<Unheard>>,
    pub(super) uplink: Option<OwnedFd>,
    /// By port.
    pub(super) pods: BTreeMap<String, Vec<OwnedFd>>,
}

impl Remains {
    /// Whether something was left.
    pub fn is_in(inheritance: &Inheritance) -> bool {
        inheritance.items.contains_key(GLOBALS)
    }

    /// What was left.
    pub fn of(inheritance: &mut Inheritance) -> Self {
        let (globals, uplink) = (inheritance.take(GLOBALS), inheritance.take(UPLINK));
        let unheard = <[OwnedFd; 3]>::try_from(inheritance.take_all(OPENED)).ok();
        let unheard = unheard.and_then(|maps| {
            let unheard = Unheard::in_maps(maps.each_ref().map(AsFd::as_fd));
            unheard
                .inspect_err(|error| tracing::error!(%error, "some connections may be lost"))
                .ok()
                .map(Arc::new)
        });
        let pod = |(kept, programs): (String, Vec<OwnedFd>)| match kept.strip_prefix(POD) {
            Some(port) => Ok((port.to_owned(), programs)),
            None => Err((kept, programs)),
        };
        let mut pods = BTreeMap::new();
        for item in std::mem::take(&mut inheritance.items) {
            match pod(item) {
                Ok((port, programs)) => drop(pods.insert(port, programs)),
                Err((kept, descriptors)) => drop(inheritance.items.insert(kept, descriptors)),
            }
        }
        Self { globals, unheard, uplink, pods }
    }

    /// Removes what nobody goes on with, whose epoch has ended.
    pub(super) fn remove(&mut self, keep: &Keep) {
        let Self { uplink, pods, .. } = std::mem::take(self);
        if uplink.is_none() && pods.is_empty() {
            return;
        }
        uplink.iter().for_each(|_| keep.forget(UPLINK));
        pods.keys().for_each(|port| keep.forget(&kept_as(port)));
        tracing::info!(ports = pods.len(), "what nobody goes on with of another short cut is removed");
        // The kernel takes its time for each. If there is no thread, it is waited for.
        let remove = move || {
            drop(uplink);
            remove_left(pods.into_values());
        };
        let _ = thread::Builder::new().name("shortcut".into()).spawn(remove);
    }
}
