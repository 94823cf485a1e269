//! One file of Kubernetes YAML: documents, and `kind: List` documents as `kubectl get -o yaml` prints them.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Options, SnippetMode};

use super::object::Object;

/// The objects of one file.
#[derive(Debug, Default, PartialEq)]
pub struct Manifest {
    /// Objects of the kinds that the agent uses, in the order of the file.
    pub objects: Vec<Object>,
    /// What is there besides, such as `apps/v1 Deployment`.
    pub ignored: Vec<String>,
}

/// A file that is no Kubernetes YAML. The message ends with line and column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ManifestError(String);

impl Manifest {
    /// Reads a file's text.
    ///
    /// # Errors
    /// The first thing that is wrong, with the line and column in the file. Nothing of such a file is used.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let mut manifest = Self::default();
        for document in Documents::new(text) {
            document.read(&mut manifest)?;
        }
        Ok(manifest)
    }
}

/// What an object says it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
    metadata: Option<HeadMeta>,
    items: Option<Vec<Head>>,
}

#[derive(Deserialize)]
struct HeadMeta {
    name: Option<String>,
}

#[derive(Clone, Copy)]
enum Kind {
    Node,
    Pod,
    Service,
    EndpointSlice,
    Other,
}

impl Head {
    fn kind(&self) -> Kind {
        match (self.api_version.as_deref(), self.kind.as_deref()) {
            (Some("v1"), Some("Node")) => Kind::Node,
            (Some("v1"), Some("Pod")) => Kind::Pod,
            (Some("v1"), Some("Service")) => Kind::Service,
            (Some("discovery.k8s.io/v1"), Some("EndpointSlice")) => Kind::EndpointSlice,
            _ => Kind::Other,
        }
    }

    fn is_list(&self) -> bool {
        self.api_version.as_deref() == Some("v1") && self.kind.as_deref() == Some("List")
    }

    /// Why this is no object at all.
    fn fault(&self) -> Option<&'static str> {
        if self.api_version.is_none() || self.kind.is_none() {
            return Some("no Kubernetes object: apiVersion and kind are required");
        }
        let named = self.metadata.as_ref().is_some_and(|m| m.name.as_ref().is_some_and(|n| !n.is_empty()));
        let used = !matches!(self.kind(), Kind::Other);
        (used && !named).then_some("object without a name: metadata.name is required")
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.api_version.as_deref().unwrap_or("?"), self.kind.as_deref().unwrap_or("?"))
    }
}

/// One document of a YAML stream, and how many lines come before it.
struct Document<'a> {
    text: &'a str,
    lines_before: u64,
}

impl Document<'_> {
    fn read(&self, manifest: &mut Manifest) -> Result<(), ManifestError> {
        // Twice: the kind must be known before the object can be read as what it is.
        let Some(head) = self.deserialize::<Option<Head>>()? else { return Ok(()) };
        if let Some(fault) = head.fault() {
            return Err(ManifestError(format!("{fault} at line {}", self.lines_before + self.first_line())));
        }
        if !head.is_list() {
            return self.read_as(&[&head], ItemSeed(head.kind()), |item| vec![item], manifest);
        }
        let items: Vec<&Head> = head.items.iter().flatten().collect();
        if let Some((index, fault)) = items.iter().enumerate().find_map(|(i, h)| Some((i, h.fault()?))) {
            let line = self.lines_before + self.first_line();
            return Err(ManifestError(format!("item {index} of the List at line {line}: {fault}")));
        }
        let kinds: Vec<Kind> = items.iter().map(|h| h.kind()).collect();
        self.read_as(&items, ListSeed(&kinds), |items| items, manifest)
    }

    fn read_as<S: for<'de> DeserializeSeed<'de, Value = T>, T>(
        &self,
        heads: &[&Head],
        seed: S,
        objects: impl FnOnce(T) -> Vec<Option<Object>>,
        manifest: &mut Manifest,
    ) -> Result<(), ManifestError> {
        let read = serde_saphyr::with_deserializer_from_str_with_options(self.text, options(), |d| {
            seed.deserialize(d)
        });
        for (head, object) in heads.iter().zip(objects(read.map_err(|e| self.error(&e))?)) {
            match object {
                Some(object) => manifest.objects.push(object),
                None => manifest.ignored.push(head.to_string()),
            }
        }
        Ok(())
    }

    fn deserialize<T: de::DeserializeOwned>(&self) -> Result<T, ManifestError> {
        serde_saphyr::from_str_with_options(self.text, options()).map_err(|e| self.error(&e))
    }

    fn error(&self, error: &serde_saphyr::Error) -> ManifestError {
        let options = serde_saphyr::render_options! {
            snippets: SnippetMode::Off,
            line_offset: self.lines_before,
        };
        ManifestError(error.render_with_options(options))
    }

    /// Number, within the document, of its first line that is neither blank nor a comment nor a marker.
    fn first_line(&self) -> u64 {
        let content = |line: &str| !(line.is_empty() || line.starts_with('#') || line.starts_with("---"));
        self.text.lines().position(|line| content(line.trim())).map_or(1, |index| index as u64 + 1)
    }
}

