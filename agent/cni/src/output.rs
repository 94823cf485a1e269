//! What goes to standard output when no answer of the agent does.

use std::fmt;

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
/// CNI error code of STATUS: not available.
pub(crate) const UNAVAILABLE: u32 = 50;
/// Culvert's own error code, as the agent has it: an IPAM plugin did not do what it should.
pub(crate) const IPAM_FAILED: u32 = 103;

/// Newest version of the specification; also what is assumed when a configuration cannot be read.
const NEWEST: &str = "1.1.0";
const SUPPORTED: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", NEWEST];

/// A failure as the specification wants it printed (section 5, "Error").
#[derive(Debug)]
pub(crate) enum Failure {
    Own {
        code: u32,
        msg: String,
        details: String,
        version: String,
    },
    /// The error object of another plugin, as it was printed.
    OfPlugin(Vec<u8>),
}

impl Failure {
    pub(crate) fn new(code: u32, msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self::Own { code, msg: msg.into(), details: details.into(), version: NEWEST.to_owned() }
    }

    pub(crate) fn of_plugin(printed: Vec<u8>) -> Self {
        Self::OfPlugin(printed)
    }

    /// The same failure, answered in the version that the caller speaks.
    pub(crate) fn in_version(mut self, spoken: Option<&str>) -> Self {
        if let (Self::Own { version, .. }, Some(spoken)) = (&mut self, spoken) {
            spoken.clone_into(version);
        }
        self
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        match self {
            Self::Own { code, msg, details, version } => {
                line(&json!({ "cniVersion": version, "code": code, "msg": msg, "details": details }))
            }
            Self::OfPlugin(printed) => printed.clone(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own { msg, details, .. } => write!(f, "{msg}: {details}"),
            Self::OfPlugin(printed) => f.write_str(String::from_utf8_lossy(printed).trim()),
        }
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
