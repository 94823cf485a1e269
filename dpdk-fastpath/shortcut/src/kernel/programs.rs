//! The programs in the kernel, and where they are put.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use aya::maps::{Map, PerCpuArray};
use aya::programs::tc::{NlOptions, TcAttachOptions, qdisc_add_clsact};
use aya::programs::{Program, ProgramError, SchedClassifier, TcAttachType};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};

use super::link::{Attachment, Hook};
use crate::drops::{Drops, Reason};
use crate::error::{Failed, ShortcutError};
use crate::memory::Memory;

/// The first with tcx.
const OLDEST: KernelVersion = KernelVersion::new(6, 6, 0);

/// What sees the packets of an interface.
const CLASSIFIERS: [&str; 5] = ["pod_egress", "from_pod", "from_uplink", "into_pod", "nothing"];

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
        let memory = Memory::map(buckets as usize, |name| self.map(name));
        memory.map_err(Failed::to("map the maps into memory")).map_err(ShortcutError::of)
    }

    /// What they have dropped.
    pub(super) fn dropped(&self) -> Result<Drops, ShortcutError> {
        let read = || {
            let map = self.0.map("dropped").ok_or(io::ErrorKind::NotFound).map_err(io::Error::from)?;
            let counts = PerCpuArray::<_, u64>::try_from(map).map_err(io::Error::other)?;
            let mut all = Reason::ALL.map(|reason| (reason, 0));
            for (reason, count) in &mut all {
                // Of all CPUs.
                *count = counts.get(&(*reason as u32), 0).map_err(io::Error::other)?.iter().sum();
            }
            Ok::<_, io::Error>(all)
        };
        read().map_err(Failed::to("read what was dropped")).map_err(ShortcutError::of)
    }

    /// The descriptor of a map.
    pub(super) fn map(&self, name: &str) -> io::Result<BorrowedFd<'_>> {
        match self.0.map(name) {
            Some(Map::Array(array)) => Ok(array.fd().as_fd()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Lets a program see the packets of an interface of the calling thread's network namespace, by its index, before others do,
    /// until what is returned is dropped and nobody else has its descriptor.
    pub(super) fn attach(&self, program: &str, interface: u32, hook: Hook) -> Result<Attachment, Failed> {
        let attach = || Attachment::new(self.descriptor(program)?, interface, hook);
        attach().map_err(Failed::to(format!("put the program {program} on interface {interface}")))
    }

    /// Lets a program take the place of another process's, where that is.
    pub(super) fn succeed(&self, program: &str, at: &Attachment) -> Result<(), Failed> {
        let succeed = || at.replace(self.descriptor(program)?);
        succeed().map_err(Failed::to(format!("replace the program {program} of another process")))
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

    fn descriptor(&self, name: &str) -> io::Result<BorrowedFd<'_>> {
        match self.0.program(name) {
            Some(Program::SchedClassifier(program)) => {
                program.fd().map(|program| program.as_fd()).map_err(io::Error::other)
            }
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn classifier(&mut self, name: &str) -> Result<&mut SchedClassifier, ProgramError> {
        self.0.program_mut(name).ok_or(ProgramError::UnexpectedProgramType)?.try_into()
    }
}
