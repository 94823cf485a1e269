//! The selectors of network devices.

use culvert_api::value::PciAddress;

use super::{Decoder, Found, Members, Node, Refused, suggestion};
use crate::resource_list::{DeviceType, Functions, LinkType, Selector, Severity, Spot, VdpaType};

const NET_DEVICE_KEYS: &[&str] = &[
    "vendors",
    "devices",
    "drivers",
    "pciAddresses",
    "acpiIndexes",
    "pfNames",
    "rootDevices",
    "linkTypes",
    "ddpProfiles",
    "pKeys",
    "isRdma",
    "needVhostNet",
    "vdpaType",
];

/// `acpiIndexes` is in its documentation, though the peer's program does not know it there.
const ACCELERATOR_KEYS: &[&str] = &["vendors", "devices", "drivers", "pciAddresses", "acpiIndexes"];

const AUX_NET_DEVICE_KEYS: &[&str] = &[
    "vendors",
    "devices",
    "drivers",
    "pfNames",
    "rootDevices",
    "linkTypes",
    "acpiIndexes",
    "isRdma",
    "needVhostNet",
    "auxTypes",
];

fn keys(device_type: DeviceType) -> &'static [&'static str] {
    match device_type {
        DeviceType::NetDevice => NET_DEVICE_KEYS,
        DeviceType::Accelerator => ACCELERATOR_KEYS,
        DeviceType::AuxNetDevice => AUX_NET_DEVICE_KEYS,
    }
}

impl<'n> Decoder<'_> {
    /// `None` if the selector is left out, which has been said; an error leaves the whole resource out.
    pub(super) fn selector(
        &mut self,
        resource: &str,
        device_type: DeviceType,
        node: &'n Node,
    ) -> Result<Option<Selector>, Refused> {
        let Members { found, unknown } =
            self.members(&format!("{resource}: selectors"), node, keys(device_type))?;
        for (at, key) in &unknown {
            let text = format!(
                "{resource}: selectors: unknown key {key:?}: the selector takes nothing, as without that key it would \
                 take more than was meant{}",
                suggestion(key, keys(device_type))
            );
            self.say(Severity::Error, *at, text);
        }
        // Read all the same, for what else there is to say.
        let selector = self.filters(resource, node, &found)?;
        if selector.is_open() && unknown.is_empty() && !found.contains_key("auxTypes") {
            self.say(
                Severity::Warning,
                node.at,
                format!("{resource}: the selector filters nothing and takes every device"),
            );
        }
        Ok(unknown.is_empty().then_some(selector))
    }

    fn filters(&mut self, resource: &str, node: &Node, members: &Found<'n>) -> Result<Selector, Refused> {
        let what = |key: &str| format!("{resource}: {key}");
        let get = |key: &str| members.get(key).copied();
        let mut texts =
            |key: &str| -> Result<Vec<(Spot, &'n str)>, Refused> { self.strings(&what(key), get(key)) };
        let owned =
            |list: &[(Spot, &str)]| -> Vec<String> { list.iter().map(|(_, t)| (*t).to_owned()).collect() };
        let lower = |list: &[(Spot, &str)]| -> Vec<String> {
            list.iter().map(|(_, t)| t.to_ascii_lowercase()).collect()
        };

        let (vendors, devices) = (texts("vendors")?, texts("devices")?);
        let pci_addresses = texts("pciAddresses")?;
        let (pf_names, root_devices) = (texts("pfNames")?, texts("rootDevices")?);
        let link_types = texts("linkTypes")?;
        // What tells sub-functions apart, of which there are none on offer.
        texts("auxTypes")?;
        let mut selector = Selector {
            vendors: lower(&vendors),
            devices: lower(&devices),
            drivers: owned(&texts("drivers")?),
            pci_addresses: lower(&pci_addresses),
            acpi_indexes: owned(&texts("acpiIndexes")?),
            ddp_profiles: owned(&texts("ddpProfiles")?),
            p_keys: owned(&texts("pKeys")?),
            ..Selector::new(node.at)
        };
        for (key, ids) in [("vendors", &vendors), ("devices", &devices)] {
            for (at, id) in ids.iter().filter(|(_, id)| !is_hex4(id)) {
                let text =
                    format!("{}: {id:?} is not four hexadecimal digits; it matches nothing", what(key));
                self.say(Severity::Warning, *at, text);
            }
        }
        for (at, id) in pci_addresses.iter().filter(|(_, id)| id.parse::<PciAddress>().is_err()) {
            let text = format!(
                "{}: {id:?} is no PCI address such as 0000:03:00.1; it matches nothing",
                what("pciAddresses")
            );
            self.say(Severity::Warning, *at, text);
        }
        selector.pf_names = self.functions(&what("pfNames"), &pf_names);
        selector.root_devices = self.functions(&what("rootDevices"), &root_devices);
        selector.link_types = self.link_types(&what("linkTypes"), &link_types);
        selector.is_rdma = self.flag(&what("isRdma"), get("isRdma"))?;
        selector.need_vhost_net = self.flag(&what("needVhostNet"), get("needVhostNet"))?;
        selector.vdpa_type = self.vdpa_type(&what("vdpaType"), get("vdpaType"))?;

        if selector.is_rdma && selector.vdpa_type.is_some() {
            return self
                .refuse(node.at, format!("{resource}: isRdma and vdpaType exclude each other; left out"));
        }
        if let Some(vdpa) = get("vdpaType").filter(|_| selector.vdpa_type.is_some()) {
            let text = format!(
                "{}: Culvert has no vDPA devices on offer; the selector takes nothing",
                what("vdpaType")
            );
            self.say(Severity::Warning, vdpa.at, text);
        }
        Ok(selector)
    }

    fn functions(&mut self, what: &str, items: &[(Spot, &str)]) -> Vec<Functions> {
        let mut all: Vec<Functions> = Vec::new();
        for (at, text) in items {
            let (functions, problem) = Functions::parse(text);
            if let Some(problem) = problem {
                self.say(Severity::Error, *at, format!("{what}: {text:?}: {problem}"));
            }
            if all.iter().any(|other| other.pf == functions.pf) {
                let text = format!(
                    "{what}: {text:?} has no effect: an item before it names this PF; write one item, as in pf#0-3,5"
                );
                self.say(Severity::Warning, *at, text);
            }
            all.push(functions);
        }
        all
    }

    fn link_types(&mut self, what: &str, items: &[(Spot, &str)]) -> Vec<LinkType> {
        let mut one = |(at, text): &(Spot, &str)| match *text {
            "ether" => LinkType::Ether,
            "infiniband" => LinkType::Infiniband,
            other => {
                self.say(
                    Severity::Warning,
                    *at,
                    format!("{what}: {other:?} is neither ether nor infiniband; it matches nothing"),
                );
                LinkType::Other(other.to_owned())
            }
        };
        items.iter().map(&mut one).collect()
    }

    fn vdpa_type(&mut self, what: &str, node: Option<&'n Node>) -> Result<Option<VdpaType>, Refused> {
        let Some(node) = node else { return Ok(None) };
        match self.string(what, node)? {
            "" => Ok(None),
            "virtio" => Ok(Some(VdpaType::Virtio)),
            "vhost" => Ok(Some(VdpaType::Vhost)),
            other => self.refuse(node.at, format!("{what} {other:?}: must be virtio or vhost")),
        }
    }
}

fn is_hex4(text: &str) -> bool {
    text.len() == 4 && text.bytes().all(|b| b.is_ascii_hexdigit())
}
