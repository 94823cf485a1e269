//! The configuration file of sriov-network-device-plugin, as its users have it: `{"resourceList": [...]}`.
//!
//! It is read as that program reads it, JSON by the rules of Go: keys in any case, `null` the same as absent, the last of
//! equal keys counts. What it does silently is said here, each time with line and column. A resource that makes no sense
//! is left out, and none ever selects more than was written: a selector with an unknown key takes nothing.

mod assign;
mod decode;
mod finding;
mod function;
mod json;
mod selector;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use culvert_api::value::{PciAddress, ResourceName, ResourcePrefix};

pub use assign::{Assignment, Bound, Candidate, assign};
pub use finding::{Finding, Severity};
pub use function::{Functions, Which};
pub use json::{Spot, SyntaxError};
pub use selector::{LinkType, Selector, VdpaType};

/// What the file asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceList {
    /// The resources that make sense, in the order of the file, which decides who gets a device that several want.
    pub resources: Vec<Resource>,
    /// What there is to say about the file, in the order of the text.
    pub findings: Vec<Finding>,
}

/// A resource to offer.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Where it stands.
    pub at: Spot,
    /// Its name.
    pub name: ResourceName,
    /// Kind of device.
    pub device_type: DeviceType,
    /// Whether kubelet is not told of NUMA nodes.
    pub exclude_topology: bool,
    /// More for the environment of containers: by PCI address, or `*` for every device.
    pub additional_info: BTreeMap<String, BTreeMap<String, String>>,
    /// A device belongs to the resource if one of these takes it.
    pub selectors: Vec<Selector>,
}

impl Resource {
    /// Whether any device can belong to it; if not, that has been said when the file was read.
    pub fn is_served(&self) -> bool {
        !self.selectors.is_empty()
    }

    /// What the environment of a container tells of the device beside what is known of it.
    pub fn info(&self, device: PciAddress) -> BTreeMap<String, String> {
        let all = self.additional_info.get("*").into_iter();
        // What is said of one device goes before what is said of all.
        all.chain(self.additional_info.get(&device.to_string()))
            .flatten()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

/// Kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceType {
    /// A network controller: PCI class 02.
    NetDevice,
    /// A processing accelerator: PCI class 12. Culvert has none on offer.
    Accelerator,
    /// A sub-function on the auxiliary bus. Culvert has none on offer.
    AuxNetDevice,
}

impl ResourceList {
    /// Reads a file's text. Resources without a `resourcePrefix` get `prefix`.
    ///
    /// # Errors
    /// When the text is no JSON, or holds no list of resources. All else is a finding.
    pub fn parse(text: &str, prefix: &ResourcePrefix) -> Result<Self, SyntaxError> {
        decode::decode(&json::parse(text)?, prefix)
    }

    /// Whether the file holds nothing that had to be left out.
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity != Severity::Error)
    }
}
