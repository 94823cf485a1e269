//! The programs in the kernel, and where they are put.

use std::io;
use std::os::fd::AsFd as _;

use aya::maps::Map;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, qdisc_add_clsact};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};

use crate::error::{Failed, ShortcutError};
use crate::memory::Memory;

/// The first with tcx.
const OLDEST: KernelVersion = KernelVersion::new(6, 6, 0);

/// What sees the packets of an interface.
const CLASSIFIERS: [&str; 4] = ["pod_egress", "from_pod", "from_uplink", "into_pod"];

/// Programs and maps that are in the kernel.
#[derive(Debug)]
pub(super) struct Programs(Ebpf);

impl Programs {
    /// Loads them, with so many buckets.
    pub(super) fn load(buckets: u32) -> Result<Self, ShortcutError> {
        let found = KernelVersion::current().map_err(|error| {
            ShortcutError::of(Failed::to("tell the version of the kernel")(error.to_string()))
        })?;
        if found < OLDEST {
            return Err(ShortcutError::Old { found: found.to_string() });
        }
        let object = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/shortcut.o"));
        let loaded = EbpfLoader::new().map_max_entries("buckets", buckets).load(object);
        let mut programs =
            loaded.map(Self).map_err(Failed::to("make the maps")).map_err(ShortcutError::of)?;
        for name in CLASSIFIERS {
            let loaded = programs.classifier(name).and_then(SchedClassifier::load);
            loaded.map_err(Failed::to(format!("load the program {name}"))).map_err(ShortcutError::of)?;
        }
        Ok(programs)
    }

    /// Maps what the programs read and write.
    pub(super) fn memory(&self, buckets: u32) -> Result<Memory, ShortcutError> {
        let find = |name: &str| match self.0.map(name) {
            Some(Map::Array(array)) => Ok(array.fd().as_fd()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        let memory = Memory::map(buckets as usize, find);
        memory.map_err(Failed::to("map the maps into memory")).map_err(ShortcutError::of)
    }

    /// Lets a program see the packets of an interface of the calling thread's network namespace, before others do, until what
    /// is returned is dropped.
    pub(super) fn attach(
        &mut self,
        program: &str,
        interface: &str,
        direction: TcAttachType,
    ) -> Result<SchedClassifierLink, Failed> {
        let mut attach = || {
            let classifier = self.classifier(program)?;
            let first = TcAttachOptions::TcxOrder(LinkOrder::first());
            let link = classifier.attach_with_options(interface, direction, first)?;
            classifier.take_link(link)
        };
        attach().map_err(Failed::to(format!("put the program {program} on {interface}")))
    }

    /// Lets a program see what comes in at an interface of the calling thread's network namespace, after others, as long as the
    /// interface is there: also when this process has ended.
    pub(super) fn leave(&mut self, program: &str, interface: &str) -> Result<(), Failed> {
        let mut leave = || {
            qdisc_add_clsact(interface)?;
            let classifier = self.classifier(program)?;
            let last = TcAttachOptions::Netlink(NlOptions::default());
            let link = classifier.attach_with_options(interface, TcAttachType::Ingress, last)?;
            // Dropped, it would take the program away: by then from another interface of that number, perhaps.
            std::mem::forget(classifier.take_link(link)?);
            Ok::<_, ProgramError>(())
        };
        leave().map_err(Failed::to(format!("leave the program {program} on {interface}")))
    }

    fn classifier(&mut self, name: &str) -> Result<&mut SchedClassifier, ProgramError> {
        self.0.program_mut(name).ok_or(ProgramError::UnexpectedProgramType)?.try_into()
    }
}
