//! From JSON to resources.

use std::collections::BTreeMap;

use culvert_api::value::{PciAddress, ResourceName, ResourcePrefix};

use super::json::{Json, Node, Spot, SyntaxError};
use super::{DeviceType, Finding, Resource, ResourceList, Selector, Severity};

mod selector;

const LIST_KEYS: &[&str] = &["resourceList"];

const RESOURCE_KEYS: &[&str] =
    &["resourceName", "resourcePrefix", "deviceType", "excludeTopology", "additionalInfo", "selectors"];

/// Something was wrong, and has been said.
struct Refused;

/// Members of an object by the names they are known by; those that are `null` count as absent.
type Found<'n> = BTreeMap<&'static str, &'n Node>;

/// The members of an object, and those that nobody knows, unless they are `null`.
struct Members<'n> {
    found: Found<'n>,
    unknown: Vec<(Spot, &'n str)>,
}

struct Decoder<'p> {
    prefix: &'p ResourcePrefix,
    findings: Vec<Finding>,
}

pub(super) fn decode(root: &Node, prefix: &ResourcePrefix) -> Result<ResourceList, SyntaxError> {
    let mut decoder = Decoder { prefix, findings: Vec::new() };
    let mut resources: Vec<Resource> = Vec::new();
    for node in decoder.resource_list(root)? {
        let Ok(resource) = decoder.resource(node) else { continue };
        match resources.iter().find(|other| other.name == resource.name) {
            Some(first) => {
                let text = format!("resource {}: was there before, at {}; left out", resource.name, first.at);
                decoder.say(Severity::Error, resource.at, text);
            }
            None => resources.push(resource),
        }
    }
    let mut findings = decoder.findings;
    findings.sort_by_key(|finding| finding.at);
    Ok(ResourceList { resources, findings })
}

impl<'n> Decoder<'_> {
    fn say(&mut self, severity: Severity, at: Spot, text: impl Into<String>) {
        self.findings.push(Finding { at, severity, text: text.into() });
    }

    fn refuse<T>(&mut self, at: Spot, text: impl Into<String>) -> Result<T, Refused> {
        self.say(Severity::Error, at, text);
        Err(Refused)
    }

    fn wrong_kind<T>(&mut self, what: &str, node: &Node, wanted: &str) -> Result<T, Refused> {
        self.refuse(node.at, format!("{what}: {} where {wanted} is expected", node.value.kind()))
    }