/// Splits a stream at its `---` lines. YAML forbids them within a document even in block and quoted scalars
/// (YAML 1.2.2, section 9.1.2, `c-forbidden`), so no parser is needed for it.
struct Documents<'a> {
    rest: Option<&'a str>,
    lines: u64,
}

impl<'a> Documents<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: Some(text.strip_prefix('\u{feff}').unwrap_or(text)), lines: 0 }
    }
}

impl<'a> Iterator for Documents<'a> {
    type Item = Document<'a>;

    fn next(&mut self) -> Option<Document<'a>> {
        let text = self.rest.take()?;
        let lines_before = self.lines;
        let mut end = 0;
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let marker = line
                .strip_prefix("---")
                .is_some_and(|r| r.is_empty() || r.starts_with([' ', '\t', '\r', '\n']));
            if marker && index > 0 {
                self.rest = Some(&text[end..]);
                self.lines += index as u64;
                return Some(Document { text: &text[..end], lines_before });
            }
            end += line.len();
        }
        Some(Document { text, lines_before })
    }
}

/// Large clusters make large files; the limits that stay are those against documents made to exhaust memory.
fn options() -> Options {
    serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: 1 << 30,
        },
    }
}

/// Reads one object as the kind it is known to be.
struct ItemSeed(Kind);

impl<'de> DeserializeSeed<'de> for ItemSeed {
    type Value = Option<Object>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Object>, D::Error> {
        Ok(Some(match self.0 {
            Kind::Node => Object::Node(Arc::new(Deserialize::deserialize(deserializer)?)),
            Kind::Pod => Object::Pod(Arc::new(Deserialize::deserialize(deserializer)?)),
            Kind::Service => Object::Service(Arc::new(Deserialize::deserialize(deserializer)?)),
            Kind::EndpointSlice => Object::EndpointSlice(Arc::new(Deserialize::deserialize(deserializer)?)),
            Kind::Other => {
                IgnoredAny::deserialize(deserializer)?;
                return Ok(None);
            }
        }))
    }
}

/// Reads the items of a List, each as the kind it is known to be.
struct ListSeed<'a>(&'a [Kind]);

impl<'de> DeserializeSeed<'de> for ListSeed<'_> {
    type Value = Vec<Option<Object>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ListSeed<'_> {
    type Value = Vec<Option<Object>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Kubernetes List")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == "items" && !self.0.is_empty() {
                items = map.next_value_seed(ItemsSeed(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(items)
    }
}

struct ItemsSeed<'a>(&'a [Kind]);

impl<'de> DeserializeSeed<'de> for ItemsSeed<'_> {
    type Value = Vec<Option<Object>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ItemsSeed<'_> {
    type Value = Vec<Option<Object>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence of Kubernetes objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::with_capacity(self.0.len());
        while let Some(kind) = self.0.get(items.len()) {
            match seq.next_element_seed(ItemSeed(*kind))? {
                Some(item) => items.push(item),
                None => break,
            }
        }
        // The end of the sequence must be read too.
        seq.next_element::<IgnoredAny>()?;
        Ok(items)
    }
}

#[cfg(test)]
mod tests;
