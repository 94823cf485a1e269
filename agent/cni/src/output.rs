//! What goes to standard output when no answer of the agent does.

use serde::Deserialize;
use serde_json::json;

/// CNI error code: content could not be decoded.
pub(crate) const DECODE: u32 = 6;
/// CNI error code: invalid network configuration.
pub(crate) const CONFIG: u32 = 7;
/// CNI error code: the runtime may try again later.
pub(crate) const TRY_LATER: u32 = 11;
/// CNI error code: input or output failed.
pub(crate) const IO: u32 = 5;

/// Newest version of the specification; also what is assumed when a configuration cannot be read.
const NEWEST: &str = "1.1.0";
const SUPPORTED: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", NEWEST];

/// A failure as the specification wants it printed (section 5, "Error").
#[derive(Debug)]
pub(crate) struct Failure {
    code: u32,
    msg: String,
    details: String,
    version: String,
}

impl Failure {
    pub(crate) fn new(code: u32, msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: details.into(), version: NEWEST.to_owned() }
    }

    /// The same failure, answered in the version that the caller speaks.
    pub(crate) fn in_version(mut self, version: Option<&str>) -> Self {
        if let Some(version) = version {
            version.clone_into(&mut self.version);
        }
        self
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        let Self { code, msg, details, version } = self;
        line(&json!({ "cniVersion": version, "code": code, "msg": msg, "details": details }))
    }
}

/// The answer to VERSION.
pub(crate) fn versions(config: &[u8]) -> Result<Vec<u8>, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Asked {
        cni_version: Option<String>,
    }
    let asked: Asked = match config.trim_ascii() {
        b"" => Asked { cni_version: None },
        text => serde_json::from_slice(text)
            .map_err(|e| Failure::new(DECODE, "network configuration on standard input", e.to_string()))?,
    };
    let version = asked.cni_version.as_deref().unwrap_or(NEWEST);
    Ok(line(&json!({ "cniVersion": version, "supportedVersions": SUPPORTED })))
}

fn line(value: &serde_json::Value) -> Vec<u8> {
    let mut text = value.to_string().into_bytes();
    text.push(b'\n');
    text
}