    /// The list itself. A file without one says nothing about resources: that is not the same as an empty one.
    fn resource_list(&mut self, root: &'n Node) -> Result<&'n [Node], SyntaxError> {
        let wrong = |node: &Node, what: &str, wanted: &str| SyntaxError {
            at: node.at,
            what: format!("{what}: {} where {wanted} is expected", node.value.kind()),
        };
        let Ok(members) = self.object("the file", root, LIST_KEYS) else {
            return Err(wrong(root, "the file", "an object"));
        };
        match members.get("resourceList").copied() {
            Some(Node { value: Json::Array(items), .. }) => Ok(items),
            Some(node) => Err(wrong(node, "resourceList", "a list")),
            None => Err(SyntaxError { at: root.at, what: "the file has no resourceList".to_owned() }),
        }
    }

    /// An object that goes without the keys it does not know: they widen nothing.
    fn object(&mut self, what: &str, node: &'n Node, known: &[&'static str]) -> Result<Found<'n>, Refused> {
        let Members { found, unknown } = self.members(what, node, known)?;
        for (at, key) in unknown {
            let text = format!("{what}: unknown key {key:?}, ignored{}", suggestion(key, known));
            self.say(Severity::Warning, at, text);
        }
        Ok(found)
    }

    fn members(
        &mut self,
        what: &str,
        node: &'n Node,
        known: &[&'static str],
    ) -> Result<Members<'n>, Refused> {
        let Json::Object(members) = &node.value else { return self.wrong_kind(what, node, "an object") };
        let (mut found, mut unknown) = (BTreeMap::new(), Vec::new());
        for (at, key, value) in members {
            match known.iter().find(|name| name.eq_ignore_ascii_case(key)) {
                None if value.value == Json::Null => {
                    let text = format!("{what}: unknown key {key:?}, which is null; ignored");
                    self.say(Severity::Warning, *at, text);
                }
                None => unknown.push((*at, key.as_str())),
                Some(_) if value.value == Json::Null => {}
                Some(name) => {
                    if found.insert(*name, value).is_some() {
                        self.say(
                            Severity::Warning,
                            *at,
                            format!("{what}: {name} once more; only the last counts"),
                        );
                    }
                }
            }
        }
        Ok(Members { found, unknown })
    }

    fn string(&mut self, what: &str, node: &'n Node) -> Result<&'n str, Refused> {
        match &node.value {
            Json::String(text) => Ok(text),
            _ => self.wrong_kind(what, node, "a string"),
        }
    }

    fn flag(&mut self, what: &str, node: Option<&Node>) -> Result<bool, Refused> {
        match node {
            None => Ok(false),
            Some(Node { value: Json::Bool(value), .. }) => Ok(*value),
            Some(node) => self.wrong_kind(what, node, "true or false"),
        }
    }

    fn strings(&mut self, what: &str, node: Option<&'n Node>) -> Result<Vec<(Spot, &'n str)>, Refused> {
        match node {
            None => Ok(Vec::new()),
            Some(Node { value: Json::Array(items), .. }) => {
                items.iter().map(|item| Ok((item.at, self.string(what, item)?))).collect()
            }
            Some(node) => self.wrong_kind(what, node, "a list of strings"),
        }
    }

    fn resource(&mut self, node: &'n Node) -> Result<Resource, Refused> {
        let members = self.object("a resource", node, RESOURCE_KEYS)?;
        let name = self.name(node, &members)?;
        let device_type = self.device_type(&name, members.get("deviceType").copied())?;
        let exclude_topology =
            self.flag(&format!("resource {name}: excludeTopology"), members.get("excludeTopology").copied())?;
        let additional_info = self.additional_info(&name, members.get("additionalInfo").copied())?;
        let selectors = self.selectors(&name, device_type, node, members.get("selectors").copied())?;
        Ok(Resource { at: node.at, name, device_type, exclude_topology, additional_info, selectors })
    }

    fn name(&mut self, node: &Node, members: &Found<'n>) -> Result<ResourceName, Refused> {
        let Some(name) = members.get("resourceName").copied() else {
            return self.refuse(node.at, "a resource without resourceName; left out");
        };
        let text = self.string("resourceName", name)?;
        let pool = match text.parse() {
            Ok(pool) => pool,
            Err(error) => return self.refuse(name.at, format!("resourceName: {error}")),
        };
        let prefix = match members.get("resourcePrefix").copied() {
            None => self.prefix.clone(),
            // Go does not tell an empty string from an absent one.
            Some(Node { value: Json::String(text), .. }) if text.is_empty() => self.prefix.clone(),
            Some(node) => match self.string("resourcePrefix", node)?.parse() {
                Ok(prefix) => prefix,
                Err(error) => {
                    return self.refuse(node.at, format!("resource {text}: resourcePrefix: {error}"));
                }
            },
        };
        Ok(ResourceName { prefix, pool })
    }

    fn device_type(&mut self, name: &ResourceName, node: Option<&'n Node>) -> Result<DeviceType, Refused> {
        let Some(node) = node else { return Ok(DeviceType::NetDevice) };
        let what = format!("resource {name}: deviceType");
        let text = self.string(&what, node)?;
        let device_type = match text {
            "" | "netDevice" => return Ok(DeviceType::NetDevice),
            "accelerator" => DeviceType::Accelerator,
            "auxNetDevice" => DeviceType::AuxNetDevice,
            other => {
                let text = format!("{what} {other:?}: must be netDevice, accelerator or auxNetDevice");
                return self.refuse(node.at, text);
            }
        };
        self.say(
            Severity::Warning,
            node.at,
            format!("{what} {:?}: Culvert has no such devices; the resource is not offered", text),
        );
        Ok(device_type)
    }

    fn additional_info(
        &mut self,
        name: &ResourceName,
        node: Option<&'n Node>,
    ) -> Result<BTreeMap<String, BTreeMap<String, String>>, Refused> {
        let what = format!("resource {name}: additionalInfo");
        let Some(node) = node else { return Ok(BTreeMap::new()) };
        let Json::Object(members) = &node.value else { return self.wrong_kind(&what, node, "an object") };
        let mut all = BTreeMap::new();
        for (at, device, values) in members {
            if device != "*" && device.parse::<PciAddress>().is_err() {
                let text =
                    format!("{what}: {device:?} is neither \"*\" nor a PCI address; it concerns no device");
                self.say(Severity::Warning, *at, text);
            }
            let Json::Object(values) = &values.value else {
                return self.wrong_kind(&what, values, "an object");
            };
            let mut info = BTreeMap::new();
            for (_, key, value) in values {
                info.insert(key.clone(), self.string(&what, value)?.to_owned());
            }
            all.insert(device.to_ascii_lowercase(), info);
        }
        Ok(all)
    }

    fn selectors(
        &mut self,
        name: &ResourceName,
        device_type: DeviceType,
        resource: &Node,
        node: Option<&'n Node>,
    ) -> Result<Vec<Selector>, Refused> {
        let what = format!("resource {name}");
        let items = match node {
            None => {
                let text = format!("{what}: no selectors; left out, for it would take every device");
                return self.refuse(resource.at, text);
            }
            Some(Node { value: Json::Array(items), at }) if items.is_empty() => {
                let text =
                    format!("{what}: selectors is an empty list; left out, for it would take every device");
                return self.refuse(*at, text);
            }
            Some(Node { value: Json::Array(items), .. }) => items.as_slice(),
            Some(object @ Node { value: Json::Object(_), .. }) => std::slice::from_ref(object),
            Some(node) => {
                return self.wrong_kind(&format!("{what}: selectors"), node, "an object or a list of them");
            }
        };
        let mut selectors = Vec::new();
        for item in items {
            selectors.extend(self.selector(&what, device_type, item)?);
        }
        // Those of other devices have been read for what there is to say about them.
        if device_type != DeviceType::NetDevice {
            selectors.clear();
        }
        Ok(selectors)
    }
}

/// A known key of which the unknown one is the beginning, or the reverse.
fn suggestion(key: &str, known: &[&str]) -> String {
    let key = key.to_ascii_lowercase();
    let near = |name: &&&str| {
        let name = name.to_ascii_lowercase();
        !key.is_empty() && (name.starts_with(&key) || key.starts_with(&name))
    };
    known.iter().find(near).map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}
