//! Names by which people mean a PF or a VF.

use culvert_api::value::PciAddress;
use culvert_host::inventory::Vf;

use super::observe::{Observed, ObservedPf};

#[cfg(test)]
mod tests;

/// What a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found<'a> {
    /// The PF.
    pub pf: &'a ObservedPf,
    /// The VF; `None` if the PF itself is meant.
    pub vf: Option<&'a Vf>,
}

/// Why a name means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is called so.
    #[error(
        "{0}: no PF or VF is called so; `culvert nic list` shows those there are. A PF is named by PCI address or \
         interface, a VF by PCI address, interface, or as PF/INDEX"
    )]
    Unknown(String),
    /// The PF is there, the VF is not.
    #[error("{name}: {pf} has no VF {index}; it has {count} VFs")]
    NoVf {
        /// As it was given.
        name: String,
        /// The PF.
        pf: PciAddress,
        /// The index that was asked for.
        index: String,
        /// How many VFs there are.
        count: usize,
    },
    /// Several are called so.
    #[error("{name}: may be any of {}; give the whole PCI address", .candidates.join(", "))]
    Several {
        /// As it was given.
        name: String,
        /// PCI addresses.
        candidates: Vec<String>,
    },
}

/// What `name` means: a PF by PCI address or interface; a VF by PCI address, interface, or as `PF/INDEX`. The domain may
/// be left out of a PCI address where that leaves one function.
///
/// # Errors
/// When that is nothing, or not one thing.
pub(super) fn find<'a>(observed: &'a Observed, name: &str) -> Result<Found<'a>, NameError> {
    let unknown = || NameError::Unknown(name.to_owned());
    if let Some((pf, index)) = name.split_once('/') {
        let Found { pf, vf: None } = find(observed, pf)? else { return Err(unknown()) };
        let vf = pf.pf.vfs.iter().find(|vf| Ok(vf.index.get()) == index.parse());
        let missing = || NameError::NoVf {
            name: name.to_owned(),
            pf: pf.pf.pci.address,
            index: index.to_owned(),
            count: pf.pf.vfs.len(),
        };
        return Ok(Found { pf, vf: Some(vf.ok_or_else(missing)?) });
    }
    let all: Vec<_> = observed.pfs.iter().flat_map(functions).filter(|found| found.is_called(name)).collect();
    match all.as_slice() {
        [] => Err(unknown()),
        [one] => Ok(*one),
        several => Err(NameError::Several {
            name: name.to_owned(),
            candidates: several.iter().map(|found| found.address().to_string()).collect(),
        }),
    }
}

fn functions(pf: &ObservedPf) -> impl Iterator<Item = Found<'_>> {
    std::iter::once(Found { pf, vf: None }).chain(pf.pf.vfs.iter().map(move |vf| Found { pf, vf: Some(vf) }))
}

impl Found<'_> {
    /// The PCI address of what is meant.
    pub(super) fn address(&self) -> PciAddress {
        self.vf.map_or(self.pf.pf.pci.address, |vf| vf.pci.address)
    }

    fn is_called(&self, name: &str) -> bool {
        let whole = self.address().to_string();
        // "0000:03:00.0" without its domain is "03:00.0".
        let short = whole.split_once(':').map(|(_, short)| short);
        let called = |interface: &str| interface == name;
        let interface = match self.vf {
            Some(vf) => vf.interface.as_ref().is_some_and(|i| called(&i.name)),
            None => self.pf.pf.interfaces.iter().any(|i| called(&i.name)),
        };
        interface || whole.eq_ignore_ascii_case(name) || short.is_some_and(|s| s.eq_ignore_ascii_case(name))
    }
}
